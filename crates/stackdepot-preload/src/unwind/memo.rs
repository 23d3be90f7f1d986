//! The verified-suffix memo: the thread's last stack and the stack words it was read from.
//!
//! Most of a stack is the same as at the thread's last event. Key type: [`Memo`], a chain of
//! frame states, outermost first. A step depends on the frame's registers, on the module's
//! tables (the epoch) and on the words that it reads; so if those words are unchanged, an
//! equal state leads to the same outer frames. [`Recall::new`] checks the words from the
//! outermost frame inwards; the walk then unwinds from the leaf until it meets a state of
//! the checked part, and copies the rest.
//!
//! Only walks that stayed on one stack and did not fail are recorded. The outer end is not
//! taken on trust: each walk steps on from the outermost state that it copied, so that one
//! which stopped early (code without tables) is never copied as if it were whole.

use super::stack::StackReader;
use super::step::{Frame, Registers};
use super::{End, Truncation};

/// States that a memo holds; more than [`super::FRAME_LIMIT`], so that a recursion near the
/// limit need not start anew all the time.
pub const STATE_COUNT: usize = 320;

/// One frame's registers and where the last two steps read them.
#[derive(Clone, Copy, Debug)]
struct State {
    ip: u64,
    sp: u64,
    bp: u64,
    /// Where `bp` was read, from `sp`; 0 if it is the inner frame's.
    bp_offset: i32,
    /// Where `sp` was read, from `sp`; 0 if it was computed.
    cfa_offset: i32,
}

const NO_STATE: State = State {
    ip: 0,
    sp: 0,
    bp: 0,
    bp_offset: 0,
    cfa_offset: 0,
};

/// The last recorded stack of a thread. All zeros is a valid, empty memo.
#[derive(Debug)]
pub struct Memo {
    epoch: u32,
    /// Whether the states reach to the outermost frame.
    is_complete: bool,
    count: usize,
    /// `0..count`: outermost first. During a walk the new states grow down from the end.
    states: [State; STATE_COUNT],
}

impl Memo {
    /// Nothing recorded.
    pub const EMPTY: Memo = Memo {
        epoch: 0,
        is_complete: false,
        count: 0,
        states: [NO_STATE; STATE_COUNT],
    };

    /// Forgets the recorded stack.
    pub fn clear(&mut self) {
        self.count = 0;
        self.is_complete = false;
    }
}

/// The use of a memo in one walk: first to recall old states, then to record new ones.
#[derive(Debug)]
pub struct Recall<'m> {
    memo: &'m mut Memo,
    /// States `0..candidate_count` can be met: all outer ones have been checked.
    candidate_count: usize,
    /// New states lie at `new_start..STATE_COUNT`, innermost last.
    new_start: usize,
    /// How many old states, from the outermost, are part of the new stack.
    kept_count: usize,
    is_recording: bool,
}

