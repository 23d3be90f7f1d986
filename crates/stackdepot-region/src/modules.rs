//! The module table: which file lay where in the program's memory, and when.
//!
//! Key types: [`ModuleTable`], the writer's view of the section: fixed entries, each its own
//! seqlock, claimed by compare-exchange, so that any thread may add and mark at any time without a
//! lock; and [`ModuleRecord`], what a reader makes of a copied entry. A module that is loaded again
//! at the same place takes its old entry up again. When all entries are taken, the module that was
//! unloaded longest ago loses its own (counted by the caller: [`Added::Overwrote`]).

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::format::word_at;

/// Bytes of an entry.
pub const MODULE_ENTRY_BYTES: usize = 384;
/// A longer path keeps its end.
pub const MODULE_PATH_BYTES: usize = PATH_WORDS * 8;
/// A build-id has at most this many bytes here (SHA-1); a longer one is cut.
pub const BUILD_ID_BYTES: usize = 20;

const PATH_WORDS: usize = 36;
const BUILD_ID_WORDS: usize = 3;
/// An entry that changes under the search is looked at again this often.
const LOOK_LIMIT: usize = 4;

/// A module as the recorder found it.
#[derive(Clone, Copy, Debug)]
pub struct Module<'m> {
    /// First address of its mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// What is added to addresses of the file (its program headers') to get those in memory.
    pub bias: u64,
    /// The GNU build-id; empty if there is none.
    pub build_id: &'m [u8],
    /// The path of its file.
    pub path: &'m [u8],
}

/// What became of an `add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was there, loaded.
    Known,
    /// It was there, unloaded: loaded again.
    Reloaded,
    /// It has a new entry.
    New,
    /// It has the entry of a module that was unloaded long ago.
    Overwrote,
    /// Every entry holds a loaded module.
    Lost,
}

#[repr(C)]
#[derive(Debug)]
struct ModuleEntry {
    /// 0 never used; odd while a thread writes.
    sequence: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    bias: AtomicU64,
    loaded_tsc: AtomicU64,
    unloaded_tsc: AtomicU64,
    /// Bytes of the build-id, then (shifted by 8) of the path, then (by 24) whether it is cut.
    lengths: AtomicU64,
    build_id: [AtomicU64; BUILD_ID_WORDS],
    path: [AtomicU64; PATH_WORDS],
    unused: [AtomicU64; 2],
}

const _: () = assert!(size_of::<ModuleEntry>() == MODULE_ENTRY_BYTES);

/// The writer's view of the modules section.
#[derive(Debug)]
pub struct ModuleTable<'r> {
    entries: &'r [ModuleEntry],
}

/// A module with its words as an entry stores them, made before the entry is claimed.
struct Packed {
    range: [u64; 3],
    lengths: u64,
    build_id: [u64; BUILD_ID_WORDS],
    path: [u64; PATH_WORDS],
}

