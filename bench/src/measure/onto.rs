//! `save_onto`: its cost must follow the new frames, not the depth of the stack.
//!
//! Made-up stacks, all stored: some callers, each a multiple of ten frames deep, and on each of
//! them many different ends. Saves come in a random order that is the same for every depth.

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
const SAVE_COUNT: usize = 1 << 17;
const BATCH: usize = 64;
const SLOT_COUNT: u32 = 16384;
const MOST_DEPTH: usize = 256;

/// Stacks of one shape, with what is known of them.
struct Shape {
    stacks: Vec<Vec<u64>>,
    ancestors: Vec<Option<Ancestor>>,
}

/// All five measures; the workload does not matter.
pub fn start(_: &Workload) -> Result<Round<'_>, String> {
    let config = ours::config(SLOT_COUNT);
    let depot = ours::depot(&config);
    let shapes: Vec<Shape> = SHAPES
        .iter()
        .enumerate()
        .map(|(index, &(known, new))| Shape::stored(&depot, index as u64, known, new))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(move || {
        Ok(shapes.iter().map(|shape| shape.time(&depot)).collect())
    }))
}

impl Shape {
    fn stored(depot: &Depot<'_>, index: u64, known: usize, new: usize) -> Result<Shape, String> {
        let mut shape = Shape {
            stacks: Vec::new(),
            ancestors: Vec::new(),
        };
        for caller in 0..CALLER_COUNT as u64 {
            for end in 0..END_COUNT as u64 {
                let frame = |place: u64, which: u64| {
                    0x5555_0000_0000 + (index << 28) + (caller << 24) + (which << 12) + place * 8
                };
                let ends = (0..new as u64).map(|place| frame(place, end + 1));
                let known_frames = (0..known as u64).map(|place| frame(place + new as u64, 0));
                let stack: Vec<u64> = ends.chain(known_frames).collect();
                let mut trail = [None; MOST_DEPTH / 10 + 1];
                let saved = depot.save_onto(None, &stack, Hold::None, &mut trail);
                saved.map_err(|error| format!("a stack was refused: {error:?}"))?;
                shape.ancestors.push(
                    known
                        .checked_div(10)
                        .filter(|n| *n > 0)
                        .and_then(|n| trail[n - 1]),
                );
                shape.stacks.push(stack);
            }
        }
        let all_known = shape
            .ancestors
            .iter()
            .all(|ancestor| ancestor.is_some() == (known > 0));
        all_known
            .then_some(shape)
            .ok_or_else(|| "an ancestor has no token".to_owned())
    }

    fn time(&self, depot: &Depot<'_>) -> f64 {
        let mut watch = Watch::new();
        let mut random = 1u64;
        let mut trail = [None; MOST_DEPTH / 10 + 1];
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..SAVE_COUNT / BATCH {
            batch.extend((0..BATCH).map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let index = (random >> 40) as usize % self.stacks.len();
                // Read, so that the frames are hot as they are after an unwind.
                black_box(self.stacks[index].iter().sum::<u64>());
                (self.stacks[index].as_slice(), self.ancestors[index])
            }));
            watch.time(BATCH, || {
                for (stack, ancestor) in &batch {
                    black_box(match ancestor {
                        None => save(depot, stack),
                        Some(ancestor) => save_onto(depot, ancestor, stack, &mut trail),
                    });
                }
            });
            batch.clear();
        }
        watch.ns()
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
