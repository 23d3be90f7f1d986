//! Where things are: the checkout, the build folder, the command, the compiled test programs.
//!
//! `House` is found from this crate's own place, so that tasks run from any folder.

use crate::Answer;
use crate::child::{self, Ran};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout and the folders that tasks work in.
pub struct House {
    /// The checkout.
    pub root: PathBuf,
    /// The build folder; everything that tasks write lies below it.
    pub target: PathBuf,
}

impl House {
    /// Finds the checkout and the build folder.
    pub fn find() -> Answer<House> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .ok_or("xtask has no parent folder")?
            .to_path_buf();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(House { root, target })
    }

    /// A cargo command that runs in the checkout.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// An emptied work folder of that name.
    pub fn work(&self, name: &str) -> Answer<PathBuf> {
        let work = self.target.join("xtask").join(name);
        if work.exists() {
            fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
        }
        fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
        Ok(work)
    }

    /// Builds the command as users get it and answers where it lies.
    pub fn stackdepot(&self) -> Answer<PathBuf> {
        let built = self.target.join("release/stackdepot");
        let mut cargo = self.cargo();
        child::must(cargo.args(["build", "--release", "--package", "stackdepot-cli"]))?;
        Ok(built)
    }

    /// Compiles `xtask/programs/NAME.c` into a program.
    pub fn program(&self, name: &str) -> Answer<PathBuf> {
        self.compile(name, name, &["-O1", "-pthread"])
    }

    /// Compiles `xtask/programs/NAME.c` into the shared object `OUTPUT.so`.
    pub fn shared_object(&self, name: &str, output: &str) -> Answer<PathBuf> {
        self.compile(name, &format!("{output}.so"), &["-O2", "-shared", "-fPIC"])
    }

    fn compile(&self, name: &str, output: &str, options: &[&str]) -> Answer<PathBuf> {
        let folder = self.target.join("xtask/programs");
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let (source, output) = (self.source(&format!("{name}.c")), folder.join(output));
        let mut compiler = Command::new("gcc");
        compiler
            .args(["-g", "-std=gnu17", "-Wall", "-Wextra", "-Werror"])
            .args(options);
        child::must(compiler.arg("-o").arg(&output).arg(source).arg("-ldl"))?;
        Ok(output)
    }

    /// The path of a file under `xtask/programs`.
    pub fn source(&self, name: &str) -> PathBuf {
        self.root.join("xtask/programs").join(name)
    }

    /// The recorded workloads, and whether they are the big ones.
    pub fn corpora(&self) -> Option<PathBuf> {
        let given = std::env::var_os("STACKDEPOT_CORPORA").map(PathBuf::from);
        let folder = given.unwrap_or_else(|| self.root.join("../shared/corpora"));
        folder.join("clang.stk.zst").is_file().then_some(folder)
    }

    /// Installs what tests and bars need.
    pub fn setup(&self) -> Answer<bool> {
        let mut setup = Command::new(self.root.join("scripts/setup"));
        let status = setup.status().map_err(|e| format!("scripts/setup: {e}"))?;
        Ok(status.success())
    }
}

/// The real path of a system program: never a shim of the user's.
pub fn system_program(name: &str) -> Answer<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; run `cargo xtask setup`",
        path.display()
    ))
}

/// Runs the built command with `arguments` and answers what it said.
pub fn ask<S: AsRef<OsStr>>(stackdepot: &Path, arguments: &[S]) -> Answer<Ran> {
    child::run(Command::new(stackdepot).args(arguments))
}
