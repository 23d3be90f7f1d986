//! Loaded modules, found without the loader's lock, and what their ELF headers say.
//!
//! glibc's `_dl_find_object` answers lock-free which module holds an address. Key type:
//! [`LoadedModule`]. Everything here reads the module's own mapping, so it is used only
//! while `gate` keeps `dlclose` away.

#![allow(unsafe_code)] // calls `_dl_find_object`, reads mapped ELF headers

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_R: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
const ELF_HEADER_BYTES: u64 = 64;
/// Where the header has the offset of the program headers.
const PHOFF_AT: usize = 32;
/// Where it has their size and number.
const PHENTSIZE_AT: usize = 54;
const PHNUM_AT: usize = 56;
const PROGRAM_HEADER_BYTES: usize = 56;
/// The headers lie in the first page of the mapping, or they are not looked at.
const FIRST_PAGE_BYTES: u64 = 4096;
const NAME_LIMIT: usize = 4096;

/// glibc's `struct dl_find_object` on x86-64.
#[repr(C)]
struct FoundObject {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *const LinkMap,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// The public head of glibc's `struct link_map`.
#[repr(C)]
struct LinkMap {
    load_bias: u64,
    name: *const c_char,
    dynamic: *const c_void,
}

type FindObject = unsafe extern "C" fn(*const c_void, *mut FoundObject) -> c_int;

static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Resolves `_dl_find_object`; `false` if this glibc has none (before 2.35).
pub fn init() -> bool {
    // SAFETY: dlsym with a valid name; called once at start-up, outside any walk.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    // ORDERING: Release, with the Acquire in `find`; the pointee is code and never changes.
    FIND_OBJECT.store(found, Ordering::Release);
    !found.is_null()
}

/// A module that is loaded at the moment.
#[derive(Clone, Copy, Debug)]
pub struct LoadedModule {
    /// First mapped address.
    pub start: u64,
    /// End of the mapping.
    pub end: u64,
    /// Where its `.eh_frame_hdr` is.
    pub unwind_header: Option<u64>,
    link_map: *const LinkMap,
}

/// The module that holds `pc`, if any.
pub fn find(pc: u64) -> Option<LoadedModule> {
    // ORDERING: Acquire, with the Release in `init`.
    let function = FIND_OBJECT.load(Ordering::Acquire);
    if function.is_null() {
        return None;
    }
    // SAFETY: a non-null value was stored by `init` and is glibc's function of this type.
    let function = unsafe { core::mem::transmute::<*mut c_void, FindObject>(function) };
    let mut found = FoundObject {
        flags: 0,
        map_start: core::ptr::null_mut(),
        map_end: core::ptr::null_mut(),
        link_map: core::ptr::null(),
        eh_frame: core::ptr::null_mut(),
        reserved: [0; 7],
    };
    // SAFETY: any address may be asked for; the result has the layout that the ABI fixes.
    let status = unsafe { function(pc as *const c_void, &raw mut found) };
    if status != 0 {
        return None;
    }
    let header = found.eh_frame as u64;
    Some(LoadedModule {
        start: found.map_start as u64,
        end: found.map_end as u64,
        unwind_header: (header != 0).then_some(header),
        link_map: found.link_map,
    })
}

impl LoadedModule {
    /// What distinguishes this load from a later one at the same place.
    pub fn identity(&self) -> u64 {
        self.link_map as u64
    }

    /// Difference between run-time addresses and those in the file.
    pub fn load_bias(&self) -> u64 {
        if self.link_map.is_null() {
            return self.start;
        }
        // SAFETY: the loader keeps the link map as long as the module, which `gate` holds.
        unsafe { (*self.link_map).load_bias }
    }

    /// The loader's name of the module: a path, or empty for the main program.
    pub fn name(&self) -> &[u8] {
        if self.link_map.is_null() {
            return &[];
        }
        // SAFETY: as in `load_bias`; the loader never changes a module's name.
        let name = unsafe { (*self.link_map).name };
        if name.is_null() {
            return &[];
        }
        // SAFETY: the loader's names are NUL-terminated and live as long as the module.
        let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
        bytes.get(..NAME_LIMIT).unwrap_or(bytes)
    }

