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

use super::stack::KnownStack;
use super::step::{Frame, Registers};
use super::{End, Truncation};

/// States that a memo holds; more than [`super::FRAME_LIMIT`], so that a recursion near the
/// limit need not start anew all the time.
pub const STATE_COUNT: usize = 320;

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

/// A chain of states in columns: what is looked at for each frame lies close together.
#[derive(Debug)]
struct Chain {
    ips: [u64; STATE_COUNT],
    sps: [u64; STATE_COUNT],
    /// Not kept up to date where it does not matter: see [`Memo::refresh`].
    bps: [u64; STATE_COUNT],
    /// Where `bp` was read; 0 if it is the inner frame's.
    bp_ats: [u64; STATE_COUNT],
    /// Where `sp` was read; written only with [`Traits::HAS_CFA_AT`].
    cfa_ats: [u64; STATE_COUNT],
    traits: [Traits; STATE_COUNT],
}

const NO_CHAIN: Chain = Chain {
    ips: [0; STATE_COUNT],
    sps: [0; STATE_COUNT],
    bps: [0; STATE_COUNT],
    bp_ats: [0; STATE_COUNT],
    cfa_ats: [0; STATE_COUNT],
    traits: [Traits(0); STATE_COUNT],
};

/// What else there is to a state: flags, and how many of the memo's [`Word`]s belong to it and
/// to those outwards of it.
#[derive(Clone, Copy, Debug)]
struct Traits(u32);

impl Traits {
    /// The next step, outwards, starts from `bp`.
    const USES_BP: u32 = 1;
    /// A step outwards depends on this `bp`.
    const BP_MATTERS: u32 = 2;
    const HAS_CFA_AT: u32 = 4;
    const WORDS_SHIFT: u32 = 16;

    const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    const fn word_count(self) -> usize {
        (self.0 >> Self::WORDS_SHIFT) as usize
    }
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
        states: NO_CHAIN,
        words: [NO_WORD; WORD_COUNT],
        draft: NO_CHAIN,
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
    /// The first state, if any, from which on the walk followed the memo to its outermost one.
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
            if states.sps[at] >= frame.sp {
                return states.sps[at] == frame.sp
                    && states.ips[at] == frame.ip
                    && (states.bps[at] == frame.bp || !states.traits[at].has(Traits::BP_MATTERS));
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
        if end == STATE_COUNT {
            self.kept_from = met;
            self.candidate = STATE_COUNT;
            if self.memo.is_whole {
                return Followed::ToTheEnd;
            }
            self.memo.refresh(met, end, stack);
        } else if followed == out.len() {
            // What was not looked at stays: it will be before it is used.
            self.kept_from = met;
            self.is_cut = true;
            return Followed::OutOfRoom;
        } else {
            self.memo.refresh(met, end, stack);
            self.draft_old(met, followed);
            // The state whose words changed may still be met: its outer ones may be good.
            self.candidate = end;
        }
        Followed::UpTo(self.memo.registers(end - 1))
    }

    /// Adds a frame that was unwound, the next one outward.
    #[inline(always)]
    pub fn add(&mut self, frame: &Frame) {
        if self.kept_from != STATE_COUNT {
            self.draft_kept();
        }
        let at = self.drafted;
        if at >= STATE_COUNT {
            self.is_recording = false;
            return;
        }
        let draft = &mut self.memo.draft;
        draft.ips[at] = frame.registers.ip;
        draft.sps[at] = frame.registers.sp;
        draft.bps[at] = frame.registers.bp;
        draft.bp_ats[at] = frame.bp_at;
        draft.traits[at] = Traits(Traits::USES_BP);
        if frame.cfa_at != 0 {
            draft.cfa_ats[at] = frame.cfa_at;
            draft.traits[at].0 |= Traits::HAS_CFA_AT;
        }
        self.drafted += 1;
    }

    /// Says of the frame added last that the step out of it did not start from `bp`, as it is
    /// taken to unless told.
    #[inline(always)]
    pub fn leave(&mut self, uses_bp: bool) {
        let last = self.drafted.wrapping_sub(1);
        if !uses_bp && last < STATE_COUNT {
            self.memo.draft.traits[last].0 &= !Traits::USES_BP;
        }
    }

    /// Gives up recording.
    #[cold]
    pub fn stop_recording(&mut self) {
        self.is_recording = false;
    }

