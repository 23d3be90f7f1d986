//! The peers in C and C++, each a shared object with a few functions (`bench/shims`).
//!
//! A peer whose package cannot be had is skipped with one line: the benchmark then says so too, and
//! no bar that needs it is met.

use super::packages;
use crate::house::House;
use crate::{Answer, child};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LLVM_PACKAGE: &str = "libclang-rt-22-dev";
const LLVM_FOLDER: &str = "usr/lib/llvm-22/lib/clang/22/lib/linux";
const LINUX_PACKAGE: &str = "linux-source-6.12";
const LINUX_FILES: [&str; 3] = [
    "lib/stackdepot.c",
    "include/linux/stackdepot.h",
    "include/linux/jhash.h",
];
/// Of Scudo, what its depot needs to link.
const SCUDO_FILES: [&str; 4] = ["linux.cpp", "common.cpp", "report.cpp", "string_utils.cpp"];
/// Only our functions can be seen from outside.
const EXPORTS: &str = "{ global: bench_*; local: *; };\n";

/// Builds the objects that can be built and answers their folder.
pub fn build(house: &House, folder: &Path) -> Answer<PathBuf> {
    let peers = folder.join("peers");
    fs::create_dir_all(&peers).map_err(|e| format!("{}: {e}", peers.display()))?;
    write(&folder.join("exports.map"), EXPORTS)?;
    let builder = Builder {
        shims: house.root.join("bench/shims"),
        folder: folder.to_path_buf(),
        peers: peers.clone(),
    };
    let objects: [(&str, Build); 3] = [
        ("llvm", Builder::llvm),
        ("linux", Builder::linux),
        ("scudo", Builder::scudo),
    ];
    for (name, build) in objects {
        if let Err(reason) = build(&builder) {
            let first = reason.lines().next().unwrap_or_default();
            println!("bench: {name} cannot be built, skipped: {first}");
            // An old one must not stand in for it.
            let _ = fs::remove_file(peers.join(format!("{name}.so")));
        }
    }
    Ok(peers)
}

/// Builds one object.
type Build = fn(&Builder) -> Answer<()>;

struct Builder {
    shims: PathBuf,
    folder: PathBuf,
    peers: PathBuf,
}

impl Builder {
    fn llvm(&self) -> Answer<()> {
        let package = packages::debian(LLVM_PACKAGE, &self.folder)?;
        let arch = std::env::consts::ARCH;
        let library = format!("libclang_rt.ubsan_standalone-{arch}.a");
        let mut gcc = self.compiler("gcc", "llvm");
        gcc.args(["-std=gnu17", "-Wall", "-Wextra"])
            .arg(self.shims.join("llvm.c"));
        gcc.arg(package.join(LLVM_FOLDER).join(library))
            .args(["-lpthread", "-ldl", "-lm"]);
        child::must(&mut gcc).map(|_| ())
    }

    fn linux(&self) -> Answer<()> {
        let sources = packages::kernel(LINUX_PACKAGE, &LINUX_FILES, &self.folder)?;
        let headers = self.kernel_headers(&sources)?;
        let mut gcc = self.compiler("gcc", "linux");
        // The kernel's own dialect and optimisation.
        gcc.args(["-std=gnu11", "-fno-strict-aliasing", "-Wall"])
            .arg("-I")
            .arg(&self.shims);
        gcc.arg("-I")
            .arg(&sources)
            .arg("-I")
            .arg(sources.join("include"))
            .arg("-I")
            .arg(headers);
        child::must(gcc.arg(self.shims.join("linux.c"))).map(|_| ())
    }

    /// For each header that the sources include and that is not unpacked: one line that leads to
    /// ours.
    fn kernel_headers(&self, sources: &Path) -> Answer<PathBuf> {
        let headers = self.folder.join("kernel-headers");
        for file in LINUX_FILES {
            let path = sources.join(file);
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let included = text
                .lines()
                .filter_map(|line| line.strip_prefix("#include <")?.split('>').next());
            for name in included.filter(|name| !sources.join("include").join(name).is_file()) {
                let header = headers.join(name);
                let parent = header.parent().unwrap_or(&headers);
                fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
                write(&header, "#include \"linux.h\"\n")?;
            }
        }
        Ok(headers)
    }

    fn scudo(&self) -> Answer<()> {
        let sources = packages::scudo(&self.folder)?.join("scudo-standalone");
        let mut gcc = self.compiler("g++", "scudo");
        gcc.args([
            "-std=c++17",
            "-fno-exceptions",
            "-fno-rtti",
            "-ffunction-sections",
            "-w",
        ]);
        gcc.arg("-I")
            .arg(&sources)
            .arg(self.shims.join("scudo.cpp"));
        gcc.args(SCUDO_FILES.map(|file| sources.join(file)))
            .arg("-Wl,--gc-sections");
        child::must(&mut gcc).map(|_| ())
    }

    /// A compiler that makes `NAME.so`.
    fn compiler(&self, program: &str, name: &str) -> Command {
        let mut compiler = Command::new(program);
        compiler.args(["-O2", "-fPIC", "-shared", "-Wl,-Bsymbolic"]);
        let exports = self.folder.join("exports.map");
        compiler.arg(format!("-Wl,--version-script={}", exports.display()));
        compiler
            .arg("-o")
            .arg(self.peers.join(format!("{name}.so")));
        compiler
    }
}

fn write(path: &Path, text: &str) -> Answer<()> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
