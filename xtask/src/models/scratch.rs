//! A copy of the core in the build folder, with loom's search mended.
//!
//! The copy is a workspace of its own, so that neither the checkout nor its lock file changes.
//! Files are written only when they differ: a second run builds nothing.

use crate::Answer;
use crate::child;
use crate::house::House;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy.
pub struct Scratch {
    root: PathBuf,
    build: PathBuf,
}

fn fails<T>(path: &Path, result: std::io::Result<T>) -> Answer<T> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Answer<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fails(folder, fs::create_dir_all(folder))?;
    }
    fails(path, fs::write(path, text))
}

/// Every Rust file below a folder, sorted.
pub fn rust_files(folder: &Path) -> Answer<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fails(folder, fs::read_dir(folder))? {
        let path = fails(folder, entry)?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Scratch {
    /// Copies the core, each source file through `change` (its path below the core, its text).
    pub fn prepare(
        house: &House,
        name: &str,
        change: &dyn Fn(&str, &str) -> String,
    ) -> Answer<Scratch> {
        let root = house.target.join("models").join(name);
        let core = house.root.join("crates/stackdepot");
        let mut kept = Vec::new();
        for folder in ["src", "tests"] {
            for path in rust_files(&core.join(folder))? {
                let below = path.strip_prefix(&core).unwrap_or(&path);
                let text = without_statistics(&fails(&path, fs::read_to_string(&path))?);
                let copy = root.join("core").join(below);
                write(&copy, &change(&below.to_string_lossy(), &text))?;
                kept.push(copy);
            }
        }
        for path in rust_files(&root.join("core"))? {
            if !kept.contains(&path) {
                fails(&path, fs::remove_file(&path))?;
            }
        }
        let scratch = Scratch {
            root,
            build: house.target.join("models/build"),
        };
        scratch.write_manifests(house, &core)?;
        Ok(scratch)
    }

    fn write_manifests(&self, house: &House, core: &Path) -> Answer<()> {
        let loom = mended_loom(house)?;
        let read = |path: PathBuf| fails(&path, fs::read_to_string(&path));
        write(
            &self.root.join("core/Cargo.toml"),
            &read(core.join("Cargo.toml"))?,
        )?;
        let workspace = read(house.root.join("Cargo.toml"))?;
        let own: String = workspace
            .lines()
            .filter(|line| !line.starts_with("default-members"))
            .map(|line| {
                if line.starts_with("members") {
                    "members = [\"core\"]"
                } else {
                    line
                }
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let patch = format!("\n[patch.crates-io]\nloom = {{ path = {loom:?} }}\n");
        write(&self.root.join("Cargo.toml"), &format!("{own}{patch}"))?;
        if !self.root.join("Cargo.lock").exists() {
            write(
                &self.root.join("Cargo.lock"),
                &read(house.root.join("Cargo.lock"))?,
            )?;
        }
        Ok(())
    }

    /// Builds the models and answers the programs.
    pub fn build(&self) -> Answer<Vec<PathBuf>> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.root)
            .args(["test", "--release", "--package", "stackdepot", "--no-run"])
            .args(["--message-format", "json"])
            .args(["--lib", "--test", "loom", "--test", "loom_ring"])
            .args(["--test", "loom_live"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", &self.build);
        let built = child::must(&mut cargo)?;
        let mut programs = Vec::new();
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            let message: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("cargo's JSON: {error}"))?;
            if let Some(program) = message["executable"].as_str() {
                programs.push(PathBuf::from(program));
            }
        }
        programs.sort();
        Ok(programs)
    }
}

/// Leaves the statistics out: no protocol reads them, and as words that all threads change they
/// would be most of what the models have to put in order.
fn without_statistics(text: &str) -> String {
    text.replace(
        "    counter.fetch_add(1, Ordering::Relaxed);\n}",
        "    let _ = counter;\n}",
    )
}

/// Copies loom from cargo's own copy and applies `verification/loom-dpor.patch`.
fn mended_loom(house: &House) -> Answer<PathBuf> {
    let patch = house.root.join("verification/loom-dpor.patch");
    let text = fails(&patch, fs::read_to_string(&patch))?;
    let mended = house.target.join("models/mended-loom");
    let stamp = mended.join("mended-by.patch");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == text) {
        return Ok(mended);
    }
    if mended.exists() {
        fails(&mended, fs::remove_dir_all(&mended))?;
    }
    let original = loom_source(house)?;
    child::must(Command::new("cp").arg("-r").arg(&original).arg(&mended))?;
    child::must(
        Command::new("patch")
            .args(["-p0", "-s", "-d"])
            .arg(&mended)
            .arg("-i")
            .arg(&patch),
    )?;
    write(&stamp, &text)?;
    Ok(mended)
}

/// Where cargo keeps the loom that the lock file names.
fn loom_source(house: &House) -> Answer<PathBuf> {
    let mut cargo = house.cargo();
    let ran = child::must(cargo.args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata = ran.json()?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata: no packages")?;
    packages
        .iter()
        .find(|package| package["name"] == "loom")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(Path::to_path_buf)
        .ok_or_else(|| "cargo metadata: loom is not among the packages".to_owned())
}
