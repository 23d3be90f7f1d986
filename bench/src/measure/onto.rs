//! `save_onto`: its cost must follow the new frames, not the depth of the stack.
//!
//! Made-up stacks, all stored: some callers, each a multiple of ten frames deep, and on each of
//! them many different ends. Saves come in a random order that is the same for every shape. Each shape
//! has a depot to itself, for in a shared one the later shapes lie farther from their places in the
//! index. As in a program that unwinds with a memo, what is known of a caller stays where it is and only
//! the new frames are written before a save.

use std::hint::black_box;

use stackdepot::{Ancestor, Depot, Hold};

use crate::figure::Measure;
use crate::machine::Watch;
use crate::peers::ours;
use crate::process::Round;
use crate::workload::Workload;

/// A plain save of eight frames.
pub const PLAIN_8: Measure = Measure("save of 8 frames");
/// Ten known frames and six new ones.
pub const ONTO_16: Measure = Measure("save_onto, depth 16, 6 new");
/// 250 known frames and six new ones.
pub const ONTO_256: Measure = Measure("save_onto, depth 256, 6 new");
/// Ten known frames and eight new ones.
pub const ONTO_18: Measure = Measure("save_onto, depth 18, 8 new");
/// 240 known frames and eight new ones.
pub const ONTO_248: Measure = Measure("save_onto, depth 248, 8 new");

/// Known frames and new frames of the measures, in their order.
const SHAPES: [(usize, usize); 5] = [(0, 8), (10, 6), (250, 6), (10, 8), (240, 8)];
const CALLER_COUNT: usize = 8;
const END_COUNT: usize = 64;
const SAVE_COUNT: usize = 1 << 20;
/// Saves between two looks at the clock: one on each caller, so that every caller has its own frames.
const BATCH: usize = CALLER_COUNT;
const SLOT_COUNT: u32 = 4096;
const MOST_DEPTH: usize = 256;

/// Stacks of one shape in a depot of their own.
struct Shape {
    depot: Depot<'static>,
    new_frames: usize,
    callers: Vec<Caller>,
}

/// A caller, with what an unwinder's memo knows of it.
struct Caller {
    /// The stack of the newest save: new frames, then the known ones.
    stack: Vec<u64>,
    ancestor: Option<Ancestor>,
    number: u64,
}

/// All five measures; the workload does not matter.
pub fn start(_: &Workload) -> Result<Round<'_>, String> {
    let mut shapes: Vec<Shape> = SHAPES
        .iter()
        .map(|&(known, new)| Shape::stored(known, new))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(move || {
        Ok(shapes.iter_mut().map(Shape::time).collect())
    }))
}

impl Shape {
    fn stored(known: usize, new_frames: usize) -> Result<Shape, String> {
        let depot = ours::depot(&ours::config(SLOT_COUNT));
        let mut callers = Vec::new();
        for number in 0..CALLER_COUNT as u64 {
            let mut caller = Caller {
                stack: vec![0; new_frames],
                ancestor: None,
                number,
            };
            for place in new_frames..new_frames + known {
                caller.stack.push(caller.frame(place as u64, 0));
            }
            for end in 0..END_COUNT as u64 {
                caller.enter(new_frames, end);
                let mut trail = [None; MOST_DEPTH / 10 + 1];
                let saved = depot.save_onto(None, &caller.stack, Hold::None, &mut trail);
                saved.map_err(|error| format!("a stack was refused: {error:?}"))?;
                let level = (known / 10).checked_sub(1);
                caller.ancestor = level.and_then(|level| trail[level]);
            }
            if caller.ancestor.is_some() != (known > 0) {
                return Err("an ancestor has no token".to_owned());
            }
            callers.push(caller);
        }
        Ok(Shape {
            depot,
            new_frames,
            callers,
        })
    }

    fn time(&mut self) -> f64 {
        let mut watch = Watch::new();
        let mut random = 1u64;
        let mut trail = [None; MOST_DEPTH / 10 + 1];
        for _ in 0..SAVE_COUNT / BATCH {
            for caller in &mut self.callers {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                caller.enter(self.new_frames, (random >> 40) % END_COUNT as u64);
            }
            watch.time(BATCH, || {
                for caller in &self.callers {
                    black_box(match &caller.ancestor {
                        None => save(&self.depot, &caller.stack),
                        Some(ancestor) => {
                            save_onto(&self.depot, ancestor, &caller.stack, &mut trail)
                        }
                    });
                }
            });
        }
        watch.ns()
    }
}

impl Caller {
    /// Goes on into one of its ends: writes the new frames, as an unwinder does.
    fn enter(&mut self, new_frames: usize, end: u64) {
        for place in 0..new_frames {
            self.stack[place] = self.frame(place as u64, end + 1);
        }
    }

    fn frame(&self, place: u64, end: u64) -> u64 {
        0x5555_0000_0000 + (self.number << 24) + (end << 12) + place * 8
    }
}

#[inline(never)]
fn save(depot: &Depot<'_>, stack: &[u64]) -> u64 {
    depot.save(stack).map_or(0, |weak| weak.to_bits())
}

#[inline(never)]
fn save_onto(
    depot: &Depot<'_>,
    ancestor: &Ancestor,
    stack: &[u64],
    trail: &mut [Option<Ancestor>],
) -> u64 {
    let saved = depot.save_onto(Some(ancestor), stack, Hold::None, trail);
    saved.map_or(0, |saved| saved.weak.to_bits())
}
