//! Builds the preload library and leaves it in OUT_DIR, from where the command embeds it.
//!
//! A cargo of its own with a target directory of its own: the outer build holds the lock of the
//! outer one, and the library must not see the outer flags (sanitizers, coverage, `--cfg loom`).
//! `STACKDEPOT_PRELOAD_LIBRARY=FILE` embeds a library that was built elsewhere, for packagers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the library is built from, relative to `crates/`.
const SOURCES: [&str; 3] = ["stackdepot", "stackdepot-region", "stackdepot-preload"];

fn main() {
    let target = variable("TARGET");
    assert!(
        target.starts_with("x86_64-") && target.ends_with("-linux-gnu"),
        "stackdepot records on x86-64 Linux with glibc only, not on {target}",
    );
    let out = PathBuf::from(variable("OUT_DIR"));
    let crates = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    println!("cargo::rerun-if-env-changed=STACKDEPOT_PRELOAD_LIBRARY");
    println!("cargo::rerun-if-changed=build.rs");
    let library = match env::var_os("STACKDEPOT_PRELOAD_LIBRARY").filter(|value| !value.is_empty())
    {
        Some(given) => {
            let given = PathBuf::from(given);
            println!("cargo::rerun-if-changed={}", given.display());
            given
        }
        None => build(&crates, &out, &target),
    };
    let embedded = out.join("libstackdepot_preload.so");
    let bytes = fs::read(&library)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", library.display()));
    // Not at every start of the command, of which it would be a quarter.
    println!(
        "cargo::rustc-env=STACKDEPOT_LIBRARY_DIGEST={:016x}",
        digest(&bytes)
    );
    fs::write(&embedded, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", embedded.display()));
}

/// FNV-1a, 64 bits: names the content.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn build(crates: &Path, out: &Path, target: &str) -> PathBuf {
    for name in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            crates.join(name).join("src").display()
        );
        println!(
            "cargo::rerun-if-changed={}",
            crates.join(name).join("Cargo.toml").display()
        );
    }
    println!(
        "cargo::rerun-if-changed={}",
        crates.join("../Cargo.toml").display()
    );
    let target_dir = out.join("preload");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args([
            "rustc",
            "--release",
            "--quiet",
            "--package",
            "stackdepot-preload",
            "--target",
            target,
        ])
        .arg("--manifest-path")
        .arg(crates.join("stackdepot-preload/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        // Not as a Rust library too: what that exports stays reachable, and every call of it goes
        // through a table.
        .args(["--lib", "--crate-type", "cdylib"]);
    // A checkout has the lock file; a source tree without one resolves anew.
    let lock = crates.join("../Cargo.lock");
    if lock.exists() {
        println!("cargo::rerun-if-changed={}", lock.display());
        cargo.arg("--locked");
    }
    for name in [
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        // Profiles of the outer build, such as coverage or `panic`, are not the library's.
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            cargo.env_remove(name);
        }
    }
    // Small to write at every first run, fast in the program's allocator. Panics stay unwinding:
    // with `abort` a C++ exception that passes through a hook would end the program.
    cargo
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "unwind")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo
        .status()
        .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    assert!(status.success(), "the preload library does not build");
    target_dir
        .join(target)
        .join("release/libstackdepot_preload.so")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"))
}
