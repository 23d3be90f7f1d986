//! Making a node and making it the only one of its kind (`protocols.md` D).
//!
//! Key type: [`Publication`]. The node is written into a slot nobody else sees, gets a
//! tentative index entry, then one total fence, then its maker looks at both buckets: an equal
//! committed node is adopted, an equal tentative entry is killed, never helped. Only the maker
//! commits its entry; if it was killed meanwhile it starts the round again.
//!
//! Why unique: of two equal publishers one fence comes first; the other's scan, after its own
//! fence, sees that one's entry. It kills it (then its maker cannot commit) or adopts it.
//! After [`ROUNDS`] lost rounds the answer is `Contended`, and the node is given back.
//!
//! INVARIANT 5: at most one committed entry leads to a LIVE node of a given parent and run.

use crate::error::{HoldError, SaveError};
use crate::frame::{Run, WindowTable, Windows, high, low, pack};
use crate::index::{Entry, Pair, commit, kill, publish};
use crate::layout::{Region, Slot};
use crate::slot::NodeData;
use crate::state::State;
use crate::stats::count;
use crate::sync::{AtomicU64, Ordering, fence};

/// Rounds of publish and scan.
const ROUNDS: u32 = if cfg!(loom) { 2 } else { 4 };
/// Looks at one cell that keeps changing.
const LOOKS: u32 = if cfg!(loom) { 2 } else { 4 };
/// Attempts at finding a free cell.
const CELL_ATTEMPTS: u32 = if cfg!(loom) { 2 } else { 16 };
/// Reads of an earlier equal tentative entry before it is killed.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };

/// What a new node will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewNode<'f> {
    /// The slot of the parent, which the caller holds; 0 for a root node.
    pub parent: u32,
    /// The prefix hash up to here.
    pub hash: u64,
    pub run: &'f Run,
    pub length: usize,
    /// Whether the stack was cut; counts in root nodes only.
    pub is_cut: bool,
}

/// A node with its two buckets, from birth to commit.
struct Publication<'p, 'r> {
    region: &'p Region<'r>,
    node: &'p NewNode<'p>,
    pair: Pair<'r>,
    entry: Entry,
}

/// What a look at the other cells came to.
enum Scan {
    Clear,
    Adopted(u32),
    Refused(SaveError),
}

/// What is behind a cell with the same fingerprint.
enum Candidate {
    Equal(u32),
    Other,
    Changed,
}

impl<'r> Region<'r> {
    /// Finds or makes the node; answers its slot with one reference for the caller, and takes
    /// the caller's reference on the parent in any case.
    #[inline(never)]
    pub fn insert_node(&self, node: &NewNode<'_>) -> Result<u32, SaveError> {
        let number = match self.make_node(node) {
            Ok(number) => number,
            Err(error) => {
                self.release(node.parent);
                return Err(error);
            }
        };
        let answer = match self.pair(node.hash as u32) {
            Some(pair) => Publication {
                region: self,
                node,
                pair,
                entry: Entry::new(node.hash, number),
            }
            .run(),
            None => Err(SaveError::Crowded),
        };
        if answer != Ok(number) {
            self.undo(number);
        }
        answer
    }

    /// Claims a slot (two for a wide node), fills it and gives birth: one reference, the maker's.
    fn make_node(&self, node: &NewNode<'_>) -> Result<u32, SaveError> {
        let windows = WindowTable::of(self.header).windows_of(node.run);
        let (windows, wide_flag) = match windows {
            Some(windows) => (windows, 0),
            None => (Windows(self.make_ext(node.run)?), State::WIDE),
        };
        let claimed = self.claim().and_then(|claimed| {
            let slot = self.slot(claimed.number).ok_or(SaveError::Full)?;
            Ok((claimed, slot))
        });
        let (claimed, slot) = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                if wide_flag != 0 {
                    self.free_ext(windows.0);
                }
                return Err(error);
            }
        };
        slot.write_node(&NodeData {
            parent: node.parent,
            hash: node.hash as u32,
            windows,
            lows: pack(node.run, low),
        });
        slot.bear(node.length, wide_flag | node.cut_flag() | claimed.chance);
        Ok(claimed.number)
    }

    #[cold]
    #[inline(never)]
    fn make_ext(&self, run: &Run) -> Result<u32, SaveError> {
        let number = self.claim()?.number;
        let slot = self.slot(number).ok_or(SaveError::Full)?;
        slot.write_ext(&pack(run, high));
        slot.bear_ext();
        count(&self.header.counters.wide_nodes);
        Ok(number)
    }
}

impl NewNode<'_> {
    fn cut_flag(&self) -> u64 {
        if self.parent == 0 && self.is_cut {
            State::CUT
        } else {
            0
        }
    }
}

