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

use super::chain::{Chain, STATE_COUNT, Traits};
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

/// The use of a memo in one walk: to recall old states, and to record new ones.
#[derive(Debug)]
pub struct Recall<'m> {
    memo: &'m mut Memo,
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
    pub fn new(memo: &'m mut Memo, epoch: u32) -> Recall<'m> {
        if memo.epoch != epoch {
            memo.clear();
            memo.epoch = epoch;
        }
        Recall {
            candidate: STATE_COUNT - memo.count,
            memo,
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
            let at = self.candidate;
            if states.sps.get(at) >= frame.sp {
                return states.sps.get(at) == frame.sp
                    && states.ips.get(at) == frame.ip
                    && (states.bps.get(at) == frame.bp
                        || !states.traits.get(at).has(Traits::BP_MATTERS));
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
        let at = self.drafted;
        if at >= STATE_COUNT {
            self.is_recording = false;
            return;
        }
        let draft = &mut self.memo.draft;
        draft.ips.set(at, frame.registers.ip);
        draft.sps.set(at, frame.registers.sp);
        draft.bps.set(at, frame.registers.bp);
        draft.bp_ats.set(at, frame.bp_at);
        let mut traits = Traits::NONE.with(Traits::USES_BP);
        if frame.cfa_at != 0 {
            draft.cfa_ats.set(at, frame.cfa_at);
            traits = traits.with(Traits::HAS_CFA_AT);
        }
        draft.traits.set(at, traits);
        self.drafted += 1;
    }

    /// Says of the frame that the walk is in that the step out of it does not start from `bp`, as
    /// it is taken to unless told.
    #[inline(always)]
    pub fn leave(&mut self, uses_bp: bool) {
        let last = self.drafted.wrapping_sub(1);
        if !uses_bp && last < STATE_COUNT {
            let traits = &mut self.memo.draft.traits;
            traits.set(last, traits.get(last).without(Traits::USES_BP));
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
        for at in first..first + count {
            if self.drafted >= STATE_COUNT || at >= STATE_COUNT {
                self.is_recording = false;
                return;
            }
            draft.copy(self.drafted, states, at);
            self.drafted += 1;
        }
    }

    /// Makes the stack of this walk the recorded one, unless the walk failed. Answers whether
    /// it did, and how many outermost frames it shares with the one recorded before.
    #[inline]
    pub fn finish(&mut self, end: End, is_by_rule: bool) -> (bool, usize) {
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
            return (false, shared_count);
        }
        if self.drafted > self.kept_from {
            // No room: recursion beyond the limit. The next walk starts anew.
            self.memo.clear();
            return (false, shared_count);
        }
        self.memo.is_whole = is_by_rule || (kept_count != 0 && self.memo.is_whole);
        self.memo.record(self.kept_from, self.drafted);
        (true, shared_count)
    }
}

impl Memo {
    fn registers(&self, at: usize) -> Registers {
        let Chain { ips, sps, bps, .. } = &self.states;
        Registers {
            ip: ips.get(at),
            sp: sps.get(at),
            bp: bps.get(at),
        }
    }

    /// Notes how a state was reached this time: not from where it was before.
    #[inline(always)]
    fn reach(&mut self, met: usize, frame: &Frame) {
        self.states.bps.set(met, frame.registers.bp);
        self.states.bp_ats.set(met, frame.bp_at);
        let traits = self.states.traits.get(met);
        if frame.cfa_at == 0 {
            self.states
                .traits
                .set(met, traits.without(Traits::HAS_CFA_AT));
        } else {
            self.states.cfa_ats.set(met, frame.cfa_at);
            self.states.traits.set(met, traits.with(Traits::HAS_CFA_AT));
        }
    }

    /// Reads each `bp` from `met`, which was reached, up to `end` again: where it did not
    /// matter, it may have changed, and what comes outwards now may start from it.
    #[cold]
    fn refresh(&mut self, met: usize, end: usize, stack: KnownStack) {
        let mut bp = self.states.bps.get(met);
        for at in met + 1..end.min(STATE_COUNT) {
            let bp_at = self.states.bp_ats.get(at);
            if bp_at != 0 {
                bp = stack.read(bp_at).unwrap_or(bp);
            }
            self.states.bps.set(at, bp);
        }
    }

    /// Copies the return addresses of a state that is on the stack, and of the ones outwards from
    /// it whose words are unchanged; answers how many.
    #[inline(never)]
    fn copy_unchanged(&self, met: usize, stack: KnownStack, out: &mut [u64]) -> usize {
        let Chain { ips, sps, .. } = &self.states;
        let states = ips.from(met).iter().zip(sps.from(met));
        let mut unchanged = 0;
        for ((&ip, &sp), place) in states.zip(out) {
            // The first one is on the stack as it is.
            if unchanged != 0 && stack.read(sp.wrapping_sub(IP_OFFSET)) != Some(ip) {
                break;
            }
            *place = ip;
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
        let outer = self.states.traits.get(met + 1);
        let words = self.words.get(..outer.word_count())?;
        let changed = |word: &&Word| stack.read(word.address) != Some(word.value);
        let first = words.iter().rev().find(changed)?;
        (first.state - met < count).then_some(first.state)
    }

    /// Puts the draft in front of the states from `kept_from` on.
    #[inline]
    fn record(&mut self, kept_from: usize, drafted: usize) {
        let mut word_count = self.states.traits.get(kept_from + 1).word_count();
        // Whether the state outwards of the one looked at has its `bp` from it, and needs it.
        let mut is_needed = !self.is_whole;
        if kept_from < STATE_COUNT {
            let traits = self.states.traits.get(kept_from);
            word_count = self.note(kept_from, traits, word_count);
            is_needed = traits.has(Traits::BP_MATTERS) && self.states.bp_ats.get(kept_from) == 0;
        }
        for (at, inner) in (0..drafted).rev().zip((0..kept_from).rev()) {
            let Memo { states, draft, .. } = &mut *self;
            states.copy(inner, draft, at);
            let mut traits = draft.traits.get(at).without(Traits::BP_MATTERS);
            if is_needed || traits.has(Traits::USES_BP) {
                traits = traits.with(Traits::BP_MATTERS);
            }
            is_needed = traits.has(Traits::BP_MATTERS) && states.bp_ats.get(inner) == 0;
            word_count = self.note(inner, traits, word_count);
        }
        self.count = STATE_COUNT - (kept_from - drafted);
    }

    /// Notes a state's traits, and its words behind the first `word_count`; answers how many there
    /// are then.
    #[inline(always)]
    fn note(&mut self, state: usize, traits: Traits, word_count: usize) -> usize {
        let mut word_count = word_count;
        let states = &mut self.states;
        let mut add = |address: u64, value: u64| {
            if let Some(word) = self.words.get_mut(word_count) {
                *word = Word {
                    address,
                    value,
                    state,
                };
                word_count += 1;
            }
        };
        if traits.has(Traits::HAS_CFA_AT) {
            add(states.cfa_ats.get(state), states.sps.get(state));
        }
        if traits.has(Traits::BP_MATTERS) && states.bp_ats.get(state) != 0 {
            add(states.bp_ats.get(state), states.bps.get(state));
        }
        states.traits.set(state, traits.with_words(word_count));
        word_count
    }
}
