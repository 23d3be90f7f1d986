//! Bytes as memory for depots, rings and live tables: 64-byte lines of exactly the needed length.
//!
//! Each [`Memory`] is an allocation of its own, so that the address sanitizer sees every access
//! behind its end. The one file of this crate with unsafe code.
#![allow(unsafe_code)] // views lines as bytes and hands them to `attach` and `reopen`

use core::ptr::NonNull;
use stackdepot::cache::HoldCaches;
use stackdepot::live::LiveTable;
use stackdepot::ring::Ring;
use stackdepot::{AttachError, Depot, Line, Recovered, SectionError, WeakHandle};

/// Memory that foreign bytes were copied into.
pub struct Memory(Vec<Line>);

impl Memory {
    /// A copy of the bytes, rounded up to lines.
    pub fn of(bytes: &[u8]) -> Memory {
        let mut memory = Memory(vec![Line::ZERO; bytes.len().div_ceil(size_of::<Line>())]);
        memory.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        memory
    }

    /// So many lines of zeros.
    pub fn zeros(bytes: usize) -> Memory {
        Memory(vec![Line::ZERO; bytes.div_ceil(size_of::<Line>())])
    }

    /// The lines, for the safe constructors.
    pub fn lines(&mut self) -> &mut [Line] {
        &mut self.0
    }

    /// A copy of all bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // SAFETY: a line is 64 plain bytes, and nobody else uses the memory during the copy.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&*self.0)) }
            .to_vec()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let length = size_of_val(&*self.0);
        // SAFETY: as for `to_bytes`; the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) }
    }

    fn base(&mut self) -> (NonNull<u8>, usize) {
        let length = size_of_val(&*self.0);
        let lines = NonNull::from(&mut *self.0);
        (lines.cast(), length)
    }

    /// The depot that the bytes say.
    ///
    /// # Errors
    /// As [`Depot::attach`].
    pub fn attach_depot(&mut self) -> Result<Depot<'_>, AttachError> {
        let (base, bytes) = self.base();
        // SAFETY: the memory is valid and exclusively borrowed as long as the depot lives.
        unsafe { Depot::attach(base, bytes) }
    }

    /// The depot that is left of the bytes.
    ///
    /// # Errors
    /// As [`Depot::reopen`].
    pub fn reopen_depot(
        &mut self,
        holds: impl IntoIterator<Item = WeakHandle>,
    ) -> Result<(Depot<'_>, Recovered), AttachError> {
        let (base, bytes) = self.base();
        // SAFETY: as for `attach_depot`; no other writer exists.
        unsafe { Depot::reopen(base, bytes, holds) }
    }

    /// The ring that the bytes say.
    ///
    /// # Errors
    /// As [`Ring::attach`].
    pub fn attach_ring(&mut self) -> Result<Ring<'_>, SectionError> {
        let (base, bytes) = self.base();
        // SAFETY: as for `attach_depot`.
        unsafe { Ring::attach(base, bytes) }
    }

    /// The live table that the bytes say.
    ///
    /// # Errors
    /// As [`LiveTable::attach`].
    pub fn attach_live(&mut self) -> Result<LiveTable<'_>, SectionError> {
        let (base, bytes) = self.base();
        // SAFETY: as for `attach_depot`.
        unsafe { LiveTable::attach(base, bytes) }
    }

    /// The hold caches that the bytes say.
    ///
    /// # Errors
    /// As [`HoldCaches::attach`].
    pub fn attach_caches(&mut self) -> Result<HoldCaches<'_>, SectionError> {
        let (base, bytes) = self.base();
        // SAFETY: as for `attach_depot`.
        unsafe { HoldCaches::attach(base, bytes) }
    }
}
