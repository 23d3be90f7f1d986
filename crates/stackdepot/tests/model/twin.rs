//! The naive twin of a depot, driven by choices that a seed or a fuzzer makes.
//!
//! Key type: [`Twin`]: a depot, a map from weak handles to vectors of frames, and whoever chooses
//! the operations ([`Choices`]). Whatever the depot answers must agree with the map; what the depot
//! may choose (what it evicts) is checked against the holds. Panics where they differ.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use stackdepot::{
    Ancestor, Config, Depot, Handle, Hold, HoldError, SaveError, Stats, Tick, WeakHandle,
};

/// A map whose order is the same in every run: the operations depend on it.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Who decides what comes next: every run with the same choices is the same.
#[allow(dead_code)] // the tests give a seed, the fuzzer bytes
pub enum Choices<'c> {
    /// SplitMix64.
    Seeded(u64),
    /// Bytes, one for each small choice; zeros when they are used up.
    Given(&'c [u8]),
}

impl Choices<'_> {
    /// Choices without end.
    pub fn seeded(seed: u64) -> Choices<'static> {
        Choices::Seeded(seed)
    }

    fn is_over(&self) -> bool {
        matches!(self, Choices::Given([]))
    }

    fn next(&mut self) -> u64 {
        match self {
            Choices::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = *state;
                word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^ word >> 31
            }
            Choices::Given(_) => (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte())),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        match self {
            Choices::Seeded(_) => (self.next() % bound as u64) as usize,
            // Where there is nothing to choose no byte is wasted.
            Choices::Given(_) if bound == 1 => 0,
            Choices::Given(_) if bound <= 256 => usize::from(self.byte()) % bound,
            Choices::Given(_) => {
                usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % bound
            }
        }
    }

    fn byte(&mut self) -> u8 {
        let Choices::Given(bytes) = self else {
            return 0;
        };
        let Some((first, rest)) = bytes.split_first() else {
            return 0;
        };
        *bytes = rest;
        *first
    }
}

/// A stack as the twin keeps it: the frames that a fetch must answer.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kept {
    frames: Vec<u64>,
    is_cut: bool,
}

struct Record {
    kept: Kept,
    references: u64,
    lease: Option<Tick>,
    payload: [u64; 4],
}

/// A depot and what is known about it.
pub struct Twin<'r> {
    depot: Depot<'r>,
    config: Config,
    choices: Choices<'r>,
    records: Map<WeakHandle, Record>,
    newest: Map<Kept, WeakHandle>,
    held: Vec<(WeakHandle, Handle)>,
    added: [u64; 4],
    answered_full: u64,
    cut_saves: u64,
    step_count: u64,
    trail: [Option<Ancestor>; 103],
    last: Vec<u64>,
}

