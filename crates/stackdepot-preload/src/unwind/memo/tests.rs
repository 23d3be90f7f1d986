//! The memo over stacks made up in memory.

use super::{Bp, Memo, STATE_COUNT};
use crate::unwind::paths::Paths;
use crate::unwind::stack::{KnownStack, StackRange, StackReader};
use crate::unwind::words::Word;
use core::cell::Cell;

const FRAME_COUNT: usize = 7;

/// A stack of frames of four words each: return address last, before it something saved.
struct Memory([Cell<u64>; 4 * FRAME_COUNT]);

impl Memory {
    fn new() -> Memory {
        Memory(core::array::from_fn(|word| {
            Cell::new(0x40_0000 + word as u64)
        }))
    }

    fn low(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn sp(&self, frame: usize) -> u64 {
        self.low() + 32 * (frame as u64 + 1)
    }

    fn ip(&self, frame: usize) -> u64 {
        self.0[4 * frame + 3].get()
    }

    fn saved(&self, frame: usize) -> &Cell<u64> {
        &self.0[4 * frame + 2]
    }

    fn change(word: &Cell<u64>) {
        word.set(word.get() + 1);
    }

    fn saved_at(&self, frame: usize) -> u64 {
        self.sp(frame) - 16
    }

    fn known(&self, frame_count: usize) -> KnownStack {
        let (low, high) = (self.low(), self.low() + 32 * frame_count as u64);
        StackReader::new(StackRange { low, high }).known()
    }
}

fn draft(memo: &mut Memo, memory: &Memory, frames: core::ops::Range<usize>) {
    for (place, frame) in frames.enumerate() {
        assert!(memo.draft.set(place, memory.ip(frame), memory.sp(frame)));
    }
}

/// A memo of all frames, whose fifth step starts from what the third frame's step had saved.
fn recorded(memory: &Memory) -> Box<Memo> {
    let mut memo = Box::new(Memo::EMPTY);
    memo.begin(1);
    draft(&mut memo, memory, 0..FRAME_COUNT);
    assert!(memo.draft.words.push(Word {
        address: memory.saved_at(2),
        value: memory.saved(2).get(),
        user: 4,
        saver: 2,
    }));
    assert!(memo.record(STATE_COUNT, FRAME_COUNT, Bp::of_register(0), true));
    memo
}

#[test]
fn each_changed_word_ends_what_is_unchanged() {
    let first = STATE_COUNT - FRAME_COUNT;
    let bp = Bp::of_register(0);
    let memory = Memory::new();
    let memo = recorded(&memory);
    let known = memory.known(FRAME_COUNT);
    assert_eq!(
        memo.unchanged_until(first, bp.at, bp.register, known),
        Some(STATE_COUNT)
    );
    for (word, place) in memory.0.iter().enumerate() {
        let old = place.get();
        Memory::change(place);
        let expected = match word % 4 {
            3 if word > 4 => first + word / 4,
            2 if word / 4 == 2 => first + 5,
            _ => STATE_COUNT,
        };
        let end = memo.unchanged_until(first, bp.at, bp.register, known);
        assert_eq!(end, Some(expected), "word {word}");
        place.set(old);
    }
}

#[test]
fn a_state_whose_bp_is_another_is_not_met() {
    let memory = Memory::new();
    let memo = recorded(&memory);
    let known = memory.known(FRAME_COUNT);
    let met = STATE_COUNT - FRAME_COUNT + 2;
    let value = memory.saved(2).get();
    let end_with = |bp| memo.unchanged_until(met, 0, bp, known);
    assert_eq!(end_with(value), Some(STATE_COUNT));
    assert_eq!(end_with(value + 1), None);
}

#[test]
fn nothing_beyond_the_known_stack_is_looked_at() {
    let memory = Memory::new();
    let memo = recorded(&memory);
    let first = STATE_COUNT - FRAME_COUNT;
    for frame_count in 1..FRAME_COUNT {
        let known = memory.known(frame_count);
        let end = memo.unchanged_until(first, 0, 0, known);
        assert_eq!(end, Some(first + 1), "{frame_count}");
    }
}

#[test]
fn a_word_is_looked_for_where_the_last_walk_read_it() {
    let memory = Memory::new();
    let mut memo = recorded(&memory);
    // The fourth frame is met again, after a new leaf whose step had saved the same `bp`.
    let kept_from = STATE_COUNT - FRAME_COUNT + 3;
    memory.saved(1).set(memory.saved(2).get());
    memo.begin(1);
    draft(&mut memo, &memory, 0..2);
    let bp = Bp {
        at: memory.saved_at(1),
        register: 0,
        saver: 1,
    };
    assert!(memo.record(kept_from, 2, bp, true));
    let first = kept_from - 2;
    let known = memory.known(FRAME_COUNT);
    let end = |memo: &Memo| memo.unchanged_until(first, 0, 0, known);
    assert_eq!(end(&memo), Some(STATE_COUNT));
    Memory::change(memory.saved(2));
    assert_eq!(
        end(&memo),
        Some(STATE_COUNT),
        "where nobody reads it any more"
    );
    Memory::change(memory.saved(1));
    assert_eq!(end(&memo), Some(STATE_COUNT - FRAME_COUNT + 5));
}

/// However a stack came about, by calls or by returns, it has one path.
#[test]
fn a_path_depends_on_the_frames_alone() {
    const DEPTH: usize = 13;
    let mut paths = Box::new(Paths::EMPTY);
    paths.enter_epoch(1);
    let record = |memo: &mut Memo, kept_from: usize, drafted: usize| {
        memo.begin(1);
        for place in 0..drafted {
            let frame = (kept_from - drafted + place) as u64;
            assert!(memo.draft.set(place, 0x40_0000 + frame, 8 * frame));
        }
        assert!(memo.record(kept_from, drafted, Bp::of_register(0), true));
    };
    for depth in 1..=DEPTH {
        let mut fresh = Box::new(Memo::EMPTY);
        record(&mut fresh, STATE_COUNT, depth);
        let expected = fresh.path(&mut paths);
        for before in 1..=DEPTH {
            let mut memo = Box::new(Memo::EMPTY);
            record(&mut memo, STATE_COUNT, before);
            memo.path(&mut paths);
            let kept = before.min(depth);
            record(&mut memo, STATE_COUNT - kept, depth - kept);
            assert_eq!(memo.path(&mut paths), expected, "{depth} after {before}");
        }
    }
    paths.clear();
    let mut memo = Box::new(Memo::EMPTY);
    record(&mut memo, STATE_COUNT, DEPTH);
    let old = memo.path(&mut paths);
    paths.clear();
    assert_ne!(memo.path(&mut paths), old, "under another root");
    record(&mut memo, STATE_COUNT, DEPTH);
    let again = memo.path(&mut paths);
    assert_eq!(memo.path(&mut paths), again);
}

#[test]
fn a_memo_is_whole_only_if_its_walk_was() {
    let memory = Memory::new();
    let mut memo = recorded(&memory);
    assert!(memo.ends_at(STATE_COUNT) && !memo.ends_at(STATE_COUNT - 1));
    memo.begin(1);
    draft(&mut memo, &memory, 0..2);
    assert!(memo.record(STATE_COUNT, 2, Bp::of_register(0), false));
    assert!(!memo.ends_at(STATE_COUNT));
    assert_eq!(memo.frames(), [memory.ip(0), memory.ip(1)]);
    assert_eq!(memo.begin(2), STATE_COUNT, "another epoch");
}

/// Words of all frames, in whatever order their addresses and savers are: every changed one is seen.
#[test]
fn each_changed_word_is_seen_in_any_order() {
    const USERS: [usize; 6] = [5, 4, 3, 2, 1, 0];
    let memory = Memory::new();
    let known = memory.known(FRAME_COUNT);
    for order in 0..6_u64.pow(4) {
        let frames: [usize; USERS.len()] =
            core::array::from_fn(|at| ((order / 6_u64.pow(at as u32 % 4)) % 6) as usize + at / 4);
        let mut memo = Box::new(Memo::EMPTY);
        memo.begin(1);
        draft(&mut memo, &memory, 0..FRAME_COUNT);
        // Innermost first.
        for (user, frame) in USERS.iter().rev().zip(frames) {
            assert!(memo.draft.words.push(Word {
                address: memory.saved_at(frame),
                value: memory.saved(frame).get(),
                user: *user,
                saver: user + 1,
            }));
        }
        assert!(memo.record(STATE_COUNT, FRAME_COUNT, Bp::of_register(0), true));
        let first = STATE_COUNT - FRAME_COUNT;
        let end = || memo.unchanged_until(first, 0, 0, known);
        assert_eq!(end(), Some(STATE_COUNT), "{frames:?}");
        for frame in frames {
            let word = memory.saved(frame);
            Memory::change(word);
            let user = frames.iter().position(|other| *other == frame);
            let expected = user.map(|user| first + user + 1);
            assert_eq!(end(), expected, "{frames:?} {frame}");
            word.set(word.get() - 1);
        }
    }
}
