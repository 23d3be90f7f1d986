//! The verified-suffix memo: the thread's last stack and the stack words it was read from.
//!
//! Most of a stack is the same as at the thread's last event. Key type: [`Memo`], a chain of
//! frame states, innermost first. A step depends on the frame's registers, on the module's
//! tables (the epoch) and on the words that it reads; so from an equal state the same outer
//! frames follow for as long as the words that they were read from are unchanged. The walk
//! unwinds from the leaf until it [meets](Recall::meets) a state of the memo and
//! [follows](Recall::follow) it outwards, checking the words as it copies; where one changed it
//! unwinds again, until it meets another state.
//!
//! Most code has no frame pointer, and `bp` is a register like any other that no step looks at:
//! it is compared, and the words that it was read from are checked, only in states from which it
//! *matters*: a step further out starts from it before another reads it anew.
//!
//! Only walks that stayed on one stack and did not fail are recorded. The outer end is not
//! taken on trust unless a rule said so: a walk which stopped for want of tables is never copied
//! as if it were whole.

use super::chain::{Chain, STATE_COUNT, State, Traits};
use super::paths::{Path, Paths};
use super::stack::KnownStack;
use super::step::{Frame, Registers};
use super::{End, Truncation};

/// Where the return address lies, from the stack pointer after the return.
const IP_OFFSET: u64 = 8;

/// A word, besides the return address, that a state was read from.
#[derive(Clone, Copy, Debug)]
struct Word {
    address: u64,
    value: u64,
    /// The state's place in the chain.
    state: usize,
}

const NO_WORD: Word = Word {
    address: 0,
    value: 0,
    state: 0,
};
/// A state has two at most, and few have any.
const WORD_COUNT: usize = 2 * STATE_COUNT;

/// The last recorded stack of a thread. All zeros is a valid, empty memo.
#[derive(Debug)]
pub struct Memo {
    epoch: u32,
    /// Whether a rule said that the outermost state has no caller.
    is_whole: bool,
    /// How many states are recorded; they lie at the end, the outermost being the last.
    count: usize,
    states: Chain,
    /// Those of the outermost states first.
    words: [Word; WORD_COUNT],
    /// What the walk under way went through before it reached states of the memo for good.
    draft: Chain,
}

impl Memo {
    /// Nothing recorded.
    pub const EMPTY: Memo = Memo {
        epoch: 0,
        is_whole: false,
        count: 0,
        states: Chain::EMPTY,
        words: [NO_WORD; WORD_COUNT],
        draft: Chain::EMPTY,
    };

    /// Forgets the recorded stack.
    pub fn clear(&mut self) {
        self.count = 0;
        self.is_whole = false;
    }
}

/// How far the memo led.
#[derive(Clone, Copy, Debug)]
pub enum Followed {
    /// To the outermost frame.
    ToTheEnd,
    /// To this frame, whose caller must be unwound.
    UpTo(Registers),
    /// To the end of the buffer.
    OutOfRoom,
}

/// What became of a walk with a memo.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Whether its stack is the recorded one now.
    pub is_recorded: bool,
    /// How many outermost frames it shares with the one recorded before.
    pub shared_count: usize,
    /// What its thread knows the stack by.
    pub path: Path,
}

impl Finished {
    /// Without a memo.
    pub const UNRECORDED: Finished = Finished {
        is_recorded: false,
        shared_count: 0,
        path: Path::NONE,
    };
}

/// The use of a memo in one walk: to recall old states, and to record new ones.
#[derive(Debug)]
pub struct Recall<'m> {
    memo: &'m mut Memo,
    /// Where the thread knows its stacks by; not every thread has one.
    paths: Option<&'m mut Paths>,
    /// The first state that can still be met.
    candidate: usize,
    /// States in the draft.
    drafted: usize,
    /// The first state, if any, from which on the walk followed the memo to its own end.
    kept_from: usize,
    /// Whether the walk was cut while it followed the memo.
    is_cut: bool,
    is_recording: bool,
}

