//! Foreign sources and libraries, from package registries only, unpacked below the build folder.
//!
//! What was unpacked once is used again; nothing is installed, and nothing comes into the checkout.

use crate::{Answer, child};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The crate whose sources have Scudo's header.
const SCUDO_CRATE: &str = "scudo-sys";
const SCUDO_VERSION: &str = "0.2.2";

/// The files of a Debian package.
pub fn debian(package: &str, folder: &Path) -> Answer<PathBuf> {
    let unpacked = folder.join(package);
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let file = download(package, folder)?;
    unpack(&unpacked, |partial| {
        child::must(Command::new("dpkg-deb").arg("-x").arg(&file).arg(partial)).map(|_| ())
    })
}

/// Some files of the kernel's sources.
pub fn kernel(package: &str, files: &[&str], folder: &Path) -> Answer<PathBuf> {
    let unpacked = folder.join(package);
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let file = download(package, folder)?;
    unpack(&unpacked, |partial| {
        let archive = format!("./usr/src/{package}.tar.xz");
        let all = pipe(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&file))?;
        let sources = pipe(Command::new("tar").args(["-xO", &archive]).stdin(all))?;
        let mut tar = Command::new("tar");
        tar.args(["-xJ", "--strip-components=1", "-C"]).arg(partial);
        tar.args(files.iter().map(|file| format!("{package}/{file}")));
        child::must(tar.stdin(sources)).map(|_| ())
    })
}

/// The folder of the crate that carries Scudo.
pub fn scudo(folder: &Path) -> Answer<PathBuf> {
    let project = folder.join(SCUDO_CRATE);
    fs::create_dir_all(project.join("src")).map_err(|e| format!("{}: {e}", project.display()))?;
    let manifest = format!(
        "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{SCUDO_CRATE} = \"={SCUDO_VERSION}\"\n"
    );
    for (file, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", "")] {
        let file = project.join(file);
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--quiet"]);
    let metadata = child::must(cargo.current_dir(&project))?.json()?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let manifest = packages
        .iter()
        .find(|package| package["name"] == SCUDO_CRATE)
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent());
    manifest
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("cargo metadata does not name {SCUDO_CRATE}"))
}

/// Downloads a package's file into `folder`.
fn download(package: &str, folder: &Path) -> Answer<PathBuf> {
    let place = folder.join("download").join(package);
    fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    eprintln!("bench: downloading {package}");
    child::must(
        Command::new("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(&place),
    )?;
    let entries = fs::read_dir(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let newest = files
        .filter(|file| file.extension().is_some_and(|ending| ending == "deb"))
        .max();
    newest.ok_or_else(|| format!("{package}: nothing was downloaded"))
}

/// Unpacks into a folder that gets its name when it is complete.
fn unpack(whole: &Path, work: impl FnOnce(&Path) -> Answer<()>) -> Answer<PathBuf> {
    let partial = whole.with_extension("partial");
    let failed = |e| format!("{}: {e}", partial.display());
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed)?;
    }
    fs::create_dir_all(&partial).map_err(failed)?;
    work(&partial)?;
    fs::rename(&partial, whole).map_err(failed)?;
    Ok(whole.to_path_buf())
}

/// Starts a command whose output the next one reads.
fn pipe(command: &mut Command) -> Answer<Stdio> {
    let started = command.stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    child
        .stdout
        .take()
        .map(Stdio::from)
        .ok_or_else(|| "a command without output".to_owned())
}
