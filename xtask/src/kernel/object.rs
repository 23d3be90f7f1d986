//! The core as one object file for the kernel: `kernel/glue` over the core's own files.
//!
//! Built for a target without an operating system and without vector registers, linked to one
//! relocatable object with the C names as its only global symbols. It must need nothing: no symbol of
//! the kernel's, no global offset table, no floating point.

use super::{Place, packages};
use crate::{Answer, child};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-none";
const FLAGS: &str = "-Crelocation-model=static -Ccode-model=kernel -Cno-redzone=y \
    -Cforce-unwind-tables=n -Cjump-tables=n -Cforce-frame-pointers=y -Zplt=y \
    -Zcf-protection=branch -Dwarnings";
/// One section of each kind, as the kernel's C objects have. The save of a known stack, which is what
/// nearly every call runs, lies within a page: an emulator leaves its compiled code wherever a call
/// leaves a page, and a processor's cache of addresses likes it, too.
const SCRIPT: &str = "SECTIONS {
  .text 0 : ALIGN(4096) {
    *(.text.sdc_save .text.*6insert*Region4save .text.*4hash*8multiply)
    *(.text.sdc_put .text.sdc_fetch .text.*5fetch*11fetch_words)
    *(.text .text.*)
  }
  .rodata 0 : { *(.rodata .rodata.*) }
  .data.rel.ro 0 : { *(.data.rel.ro .data.rel.ro.*) }
  .data 0 : { *(.data .data.*) }
  .bss 0 : { *(.bss .bss.*) }
  /DISCARD/ : { *(.comment) *(.eh_frame) *(.eh_frame_hdr) *(.llvmbc) *(.llvmcmd) }
}";
/// What the compiler's own library defines weakly: the kernel's are instrumented, ours stay.
const WEAK: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// Builds the object and checks it; answers where it lies.
pub fn build(place: &Place) -> Answer<PathBuf> {
    let library = compile(place)?;
    let script = place.work.join("core/merge.lds");
    let linked = place.work.join("core/core.o");
    fs::write(&script, SCRIPT).map_err(|e| format!("{}: {e}", script.display()))?;
    let names = names(&library)?;
    let mut ld = Command::new("ld");
    ld.args(["-r", "--gc-sections", "-T"]).arg(&script);
    for name in &names {
        ld.args(["-u", name]);
    }
    let first = names.first().ok_or("the glue has no C names")?;
    ld.args(["-e", first, "--whole-archive"]).arg(&library);
    child::must(ld.arg("-o").arg(&linked))?;
    tidy(&linked)?;
    check(&linked)?;
    Ok(linked)
}

/// Leaves only our names global, and no names of source files: objtool takes an object with several for
/// a whole kernel.
fn tidy(object: &Path) -> Answer<()> {
    let mut objcopy = Command::new("objcopy");
    for name in WEAK {
        objcopy.arg(format!("--localize-symbol={name}"));
    }
    let ran = child::must(Command::new("readelf").arg("-sW").arg(object))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, "FILE", _, _, _, name] = words.as_slice() {
            objcopy.arg(format!("--strip-symbol={name}"));
        }
    }
    child::must(objcopy.arg(object)).map(|_| ())
}

fn compile(place: &Place) -> Answer<PathBuf> {
    let target = place.work.join("core");
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(place.ours.join("glue"))
        .args([
            "build",
            "--release",
            "--quiet",
            "-Zbuild-std=core",
            "--target",
            TARGET,
        ])
        .env("RUSTC", packages::rustc(place))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", packages::libraries(place))
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    child::must(&mut cargo)?;
    Ok(target.join(TARGET).join("release/libstackdepot_kernel.a"))
}

/// The C names that the glue defines.
fn names(library: &Path) -> Answer<Vec<String>> {
    let mut names: Vec<String> = symbols(library)?
        .into_iter()
        .filter(|(kind, name)| kind == "T" && name.starts_with("sdc_"))
        .map(|(_, name)| name)
        .collect();
    names.sort();
    Ok(names)
}

fn symbols(file: &Path) -> Answer<Vec<(String, String)>> {
    let ran = child::must(Command::new("nm").args(["--quiet", "-P"]).arg(file))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            Some((words.next()?.to_owned(), name))
        })
        .collect())
}

/// What must be true of code in the kernel.
fn check(object: &Path) -> Answer<()> {
    for (kind, name) in symbols(object)? {
        if kind == "U" {
            return Err(format!(
                "the core's object needs `{name}`; it must need nothing"
            ));
        }
        if kind.chars().all(char::is_uppercase) && !name.starts_with("sdc_") {
            return Err(format!(
                "the core's object defines `{name}` for all of the kernel"
            ));
        }
    }
    let said = |program: &str, option: &str| {
        child::must(Command::new(program).arg(option).arg(object))
            .map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    if said("readelf", "-rW")?.contains("GOT") {
        return Err("the core's object has a global offset table".to_owned());
    }
    let code = said("objdump", "-dw")?;
    let registers = ["%xmm", "%ymm", "%zmm", "%st(", "%st,"];
    if let Some(line) = code
        .lines()
        .find(|line| registers.iter().any(|register| line.contains(register)))
    {
        return Err(format!(
            "the core's object uses floating point: {}",
            line.trim()
        ));
    }
    Ok(())
}