impl<'m> Recall<'m> {
    /// For a walk under `epoch`.
    #[inline]
    pub fn new(memo: &'m mut Memo, mut paths: Option<&'m mut Paths>, epoch: u32) -> Recall<'m> {
        if memo.epoch != epoch {
            memo.clear();
            memo.epoch = epoch;
        }
        if let Some(paths) = &mut paths {
            paths.enter_epoch(epoch);
        }
        Recall {
            candidate: STATE_COUNT - memo.count,
            memo,
            paths,
            drafted: 0,
            kept_from: STATE_COUNT,
            is_cut: false,
            is_recording: true,
        }
    }

    /// Whether the memo has a state like `frame`; then it can be followed from there.
    #[inline(always)]
    pub fn meets(&mut self, frame: &Registers) -> bool {
        let states = &self.memo.states;
        while self.candidate < STATE_COUNT {
            let state = states.get(self.candidate);
            if state.sp >= frame.sp {
                return state.sp == frame.sp
                    && state.ip == frame.ip
                    && (state.bp == frame.bp || !state.traits.has(Traits::BP_MATTERS));
            }
            self.candidate += 1;
        }
        false
    }

    /// After `meets` with that frame: copies return addresses to `out` from that state outwards,
    /// until the memo ends, a word changed, or the buffer is full; adds to `frame_count` how many.
    #[inline(always)]
    pub fn follow(
        &mut self,
        frame: Frame,
        stack: KnownStack,
        out: &mut [u64],
        frame_count: &mut usize,
    ) -> Followed {
        let met = self.candidate;
        self.memo.reach(met, &frame);
        let followed = self.memo.copy_unchanged(met, stack, out);
        *frame_count += followed;
        let end = met + followed;
        if end == STATE_COUNT && self.memo.is_whole {
            self.kept_from = met;
            return Followed::ToTheEnd;
        }
        if followed == out.len() {
            // What was not looked at stays: it will be before it is used.
            self.kept_from = met;
            self.is_cut = true;
            return Followed::OutOfRoom;
        }
        self.memo.refresh(met, end, stack);
        self.draft_old(met, followed);
        // The state whose words changed may still be met: its outer ones may be good.
        self.candidate = end;
        Followed::UpTo(self.memo.registers(end - 1))
    }

    /// Adds a frame that was unwound, the next one outward.
    #[inline(always)]
    pub fn add(&mut self, frame: &Frame) {
        let Some(state) = self.memo.draft.get_mut(self.drafted) else {
            self.is_recording = false;
            return;
        };
        state.ip = frame.registers.ip;
        state.sp = frame.registers.sp;
        state.bp = frame.registers.bp;
        state.bp_at = frame.bp_at;
        state.cfa_at = frame.cfa_at;
        state.traits = Traits::NONE.with(Traits::USES_BP);
        self.drafted += 1;
    }

    /// Says of the frame that the walk is in that the step out of it does not start from `bp`, as
    /// it is taken to unless told.
    #[inline(always)]
    pub fn leave(&mut self, uses_bp: bool) {
        let last = self.drafted.wrapping_sub(1);
        if !uses_bp && let Some(state) = self.memo.draft.get_mut(last) {
            state.traits = state.traits.without(Traits::USES_BP);
        }
    }

    /// Gives up recording.
    #[cold]
    pub fn stop_recording(&mut self) {
        self.is_recording = false;
    }

    /// Old states that the walk went through, but beyond which it must unwind again.
    #[cold]
    fn draft_old(&mut self, first: usize, count: usize) {
        let Memo { states, draft, .. } = &mut *self.memo;
        for old in states.from(first).iter().take(count) {
            let Some(place) = draft.get_mut(self.drafted) else {
                self.is_recording = false;
                return;
            };
            *place = *old;
            self.drafted += 1;
        }
    }

    /// Makes the stack of this walk the recorded one, unless the walk failed.
    #[inline]
    pub fn finish(&mut self, end: End, is_by_rule: bool) -> Finished {
        let kept_count = STATE_COUNT - self.kept_from;
        let shared_count = match self.memo.is_whole && !self.is_cut {
            true => kept_count,
            false => 0,
        };
        let is_failed = matches!(
            end,
            End::Truncated(Truncation::BadStack | Truncation::Closing)
        );
        if !self.is_recording || is_failed {
            // A state may have been reached from elsewhere: only its outer ones are as recorded.
            self.memo.count = self.memo.count.min(kept_count);
            return Finished {
                shared_count,
                ..Finished::UNRECORDED
            };
        }
        if self.drafted > self.kept_from {
            // No room: recursion beyond the limit. The next walk starts anew.
            self.memo.clear();
            return Finished {
                shared_count,
                ..Finished::UNRECORDED
            };
        }
        self.memo.is_whole = is_by_rule || (kept_count != 0 && self.memo.is_whole);
        let path = match self.paths.as_deref_mut() {
            Some(paths) if end != End::LimitReached => {
                let root = paths.root();
                let step = |outer, ip| paths.step(outer, ip);
                self.memo.record(self.kept_from, self.drafted, root, step)
            }
            _ => self
                .memo
                .record(self.kept_from, self.drafted, 0, |_, _| Path::NONE),
        };
        Finished {
            is_recorded: true,
            shared_count,
            path,
        }
    }
}

impl Memo {
    fn registers(&self, at: usize) -> Registers {
        let State { ip, sp, bp, .. } = *self.states.get(at);
        Registers { ip, sp, bp }
    }

    /// Notes how a state was reached this time: not from where it was before.
    #[inline(always)]
    fn reach(&mut self, met: usize, frame: &Frame) {
        if let Some(state) = self.states.get_mut(met) {
            state.bp = frame.registers.bp;
            state.bp_at = frame.bp_at;
            state.cfa_at = frame.cfa_at;
        }
    }

