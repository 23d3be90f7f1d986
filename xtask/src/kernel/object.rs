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
    *(.text.sdc_save)
    *(.text.sdc_put .text.sdc_fetch)
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

/// The prefix of a locked instruction, and one that does nothing to it.
const LOCK: u8 = 0xf0;
const NO_LOCK: u8 = 0x3e;

/// The core as the kernel gets it.
pub struct Object {
    /// For any number of processors.
    pub any: PathBuf,
    /// For one processor.
    pub single: PathBuf,
}

/// Builds the object and checks it.
pub fn build(place: &Place) -> Answer<Object> {
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
    let single = place.work.join("core/core_up.o");
    fs::copy(&linked, &single).map_err(|e| format!("{}: {e}", single.display()))?;
    unlock(&single)?;
    Ok(Object {
        any: linked,
        single,
    })
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

/// The same object for a kernel of one processor, which needs no bus lock: the prefix of each locked
/// instruction becomes one that does nothing, as Linux does at boot with its own (`alternatives_smp_unlock`).
fn unlock(object: &Path) -> Answer<()> {
    let said = |program: &str, options: &[&str]| {
        child::must(Command::new(program).args(options).arg(object))
            .map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let disassemble = || said("objdump", &["-dw", "--no-show-raw-insn", "-j", ".text"]);
    let start = text_offset(&said("readelf", &["-SW"])?).ok_or("the object has no .text")?;
    let mut bytes = fs::read(object).map_err(|e| format!("{}: {e}", object.display()))?;
    let locked = locked(&disassemble()?);
    for address in &locked {
        let byte = bytes.get_mut(start + address).filter(|byte| **byte == LOCK);
        *byte.ok_or(format!("no lock prefix at {address:#x}"))? = NO_LOCK;
    }
    fs::write(object, bytes).map_err(|e| format!("{}: {e}", object.display()))?;
    if locked.is_empty() || !self::locked(&disassemble()?).is_empty() {
        return Err("the core's locked instructions were not found".to_owned());
    }
    Ok(())
}

/// Where the code lies in the file, as `readelf -SW` says.
fn text_offset(sections: &str) -> Option<usize> {
    let line = sections
        .lines()
        .find_map(|line| line.split_once("] .text "))?;
    let offset = line.1.split_whitespace().nth(2)?;
    usize::from_str_radix(offset, 16).ok()
}

/// The addresses of locked instructions, as `objdump` writes them.
fn locked(code: &str) -> Vec<usize> {
    let address = |line: &str| {
        let (address, instruction) = line.split_once(':')?;
        instruction.trim_start().strip_prefix("lock ")?;
        usize::from_str_radix(address.trim(), 16).ok()
    };
    code.lines().filter_map(address).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_instructions_and_the_place_of_code_are_found() {
        let code = "0000000000000010 <sdc_put>:\n      10:\tlock xadd %rax,(%rdi)\n      15:\tret\n\
                    \u{20}    1f2:\tlock orl $0x0,(%rsp)\n";
        assert_eq!(locked(code), [0x10, 0x1f2]);
        let sections =
            "  [ 1] .text             PROGBITS        0000000000000000 001000 006b10 00  AX";
        assert_eq!(text_offset(sections), Some(0x1000));
        assert_eq!(text_offset("  [ 2] .rela.text RELA 0 1 2"), None);
    }
}