impl<'m> Recall<'m> {
    /// Checks the memo's words for a walk that starts at `sp` under `epoch`.
    #[inline]
    pub fn new(memo: &'m mut Memo, stack: &StackReader, sp: u64, epoch: u32) -> Recall<'m> {
        if memo.epoch != epoch {
            memo.clear();
            memo.epoch = epoch;
        }
        let states = memo.states.get(..memo.count).unwrap_or(&[]);
        let unchanged = states
            .iter()
            .take_while(|state| state.is_unchanged(stack, sp))
            .count();
        // The first state whose own words changed can still be met: its outer ones are good.
        let candidate_count = states.len().min(unchanged + 1);
        Recall {
            memo,
            candidate_count,
            new_start: STATE_COUNT,
            kept_count: 0,
            is_recording: true,
        }
    }

    /// Looks for `frame` among the checked states. On success the states of it and of all
    /// frames outside of it are kept; they are `kept()`.
    #[inline]
    pub fn meets(&mut self, frame: &Registers) -> bool {
        while let Some(last) = self.candidate_count.checked_sub(1) {
            let Some(state) = self.memo.states.get(last) else {
                return false;
            };
            if state.sp > frame.sp {
                return false;
            }
            if state.sp == frame.sp {
                let is_met = state.ip == frame.ip && state.bp == frame.bp;
                if is_met {
                    self.kept_count = self.candidate_count;
                }
                return is_met;
            }
            self.candidate_count = last;
        }
        false
    }

    /// How many frames were kept.
    #[inline]
    pub fn kept_count(&self) -> usize {
        self.kept_count
    }

    /// Copies the kept frames' return addresses, innermost first, as far as `out` reaches;
    /// answers how many, and the outermost of them.
    #[inline]
    pub fn copy_kept(&self, out: &mut [u64]) -> (usize, Registers) {
        let kept = self.memo.states.get(..self.kept_count).unwrap_or(&[]);
        let mut last = &NO_STATE;
        let mut copied_count = 0;
        for (place, state) in out.iter_mut().zip(kept.iter().rev()) {
            *place = state.ip;
            last = state;
            copied_count += 1;
        }
        (
            copied_count,
            Registers {
                ip: last.ip,
                sp: last.sp,
                bp: last.bp,
            },
        )
    }

    /// Adds a frame that was unwound, the next one outward.
    #[inline]
    pub fn add(&mut self, frame: &Frame) {
        if !self.is_recording {
            return;
        }
        let state = State::of(frame);
        let place = self
            .new_start
            .checked_sub(1)
            .and_then(|at| self.memo.states.get_mut(at));
        let (Some(state), Some(place)) = (state, place) else {
            self.is_recording = false;
            return;
        };
        *place = state;
        self.new_start -= 1;
        // Old states that the new ones grew over cannot be met any more.
        self.memo.count = self.memo.count.min(self.new_start);
        self.candidate_count = self.candidate_count.min(self.new_start);
    }

    /// Gives up recording; the memo keeps what it has.
    #[inline]
    pub fn stop_recording(&mut self) {
        self.is_recording = false;
    }

    /// The walk went on beyond the kept states: they are no longer the outermost.
    pub fn discard(&mut self) {
        self.is_recording = false;
        self.memo.clear();
    }

    /// Makes the stack of this walk the recorded one, unless the walk failed. Answers whether
    /// it did, and how many outermost frames it shares with the one recorded before.
    pub fn finish(self, end: End) -> (bool, usize) {
        let is_complete = end == End::Complete;
        let shared_count = if is_complete && self.memo.is_complete {
            self.kept_count
        } else {
            0
        };
        let is_failed = matches!(
            end,
            End::Truncated(Truncation::BadStack | Truncation::Closing)
        );
        if !self.is_recording || is_failed {
            return (false, shared_count);
        }
        let new_count = STATE_COUNT - self.new_start;
        self.memo
            .states
            .copy_within(self.new_start.., self.kept_count);
        self.memo.count = self.kept_count + new_count;
        self.memo.is_complete = is_complete;
        (true, shared_count)
    }
}

impl State {
    /// `None` where the places do not fit.
    #[inline]
    fn of(frame: &Frame) -> Option<State> {
        let Registers { ip, sp, bp } = frame.registers;
        let bp_offset = offset(frame.bp_at, sp)?;
        let cfa_offset = offset(frame.cfa_at, sp)?;
        Some(State {
            ip,
            sp,
            bp,
            bp_offset,
            cfa_offset,
        })
    }

    /// Whether the words that this state was read from, all of them above `sp`, are the same.
    #[inline]
    fn is_unchanged(&self, stack: &StackReader, sp: u64) -> bool {
        let holds = |address: u64, word: u64| {
            address >= sp && stack.read_known(address).is_some_and(|found| found == word)
        };
        let at = |offset: i32| self.sp.wrapping_add_signed(i64::from(offset));
        holds(at(-8), self.ip)
            && (self.bp_offset == 0 || holds(at(self.bp_offset), self.bp))
            && (self.cfa_offset == 0 || holds(at(self.cfa_offset), self.sp))
    }
}

/// `address - sp`, where that fits and is not the 0 that stands for no address.
#[inline]
fn offset(address: u64, sp: u64) -> Option<i32> {
    if address == 0 {
        return Some(0);
    }
    let offset = i32::try_from(address.wrapping_sub(sp) as i64).ok()?;
    (offset != 0).then_some(offset)
}
