//! What a module's ELF headers say: its segments and its build-id. Safe parsing of bytes.

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// Size of the ELF header.
pub const HEADER_BYTES: u64 = 64;
/// Size of one program header.
pub const PROGRAM_HEADER_BYTES: u64 = 56;
/// Where the ELF header has the offset of the program headers, their size and their number.
const PHOFF_AT: usize = 32;
const PHENTSIZE_AT: usize = 54;
const PHNUM_AT: usize = 56;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_R: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// One program header, at its run-time address.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// First address.
    pub address: u64,
    /// Bytes that come from the file.
    pub file_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    kind: u32,
    flags: u32,
}

impl Segment {
    /// Whether it is mapped memory.
    pub fn is_loaded(&self) -> bool {
        self.kind == PT_LOAD
    }

    /// Whether it is mapped memory that can be read.
    pub fn is_readable(&self) -> bool {
        self.is_loaded() && self.flags & PF_R != 0
    }

    /// Whether it holds notes.
    pub fn is_notes(&self) -> bool {
        self.kind == PT_NOTE
    }

    fn parse(header: &[u8], load_bias: u64) -> Option<Segment> {
        Some(Segment {
            kind: u32_at(header, 0)?,
            flags: u32_at(header, 4)?,
            address: u64_at(header, 16)?.wrapping_add(load_bias),
            file_bytes: u64_at(header, 32)?,
            memory_bytes: u64_at(header, 40)?,
        })
    }
}

/// Offset and number of the program headers that an ELF header names; `None` if it is none.
pub fn program_headers_of(header: &[u8]) -> Option<(u64, u64)> {
    let is_elf = *header.get(..4)? == ELF_MAGIC
        && u64::from(u16_at(header, PHENTSIZE_AT)?) == PROGRAM_HEADER_BYTES;
    is_elf.then_some(())?;
    Some((u64_at(header, PHOFF_AT)?, u16_at(header, PHNUM_AT)?.into()))
}

/// The segments that an array of program headers describes.
pub fn segments(headers: &[u8], load_bias: u64) -> impl Iterator<Item = Segment> + '_ {
    headers
        .chunks_exact(PROGRAM_HEADER_BYTES as usize)
        .filter_map(move |header| Segment::parse(header, load_bias))
}

/// The GNU build-id among the notes of one segment.
pub fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let name_bytes = u32_at(notes, 0)? as usize;
        let value_bytes = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let value_at = 12_usize.checked_add(name_bytes.checked_next_multiple_of(4)?)?;
        let value_end = value_at.checked_add(value_bytes)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return notes.get(value_at..value_end);
        }
        notes = notes.get(value_end.checked_next_multiple_of(4)?..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::{build_id, program_headers_of};

    #[test]
    fn damaged_notes_have_no_build_id() {
        let mut note = vec![4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0];
        note.extend_from_slice(b"GNU\0abcd");
        assert_eq!(build_id(&note), Some(&b"abcd"[..]));
        for cut in 0..note.len() {
            assert_eq!(build_id(&note[..cut]), None);
        }
        assert_eq!(build_id(&[0xff; 64]), None);
    }

    #[test]
    fn only_an_elf_header_names_program_headers() {
        let program = std::fs::read("/proc/self/exe").expect("readable");
        let (offset, count) = program_headers_of(&program[..64]).expect("an ELF file");
        assert_eq!(offset, 64);
        assert!(count > 4);
        assert_eq!(program_headers_of(&program[..50]), None);
        assert_eq!(program_headers_of(&program[1..65]), None);
    }
}
