//! Making a ring in memory and viewing one that is there.

#[cfg(not(loom))]
use super::ring_bytes;
use super::{Ring, RingConfig, image};
#[cfg(not(loom))]
use crate::error::ConfigError;
use crate::section::{LINE_BYTES, SectionError, WordLine};

/// Views lines that a ring was made in before.
fn checked(lines: &[WordLine]) -> Result<Ring<'_>, SectionError> {
    let short = SectionError::TooShort {
        given_bytes: 0,
        needed_bytes: LINE_BYTES as u64,
    };
    let (magic, word) = lines.first().ok_or(short)?.header();
    let config = image::checked_config(magic, word)?;
    Ring::view(lines, &config)
}

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "memory that the caller maps is vouched for by the caller"
)]
mod real {
    use super::*;
    use crate::layout::Line;
    use crate::section::{lines_at, lines_of};
    use core::ptr::NonNull;

    impl<'r> Ring<'r> {
        /// Makes a ring in borrowed memory, of which it takes [`ring_bytes`].
        ///
        /// # Errors
        /// A configuration out of its limits, or memory that is too short for it.
        pub fn new(memory: &'r mut [Line], config: &RingConfig) -> Result<Ring<'r>, ConfigError> {
            config.check()?;
            let lines = lines_of(memory);
            Ring::write_header(lines, config);
            Ring::view(lines, config).map_err(|_| too_short(lines, config))
        }

        /// Makes a ring in zero-filled memory; touches only its header.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of [`ring_bytes`] bytes for `'r`, all of them
        /// zero, and is accessed only through rings meanwhile (also by other processes).
        ///
        /// # Errors
        /// A configuration out of its limits, or a `base` that is no multiple of 64.
        pub unsafe fn create(
            base: NonNull<u8>,
            config: &RingConfig,
        ) -> Result<Ring<'r>, ConfigError> {
            let unaligned = ConfigError::Unaligned {
                address: base.addr().get(),
                alignment: LINE_BYTES,
            };
            // SAFETY: the caller's promise, passed on.
            let lines = unsafe { lines_at(base, ring_bytes(config)?) }.map_err(|_| unaligned)?;
            Ring::write_header(lines, config);
            Ring::view(lines, config).map_err(|_| too_short(lines, config))
        }

        /// Views a ring that was made before.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'r` and is accessed only
        /// through rings meanwhile (also by other processes).
        ///
        /// # Errors
        /// What is wrong with the memory.
        pub unsafe fn attach(base: NonNull<u8>, bytes: usize) -> Result<Ring<'r>, SectionError> {
            // SAFETY: the caller's promise, passed on.
            checked(unsafe { lines_at(base, bytes) }?)
        }
    }

    fn too_short(lines: &[WordLine], config: &RingConfig) -> ConfigError {
        let given = (lines.len() * LINE_BYTES) as u64;
        ConfigError::OutOfRange {
            field: "ring bytes",
            value: given,
            least: (config.line_count() * LINE_BYTES) as u64,
            most: u64::MAX,
        }
    }
}

#[cfg(loom)]
impl<'r> Ring<'r> {
    /// Makes a ring over loom's boxes.
    pub fn create_in(
        memory: &'r crate::section::SectionMemory,
        config: &RingConfig,
    ) -> Result<Ring<'r>, SectionError> {
        Ring::write_header(memory.lines(), config);
        Ring::of_memory(memory, config)
    }

    /// Views a ring that was made before.
    pub fn attach_in(memory: &'r crate::section::SectionMemory) -> Result<Ring<'r>, SectionError> {
        checked(memory.lines())
    }

    /// The same without a look at the header: nothing is ordered by it.
    pub fn of_memory(
        memory: &'r crate::section::SectionMemory,
        config: &RingConfig,
    ) -> Result<Ring<'r>, SectionError> {
        Ring::view(memory.lines(), config)
    }
}
