//! Which stacks a thread has seen before: a cache of paths through its call tree.
//!
//! Key type: [`Paths`]. A path is the sequence of return addresses from the outermost frame to
//! some frame, and has a number of its own: (number of the outer path, return address) leads to
//! it by one look into a table. A number is never used again, so an entry that was
//! overwritten takes the paths inwards of it along: whoever finds a number knows every frame.
//! So a stack whose outer part the memo vouches for is known again by looking at its new frames
//! only, and with it what it was saved as.

/// Entries of a thread's table; 32 bytes each.
const ENTRY_COUNT: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = 11;

#[derive(Clone, Copy, Debug)]
struct Entry {
    outer: u64,
    ip: u64,
    /// The path's number; 0 for none.
    number: u64,
    /// What the owner of the thread noted; 0 for nothing.
    note: u64,
}

const NO_ENTRY: Entry = Entry {
    outer: 0,
    ip: 0,
    number: 0,
    note: 0,
};

/// Names a stack in its thread's [`Paths`], until the entry is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    number: u64,
    entry: u32,
}

impl Path {
    /// No stack.
    pub const NONE: Path = Path {
        number: 0,
        entry: 0,
    };

    /// The number that paths inwards are found by.
    #[inline]
    pub fn number(self) -> u64 {
        self.number
    }
}

/// A thread's table. All zeros is a valid, empty one.
#[derive(Debug)]
pub struct Paths {
    epoch: u32,
    /// The number of the empty path.
    root: u64,
    /// The number given last.
    last: u64,
    entries: [Entry; ENTRY_COUNT],
}

impl Paths {
    /// Nothing known.
    pub const EMPTY: Paths = Paths {
        epoch: 0,
        root: 0,
        last: 0,
        entries: [NO_ENTRY; ENTRY_COUNT],
    };

    /// Forgets every path: none begins at the new root.
    pub fn clear(&mut self) {
        self.last += 1;
        self.root = self.last;
    }

    /// Forgets what was learnt under another epoch.
    #[inline]
    pub fn enter_epoch(&mut self, epoch: u32) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.clear();
        }
    }

    /// The number of the path without frames.
    #[inline]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The path one frame inwards; a new one if it is not known.
    #[inline(always)]
    pub fn step(&mut self, outer: u64, ip: u64) -> Path {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (outer.wrapping_mul(SPREAD) ^ ip).wrapping_mul(SPREAD);
        let index = (mixed >> (64 - ENTRY_BITS)) as usize;
        // Two entries are looked at; the one that was made earlier makes room.
        let mut chosen = index;
        let mut oldest = u64::MAX;
        for index in [index, index ^ 1] {
            let Some(entry) = self.entries.get(index) else {
                continue;
            };
            if entry.outer == outer && entry.ip == ip && entry.number != 0 {
                return Path {
                    number: entry.number,
                    entry: index as u32,
                };
            }
            if entry.number < oldest {
                (chosen, oldest) = (index, entry.number);
            }
        }
        self.last += 1;
        if let Some(entry) = self.entries.get_mut(chosen) {
            *entry = Entry {
                outer,
                ip,
                number: self.last,
                note: 0,
            };
        }
        Path {
            number: self.last,
            entry: chosen as u32,
        }
    }

    /// What was noted about a path; 0 for nothing, or nothing any more.
    #[inline]
    pub fn note(&self, path: Path) -> u64 {
        match self.entries.get(path.entry as usize) {
            Some(entry) if entry.number == path.number => entry.note,
            _ => 0,
        }
    }

    /// Notes something about a path, if it is still known.
    #[inline]
    pub fn set_note(&mut self, path: Path, note: u64) {
        if let Some(entry) = self.entries.get_mut(path.entry as usize)
            && entry.number == path.number
        {
            entry.note = note;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRY_COUNT, Path, Paths};

    fn walk(paths: &mut Paths, ips: &[u64]) -> Path {
        let mut path = Path::NONE;
        let mut outer = paths.root();
        for ip in ips {
            path = paths.step(outer, *ip);
            outer = path.number();
        }
        path
    }

    #[test]
    fn only_equal_sequences_have_the_same_path() {
        let mut paths = Box::new(Paths::EMPTY);
        let mut known: Vec<(Vec<u64>, Path)> = Vec::new();
        for seed in 0..4 * ENTRY_COUNT as u64 {
            let ips: Vec<u64> = (0..1 + seed % 4).map(|at| (seed >> (2 * at)) % 7).collect();
            let path = walk(&mut paths, &ips);
            for (others, other) in known.iter().rev().take(300) {
                assert!(*other != path || *others == ips, "{others:?} and {ips:?}");
            }
            known.push((ips, path));
        }
    }

    #[test]
    fn a_note_is_gone_with_its_path_and_with_those_outwards() {
        let mut paths = Box::new(Paths::EMPTY);
        let path = walk(&mut paths, &[1, 2, 3]);
        assert_eq!(paths.note(path), 0);
        paths.set_note(path, 77);
        assert_eq!(walk(&mut paths, &[1, 2, 3]), path);
        assert_eq!(paths.note(path), 77);
        let outer = walk(&mut paths, &[1, 2]);
        assert_eq!(paths.note(outer), 0);
        paths.clear();
        let again = walk(&mut paths, &[1, 2, 3]);
        assert!(again != path && paths.note(again) == 0);
        paths.set_note(path, 78);
        assert_eq!(paths.note(again), 0, "an old path took a note");
        // Overwrite the entry of the outermost frame only.
        let mut other = 1000;
        paths.set_note(again, 79);
        let outermost = walk(&mut paths, &[1]);
        while paths.step(paths.root(), other).entry != outermost.entry {
            other += 1;
        }
        assert_ne!(walk(&mut paths, &[1, 2, 3]), again);
    }

    #[test]
    fn an_empty_table_knows_no_path_of_zeros() {
        let mut paths = Box::new(Paths::EMPTY);
        assert_eq!(paths.note(Path::NONE), 0);
        let path = walk(&mut paths, &[0, 0]);
        assert!(path != Path::NONE);
        paths.set_note(path, 5);
        assert_eq!(paths.note(Path::NONE), 0);
    }
}
