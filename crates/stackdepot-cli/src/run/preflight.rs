//! Looks at a program before it is run: can a preload library see its allocations at all?
//!
//! [`inspect`] finds the file as the shell would, follows `#!` lines, and refuses with the reason
//! where recording is impossible. What is possible but partial becomes a note. Parsing is lenient:
//! a file that we cannot make sense of is left to the kernel to judge.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, FileHeader};
use object::{Architecture, Endianness, Object, ObjectSection, ObjectSymbol, ReadCache};
use rustix::fs::Access;

use crate::failure::{CANNOT_RECORD, Failure, NOT_EXECUTABLE, NOT_FOUND};

/// A program that can be run under the recorder.
#[derive(Debug)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// It is a script without a `#!` line, for the shell.
    pub needs_shell: bool,
    /// What will not be seen, one line each.
    pub notes: Vec<String>,
}

/// The kernel follows this many `#!` lines.
const MOST_INTERPRETERS: u32 = 5;
/// Read-only data of a stripped program is searched for the marks of an allocator up to here.
const MOST_RODATA_BYTES: u64 = 256 << 20;

type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

/// Finds `name` and checks that its allocations can be recorded.
///
/// # Errors
/// Not found (127), not executable (126), cannot be recorded (125); one line each.
pub fn inspect(name: &OsStr) -> Result<Program, Failure> {
    check_libc()?;
    let path = find(name)?;
    let mut program = Program {
        path: path.clone(),
        needs_shell: false,
        notes: Vec::new(),
    };
    check_file(&path, "it", &mut program, MOST_INTERPRETERS).map_err(|reason| {
        Failure::with_status(
            CANNOT_RECORD,
            format_args!("cannot record {}: {reason}", path.display()),
        )
    })?;
    Ok(program)
}

/// Finds a program as execvp(3) does.
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.as_bytes().contains(&b'/') {
        return check_executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let search =
        std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut refused = None;
    for directory in std::env::split_paths(&search).filter(|_| !name.is_empty()) {
        let path = Path::new(".").join(directory).join(name);
        match check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(failure) if failure.status == NOT_EXECUTABLE && !path.is_dir() => {
                refused.get_or_insert(failure);
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        let line = format!("program {} not found in PATH", Path::new(name).display());
        Failure::with_status(NOT_FOUND, line)
    }))
}

fn check_executable(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        Failure::with_status(
            status,
            format_args!("cannot run {}: {}", path.display(), reason(&error)),
        )
    })?;
    let refuse = |why| {
        let line = format_args!("cannot run {}: {why}", path.display()).to_string();
        Err(Failure::with_status(NOT_EXECUTABLE, line))
    };
    if metadata.is_dir() {
        return refuse("it is a directory");
    }
    if rustix::fs::access(path, Access::EXEC_OK).is_err() {
        return refuse("it is not executable (chmod +x)");
    }
    Ok(())
}

/// The text of an I/O error without Rust's `(os error N)`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|c| c.to_lowercase().to_string())
        .unwrap_or_default();
    first + characters.as_str()
}

/// `subject` is "it", or the interpreter that a script names.
fn check_file(path: &Path, subject: &str, program: &mut Program, depth: u32) -> Result<(), String> {
    check_privileges(path, subject)?;
    // A program that may be executed but not read is left to the kernel.
    let Ok(mut file) = File::open(path) else {
        return Ok(());
    };
    let mut start = Vec::new();
    if file.by_ref().take(4096).read_to_end(&mut start).is_err() {
        return Ok(());
    }
    if let Some(line) = start.strip_prefix(b"#!") {
        let Some(interpreter) = interpreter(line) else {
            return Ok(());
        };
        if depth == 0 {
            return Ok(());
        }
        let subject = format!("its interpreter {}", interpreter.display());
        return check_file(&interpreter, &subject, program, depth - 1);
    }
    if !start.starts_with(b"\x7fELF") {
        program.needs_shell = depth == MOST_INTERPRETERS;
        return Ok(());
    }
    check_elf(&start, file, path, subject, program)
}

/// The path after `#!`.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let word = line
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(word.to_vec())))
}

/// A program that gains privileges on exec ignores LD_PRELOAD.
fn check_privileges(path: &Path, subject: &str) -> Result<(), String> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(());
    };
    if has_no_new_privileges() {
        return Ok(());
    }
    let user = rustix::process::getuid();
    let group = rustix::process::getgid();
    if metadata.mode() & 0o4000 != 0 && metadata.uid() != user.as_raw() {
        return Err(format!(
            "{subject} is setuid, so the loader ignores LD_PRELOAD; run it as its owner"
        ));
    }
    if metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != group.as_raw() {
        return Err(format!(
            "{subject} is setgid, so the loader ignores LD_PRELOAD; run it as its group"
        ));
    }
    let mut value = [0u8; 64];
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut value).is_ok();
    if has_capabilities && !user.is_root() {
        return Err(format!(
            "{subject} has file capabilities, so the loader ignores LD_PRELOAD; run a copy without them"
        ));
    }
    Ok(())
}

/// With the flag set, setuid bits and file capabilities have no effect.
fn has_no_new_privileges() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
}

fn check_elf(
    start: &[u8],
    file: File,
    path: &Path,
    subject: &str,
    program: &mut Program,
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
        program.notes.push(note_on(allocator, &elf, path));
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
    .find_map(|(mark, allocator)| contains(data, mark).then_some(allocator))
}

fn read_only_data<'data>(elf: &Elf<'data>) -> Option<&'data [u8]> {
    let section = elf.section_by_name(".rodata")?;
    if section.size() > MOST_RODATA_BYTES {
        return None;
    }
    section.data().ok()
}

fn contains(data: &[u8], mark: &[u8]) -> bool {
    data.windows(mark.len()).any(|window| window == mark)
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
        || read_only_data(elf).is_some_and(|data| contains(data, b"/rustc/"));
    if is_rust {
        format!(
            "{name} is a Rust program with {allocator} linked in: what it allocates there is not seen (a wrapper for Rust's global allocator is not there yet)"
        )
    } else {
        format!("{name} has {allocator} linked in: what it allocates there is not seen")
    }
}

/// The recorder finds modules through `_dl_find_object`, which came with glibc 2.35.
#[allow(unsafe_code)] // the C library's version is told by no safe function
fn check_libc() -> Result<(), Failure> {
    // SAFETY: answers a constant, NUL-terminated string of static lifetime.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let version = version.to_string_lossy();
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < (2, 35) {
        let line = format!("cannot record: glibc is {version}, and 2.35 or newer is needed");
        return Err(Failure::with_status(CANNOT_RECORD, line));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_its_first_word() {
        assert_eq!(
            interpreter(b" /usr/bin/env -S python3\nx"),
            Some(PathBuf::from("/usr/bin/env"))
        );
        assert_eq!(interpreter(b"/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(interpreter(b"\n"), None);
    }

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
