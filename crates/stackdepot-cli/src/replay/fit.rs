//! `--fit`: the smallest depot in which nothing is evicted, refused or contended.
//!
//! Doubles until the workload fits. That tells how many slots it takes, and so a size below
//! which nothing can fit; from there the steps grow until it fits again, and the last step is
//! bisected. (Plain bisection from above would be led astray: near the limit a size may fail
//! by bad luck in the index where a smaller one does not.) With several threads what fits
//! depends on how they interleave: the result is then replayed with checks, and enlarged by
//! little until that pass is clean too.

use super::outcome::Outcome;
use super::progress::Progress;
use super::stage::{Plan, Stage};
use super::{checked, timed};
use crate::failure::Failure;

/// The depot is made of 64-byte lines: finer steps mean nothing.
const STEP_BYTES: u64 = 64;
/// Where doubling begins.
const FIRST_BYTES: u64 = 64 << 10;
/// Times that a size which the checked pass refutes is enlarged by 1/256.
const RETRY_COUNT: usize = 16;

/// Finds the size and replays at it, with checks.
pub fn replay(plan: &Plan<'_>, most_bytes: u64, progress: &Progress) -> Result<Outcome, Failure> {
    let most_bytes = most_bytes - most_bytes % STEP_BYTES;
    let (enough, slot_count) = enough_bytes(plan, most_bytes, progress)?;
    let mut stage = Stage::new(plan, enough)?;
    let mut bytes = smallest(plan, &mut stage, slot_count, enough, progress)?;
    for _ in 0..RETRY_COUNT {
        let checked = checked::replay(plan, &mut stage, bytes, progress)?;
        if checked.is_clean() {
            let timed = timed::replay(plan, &mut stage, bytes, progress)?;
            return Outcome::new(plan, bytes, &checked, timed.seconds);
        }
        bytes = (bytes + bytes / 256).next_multiple_of(STEP_BYTES);
        if bytes > most_bytes {
            break;
        }
    }
    Err(Failure::new(format_args!(
        "no size near {bytes} bytes stays clean: the threads interleave differently each time"
    )))
}

/// A size that is enough (the first of a doubling series, or the limit itself), and how many
/// slots the workload took there.
fn enough_bytes(
    plan: &Plan<'_>,
    most_bytes: u64,
    progress: &Progress,
) -> Result<(u64, u64), Failure> {
    let mut bytes = FIRST_BYTES.min(most_bytes);
    loop {
        if let Some(slot_count) = fits(plan, &mut Stage::new(plan, bytes)?, bytes, progress)? {
            return Ok((bytes, slot_count));
        }
        if bytes == most_bytes {
            return Err(Failure::new(format_args!(
                "the workload does not fit into {most_bytes} bytes, give more with --bytes"
            )));
        }
        bytes = (bytes * 2).min(most_bytes);
    }
}

/// The smallest size up to `enough` that fits a workload of so many slots.
fn smallest(
    plan: &Plan<'_>,
    stage: &mut Stage,
    slot_count: u64,
    enough: u64,
    progress: &Progress,
) -> Result<u64, Failure> {
    // Counted in steps. Up to `low` nothing fits, for want of slots at first.
    let has_slots = |step: u64| {
        Stage::slot_count(plan, step * STEP_BYTES).is_some_and(|count| count >= slot_count)
    };
    let (mut low, mut high) = (0, enough / STEP_BYTES);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if has_slots(middle) {
            high = middle
        } else {
            low = middle
        }
    }
    let mut stride = 1;
    while high * STEP_BYTES < enough && fits(plan, stage, high * STEP_BYTES, progress)?.is_none() {
        (low, high) = (high, (high + stride).min(enough / STEP_BYTES));
        stride *= 2;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(plan, stage, middle * STEP_BYTES, progress)?.is_some() {
            high = middle
        } else {
            low = middle
        }
    }
    Ok(high * STEP_BYTES)
}

/// The slots that a workload takes where it fits. A size that the depot refuses as too small
/// does not fit.
fn fits(
    plan: &Plan<'_>,
    stage: &mut Stage,
    bytes: u64,
    progress: &Progress,
) -> Result<Option<u64>, Failure> {
    if Stage::slot_count(plan, bytes).is_none() {
        return Ok(None);
    }
    progress.begin(
        &format!("fitting {bytes} bytes"),
        plan.event_count() * plan.threads,
    );
    timed::fits(plan, stage, bytes, progress)
}
