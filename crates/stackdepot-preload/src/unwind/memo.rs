//! The verified-suffix memo: the thread's last stack and the stack words it was read from.
//!
//! Most of a stack is the same as at the thread's last event. Key type: [`Memo`], a chain of frame
//! states, innermost first. A step depends on the frame's registers, on the module's tables (the
//! epoch) and on the words that it reads; so from an equal state the same outer frames follow for as
//! long as the words that they were read from are unchanged. A walk (`recall.rs`) drafts the frames
//! that it unwinds from the leaf until it [meets](Memo::is_at) a state of the memo, asks
//! [how far](Memo::unchanged_until) the stack is unchanged from there, and at its end the draft takes
//! the place of the states inwards of the one that was met.
//!
//! Most code has no frame pointer, and `bp` is a register like any other that no step looks at: what
//! it was matters only to the states with a [`Word`] for it.
//!
//! Only walks that stayed on one stack and did not fail are recorded. The outer end is not taken on
//! trust unless a rule said so: a walk which stopped for want of tables is never taken for whole.
//!
//! INVARIANT U1: the stack pointers of a chain are multiples of 8 and grow outwards, so that the
//! return addresses of some states lie within a stack if the first and the last of them do.

#![allow(unsafe_code)] // promises U1 to `stack.rs`; reads words one by one

use super::paths::{Path, Paths, SEGMENT_FRAMES};
use super::quick::QuickRules;
use super::stack::KnownStack;
use super::words::{STATE_COUNT, Word, Words};
use core::hint::select_unpredictable;

/// Where the return address lies, below the stack pointer after the return.
pub const IP_OFFSET: u64 = 8;
const SEGMENT_COUNT: usize = STATE_COUNT / SEGMENT_FRAMES;

/// Return addresses and the stack pointers after the return, innermost first.
#[derive(Debug)]
struct Chain {
    sps: [u64; STATE_COUNT],
    ips: [u64; STATE_COUNT],
}

impl Chain {
    const EMPTY: Chain = Chain {
        sps: [0; STATE_COUNT],
        ips: [0; STATE_COUNT],
    };
}

/// The frames that a walk went through and that are not in the memo.
#[derive(Debug)]
pub struct Draft {
    chain: Chain,
    /// Innermost first.
    pub words: Words,
}

/// The last recorded stack of a thread. All zeros is a valid, empty memo.
#[derive(Debug)]
pub struct Memo {
    epoch: u32,
    /// Whether a rule said that the outermost state has no caller.
    is_whole: bool,
    /// How many states are recorded; they lie at the end, the outermost being the last.
    count: usize,
    states: Chain,
    /// Outermost first.
    words: Words,
    /// The root of the paths that `numbers` are of.
    root: u64,
    /// How many whole segments, from the outermost one, have their number.
    numbered_count: usize,
    /// For each segment of the states the number of the path that ends there.
    numbers: [u64; SEGMENT_COUNT],
    /// Rules of the epoch.
    pub rules: QuickRules,
    /// Of the walk under way.
    pub draft: Draft,
}

/// Where the `bp` of a frame is.
#[derive(Clone, Copy, Debug)]
pub struct Bp {
    /// Its address; 0: still in the register.
    pub at: u64,
    /// What the register was.
    pub register: u64,
    /// Of the draft, the place of the state to which the step led that read it.
    pub saver: usize,
}

impl Bp {
    /// Of the innermost frame.
    #[inline(always)]
    pub fn of_register(register: u64) -> Bp {
        Bp {
            at: 0,
            register,
            saver: 0,
        }
    }

    /// What it is; `None` where it cannot be read.
    #[inline]
    pub fn read(self, stack: KnownStack) -> Option<u64> {
        match self.at {
            0 => Some(self.register),
            at => stack.read(at),
        }
    }
}

impl Draft {
    /// Notes a frame, the one outwards of those at lower places; `false`: there is no room. `sp` is
    /// as U1 wants it.
    #[inline(always)]
    pub fn set(&mut self, place: usize, ip: u64, sp: u64) -> bool {
        let Chain { sps, ips } = &mut self.chain;
        let (Some(sp_place), Some(ip_place)) = (sps.get_mut(place), ips.get_mut(place)) else {
            return false;
        };
        (*ip_place, *sp_place) = (ip, sp);
        true
    }

    /// The steps from the frame at `first` to the last one before `end`, the outermost step first: the
    /// place that it led to, the return address that it started from, the stack pointer that it led to.
    pub fn steps_between(
        &self,
        first: usize,
        end: usize,
    ) -> impl Iterator<Item = (usize, u64, u64)> {
        let Chain { sps, ips } = &self.chain;
        let outer = sps.iter().enumerate().take(end).skip(first + 1);
        let inner = ips.iter().take(end.saturating_sub(1)).skip(first);
        outer
            .zip(inner)
            .rev()
            .map(|((place, sp), ip)| (place, *ip, *sp))
    }
}

