//! Which stacks a thread has seen before: a cache of paths through its call tree.
//!
//! Key type: [`Paths`]. A path is the sequence of return addresses from the outermost frame to
//! some frame, and has a number of its own: (number of the outer path, the next few return addresses)
//! leads to it by one look into a table. Segments are counted from the outermost frame, so that a
//! stack is cut in the same way each time. A number is never used again, so an entry that was
//! overwritten takes the paths inwards of it along: whoever finds a number knows every frame.
//! So a stack whose outer part the memo vouches for is known again by looking at its new frames
//! only, and with it what it was saved as.

/// Entries of a thread's table; 64 bytes each.
const ENTRY_COUNT: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = 11;
/// Return addresses of a segment.
pub const SEGMENT_FRAMES: usize = 4;

/// Return addresses of a segment, innermost first; of an innermost segment that has fewer, they are
/// the last ones.
pub type Segment = [u64; SEGMENT_FRAMES];

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    ips: Segment,
    /// The outer path's number, and how many of `ips` count.
    key: u64,
    /// The path's number; 0 for none.
    number: u64,
    /// What the owner of the thread noted; 0 for nothing.
    note: u64,
}

const NO_ENTRY: Entry = Entry {
    ips: [0; SEGMENT_FRAMES],
    key: 0,
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

    /// The path one segment inwards, of so many frames (those that do not count are 0); a new one
    /// if it is not known.
    #[inline(always)]
    pub fn step(&mut self, outer: u64, ips: &Segment, frame_count: usize) -> Path {
        let key = outer * SEGMENT_FRAMES as u64 + (frame_count as u64 - 1);
        let index = index_of(key, ips);
        // Two entries are looked at; the one that was made earlier makes room.
        for index in [index, index ^ 1] {
            if let Some(entry) = self.entries.get(index)
                && entry.key == key
                && is_same(&entry.ips, ips)
                && entry.number != 0
            {
                return Path {
                    number: entry.number,
                    entry: index as u32,
                };
            }
        }
        self.add(index, key, ips)
    }

    #[inline(never)]
    fn add(&mut self, index: usize, key: u64, ips: &Segment) -> Path {
        let number_at = |index: usize| self.entries.get(index).map_or(0, |entry| entry.number);
        let chosen = match number_at(index ^ 1) < number_at(index) {
            true => index ^ 1,
            false => index,
        };
        self.last += 1;
        if let Some(entry) = self.entries.get_mut(chosen) {
            *entry = Entry {
                ips: *ips,
                key,
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
    #[inline(always)]
    pub fn note(&self, path: Path) -> u64 {
        match self.entries.get(path.entry as usize) {
            Some(entry) if entry.number == path.number && path.number != 0 => entry.note,
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

/// Whether two segments are equal, word by word: the words of one were written a moment ago each for
/// itself, and a wider load would wait until they are in the cache.
#[inline(always)]
fn is_same(known: &Segment, ips: &Segment) -> bool {
    let ([a, b, c, d], [e, f, g, h]) = (known, ips);
    (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
}

/// Where a segment is looked for first.
#[inline(always)]
fn index_of(key: u64, ips: &Segment) -> usize {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    const OTHER_SPREAD: u64 = 0xd6e8_feb8_6659_fd93;
    let [a, b, c, d] = *ips;
    let inner = (a ^ b.rotate_left(23)).wrapping_mul(SPREAD);
    let outer = (c ^ d.rotate_left(23) ^ key.rotate_left(44)).wrapping_mul(OTHER_SPREAD);
    ((inner ^ outer) >> (64 - ENTRY_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::{ENTRY_COUNT, Path, Paths, SEGMENT_FRAMES};

    /// The path of return addresses, the outermost first.
    fn walk(paths: &mut Paths, ips: &[u64]) -> Path {
        let mut path = Path::NONE;
        let mut outer = paths.root();
        for part in ips.chunks(SEGMENT_FRAMES) {
            let mut segment = [0; SEGMENT_FRAMES];
            for (place, ip) in segment.iter_mut().rev().zip(part) {
                *place = *ip;
            }
            path = paths.step(outer, &segment, part.len());
            outer = path.number();
        }
        path
    }

    #[test]
    fn only_equal_sequences_have_the_same_path() {
        let mut paths = Box::new(Paths::EMPTY);
        let mut known: Vec<(Vec<u64>, Path)> = Vec::new();
        for seed in 0..4 * ENTRY_COUNT as u64 {
            let ips: Vec<u64> = (0..1 + seed % 9).map(|at| (seed >> (2 * at)) % 3).collect();
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
        let ips = [1, 2, 3, 4, 5, 6];
        let path = walk(&mut paths, &ips);
        assert_eq!(paths.note(path), 0);
        paths.set_note(path, 77);
        assert_eq!(walk(&mut paths, &ips), path);
        assert_eq!(paths.note(path), 77);
        let outer = walk(&mut paths, &[1, 2]);
        assert_eq!(paths.note(outer), 0);
        paths.clear();
        let again = walk(&mut paths, &ips);
        assert!(again != path && paths.note(again) == 0);
        paths.set_note(path, 78);
        assert_eq!(paths.note(again), 0, "an old path took a note");
        // Overwrite the entry of the outermost segment only.
        paths.set_note(again, 79);
        let outermost = walk(&mut paths, &ips[..SEGMENT_FRAMES]);
        let mut other = 1000;
        while walk(&mut paths, &[other]).entry != outermost.entry {
            other += 1;
        }
        assert_ne!(walk(&mut paths, &ips), again);
    }

    #[test]
    fn an_empty_table_knows_no_path_of_zeros() {
        let mut paths = Box::new(Paths::EMPTY);
        paths.set_note(Path::NONE, 4);
        assert_eq!(paths.note(Path::NONE), 0);
        let path = walk(&mut paths, &[0, 0]);
        assert!(path != Path::NONE);
        paths.set_note(path, 5);
        paths.set_note(Path::NONE, 6);
        assert_eq!(paths.note(Path::NONE), 0);
    }
}
