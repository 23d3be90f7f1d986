//! With `run --sample`: whether a block that is freed may be one of the few that were recorded.
//!
//! A counter for each of 2^13 classes of addresses says how many recorded blocks of the class are
//! live. A free of a block whose class has none, nearly every free, ends here after one load. A class
//! whose counter is full stays full: its frees then ask the live table, which is slower and as right.
//! Without sampling nothing here is used.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use stackdepot::live::Inserted;
use stackdepot_region::poisson::ByteSampling;

use crate::symbols;

const CLASS_BITS: u32 = 13;
const FULL: u8 = u8::MAX;

/// A class is what the factor makes of an address, shifted.
pub const CLASS_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// See [`CLASS_FACTOR`].
pub const CLASS_SHIFT: u32 = u64::BITS - CLASS_BITS;

/// Whether the recorder samples, and the real functions are known.
pub static IS_ON: AtomicBool = AtomicBool::new(false);
/// By class.
pub static COUNTS: [AtomicU8; 1 << CLASS_BITS] = [const { AtomicU8::new(0) }; 1 << CLASS_BITS];

/// For a class that cannot be.
static EVERY: AtomicU8 = AtomicU8::new(FULL);

#[inline]
fn count_of(address: u64) -> &'static AtomicU8 {
    let class = address.wrapping_mul(CLASS_FACTOR) >> CLASS_SHIFT;
    COUNTS.get(class as usize).unwrap_or(&EVERY)
}

/// The recording starts: in the first process, or in a fork's child, whose own live table is empty.
pub fn start(sampling: ByteSampling) {
    COUNTS
        .iter()
        .for_each(|count| count.store(0, Ordering::Relaxed));
    let is_on = sampling.is_on() && symbols::real().is_some();
    IS_ON.store(is_on, Ordering::Relaxed);
}

/// Whether the recorder samples and has not recorded this block.
#[inline]
pub fn is_left_out(address: usize) -> bool {
    // ORDERING: Relaxed: who frees a block has it from who allocated it, by an order of the program's own.
    IS_ON.load(Ordering::Relaxed) && count_of(address as u64).load(Ordering::Relaxed) == 0
}

/// A block was entered into the live table.
pub fn settle(address: u64, inserted: &Inserted) {
    match inserted {
        // Nobody knows the address of what was pushed out: its count stays.
        Inserted::Stored | Inserted::PushedOut(_) => {
            step(address, |count| count.saturating_add(1));
        }
        Inserted::UnsampledReplaced(_) => remove(address),
        Inserted::Replaced(_) | Inserted::Unsampled | Inserted::Contended => {}
    }
}

/// A block left the live table.
pub fn remove(address: u64) {
    step(address, |count| match count {
        FULL | 0 => count,
        some => some - 1,
    });
}

fn step(address: u64, change: impl Fn(u8) -> u8) {
    let count = count_of(address);
    let mut seen = count.load(Ordering::Relaxed);
    // Ends: whoever wins moves one recorded block in or out, and these are rare.
    while let Err(newer) =
        count.compare_exchange_weak(seen, change(seen), Ordering::Relaxed, Ordering::Relaxed)
    {
        seen = newer;
    }
}