impl Memo {
    /// Nothing recorded.
    pub const EMPTY: Memo = Memo {
        epoch: 0,
        is_whole: false,
        count: 0,
        states: Chain::EMPTY,
        words: Words::EMPTY,
        root: 0,
        numbered_count: 0,
        numbers: [0; SEGMENT_COUNT],
        rules: QuickRules::EMPTY,
        draft: Draft {
            chain: Chain::EMPTY,
            words: Words::EMPTY,
        },
    };

    /// Forgets the recorded stack.
    pub fn clear(&mut self) {
        self.count = 0;
        self.is_whole = false;
        self.numbered_count = 0;
        self.words.clear();
    }

    /// Begins a walk under `epoch`: answers the first state that can be met.
    #[inline(always)]
    pub fn begin(&mut self, epoch: u32) -> usize {
        if self.epoch != epoch {
            self.clear();
            self.rules.clear();
            self.epoch = epoch;
        }
        self.draft.words.clear();
        self.first()
    }

    /// The place of the innermost state.
    #[inline(always)]
    fn first(&self) -> usize {
        STATE_COUNT - self.count
    }

    /// The return addresses of the recorded stack, innermost first.
    #[inline]
    pub fn frames(&self) -> &[u64] {
        self.states.ips.get(self.first()..).unwrap_or_default()
    }

    /// The first state from `candidate` on that is not inwards of a stack pointer.
    #[inline(always)]
    pub fn skip_until(&self, candidate: usize, sp: u64) -> usize {
        let mut candidate = candidate;
        while self
            .states
            .sps
            .get(candidate)
            .is_some_and(|state| *state < sp)
        {
            candidate += 1;
        }
        candidate
    }

    /// Whether a frame has the return address and stack pointer of a state.
    #[inline(always)]
    pub fn is_at(&self, state: usize, ip: u64, sp: u64) -> bool {
        let Chain { sps, ips } = &self.states;
        sps.get(state) == Some(&sp) && ips.get(state) == Some(&ip)
    }

    /// From a frame like the state `met`: the first state outwards of it that may not be on the stack.
    /// `None` where the frame is another one, because its `bp` is: `bp_at` and `register` are that of
    /// a [`Bp`], each for itself because they stay in registers so.
    #[inline(never)]
    pub fn unchanged_until(
        &self,
        met: usize,
        bp_at: u64,
        register: u64,
        stack: KnownStack,
    ) -> Option<usize> {
        let Chain { sps, ips } = &self.states;
        let (Some(sps), Some(ips)) = (sps.get(met + 1..), ips.get(met + 1..)) else {
            return Some(met + 1);
        };
        // SAFETY: U1.
        let end = met + 1 + unsafe { stack.count_equal_below(sps, ips) };
        if self.words.is_empty() {
            return Some(end);
        }
        let bp = Bp {
            at: bp_at,
            ..Bp::of_register(register)
        };
        self.words_unchanged_until(met, bp, stack)
            .map(|words_end| end.min(words_end))
    }

    #[inline(always)]
    fn words_unchanged_until(&self, met: usize, bp: Bp, stack: KnownStack) -> Option<usize> {
        if let Some(mut words) = self.words.in_order(met) {
            // Read inwards of the state, or in the register.
            while let [outer @ .., last] = words
                && last.saver <= met
            {
                if bp.read(stack) != Some(last.value) {
                    return None;
                }
                words = outer;
            }
            // SAFETY: U2.
            if unsafe { stack.has_words(words) } {
                return Some(STATE_COUNT);
            }
        }
        self.words_one_by_one(met, bp, stack)
    }

    /// The same, one word at a time.
    #[cold]
    #[inline(never)]
    fn words_one_by_one(&self, met: usize, bp: Bp, stack: KnownStack) -> Option<usize> {
        let mut end = STATE_COUNT;
        for word in self.words.from(met) {
            if word.saver <= met {
                // Read inwards of the state, or in the register.
                if bp.read(stack) != Some(word.value) {
                    return None;
                }
            } else if stack.read(word.address) != Some(word.value) {
                end = word.user + 1;
            }
        }
        Some(end)
    }

    /// Whether the walk is at its end when the states up to there are unchanged.
    #[inline(always)]
    pub fn ends_at(&self, end: usize) -> bool {
        end == STATE_COUNT && self.is_whole
    }

