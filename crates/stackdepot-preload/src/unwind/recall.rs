//! A walk with a memo: unwinds the new frames, and asks the memo for the others.
//!
//! Key type: [`Position`]. The walk goes outwards from the leaf by plain rules out of the cache; what
//! is rarer is left to [`Stepper`]. What a memo cannot hold (several stacks in one walk, a failed
//! walk, recursion beyond its room) is given up: the caller then unwinds as if there were no memo.

use super::memo::{Bp, IP_OFFSET, Memo};
use super::quick::Quick;
use super::rule::Plain;
use super::stack::{ADDRESS_LIMIT, KnownStack};
use super::step::{FRAME_BYTES_LIMIT, Frame, Registers, Step, Stepper};
use super::words::{STATE_COUNT, Word};
use super::{End, Truncation, cache};
use core::hint::select_unpredictable;

/// An address that nothing can be read from.
const UNKNOWN: u64 = 1;

/// What a walk with a memo found; its frames are the memo's.
#[derive(Clone, Copy, Debug)]
pub struct Recalled {
    /// How the walk ended.
    pub end: End,
    /// Frames that were not unwound, because the memo had them.
    pub reused_count: usize,
}

/// The frame that a walk is at.
#[derive(Clone, Copy, Debug)]
struct Position {
    ip: u64,
    sp: u64,
    bp: Bp,
    /// Frames of the draft: the place of the next one.
    drafted: usize,
}

impl Position {
    #[inline(always)]
    fn new(ip: u64, sp: u64, bp: Bp, drafted: usize) -> Position {
        Position {
            ip,
            sp,
            bp,
            drafted,
        }
    }
}

/// What a step out of the ordinary led to.
enum Left {
    To(Position),
    /// Nowhere; a rule says so (`true`), or something that must be looked at again.
    Ended(End, bool),
}

/// Walks to the end, or until there are more frames than there is room, and makes the stack the
/// recorded one. The program's registers come one by one, so that they stay in ours. `None`: given up; what
/// the memo holds then has no meaning.
#[inline(never)]
pub fn recall(
    memo: &mut Memo,
    stepper: &mut Stepper,
    mut ip: u64,
    mut sp: u64,
    bp: u64,
    room: usize,
) -> Option<Recalled> {
    let epoch = stepper.epoch();
    let mut candidate = memo.begin(epoch);
    let mut stack = stepper.stack.known();
    let mut bp = Bp::of_register(bp);
    if !sp.is_multiple_of(8) {
        return None;
    }
    let mut drafted = 0;
    let mut reused_count = 0;
    let (end, kept_from, is_whole) = loop {
        candidate = memo.skip_until(candidate, sp);
        if memo.is_at(candidate, ip, sp)
            && let Some(end) = memo.unchanged_until(candidate, bp.at, bp.register, stack)
        {
            let frame_count = drafted + end - candidate;
            let is_at_end = memo.ends_at(end);
            reused_count += end - candidate;
            if frame_count > room {
                break (End::LimitReached, candidate, memo.ends_at(STATE_COUNT));
            }
            if is_at_end {
                break (End::Complete, candidate, true);
            }
            let at = Position::new(ip, sp, bp, drafted);
            let next = go_on_from(memo, &at, candidate, end, epoch)?;
            (ip, sp, bp, drafted) = (next.ip, next.sp, next.bp, next.drafted);
            candidate = end;
        } else if drafted == room {
            break (End::LimitReached, STATE_COUNT, false);
        } else if memo.draft.set(drafted, ip, sp) {
            drafted += 1;
        } else {
            return None;
        }
        let at = Position::new(ip, sp, bp, drafted);
        if let Some(next) = step_plainly(memo, at, epoch, stack) {
            (ip, sp, bp) = (next.ip, next.sp, next.bp);
            continue;
        }
        match step_anyhow(memo, stepper, &Position::new(ip, sp, bp, drafted))? {
            Left::To(next) => {
                (ip, sp, bp) = (next.ip, next.sp, next.bp);
                stack = stepper.stack.known();
            }
            Left::Ended(end, is_by_rule) => break (end, STATE_COUNT, is_by_rule),
        }
    };
    let is_recorded = memo.record(kept_from, drafted, bp, is_whole);
    is_recorded.then_some(Recalled { end, reused_count })
}

/// The usual step: by a quick rule, to a caller further out on the known part of the same
/// stack; without a branch on whether `bp` was saved, which cannot be predicted. `None` says nothing
/// but that [`step_anyhow`] must be asked.
#[inline(always)]
fn step_plainly(memo: &mut Memo, at: Position, epoch: u32, stack: KnownStack) -> Option<Position> {
    // The greatest address but one fails the limit, too.
    let pc = at.ip.wrapping_sub(1);
    if pc >= ADDRESS_LIMIT {
        return None;
    }
    let rule = match memo.rules.get(pc) {
        Some(rule) => rule,
        None => quick_rule(memo, pc, epoch)?,
    };
    let base = match rule.is_base_bp() {
        false => at.sp,
        true => {
            let bp = at.bp.read(stack)?;
            note(memo, at.drafted, at.bp.at, bp, at.bp.saver)?;
            bp
        }
    };
    let sp = rule.cfa(base);
    if !is_outwards(at.sp, sp) {
        return None;
    }
    let ip = stack.read(sp.wrapping_sub(IP_OFFSET))?;
    if ip == 0 {
        return None;
    }
    let is_saved = rule.is_bp_saved();
    let bp = Bp {
        at: select_unpredictable(is_saved, rule.bp_at(sp), at.bp.at),
        saver: select_unpredictable(is_saved, at.drafted, at.bp.saver),
        ..at.bp
    };
    Some(Position { ip, sp, bp, ..at })
}

