//! Loaded modules, found without the loader's lock, and what their ELF headers say.
//!
//! glibc's `_dl_find_object` answers lock-free which module holds an address. Key type:
//! [`LoadedModule`]. Everything here reads the module's own mapping, so it is used only
//! while `gate` keeps `dlclose` away.

#![allow(unsafe_code)] // calls `_dl_find_object`, reads mapped ELF headers

use super::elf::{self, Segment};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Program headers of a library lie in the first page of its mapping, or are not looked at.
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

/// Link map, program headers and their number of the main program.
static MAIN_LINK_MAP: AtomicPtr<LinkMap> = AtomicPtr::new(core::ptr::null_mut());
static MAIN_HEADERS: AtomicU64 = AtomicU64::new(0);
static MAIN_HEADER_COUNT: AtomicU64 = AtomicU64::new(0);

/// Resolves `_dl_find_object`; `false` if this glibc has none (before 2.35).
pub fn init() -> bool {
    // SAFETY: dlsym with a valid name; called once at start-up, outside any walk.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    // ORDERING: Release, with the Acquire in `find`; the pointee is code and never changes.
    FIND_OBJECT.store(found, Ordering::Release);
    // SAFETY: getauxval only reads the auxiliary vector.
    let auxiliary = |kind| unsafe { libc::getauxval(kind) };
    if let Some(main) = find(auxiliary(libc::AT_ENTRY)) {
        MAIN_HEADERS.store(auxiliary(libc::AT_PHDR), Ordering::Relaxed);
        MAIN_HEADER_COUNT.store(auxiliary(libc::AT_PHNUM), Ordering::Relaxed);
        // ORDERING: Release, with the Acquire in `headers_of`: carries the two above.
        MAIN_LINK_MAP.store(main.link_map.cast_mut(), Ordering::Release);
    }
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
    /// Difference between run-time addresses and those in the file.
    pub load_bias: u64,
    /// Address and number of its program headers, where they could be found.
    headers: Option<(u64, u64)>,
    link_map: *const LinkMap,
}

/// The module that holds `pc`, if any.
pub fn find(pc: u64) -> Option<LoadedModule> {
    let found = find_object(pc)?;
    // SAFETY: the loader keeps the link map as long as the module, which `gate` holds; null
    // is handled.
    let load_bias = unsafe { found.link_map.as_ref() }.map_or(0, |map| map.load_bias);
    let header = found.eh_frame as u64;
    let mut module = LoadedModule {
        start: found.map_start as u64,
        end: found.map_end as u64,
        unwind_header: (header != 0).then_some(header),
        load_bias,
        headers: headers_of(&found, load_bias),
        link_map: found.link_map,
    };
    // The loader answers for one segment where a module has holes between its segments.
    for segment in module.segments().filter(Segment::is_loaded) {
        module.start = module.start.min(segment.address & !(FIRST_PAGE_BYTES - 1));
        module.end = module
            .end
            .max(segment.address.saturating_add(segment.memory_bytes));
    }
    Some(module)
}

fn find_object(pc: u64) -> Option<FoundObject> {
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
    (status == 0).then_some(found)
}

/// Where the module's program headers are: the kernel says it of the main program, a library
/// has them in its first page (unless they were moved by tools like patchelf).
fn headers_of(found: &FoundObject, load_bias: u64) -> Option<(u64, u64)> {
    // ORDERING: Acquire, with the Release in `init`.
    let main = MAIN_LINK_MAP.load(Ordering::Acquire);
    if !main.is_null() && core::ptr::eq(main, found.link_map) {
        let count = MAIN_HEADER_COUNT.load(Ordering::Relaxed);
        return Some((MAIN_HEADERS.load(Ordering::Relaxed), count));
    }
    let mut start = found.map_start as u64;
    if load_bias != start {
        // One segment of several, or a file whose addresses do not start at 0.
        let at_bias =
            find_object(load_bias).filter(|at| core::ptr::eq(at.link_map, found.link_map));
        start = at_bias.map_or(start, |_| load_bias);
    }
    // SAFETY: the start of one of the module's segments, which span at least a page.
    let header =
        unsafe { core::slice::from_raw_parts(start as *const u8, elf::HEADER_BYTES as usize) };
    let (offset, count) = elf::program_headers_of(header)?;
    let end = offset.checked_add(count.checked_mul(elf::PROGRAM_HEADER_BYTES)?)?;
    (end <= FIRST_PAGE_BYTES).then_some((start.checked_add(offset)?, count))
}

impl LoadedModule {
    /// What distinguishes this load from a later one at the same place.
    pub fn identity(&self) -> u64 {
        self.link_map as u64
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
            .filter(Segment::is_notes)
            .find_map(|segment| elf::build_id(self.bytes(segment.address, segment.file_bytes)?))
            .unwrap_or(&[])
    }

    /// The bytes from `address` to the end of the readable segment that it lies in.
    pub fn bytes_from(&self, address: u64) -> Option<&[u8]> {
        let end = if self.headers.is_none() {
            // The tables say themselves how far they reach: the mapping's end is bound enough.
            self.end
        } else {
            self.segments()
                .filter(Segment::is_readable)
                .filter_map(|segment| {
                    let end = segment.address.checked_add(segment.file_bytes)?;
                    (segment.address..end).contains(&address).then_some(end)
                })
                .next()?
        };
        self.bytes(address, end.checked_sub(address)?)
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

    fn segments(&self) -> impl Iterator<Item = Segment> + use<> {
        let headers = self.headers.map_or(&[][..], |(address, count)| {
            // SAFETY: the module's program headers, mapped as long as the module, which
            // `gate` holds; their place comes from the kernel or a checked ELF header.
            unsafe {
                core::slice::from_raw_parts(
                    address as *const u8,
                    (count * elf::PROGRAM_HEADER_BYTES) as usize,
                )
            }
        });
        elf::segments(headers, self.load_bias)
    }
}

#[cfg(test)]
mod tests {
    use super::{find, init};

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
}
