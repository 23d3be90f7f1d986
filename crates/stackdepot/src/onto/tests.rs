//! Tokens that fit spare looking at the frames outside; tokens that do not are as good as none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::config::{Config, HashChoice};
use crate::depot::Depot;
use crate::error::HoldError;
use crate::layout::Line;

/// Of 25 frames the innermost ones, and others where the token's frames are: only a save that
/// starts from the token takes them for the stored stack.
fn with_other_outer(frames: [u64; 25], inner: usize) -> [u64; 25] {
    core::array::from_fn(|at| if at < inner { frames[at] } else { 0xbad })
}

fn with_tokens(test: impl Fn(&Depot<'_>, [u64; 25], WeakHandle, [Ancestor; 2])) {
    for hash in [HashChoice::Portable, HashChoice::Fastest] {
        let mut memory = [Line::ZERO; 128];
        let config = Config {
            hash,
            ..Config::new(8192)
        };
        let depot = Depot::new(&mut memory, &config).unwrap();
        let frames = core::array::from_fn(|at| 0x4000 + at as u64);
        let mut trail = [None; 2];
        let saved = depot
            .save_onto(None, &frames, Hold::None, &mut trail)
            .unwrap();
        test(&depot, frames, saved.weak, trail.map(Option::unwrap));
    }
}

fn save_onto(depot: &Depot<'_>, token: &Ancestor, frames: &[u64]) -> WeakHandle {
    let saved = depot.save_onto(Some(token), frames, Hold::None, &mut []);
    saved.unwrap().weak
}

#[test]
fn only_the_frames_inside_of_a_token_are_looked_at() {
    with_tokens(|depot, frames, weak, tokens| {
        for (token, depth) in tokens.iter().zip([10, 20]) {
            assert_eq!(token.depth(), depth);
            let others = with_other_outer(frames, 25 - depth);
            assert_eq!(save_onto(depot, token, &others), weak);
        }
        let others = with_other_outer(frames, 15);
        assert_eq!(
            save_onto(depot, &tokens[0], &others[5..]),
            depot.save(&frames[5..]).unwrap(),
            "a stack that ends in a full run"
        );
    });
}

#[test]
fn a_token_of_another_life_hash_or_depth_is_as_good_as_none() {
    with_tokens(|depot, frames, weak, [_, token]| {
        let others = with_other_outer(frames, 5);
        let leaf = Ancestor { weak, ..token };
        let wrong = [
            Ancestor {
                weak: WeakHandle::new(token.weak.slot(), token.weak.generation() + 1),
                ..token
            },
            Ancestor {
                weak: WeakHandle::new(99_999, token.weak.generation()),
                ..token
            },
            Ancestor {
                hash: token.hash ^ 1,
                ..token
            },
            leaf,
            Ancestor { depth: 30, ..token },
        ];
        let whole = depot.save(&others).unwrap();
        for token in &wrong {
            assert_eq!(save_onto(depot, token, &others), whole, "{token:?}");
        }
        // A leaf that is not full is no ancestor, even where everything else fits.
        let hash = depot
            .region
            .slot(weak.slot())
            .unwrap()
            .hash
            .load(Ordering::Relaxed);
        let leaf = Ancestor {
            hash: hash.into(),
            ..leaf
        };
        assert_eq!(save_onto(depot, &leaf, &others), whole);
    });
}

#[test]
fn what_saved_stacks_only_pass_through_is_no_stack_to_hold() {
    with_tokens(|depot, frames, weak, tokens| {
        assert_eq!(depot.hold(weak, Hold::None).map(|held| held.weak), Ok(weak));
        for (token, inner) in tokens.iter().zip([15, 5]) {
            let refused = depot.hold(token.weak, Hold::None);
            assert_eq!(refused.err(), Some(HoldError::Evicted));
            depot.save(&frames[inner..]).unwrap();
            assert!(depot.hold(token.weak, Hold::None).is_ok(), "saved by now");
        }
    });
}

#[test]
fn a_stack_with_nothing_inside_of_its_token_is_saved_whole() {
    with_tokens(|depot, frames, _, [_, token]| {
        let outer = &frames[5..];
        assert_eq!(save_onto(depot, &token, outer), depot.save(outer).unwrap());
        assert_eq!(
            save_onto(depot, &token, &outer[1..]),
            depot.save(&outer[1..]).unwrap()
        );
    });
}

#[test]
fn a_trail_names_the_full_levels_below_its_token_and_nothing_beyond() {
    with_tokens(|depot, frames, _, tokens| {
        let mut trail = [Some(tokens[0]); 4];
        depot
            .save_onto(None, &frames, Hold::None, &mut trail)
            .unwrap();
        assert_eq!(
            trail,
            [
                Some(tokens[0]),
                Some(tokens[1]),
                Some(tokens[0]),
                Some(tokens[0])
            ]
        );
        let mut trail = [None, Some(tokens[0]), None, None];
        depot
            .save_onto(Some(&tokens[0]), &frames, Hold::None, &mut trail)
            .unwrap();
        assert_eq!(trail, [None, Some(tokens[1]), None, None]);
        let mut short = [None; 1];
        depot
            .save_onto(None, &frames, Hold::None, &mut short)
            .unwrap();
        assert_eq!(short, [Some(tokens[0])]);
    });
}

#[test]
fn a_trail_of_many_levels_is_that_of_few() {
    let mut memory = [Line::ZERO; 128];
    let depot = Depot::new(&mut memory, &Config::new(8192)).unwrap();
    let frames: [u64; 75] = core::array::from_fn(|at| 0x4000 + at as u64);
    let mut trail = [None; 8];
    let saved = depot
        .save_onto(None, &frames, Hold::None, &mut trail)
        .unwrap();
    for (level, token) in trail.iter().enumerate() {
        assert_eq!(
            token.map(|token| token.depth()),
            (level < 7).then_some((level + 1) * 10)
        );
    }
    for token in trail.iter().flatten() {
        let mut others = frames;
        others[75 - token.depth()..].fill(0xbad);
        assert_eq!(save_onto(&depot, token, &others), saved.weak);
    }
}