    /// The GNU build-id, or an empty slice.
    pub fn build_id(&self) -> &[u8] {
        self.segments()
            .filter(|segment| segment.kind == PT_NOTE)
            .find_map(|segment| build_id_in(self.bytes(segment.address, segment.bytes)?))
            .unwrap_or(&[])
    }

    /// The bytes from `address` to the end of the readable segment that it lies in.
    pub fn bytes_from(&self, address: u64) -> Option<&[u8]> {
        if self.program_headers().is_none() {
            // patchelf moves the headers to the end of the file. The tables say themselves
            // how far they reach, so that the mapping's end is bound enough.
            return self.bytes(address, self.end.checked_sub(address)?);
        }
        let segment = self.segment_of(address)?;
        self.bytes(
            address,
            segment
                .address
                .checked_add(segment.bytes)?
                .checked_sub(address)?,
        )
    }

    fn segment_of(&self, address: u64) -> Option<Segment> {
        self.segments().find(|segment| {
            segment.kind == PT_LOAD
                && segment.flags & PF_R != 0
                && address >= segment.address
                && address - segment.address < segment.bytes
        })
    }

    /// `byte_count` bytes at `address`, which the headers say is inside a readable segment.
    fn bytes(&self, address: u64, byte_count: u64) -> Option<&[u8]> {
        let end = address.checked_add(byte_count)?;
        if address < self.start || end > self.end {
            return None;
        }
        // SAFETY: inside one readable segment of a module that `gate` keeps mapped; tables
        // and notes are never written after relocation.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, byte_count as usize) })
    }

    /// The program headers, at their run-time addresses.
    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let bias = self.load_bias();
        self.program_headers()
            .unwrap_or(&[])
            .chunks_exact(PROGRAM_HEADER_BYTES)
            .filter_map(move |header| Segment::parse(header, bias))
    }

    fn program_headers(&self) -> Option<&[u8]> {
        // The mapping starts with the file's first page in everything that linkers make.
        let header = self.bytes(self.start, ELF_HEADER_BYTES)?;
        if header.get(..4)? != ELF_MAGIC || u16_at(header, PHENTSIZE_AT)? != 56 {
            return None;
        }
        let offset = u64_at(header, PHOFF_AT)?;
        let byte_count = u64::from(u16_at(header, PHNUM_AT)?) * PROGRAM_HEADER_BYTES as u64;
        if offset.checked_add(byte_count)? > FIRST_PAGE_BYTES {
            return None;
        }
        self.bytes(self.start.checked_add(offset)?, byte_count)
    }
}

/// One program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    address: u64,
    bytes: u64,
}

impl Segment {
    fn parse(header: &[u8], bias: u64) -> Option<Segment> {
        let file_bytes = u64_at(header, 32)?;
        Some(Segment {
            kind: u32_at(header, 0)?,
            flags: u32_at(header, 4)?,
            address: u64_at(header, 16)?.wrapping_add(bias),
            bytes: file_bytes,
        })
    }
}

/// Looks for the build-id among the notes of one segment.
fn build_id_in(mut notes: &[u8]) -> Option<&[u8]> {
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
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{build_id_in, find, init};

    #[test]
    fn our_own_code_is_found_with_its_name_and_bounds() {
        assert!(init());
        let pc = super::init as *const () as u64;
        let module = find(pc).expect("the test program is loaded");
        assert!(module.start <= pc && pc < module.end);
        assert!(module.unwind_header.is_some());
        assert_eq!(module.name(), b"");
        let libc = find(libc::getpid as *const () as u64).expect("libc is loaded");
        assert!(libc.name().ends_with(b"libc.so.6"));
        assert_eq!(libc.build_id().len(), 20);
        assert!(find(0x10).is_none());
    }

    #[test]
    fn damaged_notes_have_no_build_id() {
        let mut note = vec![4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0];
        note.extend_from_slice(b"GNU\0abcd");
        assert_eq!(build_id_in(&note), Some(&b"abcd"[..]));
        for cut in 0..note.len() {
            assert_eq!(build_id_in(&note[..cut]), None);
        }
        let huge = [0xff; 64];
        assert_eq!(build_id_in(&huge), None);
    }
}