impl<'r> Twin<'r> {
    /// The twin of a new depot of that configuration.
    pub fn new(depot: Depot<'r>, config: Config, choices: Choices<'r>) -> Twin<'r> {
        Twin {
            depot,
            config,
            choices,
            records: Map::default(),
            newest: Map::default(),
            held: Vec::new(),
            added: [0; 4],
            answered_full: 0,
            cut_saves: 0,
            step_count: 0,
            trail: [None; 103],
            last: Vec::new(),
        }
    }

    /// One operation; about one in `hold_one_in` of each kind that is no save. More `variety` makes
    /// more distinct stacks.
    pub fn step(&mut self, variety: usize, hold_one_in: usize) {
        match self.choices.below(hold_one_in) {
            0 => self.hold_again(),
            1 => self.add_payload(),
            2 | 3 => self.put(),
            4 => self.depot.advance(self.step_count.is_multiple_of(3).into()),
            _ => self.save(variety),
        }
        self.step_count += 1;
    }

    /// Whether given choices are used up.
    #[allow(dead_code)] // asked where choices are given
    pub fn is_over(&self) -> bool {
        self.choices.is_over()
    }

    /// How often the depot said `Full`.
    pub fn answered_full(&self) -> u64 {
        self.answered_full
    }

    /// The depot's counters.
    pub fn stats(&self) -> Stats {
        self.depot.stats()
    }

    fn is_held(&self, record: &Record) -> bool {
        let now = self.depot.now();
        record.references > 0
            || record
                .lease
                .is_some_and(|from| !from.is_over(now, self.config.lease_ticks))
    }

    /// Stacks that share outer frames, in a few windows; sometimes words that are no addresses.
    fn random_stack(&mut self, variety: usize) -> Vec<u64> {
        let depth = match self.choices.below(10) {
            0 => 10,
            1 => 20,
            2 => 1 + self.choices.below(3),
            3 => 1 + self.choices.below(self.config.max_frames as usize * 2),
            _ => 1 + self.choices.below(40),
        };
        if self.choices.below(12) == 0 {
            let seed = self.choices.below(variety) as u64;
            let mut words = Choices::seeded(seed);
            return (0..depth.min(24))
                .map(|index| {
                    if index % 7 == 3 {
                        [0, u64::MAX][index & 1]
                    } else {
                        words.next()
                    }
                })
                .collect();
        }
        let mut frames = Vec::new();
        let mut node = 0u64;
        for level in 0..depth {
            let branches = if level % 5 == 4 { variety.min(4) } else { 1 };
            node = node
                .wrapping_mul(31)
                .wrapping_add(self.choices.below(branches) as u64 + level as u64);
            let window = if node.is_multiple_of(3) {
                0x5555
            } else {
                0x7fff
            };
            frames.push(window << 32 | (node.wrapping_mul(0x9e37_79b1) & 0xffff_fffc));
        }
        frames.reverse();
        frames
    }

    fn kept_of(&self, frames: &[u64]) -> Kept {
        let most = self.config.max_frames as usize;
        Kept {
            frames: frames[..frames.len().min(most)].to_vec(),
            is_cut: frames.len() > most,
        }
    }

    fn fetch(&self, weak: WeakHandle) -> Option<Kept> {
        let mut frames = [0xdead; 2048];
        let fetched = self.depot.fetch(weak, &mut frames).ok()?;
        Some(Kept {
            frames: frames[..fetched.frame_count].to_vec(),
            is_cut: fetched.is_cut,
        })
    }

    /// Nodes that held stacks need at least, wide runs counted as two.
    fn slots_needed(&self, more: &Kept) -> usize {
        let mut nodes: HashSet<(bool, Vec<u64>)> = HashSet::new();
        let held = self
            .records
            .values()
            .filter(|record| self.is_held(record))
            .map(|record| &record.kept);
        for kept in held.chain([more]) {
            let mut end = kept.frames.len();
            loop {
                let tail = kept.frames[kept.frames.len() - end..].to_vec();
                nodes.insert((kept.is_cut, tail));
                if end <= 10 {
                    break;
                }
                end = (end - 1) / 10 * 10;
            }
        }
        let is_wide = |frames: &Vec<u64>| {
            let run = if frames.len().is_multiple_of(10) {
                10
            } else {
                frames.len() % 10
            };
            let highs: HashSet<u64> = frames[..run].iter().map(|frame| frame >> 32).collect();
            highs
                .iter()
                .filter(|high| ![0x5555, 0x7fff].contains(high))
                .count()
                > 0
        };
        nodes
            .iter()
            .map(|(_, frames)| 1 + usize::from(is_wide(frames)))
            .sum()
    }

    fn save(&mut self, variety: usize) {
        let frames = self.random_stack(variety);
        let kept = self.kept_of(&frames);
        self.cut_saves += u64::from(kept.is_cut);
        let stored = self
            .newest
            .get(&kept)
            .copied()
            .filter(|weak| self.fetch(*weak).is_some());
        let (mut handle, mut from) = (None, None);
        let mode = self.choices.below(4);
        let answer = match (mode, self.config.references, self.config.lease_ticks > 0) {
            (1, true, _) => self.depot.save_acquire(&frames).map(|held| {
                handle = Some(held.handle);
                held.weak
            }),
            (2, _, true) => self.depot.save_lease(&frames).map(|leased| {
                from = Some(leased.from);
                leased.weak
            }),
            (3, true, true) => self.depot.save_acquire_lease(&frames).map(|leased| {
                (handle, from) = (Some(leased.handle), Some(leased.from));
                leased.weak
            }),
            (0, _, _) => self.save_onto(&frames),
            _ => self.depot.save(&frames),
        };
        match answer {
            Ok(weak) => self.note_saved(weak, kept, stored, handle, from),
            Err(error) => {
                assert!(
                    matches!(error, SaveError::Full | SaveError::Crowded),
                    "{error:?}"
                );
                assert_eq!(stored, None, "a stored stack was refused");
                let stats = self.depot.stats();
                if error == SaveError::Full {
                    self.answered_full += 1;
                    let needed = self.slots_needed(&kept) as u64;
                    assert!(
                        needed + stats.worn_slots > stats.slot_count,
                        "full with {needed} of {stats:?}"
                    );
                }
            }
        }
    }

    /// As an unwinder would: from the deepest token above which the last stack is unchanged.
    fn save_onto(&mut self, frames: &[u64]) -> Result<WeakHandle, SaveError> {
        let same = self
            .last
            .iter()
            .rev()
            .zip(frames.iter().rev())
            .take_while(|(old, new)| old == new)
            .count();
        let ancestor = (same / 10)
            .checked_sub(1)
            .and_then(|level| self.trail[level]);
        if let Some(ancestor) = ancestor {
            assert!(ancestor.depth() <= same);
        }
        self.last = frames.to_vec();
        self.depot
            .save_onto(ancestor.as_ref(), frames, Hold::None, &mut self.trail)
            .map(|leased| leased.weak)
    }

    fn note_saved(
        &mut self,
        weak: WeakHandle,
        kept: Kept,
        stored: Option<WeakHandle>,
        handle: Option<Handle>,
        from: Option<Tick>,
    ) {
        if let Some(stored) = stored {
            assert_eq!(stored, weak, "a stored stack got another handle");
        }
        assert!(
            self.fetch(weak).as_ref() == Some(&kept),
            "a stack just saved reads otherwise"
        );
        let record = self.records.entry(weak).or_insert_with(|| Record {
            kept: kept.clone(),
            references: 0,
            lease: None,
            payload: [0; 4],
        });
        assert!(record.kept == kept, "a weak handle was given to two stacks");
        self.newest.insert(kept, weak);
        if let Some(from) = from {
            assert_eq!(from, self.depot.now());
            record.lease = Some(from);
        }
        if let Some(handle) = handle {
            record.references += 1;
            assert_eq!(self.depot.weak_of(handle), Some(weak));
            self.held.push((weak, handle));
        }
    }

    fn put(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (weak, handle) = self.held.swap_remove(self.choices.below(self.held.len()));
        self.records.get_mut(&weak).unwrap().references -= 1;
        self.depot.put(handle);
    }

    fn any_known(&mut self) -> Option<WeakHandle> {
        let skip = self.choices.below(self.records.len().max(1)).min(64);
        self.records.keys().nth(skip).copied()
    }

    fn hold_again(&mut self) {
        let Some(weak) = self.any_known() else { return };
        let is_stored = self.fetch(weak).is_some();
        let way = self.choices.below(3);
        if way == 2 {
            return self.hold_as_a_save(weak, is_stored);
        }
        let record = self.records.get_mut(&weak).unwrap();
        if way == 0 {
            match self.depot.acquire(weak) {
                Ok(handle) => {
                    assert!(is_stored);
                    record.references += 1;
                    self.held.push((weak, handle));
                }
                Err(HoldError::Disabled) => assert!(!self.config.references),
                Err(error) => assert!(error == HoldError::Evicted && !is_stored),
            }
        } else {
            match self.depot.renew(weak) {
                Ok(from) => {
                    assert!(is_stored);
                    record.lease = Some(from);
                }
                Err(HoldError::Disabled) => assert_eq!(self.config.lease_ticks, 0),
                Err(error) => assert!(error == HoldError::Evicted && !is_stored),
            }
        }
    }

    fn hold_as_a_save(&mut self, weak: WeakHandle, is_stored: bool) {
        let (hold, is_counted, is_leased) = [
            (Hold::None, false, false),
            (Hold::Reference, true, false),
            (Hold::Lease, false, true),
            (Hold::ReferenceAndLease, true, true),
        ][self.choices.below(4)];
        let is_off =
            is_counted && !self.config.references || is_leased && self.config.lease_ticks == 0;
        match self.depot.hold(weak, hold) {
            Ok(held) => {
                assert!(is_stored && !is_off && held.weak == weak);
                let record = self.records.get_mut(&weak).unwrap();
                if is_leased {
                    assert_eq!(held.from, self.depot.now());
                    record.lease = Some(held.from);
                }
                if is_counted {
                    record.references += 1;
                    self.held.push((weak, held.handle));
                }
            }
            Err(HoldError::Disabled) => assert!(is_off),
            Err(error) => assert!(error == HoldError::Evicted && !is_stored && !is_off),
        }
    }

    fn add_payload(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (weak, handle) = self.held[self.choices.below(self.held.len())];
        let (word, delta) = (self.choices.below(4), self.choices.next() >> 20);
        self.depot.add_payload(handle, word, delta);
        if word < self.config.payload_words as usize {
            self.records.get_mut(&weak).unwrap().payload[word] += delta;
            self.added[word] += delta;
        }
    }

    /// Everything that the twin can know about the depot at rest.
    pub fn audit(&mut self) {
        let mut walked = Map::default();
        let mut sums = self.depot.stats().evicted_payload;
        for stack in self.depot.walk() {
            assert!(
                walked.insert(stack.weak, stack.references).is_none(),
                "walked twice"
            );
            assert_eq!(stack.payload, self.records[&stack.weak].payload);
            for (sum, word) in sums.iter_mut().zip(stack.payload) {
                *sum += word;
            }
        }
        assert_eq!(sums, self.added, "payload was lost or counted twice");
        for (weak, record) in &self.records {
            let found = self.fetch(*weak);
            assert_eq!(found.is_some(), walked.contains_key(weak));
            match found {
                Some(kept) => assert!(kept == record.kept),
                None => assert!(!self.is_held(record), "a held stack is gone"),
            }
        }
        let stats = self.depot.stats();
        assert_eq!(stats.new_stacks - stats.evicted_stacks, walked.len() as u64);
        assert_eq!(
            (
                stats.contended,
                stats.saturated,
                stats.stale_puts,
                stats.undone_nodes
            ),
            (0, 0, 0, 0)
        );
        assert_eq!(stats.full, self.answered_full);
        assert_eq!(stats.truncated, self.cut_saves);
        // Forget some of what is gone, so that the twin stays small.
        self.records
            .retain(|weak, _| walked.contains_key(weak) || weak.to_bits() % 3 == 0);
        self.newest.retain(|_, weak| walked.contains_key(weak));
    }

    /// After everything was given back every slot is usable again.
    pub fn drain(&mut self) {
        while !self.held.is_empty() {
            self.put();
        }
        self.depot.advance(self.config.lease_ticks + 1);
        self.audit();
        let stats = self.depot.stats();
        let mut stored = 0;
        for index in 0..stats.slot_count * 3 {
            stored += u64::from(self.depot.save(&[0x7fff_0000_0000 + index]).is_ok());
        }
        assert!(
            stored == stats.slot_count * 3 || self.depot.stats().worn_slots > 0,
            "{stored} of {stats:?}"
        );
    }
}
