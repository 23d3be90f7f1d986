//! What comes from Debian: the kernel's source, the tools that build it, a compiler with its library's
//! source of exactly its version.
//!
//! `scripts/setup-kernel` installs and downloads; the compiler is only unpacked, for installing it would
//! change which one `rustc` is.

use super::Place;
use crate::{Answer, child};
use std::path::PathBuf;
use std::process::Command;

/// Installs and unpacks what is missing.
pub fn install(place: &Place, with_qemu: bool) -> Answer<()> {
    let mut setup = Command::new(place.root.join("scripts/setup-kernel"));
    setup.arg(&place.work);
    if with_qemu {
        setup.arg("--qemu");
    }
    let status = setup
        .status()
        .map_err(|e| format!("scripts/setup-kernel: {e}"))?;
    if !status.success() {
        return Err("scripts/setup-kernel: see above".to_owned());
    }
    // A compiler that cannot run says so here, not in the middle of a build.
    child::must(
        Command::new(rustc(place))
            .arg("-vV")
            .env("LD_LIBRARY_PATH", libraries(place)),
    )?;
    Ok(())
}

/// The unpacked compiler.
pub fn rustc(place: &Place) -> PathBuf {
    place.work.join("rust/usr/bin/rustc")
}

/// The shared libraries that it needs.
pub fn libraries(place: &Place) -> PathBuf {
    place.work.join("rust/usr/lib/x86_64-linux-gnu")
}
