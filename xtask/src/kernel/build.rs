//! Kernels: a configuration from fragments, a build folder for each, built by the kernel's own `make`.
//!
//! The kernel with our depot starts as a copy of the one with C's: only what our options touch is
//! compiled again. Warnings of the compiler and of objtool in our folder are errors.

use super::{Place, source};
use crate::{Answer, child};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a kernel is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// User-mode Linux.
    Uml,
    /// x86-64.
    X86,
    /// x86-64 with PROVE_LOCKING and DEBUG_ATOMIC_SLEEP.
    X86Lockdep,
}

/// One kernel.
pub struct Kernel {
    /// What it is built for.
    pub arch: Arch,
    /// Whether the depot is ours; otherwise it is C's.
    pub is_ours: bool,
}

impl Arch {
    /// Its name in file names and in what is printed.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Uml => "uml",
            Arch::X86 => "x86",
            Arch::X86Lockdep => "x86-lockdep",
        }
    }

    /// How many processors its machine has.
    pub fn processors(self) -> usize {
        if self == Arch::Uml { 1 } else { 2 }
    }

    /// How often C's kernel is booted to see what its own boots differ by.
    pub fn boots_of_c(self) -> usize {
        if self == Arch::Uml { 4 } else { 3 }
    }

    fn make_name(self) -> &'static str {
        if self == Arch::Uml {
            "ARCH=um"
        } else {
            "ARCH=x86_64"
        }
    }

    fn fragments(self) -> &'static [&'static str] {
        match self {
            Arch::Uml => &["common", "uml"],
            Arch::X86 => &["common", "x86"],
            Arch::X86Lockdep => &["common", "x86", "lockdep"],
        }
    }

    /// What `make` is to build, and where it lies then.
    fn image(self) -> (&'static str, &'static str) {
        match self {
            Arch::Uml => ("linux", "linux"),
            _ => ("bzImage", "arch/x86/boot/bzImage"),
        }
    }
}

impl Kernel {
    /// Its name in file names and in what is printed.
    pub fn name(&self) -> String {
        format!(
            "{}-{}",
            self.arch.name(),
            if self.is_ours { "ours" } else { "c" }
        )
    }
}

/// Builds a kernel and answers where it lies.
pub fn build(place: &Place, kernel: &Kernel) -> Answer<PathBuf> {
    let folder = place.work.join(kernel.name());
    if kernel.is_ours && !folder.exists() {
        let twin = place.work.join(
            Kernel {
                is_ours: false,
                ..*kernel
            }
            .name(),
        );
        clone(&twin, &folder)?;
    }
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    configure(place, kernel, &folder)?;
    let (goal, image) = kernel.arch.image();
    println!("kernel: building {}", kernel.name());
    let ran = child::must(make(place, kernel, &folder).args([jobs().as_str(), goal]))?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.errors();
    let complaint = said.lines().find(|line| {
        line.contains("objtool: ") || line.contains("stackdepot_rs") && line.contains("warning")
    });
    if let Some(line) = complaint {
        // So that the next run says it again.
        let _ = fs::remove_dir_all(folder.join("lib/stackdepot_rs"));
        return Err(format!("{}: {line}", kernel.name()));
    }
    Ok(folder.join(image))
}

/// Copies a build folder so that `make` goes on in it where the twin is. Every object depends on objtool,
/// whose own build looks at absolute paths: it is made older than what it looked through.
fn clone(twin: &Path, folder: &Path) -> Answer<()> {
    child::must(Command::new("cp").arg("-a").arg(twin).arg(folder))?;
    let objtool = folder.join("tools/objtool");
    if objtool.is_dir() {
        let mut find = Command::new("find");
        find.arg(objtool)
            .args(["-exec", "touch", "--no-dereference", "--reference"]);
        find.arg(folder.join("scripts/basic/fixdep"));
        child::must(find.args(["{}", "+"]))?;
    }
    Ok(())
}

/// Writes the configuration if the fragments say something new; checks that every line of theirs holds.
fn configure(place: &Place, kernel: &Kernel, folder: &Path) -> Answer<()> {
    let mut wanted = String::new();
    let ours: &[&str] = if kernel.is_ours { &["ours"] } else { &[] };
    for name in kernel.arch.fragments().iter().chain(ours) {
        let file = place.ours.join("config").join(format!("{name}.config"));
        wanted += &fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let fragment = folder.join("wanted.config");
    if fs::read_to_string(&fragment).is_ok_and(|old| old == wanted) {
        return Ok(());
    }
    let new = folder.join("wanted.config.new");
    fs::write(&new, &wanted).map_err(|e| format!("{}: {e}", new.display()))?;
    let mut all = std::ffi::OsString::from("KCONFIG_ALLCONFIG=");
    all.push(&new);
    child::must(make(place, kernel, folder).arg(all).arg("allnoconfig"))?;
    let config = folder.join(".config");
    let config = fs::read_to_string(&config).map_err(|e| format!("{}: {e}", config.display()))?;
    for line in wanted.lines().filter(|line| line.starts_with("CONFIG_")) {
        let is_off = line.ends_with("=n");
        if !is_off && !config.lines().any(|set| set == line) {
            return Err(format!("{}: `{line}` does not hold", kernel.name()));
        }
    }
    fs::rename(&new, &fragment).map_err(|e| format!("{}: {e}", fragment.display()))
}

fn make(place: &Place, kernel: &Kernel, folder: &Path) -> Command {
    let mut make = Command::new("make");
    let mut output = std::ffi::OsString::from("O=");
    output.push(folder);
    make.current_dir(source::tree(place))
        .arg(kernel.arch.make_name())
        .arg(output);
    // Ours is a cargo of another compiler: nothing of it may reach the kernel's scripts.
    make.env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("MAKEFLAGS");
    make
}

fn jobs() -> String {
    let count = std::thread::available_parallelism().map_or(2, usize::from);
    format!("-j{count}")
}
