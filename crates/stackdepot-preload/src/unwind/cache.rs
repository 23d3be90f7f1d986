//! The shared rule cache: program counter to packed step rule, for all threads.
//!
//! A fixed array of two-word cells. The first word is the key mixed with the second, so a
//! cell of which a reader sees one word old and one new matches no key (or, if both writes
//! were for one key, says the same rule): no locks, no versions. The key holds the low 16
//! bits of the epoch, so that raising the epoch empties the cache at once; when these bits
//! wrap, the cells are cleared.

use core::sync::atomic::{AtomicU64, Ordering};

/// Cells in the cache; 16 bytes each, 256 KiB in all.
pub const CELL_COUNT: usize = 1 << CELL_BITS;
const CELL_BITS: u32 = 14;
const PC_BITS: u32 = 48;
/// An odd multiplier that spreads neighbouring program counters (2^64 / golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

struct Cell {
    mixed_key: AtomicU64,
    rule: AtomicU64,
}

static CELLS: [Cell; CELL_COUNT] = [const {
    Cell {
        mixed_key: AtomicU64::new(0),
        rule: AtomicU64::new(0),
    }
}; CELL_COUNT];

/// A program counter under an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of `pc` under `epoch`; `pc` must be below 2^48, which every user address is.
    #[inline]
    pub fn new(pc: u64, epoch: u32) -> Key {
        Key(pc | (u64::from(epoch) << PC_BITS))
    }

    #[inline]
    fn cell(self) -> Option<&'static Cell> {
        CELLS.get((self.0.wrapping_mul(SPREAD) >> (64 - CELL_BITS)) as usize)
    }
}

#[inline]
fn mix(rule: u64) -> u64 {
    rule.wrapping_mul(SPREAD)
}

/// The packed rule stored for `key`, or 0.
#[inline]
pub fn get(key: Key) -> u64 {
    let Some(cell) = key.cell() else { return 0 };
    // ORDERING: Relaxed, with `put`: the mixed key proves that the two words belong together,
    // and the rule is a plain value that points at nothing.
    let mixed_key = cell.mixed_key.load(Ordering::Relaxed);
    let rule = cell.rule.load(Ordering::Relaxed);
    if mixed_key ^ mix(rule) == key.0 {
        rule
    } else {
        0
    }
}

/// Stores the packed rule for `key` over whatever shares its cell.
pub fn put(key: Key, rule: u64) {
    let Some(cell) = key.cell() else { return };
    // ORDERING: Relaxed, with `get`.
    cell.rule.store(rule, Ordering::Relaxed);
    cell.mixed_key.store(key.0 ^ mix(rule), Ordering::Relaxed);
}

/// Empties every cell.
pub fn clear() {
    for cell in &CELLS {
        // ORDERING: Relaxed, with `get`: an all-zero cell matches only key 0 with rule 0.
        cell.mixed_key.store(0, Ordering::Relaxed);
        cell.rule.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, get, put};

    #[test]
    fn a_rule_is_found_under_its_own_epoch_only() {
        let pc = 0x7fff_1234_5678;
        put(Key::new(pc, 7), 0x22);
        assert_eq!(get(Key::new(pc, 7)), 0x22);
        assert_eq!(get(Key::new(pc, 8)), 0);
        assert_eq!(get(Key::new(pc + 1, 7)), 0);
    }

    #[test]
    fn a_torn_cell_matches_neither_key() {
        // Two keys of one cell whose keys and rules differ by the same bits: a plain
        // exclusive-or of key and rule would mix them up.
        let first = Key::new(0x40_0000, 1);
        let cell = first.cell().expect("in range");
        let second = (1_u64..)
            .map(|step| Key::new(0x40_0000 + step, 1))
            .find(|key| core::ptr::eq(key.cell().expect("in range"), cell))
            .expect("cells repeat");
        let rule = 0x1_0000_0021;
        let other_rule = rule ^ (first.0 ^ second.0);
        put(first, rule);
        cell.rule.store(other_rule, super::Ordering::Relaxed);
        assert_eq!(get(first), 0);
        assert_eq!(get(second), 0);
    }
}