    /// Takes over the states from `met`, reached with `bp`, until `end` into the draft, which has
    /// `drafted` frames; answers how many it has then, and return address and stack pointer of the
    /// last one. `None`: there is no room.
    pub fn draft_old(
        &mut self,
        met: usize,
        end: usize,
        drafted: usize,
        bp: Bp,
    ) -> Option<(usize, u64, u64)> {
        let Memo {
            states,
            words,
            draft,
            ..
        } = self;
        let shift = |place: usize| place - met + drafted;
        // The last one's step is taken anew.
        for word in words.from(met).iter().rev() {
            let moved = match word.saver > met {
                _ if word.user + 1 >= end => break,
                true => Word {
                    user: shift(word.user),
                    saver: shift(word.saver),
                    ..*word
                },
                false => Word {
                    address: bp.at,
                    user: shift(word.user),
                    saver: bp.saver,
                    ..*word
                },
            };
            if !draft.words.push(moved) {
                return None;
            }
        }
        let old = states
            .ips
            .get(met..end)?
            .iter()
            .zip(states.sps.get(met..end)?);
        let mut last = None;
        for (place, (ip, sp)) in (drafted..).zip(old) {
            if !draft.set(place, *ip, *sp) {
                return None;
            }
            last = Some((place + 1, *ip, *sp));
        }
        last
    }

    /// Makes the stack of this walk the recorded one: so many drafted frames, outwards of them the
    /// states from `kept_from` on, reached with `bp`. `false`: there is no room (recursion beyond the limit), nothing is recorded.
    #[inline(always)]
    pub fn record(&mut self, kept_from: usize, drafted: usize, bp: Bp, is_whole: bool) -> bool {
        let Some(first) = kept_from.checked_sub(drafted) else {
            return false;
        };
        let Memo { states, draft, .. } = &mut *self;
        let sps = states.sps.get_mut(first..kept_from).unwrap_or_default();
        let ips = states.ips.get_mut(first..kept_from).unwrap_or_default();
        let old = sps.iter_mut().zip(ips);
        let new = draft.chain.sps.iter().zip(&draft.chain.ips);
        for ((old_sp, old_ip), (sp, ip)) in old.zip(new) {
            // Word by word, as they were written a moment ago: a wider load would wait until they
            // are in the cache.
            // SAFETY: reads references.
            (*old_sp, *old_ip) =
                unsafe { (core::ptr::read_volatile(sp), core::ptr::read_volatile(ip)) };
        }
        self.count = STATE_COUNT - first;
        self.is_whole = is_whole;
        let whole_count = (STATE_COUNT - kept_from) / SEGMENT_FRAMES;
        self.numbered_count = self.numbered_count.min(whole_count);
        (self.draft.words.is_empty() && self.words.are_kept_from(kept_from))
            || self.record_words(first, kept_from, bp)
    }

    #[inline(never)]
    fn record_words(&mut self, first: usize, kept_from: usize, bp: Bp) -> bool {
        let place_of = |drafted: usize, address: u64| match address {
            0 => 0,
            _ => first + drafted,
        };
        let Memo { words, draft, .. } = self;
        words.keep_from(kept_from, bp.at, place_of(bp.saver, bp.at));
        draft.words.all().iter().rev().all(|word| {
            words.push(Word {
                user: first + word.user,
                saver: place_of(word.saver, word.address),
                ..*word
            })
        })
    }

    /// The path of the recorded stack.
    #[inline(never)]
    pub fn path(&mut self, paths: &mut Paths) -> Path {
        if self.root != paths.root() {
            self.root = paths.root();
            self.numbered_count = 0;
        }
        let first = self.first();
        let leaf = first / SEGMENT_FRAMES;
        let (segments, _) = self.states.ips.as_chunks::<SEGMENT_FRAMES>();
        // The innermost segment is looked up anew: its entry may have been overwritten.
        self.numbered_count = self
            .numbered_count
            .min(SEGMENT_COUNT - 1 - leaf.min(SEGMENT_COUNT - 1));
        let mut next = SEGMENT_COUNT - self.numbered_count;
        let mut outer = self.numbers.get(next).copied().unwrap_or(self.root);
        while next > leaf + 1
            && let Some(segment) = segments.get(next - 1)
            && let Some(number) = self.numbers.get_mut(next - 1)
        {
            outer = paths.step(outer, segment, SEGMENT_FRAMES).number();
            *number = outer;
            next -= 1;
        }
        self.numbered_count = SEGMENT_COUNT - next;
        let Some(segment) = segments.get(leaf) else {
            return Path::NONE;
        };
        let skipped = first % SEGMENT_FRAMES;
        let [a, b, c, d] = *segment;
        let kept = |at: usize, ip: u64| select_unpredictable(at < skipped, 0, ip);
        let segment = [kept(0, a), kept(1, b), kept(2, c), d];
        paths.step(outer, &segment, SEGMENT_FRAMES - skipped)
    }
}

#[cfg(test)]
mod tests;
