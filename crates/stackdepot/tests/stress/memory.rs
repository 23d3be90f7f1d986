//! Memory for a region of exactly its bytes: AddressSanitizer guards the very next one.
#![expect(
    unsafe_code,
    reason = "an allocation of a size that no vector of lines has"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use stackdepot::{Config, Depot, LINE_BYTES};

/// An allocation, and how to make a depot that takes all of it.
pub struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    config: Config,
}

impl Memory {
    /// For a depot of at most `config.region_bytes`, with only the bytes that its parts take.
    pub fn new(config: &Config) -> Memory {
        let region_bytes = config.geometry().unwrap().region_bytes;
        let layout = Layout::from_size_align(region_bytes, LINE_BYTES).unwrap();
        // SAFETY: no region is empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) });
        Memory {
            base: base.unwrap_or_else(|| handle_alloc_error(layout)),
            layout,
            config: Config {
                region_bytes,
                ..*config
            },
        }
    }

    /// A new depot.
    pub fn depot(&mut self) -> Depot<'_> {
        // SAFETY: as many bytes as were allocated, borrowed from `self`.
        unsafe { self.base.write_bytes(0, self.layout.size()) };
        // SAFETY: as many bytes as the configuration says, aligned, zeroed, borrowed from `self`.
        unsafe { Depot::create(self.base, &self.config) }.unwrap()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; no depot outlives the borrow of `depot`.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