impl<'r> Publication<'_, 'r> {
    fn run(&self) -> Result<u32, SaveError> {
        for _ in 0..ROUNDS {
            let cell = self.take_cell()?;
            // ORDERING: fence(SeqCst), partner: the same fence of another publisher. Of two
            // equal publications the later fence's scan sees the earlier one's entry; if both
            // scans could miss, both would commit.
            fence(Ordering::SeqCst);
            match self.scan(cell) {
                Scan::Clear if commit(cell, self.entry) => {
                    count(&self.region.header.counters.new_nodes);
                    return Ok(self.entry.slot());
                }
                Scan::Clear => {}
                Scan::Adopted(number) => {
                    kill(cell, self.entry.tentative());
                    return Ok(number);
                }
                Scan::Refused(error) => {
                    kill(cell, self.entry.tentative());
                    return Err(error);
                }
            }
        }
        Err(SaveError::Contended)
    }

    /// Puts the tentative entry into a free cell, evicting one of the sixteen if need be.
    fn take_cell(&self) -> Result<&'r AtomicU64, SaveError> {
        for _ in 0..CELL_ATTEMPTS {
            match self.pair.free_cell(self.node.hash) {
                Some(cell) if publish(cell, self.entry) => return Ok(cell),
                Some(_) => {}
                None if self.region.evict_among(self.pair.cells()) => {}
                None => return Err(SaveError::Crowded),
            }
        }
        Err(SaveError::Contended)
    }

    /// Looks for others that have the fingerprint; mostly there is only mine.
    fn scan(&self, mine: &AtomicU64) -> Scan {
        // If mine was killed it is missed here, or it holds another's entry, and its commit fails.
        let fitting = self.pair.fitting(self.node.hash);
        let is_mine = |cell: &AtomicU64| core::ptr::eq(cell, mine);
        if fitting.is_power_of_two()
            && self
                .pair
                .cell(fitting.trailing_zeros())
                .is_some_and(is_mine)
        {
            return Scan::Clear;
        }
        self.scan_others(mine, fitting)
    }

    #[cold]
    #[inline(never)]
    fn scan_others(&self, mine: &AtomicU64, fitting: u32) -> Scan {
        let mut is_before_mine = true;
        let fits = |(bit, _): &(usize, _)| fitting >> *bit & 1 != 0;
        for (_, cell) in self.pair.cells().enumerate().filter(fits) {
            if core::ptr::eq(cell, mine) {
                is_before_mine = false;
                continue;
            }
            match self.look_at(cell, is_before_mine) {
                Scan::Clear => {}
                decided => return decided,
            }
        }
        Scan::Clear
    }

    /// Deals with one other cell. A cell that keeps changing ends in `Contended`, never in "clear".
    fn look_at(&self, cell: &AtomicU64, is_before_mine: bool) -> Scan {
        let mut spins = if is_before_mine { SPINS } else { 0 };
        for _ in 0..LOOKS {
            // ORDERING: Relaxed: of an entry that must be seen, the fence before shows the birth,
            // too; of any other, its maker's scan finds mine.
            let entry = Entry(cell.load(Ordering::Relaxed));
            if !entry.fits(self.node.hash) {
                return Scan::Clear;
            }
            let generation = match self.compare(cell, entry) {
                Candidate::Other => return Scan::Clear,
                Candidate::Changed => continue,
                Candidate::Equal(generation) => generation,
            };
            if entry.is_tentative() {
                if await_change(cell, entry, &mut spins) || !kill(cell, entry) {
                    continue;
                }
                return Scan::Clear;
            }
            return match self.region.acquire_node(entry.slot(), generation) {
                Ok(_) => Scan::Adopted(entry.slot()),
                // It is dying, and that is final: a later equal entry's fence comes after mine.
                Err(HoldError::Saturated) => Scan::Refused(SaveError::Saturated),
                Err(_) => Scan::Clear,
            };
        }
        Scan::Refused(SaveError::Contended)
    }

    /// Compares the node behind an entry with mine; whatever was read counts only if neither
    /// the life nor the cell changed meanwhile.
    fn compare(&self, cell: &AtomicU64, entry: Entry) -> Candidate {
        let Some(slot) = self.region.slot(entry.slot()) else {
            return Candidate::Other;
        };
        let generation = slot.generation_now();
        let is_equal = self.is_equal(slot);
        let is_stable = slot.is_still(generation) && cell.load(Ordering::Relaxed) == entry.0;
        match (is_stable, is_equal) {
            (false, _) => Candidate::Changed,
            (true, true) => Candidate::Equal(generation),
            (true, false) => Candidate::Other,
        }
    }

    fn is_equal(&self, slot: &Slot) -> bool {
        let state = slot.state_now();
        state.0 & State::CUT == self.node.cut_flag()
            && self.region.compare_hop(
                slot,
                state,
                self.node.run,
                self.node.length,
                self.region.first_windows(),
            ) == Some(self.node.parent)
    }
}

/// Gives the owner of an earlier entry some time to decide; answers whether the cell changed.
fn await_change(cell: &AtomicU64, entry: Entry, spins: &mut u32) -> bool {
    while *spins > 0 {
        *spins -= 1;
        core::hint::spin_loop();
        // ORDERING: Relaxed: only whether it changed; the next look acquires.
        if cell.load(Ordering::Relaxed) != entry.0 {
            return true;
        }
    }
    false
}

#[cfg(all(test, loom))]
mod models;

#[cfg(all(test, not(loom)))]
mod tests;