    /// The walk went on beyond the outermost state of the memo: all of it is part of the draft.
    #[cold]
    fn draft_kept(&mut self) {
        self.draft_old(self.kept_from, STATE_COUNT - self.kept_from);
        self.kept_from = STATE_COUNT;
    }

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
            ip: ips[at],
            sp: sps[at],
            bp: bps[at],
        }
    }

    /// Notes how a state was reached this time: not from where it was before.
    #[inline(always)]
    fn reach(&mut self, met: usize, frame: &Frame) {
        self.states.bps[met] = frame.registers.bp;
        self.states.bp_ats[met] = frame.bp_at;
        let traits = &mut self.states.traits[met].0;
        *traits &= !Traits::HAS_CFA_AT;
        if frame.cfa_at != 0 {
            *traits |= Traits::HAS_CFA_AT;
            self.states.cfa_ats[met] = frame.cfa_at;
        }
    }

    /// Reads each `bp` from `met`, which was reached, up to `end` again: where it did not
    /// matter, it may have changed, and what comes outwards now may start from it.
    #[cold]
    fn refresh(&mut self, met: usize, end: usize, stack: KnownStack) {
        let mut bp = self.states.bps[met];
        for at in met + 1..end.min(STATE_COUNT) {
            let bp_at = self.states.bp_ats[at];
            if bp_at != 0 {
                bp = stack.read(bp_at).unwrap_or(bp);
            }
            self.states.bps[at] = bp;
        }
    }

    /// Copies the return addresses of a state that is on the stack, and of the ones outwards from
    /// it whose words are unchanged; answers how many.
    #[inline(never)]
    fn copy_unchanged(&self, met: usize, stack: KnownStack, out: &mut [u64]) -> usize {
        let Chain { ips, sps, .. } = &self.states;
        let count = out.len().min(STATE_COUNT - met);
        let columns = (ips.get(met..met + count), sps.get(met..met + count));
        let ((Some(ips), Some(sps)), Some(out)) = (columns, out.get_mut(..count)) else {
            return 0;
        };
        let mut unchanged = count;
        for at in 0..count {
            // The first one is on the stack as it is.
            if at != 0 && stack.read(sps[at].wrapping_sub(IP_OFFSET)) != Some(ips[at]) {
                unchanged = at;
                break;
            }
            out[at] = ips[at];
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
        let outer = self.states.traits.get(met + 1)?;
        let words = self.words.get(..outer.word_count())?;
        let changed = |word: &&Word| stack.read(word.address) != Some(word.value);
        let first = words.iter().rev().find(changed)?;
        (first.state - met < count).then_some(first.state)
    }

    /// Puts the draft in front of the states from `kept_from` on.
    #[inline]
    fn record(&mut self, kept_from: usize, drafted: usize) {
        let outermost = self.states.traits.get(kept_from + 1);
        let mut word_count = outermost.map_or(0, |traits| traits.word_count());
        // Whether the state outwards of the one looked at has its `bp` from it, and needs it.
        let mut is_needed = !self.is_whole;
        if kept_from < STATE_COUNT {
            let flags = self.states.traits[kept_from].0 & FLAGS;
            word_count = self.note(kept_from, flags, word_count);
            is_needed = flags & Traits::BP_MATTERS != 0 && self.states.bp_ats[kept_from] == 0;
        }
        for (at, inner) in (0..drafted).rev().zip((0..kept_from).rev()) {
            let Memo { states, draft, .. } = &mut *self;
            states.ips[inner] = draft.ips[at];
            states.sps[inner] = draft.sps[at];
            states.bps[inner] = draft.bps[at];
            states.bp_ats[inner] = draft.bp_ats[at];
            let mut flags = draft.traits[at].0 & (Traits::USES_BP | Traits::HAS_CFA_AT);
            if flags & Traits::HAS_CFA_AT != 0 {
                states.cfa_ats[inner] = draft.cfa_ats[at];
            }
            if is_needed || flags & Traits::USES_BP != 0 {
                flags |= Traits::BP_MATTERS;
            }
            is_needed = flags & Traits::BP_MATTERS != 0 && states.bp_ats[inner] == 0;
            word_count = self.note(inner, flags, word_count);
        }
        self.count = STATE_COUNT - (kept_from - drafted);
    }

    /// Notes a state's flags, and its words behind the first `word_count`; answers how many there
    /// are then.
    #[inline(always)]
    fn note(&mut self, state: usize, flags: u32, word_count: usize) -> usize {
        let mut word_count = word_count;
        if flags & (Traits::BP_MATTERS | Traits::HAS_CFA_AT) != 0 {
            let Chain { sps, bps, .. } = &self.states;
            let bp_at = match flags & Traits::BP_MATTERS {
                0 => 0,
                _ => self.states.bp_ats[state],
            };
            let cfa_at = match flags & Traits::HAS_CFA_AT {
                0 => 0,
                _ => self.states.cfa_ats[state],
            };
            for (address, value) in [(cfa_at, sps[state]), (bp_at, bps[state])] {
                if let (true, Some(word)) = (address != 0, self.words.get_mut(word_count)) {
                    *word = Word {
                        address,
                        value,
                        state,
                    };
                    word_count += 1;
                }
            }
        }
        self.states.traits[state] = Traits(flags | (word_count as u32) << Traits::WORDS_SHIFT);
        word_count
    }
}

/// The part of [`Traits`] below the count.
const FLAGS: u32 = (1 << Traits::WORDS_SHIFT) - 1;

impl Chain {
    fn copy(&mut self, to: usize, from: &Chain, at: usize) {
        self.ips[to] = from.ips[at];
        self.sps[to] = from.sps[at];
        self.bps[to] = from.bps[at];
        self.bp_ats[to] = from.bp_ats[at];
        self.cfa_ats[to] = from.cfa_ats[at];
        self.traits[to] = from.traits[at];
    }
}