/// A usual rule that the thread did not use for a while.
#[inline(never)]
fn quick_rule(memo: &mut Memo, pc: u64, epoch: u32) -> Option<Quick> {
    let rule = Quick::of(Plain::of(cache::get(cache::Key::new(pc, epoch)))?)?;
    memo.rules.put(pc, rule);
    Some(rule)
}

/// Notes a word on which the step out of the last drafted frame depends.
#[inline]
fn note(memo: &mut Memo, drafted: usize, address: u64, value: u64, saver: usize) -> Option<()> {
    let word = Word {
        address,
        value,
        user: drafted.wrapping_sub(1),
        saver,
    };
    memo.draft.words.push(word).then_some(())
}

/// Any other step; `None` gives up.
#[inline(never)]
fn step_anyhow(memo: &mut Memo, stepper: &mut Stepper, at: &Position) -> Option<Left> {
    let bp = match at.bp.at {
        0 => at.bp.register,
        address => stepper.stack.read(address)?,
    };
    let mut frame = Frame {
        registers: Registers {
            ip: at.ip,
            sp: at.sp,
            bp,
        },
        bp_at: 0,
        cfa_at: 0,
    };
    let step = stepper.step(&mut frame);
    if matches!(step, Step::End) {
        return Some(Left::Ended(End::Complete, true));
    }
    note(memo, at.drafted, at.bp.at, bp, at.bp.saver)?;
    match step.end() {
        Some(End::Truncated(Truncation::BadStack | Truncation::Closing)) => return None,
        Some(end) => return Some(Left::Ended(end, false)),
        None => {}
    }
    let Registers { ip, sp, .. } = frame.registers;
    if !stepper.is_straight() || !is_outwards(at.sp, sp) || !sp.is_multiple_of(8) {
        return None;
    }
    if frame.cfa_at != 0 {
        note(memo, at.drafted, frame.cfa_at, sp, at.drafted)?;
    }
    let bp = match frame.bp_at {
        0 => at.bp,
        address => Bp {
            at: address,
            saver: at.drafted,
            ..at.bp
        },
    };
    Some(Left::To(Position { ip, sp, bp, ..*at }))
}

/// Goes on from the last of the unchanged states, whose step is to be taken anew.
#[cold]
#[inline(never)]
fn go_on_from(
    memo: &mut Memo,
    at: &Position,
    met: usize,
    end: usize,
    epoch: u32,
) -> Option<Position> {
    let (drafted, ip, sp) = memo.draft_old(met, end, at.drafted, at.bp)?;
    let mut bp = at.bp;
    // The last of these steps that read `bp`; how the first state was reached is known.
    for (place, ip, sp) in memo.draft.steps_between(at.drafted, drafted) {
        let key = cache::Key::new(ip.wrapping_sub(1), epoch);
        let Some(rule) = Plain::of(cache::get(key)) else {
            bp.at = UNKNOWN;
            break;
        };
        if rule.is_bp_saved() {
            bp.at = sp.wrapping_add_signed(rule.bp_offset());
            bp.saver = place;
            break;
        }
    }
    Some(Position {
        ip,
        sp,
        bp,
        drafted,
    })
}

/// Whether a frame is one further out on the same stack.
#[inline(always)]
fn is_outwards(inner_sp: u64, sp: u64) -> bool {
    sp.wrapping_sub(inner_sp).wrapping_sub(1) < FRAME_BYTES_LIMIT
}

#[cfg(test)]
mod tests {
    use super::{Position, UNKNOWN, cache, go_on_from};
    use crate::unwind::memo::{Bp, Memo};
    use crate::unwind::rule::{Cfa, Rule, SavedBp};
    use crate::unwind::words::STATE_COUNT;

    /// Where `bp` is found in the last of four old states, of which the first three are left by
    /// these rules; the first was reached with 7 in the register.
    fn bp_after(rules: [Rule; 3]) -> Bp {
        const EPOCH: u32 = 77;
        let mut memo = Box::new(Memo::EMPTY);
        let register = Bp::of_register(7);
        memo.begin(EPOCH);
        for place in 0..4 {
            assert!(
                memo.draft
                    .set(place, 0x1000 + place as u64, 0x10_0000 + 64 * place as u64)
            );
        }
        assert!(memo.record(STATE_COUNT, 4, register, false));
        for (place, rule) in rules.into_iter().enumerate() {
            cache::put(cache::Key::new(0xfff + place as u64, EPOCH), rule.pack());
        }
        let at = Position::new(0x1000, 0x10_0000, register, 2);
        let next = go_on_from(&mut memo, &at, STATE_COUNT - 4, STATE_COUNT, EPOCH).expect("room");
        assert_eq!((next.ip, next.sp, next.drafted), (0x1003, 0x10_00c0, 6));
        next.bp
    }

    #[test]
    fn bp_is_where_the_last_of_the_old_steps_read_it() {
        let cfa = Cfa::Sp(64);
        let [kept, saved] =
            [SavedBp::Unchanged, SavedBp::AtCfa(-2)].map(|bp| Rule::Frame { cfa, bp });
        let realigned = Rule::Frame {
            cfa: Cfa::DerefBp { at: -8, offset: 0 },
            bp: SavedBp::AtBp(0),
        };
        let bp = bp_after([kept, kept, kept]);
        assert_eq!((bp.at, bp.register), (0, 7));
        let bp = bp_after([saved, saved, kept]);
        assert_eq!((bp.at, bp.saver), (0x10_0080 - 16, 4));
        let bp = bp_after([realigned, kept, saved]);
        assert_eq!((bp.at, bp.saver), (0x10_00c0 - 16, 5));
        assert_eq!(bp_after([saved, realigned, kept]).at, UNKNOWN);
    }
}
