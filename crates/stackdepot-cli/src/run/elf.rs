//! Looks into an executable: would the calls of its allocator reach a preloaded library?
//!
//! [`check`] refuses other machines, other C libraries, static programs and programs that define
//! `malloc` themselves. An allocator that is linked in under names of its own becomes a note.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use object::read::elf::{ElfFile64, FileHeader};
use object::{Architecture, Endianness, Object, ObjectSection, ObjectSymbol, ReadCache};

/// Read-only data of a stripped program is searched for the marks of an allocator up to here.
const MOST_RODATA_BYTES: u64 = 256 << 20;

type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

/// Checks an executable: the machine, the C library, and which allocator its calls will reach.
///
/// # Errors
/// Why nothing could be recorded.
pub fn check(
    start: &[u8],
    file: File,
    path: &Path,
    subject: &str,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    check_machine(start, subject)?;
    let cache = ReadCache::new(file);
    let Ok(elf) = Elf::parse(&cache) else {
        return Ok(());
    };
    match loader(&elf) {
        Some(loader) => check_loader(&loader, subject)?,
        // The loader itself may be run with a program as its argument, and obeys LD_PRELOAD.
        None if is_glibc_loader(&path.canonicalize().unwrap_or_default()) => return Ok(()),
        None => {
            return Err(format!(
                "{subject} is a static binary, into which no library can be preloaded"
            ));
        }
    }
    if elf
        .dynamic_symbols()
        .any(|symbol| symbol.is_definition() && symbol.name() == Ok("malloc"))
    {
        return Err(format!(
            "{subject} defines its own malloc, which comes before any preloaded one"
        ));
    }
    if let Some(allocator) = hidden_allocator(&elf) {
        notes.push(note_on(allocator, &elf, path));
    }
    Ok(())
}

/// Class and machine straight from the identification, so that foreign programs get a plain answer.
fn check_machine(start: &[u8], subject: &str) -> Result<(), String> {
    let machine = start
        .get(18..20)
        .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    match (start.get(4), start.get(5), machine) {
        (Some(2), Some(1), 62) => Ok(()),
        (Some(1), _, 3 | 62) => Err(format!(
            "{subject} is a 32-bit program; only 64-bit x86 can be recorded"
        )),
        _ => Err(format!(
            "{subject} is built for another architecture; only 64-bit x86 can be recorded"
        )),
    }
}

/// The path in PT_INTERP.
fn loader(elf: &Elf<'_>) -> Option<PathBuf> {
    let endian = elf.endian();
    let headers = elf.elf_header().program_headers(endian, elf.data()).ok()?;
    let bytes = headers.iter().find_map(|header| {
        use object::read::elf::ProgramHeader;
        header.interpreter(endian, elf.data()).ok().flatten()
    })?;
    Some(PathBuf::from(OsString::from_vec(bytes.to_vec())))
}

fn check_loader(loader: &Path, subject: &str) -> Result<(), String> {
    if is_glibc_loader(loader) {
        return Ok(());
    }
    let name = loader.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("ld-musl") {
        return Err(format!(
            "{subject} uses the musl C library; only programs of glibc can be recorded"
        ));
    }
    Err(format!(
        "{subject} uses the loader {}; only programs of glibc can be recorded",
        loader.display()
    ))
}

fn is_glibc_loader(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new("ld-linux-x86-64.so.2"))
}

/// An allocator that is linked in under names of its own, behind which nothing can be seen.
fn hidden_allocator(elf: &Elf<'_>) -> Option<&'static str> {
    const NAMES: [(&str, &str); 6] = [
        ("_rjem_malloc", "jemalloc"),
        ("_rjem_je_malloc_default", "jemalloc"),
        ("je_malloc", "jemalloc"),
        ("je_malloc_default", "jemalloc"),
        ("mi_malloc", "mimalloc"),
        ("tc_malloc", "tcmalloc"),
    ];
    let mut symbols = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .filter(ObjectSymbol::is_definition);
    let named = symbols.find_map(|symbol| {
        let name = symbol.name().ok()?;
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, allocator)| *allocator)
    });
    if named.is_some() || elf.section_by_name(".symtab").is_some() {
        return named;
    }
    // Stripped: both allocators carry the prefix of their own messages.
    let data = read_only_data(elf)?;
    [
        (&b"<jemalloc>"[..], "jemalloc"),
        (b"mimalloc: ", "mimalloc"),
    ]
    .into_iter()
    .find_map(|(mark, allocator)| memmem::find(data, mark).map(|_| allocator))
}

fn read_only_data<'data>(elf: &Elf<'data>) -> Option<&'data [u8]> {
    let section = elf.section_by_name(".rodata")?;
    if section.size() > MOST_RODATA_BYTES {
        return None;
    }
    section.data().ok()
}

fn note_on(allocator: &str, elf: &Elf<'_>, path: &Path) -> String {
    debug_assert_eq!(elf.architecture(), Architecture::X86_64);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let is_rust = elf
        .symbols()
        .any(|symbol| symbol.name() == Ok("rust_eh_personality"))
        || read_only_data(elf).is_some_and(|data| memmem::find(data, b"/rustc/").is_some());
    if is_rust {
        format!(
            "{name} is a Rust program with {allocator} linked in: what it allocates there is not seen (a wrapper for Rust's global allocator is not there yet)"
        )
    } else {
        format!("{name} has {allocator} linked in: what it allocates there is not seen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_machine_is_named() {
        let mut start = [0u8; 64];
        start[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        start[18] = 183;
        assert!(
            check_machine(&start, "it")
                .unwrap_err()
                .contains("another architecture")
        );
        start[18] = 62;
        assert!(check_machine(&start, "it").is_ok());
        start[4] = 1;
        assert!(check_machine(&start, "it").unwrap_err().contains("32-bit"));
        assert!(check_machine(&[], "it").is_err());
    }
}