    /// Reads each `bp` from `met`, which was reached, up to `end` again: where it did not
    /// matter, it may have changed, and what comes outwards now may start from it.
    #[cold]
    fn refresh(&mut self, met: usize, end: usize, stack: KnownStack) {
        let mut bp = self.states.get(met).bp;
        for at in met + 1..end {
            let Some(state) = self.states.get_mut(at) else {
                return;
            };
            if state.bp_at != 0 {
                bp = stack.read(state.bp_at).unwrap_or(bp);
            }
            state.bp = bp;
        }
    }

    /// Copies the return addresses of a state that is on the stack, and of the ones outwards from
    /// it whose words are unchanged; answers how many.
    #[inline(never)]
    fn copy_unchanged(&self, met: usize, stack: KnownStack, out: &mut [u64]) -> usize {
        let mut unchanged = 0;
        for (state, place) in self.states.from(met).iter().zip(out) {
            // The first one is on the stack as it is.
            let ip_at = state.sp.wrapping_sub(IP_OFFSET);
            if unchanged != 0 && stack.read(ip_at) != Some(state.ip) {
                break;
            }
            *place = state.ip;
            unchanged += 1;
        }
        match self.innermost_changed(met, unchanged, stack) {
            Some(changed) => changed - met,
            None => unchanged,
        }
    }

    /// The first state outwards of `met`, of so many, of which another word changed.
    #[inline]
    fn innermost_changed(&self, met: usize, count: usize, stack: KnownStack) -> Option<usize> {
        // How `met` itself was reached is another matter.
        let outer = self.states.get(met + 1).traits;
        let words = self.words.get(..outer.word_count())?;
        let changed = |word: &&Word| stack.read(word.address) != Some(word.value);
        let first = words.iter().rev().find(changed)?;
        (first.state - met < count).then_some(first.state)
    }

    /// Puts the draft in front of the states from `kept_from` on. Answers the path of the whole
    /// stack, to which `step` leads from `root`.
    #[inline(always)]
    fn record(
        &mut self,
        kept_from: usize,
        drafted: usize,
        root: u64,
        mut step: impl FnMut(u64, u64) -> Path,
    ) -> Path {
        // What the state outwards of the one looked at says: how many words there are so far, ...
        let mut word_count = self.states.get(kept_from + 1).traits.word_count();
        // ... whether it has its `bp` from here, and needs it, and what path leads to it.
        let mut is_needed = !self.is_whole;
        let mut path = Path::NONE;
        let mut outer = root;
        if kept_from < STATE_COUNT {
            let beyond = self
                .states
                .from(kept_from + 1)
                .first()
                .map(|state| state.path);
            let Some(kept) = self.states.get_mut(kept_from) else {
                return Path::NONE;
            };
            if drafted == 0 {
                // For its entry, which may have been overwritten.
                path = step(beyond.unwrap_or(root), kept.ip);
                kept.path = path.number();
            }
            outer = kept.path;
            is_needed = kept.traits.has(Traits::BP_MATTERS) && kept.bp_at == 0;
            word_count = note_words(kept, kept_from, &mut self.words, word_count);
        }
        for (at, inner) in (0..drafted).rev().zip((0..kept_from).rev()) {
            let new = self.draft.get(at);
            let Some(state) = self.states.get_mut(inner) else {
                return Path::NONE;
            };
            path = step(outer, new.ip);
            outer = path.number();
            state.ip = new.ip;
            state.sp = new.sp;
            state.bp = new.bp;
            state.bp_at = new.bp_at;
            state.cfa_at = new.cfa_at;
            state.path = outer;
            let does_bp_matter = is_needed || new.traits.has(Traits::USES_BP);
            let uses_bp = match new.traits.has(Traits::USES_BP) {
                true => Traits::NONE.with(Traits::USES_BP),
                false => Traits::NONE,
            };
            state.traits = match does_bp_matter {
                true => uses_bp.with(Traits::BP_MATTERS),
                false => uses_bp,
            };
            is_needed = does_bp_matter && new.bp_at == 0;
            word_count = note_words(state, inner, &mut self.words, word_count);
        }
        self.count = STATE_COUNT - (kept_from - drafted);
        path
    }
}

/// Notes the words of a state, the `at`-th, behind the first `word_count`; answers how many there
/// are then.
#[inline(always)]
fn note_words(
    state: &mut State,
    at: usize,
    words: &mut [Word; WORD_COUNT],
    word_count: usize,
) -> usize {
    let mut word_count = word_count;
    let mut note = |address: u64, value: u64| {
        if let Some(word) = words.get_mut(word_count) {
            *word = Word {
                address,
                value,
                state: at,
            };
            word_count += 1;
        }
    };
    if state.cfa_at != 0 {
        note(state.cfa_at, state.sp);
    }
    if state.bp_at != 0 && state.traits.has(Traits::BP_MATTERS) {
        note(state.bp_at, state.bp);
    }
    state.traits = state.traits.with_words(word_count);
    word_count
}