impl<'r> ModuleTable<'r> {
    /// Takes a section of zeros, or one that a `ModuleTable` wrote.
    ///
    /// # Safety
    /// `base` must be aligned to 8, valid for `bytes` for all of `'r`, and only ever changed
    /// through atomics.
    #[allow(unsafe_code)] // the section is mapped memory
    pub unsafe fn attach(base: core::ptr::NonNull<u8>, bytes: usize) -> ModuleTable<'r> {
        let count = bytes / MODULE_ENTRY_BYTES;
        // SAFETY: the caller's promise; entries are atomics, for which all bytes are valid.
        let entries = unsafe { core::slice::from_raw_parts(base.cast().as_ptr(), count) };
        ModuleTable { entries }
    }

    /// How many modules there is room for.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Notes that a module is loaded. `now_tsc` is the time stamp counter.
    ///
    /// Two threads that add the same module at once may both get an entry: harmless, and both are
    /// marked when it is unloaded.
    pub fn add(&self, module: &Module<'_>, now_tsc: u64) -> Added {
        let packed = Packed::new(module);
        for entry in self.entries {
            match entry.match_with(&packed) {
                Match::Loaded => return Added::Known,
                Match::Unloaded(sequence) if entry.reload(sequence, now_tsc) => {
                    return Added::Reloaded;
                }
                _ => {}
            }
        }
        for entry in self.entries {
            if entry.sequence.load(Ordering::Relaxed) == 0 && entry.fill(0, &packed, now_tsc) {
                return Added::New;
            }
        }
        self.overwrite_oldest(&packed, now_tsc)
    }

    /// Notes that whatever lay in `start..end` is unloaded.
    pub fn mark_unloaded(&self, start: u64, end: u64, now_tsc: u64) {
        for entry in self.entries {
            for _ in 0..LOOK_LIMIT {
                let Some(look) = entry.look() else { break };
                if look.unloaded_tsc != 0 || look.start >= end || look.end <= start {
                    break;
                }
                if entry.unload(look.sequence, now_tsc) {
                    break;
                }
            }
        }
    }

    /// Notes that every loaded module for which `is_loaded(start, end)` is false went away.
    ///
    /// For the recorder that walks the loader's list after an unload it did not see itself.
    pub fn mark_unloaded_unless(&self, now_tsc: u64, mut is_loaded: impl FnMut(u64, u64) -> bool) {
        for entry in self.entries {
            if let Some(look) = entry.look()
                && look.unloaded_tsc == 0
                && !is_loaded(look.start, look.end)
            {
                // A failure means that another thread changes this very entry: it knows better.
                entry.unload(look.sequence, now_tsc);
            }
        }
    }

    fn overwrite_oldest(&self, packed: &Packed, now_tsc: u64) -> Added {
        for _ in 0..LOOK_LIMIT {
            let oldest = self
                .entries
                .iter()
                .filter_map(|entry| entry.look().map(|look| (look, entry)))
                .filter(|(look, _)| look.unloaded_tsc != 0)
                .min_by_key(|(look, _)| look.unloaded_tsc);
            let Some((look, entry)) = oldest else {
                return Added::Lost;
            };
            if entry.fill(look.sequence, packed, now_tsc) {
                return Added::Overwrote;
            }
        }
        Added::Lost
    }
}

/// The words of an entry that decide what may be done with it.
struct Look {
    sequence: u64,
    start: u64,
    end: u64,
    unloaded_tsc: u64,
}

enum Match {
    Different,
    Loaded,
    Unloaded(u64),
}

impl ModuleEntry {
    /// A used entry that nobody writes right now.
    fn look(&self) -> Option<Look> {
        // ORDERING: Acquire, partner of the Release in `release`: the words of this sequence.
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence == 0 || sequence & 1 == 1 {
            return None;
        }
        let look = Look {
            sequence,
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            unloaded_tsc: self.unloaded_tsc.load(Ordering::Relaxed),
        };
        self.is_still(sequence).then_some(look)
    }

    fn match_with(&self, packed: &Packed) -> Match {
        let Some(look) = self.look() else {
            return Match::Different;
        };
        let is_equal = [look.start, look.end, self.bias.load(Ordering::Relaxed)] == packed.range
            && self.lengths.load(Ordering::Relaxed) == packed.lengths
            && words_equal(&self.build_id, &packed.build_id)
            && words_equal(&self.path, &packed.path);
        if !is_equal || !self.is_still(look.sequence) {
            return Match::Different;
        }
        match look.unloaded_tsc {
            0 => Match::Loaded,
            _ => Match::Unloaded(look.sequence),
        }
    }

    fn is_still(&self, sequence: u64) -> bool {
        // ORDERING: Acquire fence: the loads before it are not later than the look at the sequence;
        // partner: the Release fence in `claim`.
        fence(Ordering::Acquire);
        self.sequence.load(Ordering::Relaxed) == sequence
    }

    fn reload(&self, sequence: u64, now_tsc: u64) -> bool {
        // The first load stays: events of the earlier time belong to this module too.
        self.change(sequence, || {
            self.unloaded_tsc.store(0, Ordering::Relaxed);
            if self.loaded_tsc.load(Ordering::Relaxed) == 0 {
                self.loaded_tsc.store(now_tsc, Ordering::Relaxed);
            }
        })
    }

    fn unload(&self, sequence: u64, now_tsc: u64) -> bool {
        self.change(sequence, || {
            self.unloaded_tsc.store(now_tsc.max(1), Ordering::Relaxed);
        })
    }

