//! `cargo xtask kernel`: the core in the place of Linux's stack depot, from nothing to a booted kernel.
//!
//! Order of reading: `packages.rs` (what comes from Debian), `source.rs` (the kernel's source with our
//! patches and files), `object.rs` (the core as one object file), `build.rs` (configurations and
//! kernels), `boot.rs` and `recorded.rs` (running one and reading its console), `verdict.rs` (what has
//! to be true of it). Everything lies below the build folder's `kernel`; every step does only what is missing.

mod boot;
mod build;
mod object;
mod packages;
mod recorded;
mod source;
mod verdict;

use crate::Answer;
use crate::house::House;
use build::{Arch, Kernel};
use std::path::PathBuf;

const USAGE: &str = "usage: cargo xtask kernel [--object | --uml | --x86 | --lockdep]
  --object   only the core's object file, as the kernel gets it
  --uml      only User-mode Linux, which needs no emulation
  --x86      only x86-64 under qemu
  --lockdep  x86-64 with lock and sleep checks";

/// Where things are.
pub struct Place {
    /// The `kernel` folder of the checkout.
    pub ours: PathBuf,
    /// The checkout.
    pub root: PathBuf,
    /// The work folder.
    pub work: PathBuf,
    /// Recorded stacks of a kernel, where they are.
    pub recorded: Option<PathBuf>,
}

/// Builds, boots and judges the kernels that were asked for.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let kernels = kernels(arguments)?;
    let place = Place {
        ours: house.root.join("kernel"),
        root: house.root.clone(),
        work: house.target.join("kernel"),
        recorded: house
            .corpora()
            .map(|folder| folder.join("kernel.stk.zst"))
            .filter(|file| file.is_file()),
    };
    std::fs::create_dir_all(&place.work).map_err(|e| format!("{}: {e}", place.work.display()))?;
    packages::install(&place, kernels.contains(&Arch::X86))?;
    let object = object::build(&place)?;
    println!("kernel: {}", object.any.display());
    source::prepare(&place, &object)?;
    let initramfs = boot::initramfs(&place)?;
    let mut is_right = true;
    for arch in kernels {
        let c = build::build(
            &place,
            &Kernel {
                arch,
                is_ours: false,
            },
        )?;
        let ours = build::build(
            &place,
            &Kernel {
                arch,
                is_ours: true,
            },
        )?;
        is_right &= verdict::judge(arch, &c, &ours, &initramfs, &place)?;
    }
    Ok(is_right)
}

fn kernels(arguments: &[String]) -> Answer<Vec<Arch>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => Ok(vec![Arch::Uml, Arch::X86]),
        ["--object"] => Ok(Vec::new()),
        ["--uml"] => Ok(vec![Arch::Uml]),
        ["--x86"] => Ok(vec![Arch::X86]),
        ["--lockdep"] => Ok(vec![Arch::X86Lockdep]),
        _ => Err(USAGE.to_owned()),
    }
}