    fn fill(&self, sequence: u64, packed: &Packed, now_tsc: u64) -> bool {
        self.change(sequence, || {
            let [start, end, bias] = packed.range;
            self.start.store(start, Ordering::Relaxed);
            self.end.store(end, Ordering::Relaxed);
            self.bias.store(bias, Ordering::Relaxed);
            self.loaded_tsc.store(now_tsc.max(1), Ordering::Relaxed);
            self.unloaded_tsc.store(0, Ordering::Relaxed);
            self.lengths.store(packed.lengths, Ordering::Relaxed);
            store_words(&self.build_id, &packed.build_id);
            store_words(&self.path, &packed.path);
        })
    }

    /// Claims the entry at `sequence`, changes it, hands it back; false when it had changed.
    fn change(&self, sequence: u64, change: impl FnOnce()) -> bool {
        // ORDERING: Acquire, partner of the Release below: what the last writer stored comes first.
        let claimed = self.sequence.compare_exchange(
            sequence,
            sequence + 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            return false;
        }
        // ORDERING: Release fence: who sees a word of the change sees the odd sequence (`is_still`).
        fence(Ordering::Release);
        change();
        // ORDERING: Release: an even sequence has all its words; partner: Acquire in `look`.
        self.sequence.store(sequence + 2, Ordering::Release);
        true
    }
}

fn words_equal(words: &[AtomicU64], expected: &[u64]) -> bool {
    words
        .iter()
        .zip(expected)
        .all(|(word, expected)| word.load(Ordering::Relaxed) == *expected)
}

fn store_words(words: &[AtomicU64], values: &[u64]) {
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

impl Packed {
    fn new(module: &Module<'_>) -> Packed {
        let is_cut = module.path.len() > MODULE_PATH_BYTES;
        let kept = module.path.len().min(MODULE_PATH_BYTES);
        let path = module.path.get(module.path.len() - kept..).unwrap_or(&[]);
        let id_length = module.build_id.len().min(BUILD_ID_BYTES);
        let build_id = module.build_id.get(..id_length).unwrap_or(&[]);
        Packed {
            range: [module.start, module.end, module.bias],
            lengths: id_length as u64 | (kept as u64) << 8 | u64::from(is_cut) << 24,
            build_id: pack_bytes(build_id),
            path: pack_bytes(path),
        }
    }
}

fn pack_bytes<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    let mut words = [0u64; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = chunk
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

/// A module as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRecord {
    /// First address of its mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// `address - bias` is the address in the file's own numbering.
    pub bias: u64,
    /// Time stamp counter when it was first loaded.
    pub loaded_tsc: u64,
    /// Time stamp counter when it was unloaded; `None`: it is loaded.
    pub unloaded_tsc: Option<u64>,
    /// The GNU build-id; empty if there is none.
    pub build_id: Vec<u8>,
    /// Its path, or the end of it.
    pub path: Vec<u8>,
    /// Whether only the end of the path was kept.
    pub path_is_cut: bool,
}

impl ModuleRecord {
    /// From a copied entry; `None` when it is empty, was being written, or makes no sense.
    pub fn parse(entry: &[u8]) -> Option<ModuleRecord> {
        let word = |index: usize| word_at(entry, index * 8);
        let sequence = word(0)?;
        let lengths = word(6)?;
        let (start, end) = (word(1)?, word(2)?);
        if sequence == 0 || sequence & 1 == 1 || start >= end {
            return None;
        }
        let id_start = 7 * 8;
        let path_start = id_start + BUILD_ID_WORDS * 8;
        let id_length = (lengths & 0xff) as usize;
        let path_length = (lengths >> 8 & 0xffff) as usize;
        if id_length > BUILD_ID_BYTES || path_length > MODULE_PATH_BYTES {
            return None;
        }
        Some(ModuleRecord {
            start,
            end,
            bias: word(3)?,
            loaded_tsc: word(4)?,
            unloaded_tsc: Some(word(5)?).filter(|tsc| *tsc != 0),
            build_id: entry.get(id_start..id_start + id_length)?.to_vec(),
            path: entry.get(path_start..path_start + path_length)?.to_vec(),
            path_is_cut: lengths >> 24 & 1 == 1,
        })
    }
}

#[cfg(test)]
#[allow(unsafe_code)] // views a vector as a section
mod tests;
