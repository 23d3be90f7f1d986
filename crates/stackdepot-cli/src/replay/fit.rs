//! `--fit`: the smallest depot in which nothing is evicted, refused or contended.
//!
//! Doubles until the workload fits, then bisects down to [`STEP_BYTES`]. With several threads
//! what fits depends on how they interleave: the result is then replayed with checks, and
//! enlarged by little until that pass is clean too.

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
    let enough = enough_bytes(plan, most_bytes, progress)?;
    let mut stage = Stage::new(plan, enough)?;
    let mut bytes = bisect(plan, &mut stage, enough, progress)?;
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

/// A size that is enough: the first of a doubling series, or the limit itself.
fn enough_bytes(plan: &Plan<'_>, most_bytes: u64, progress: &Progress) -> Result<u64, Failure> {
    let mut bytes = FIRST_BYTES.min(most_bytes);
    loop {
        progress.begin(
            &format!("fitting {bytes} bytes"),
            plan.event_count() * plan.threads,
        );
        if fits(plan, &mut Stage::new(plan, bytes)?, bytes, progress)? {
            return Ok(bytes);
        }
        if bytes == most_bytes {
            return Err(Failure::new(format_args!(
                "the workload does not fit into {most_bytes} bytes, give more with --bytes"
            )));
        }
        bytes = (bytes * 2).min(most_bytes);
    }
}

/// The smallest size up to `enough` that fits.
fn bisect(
    plan: &Plan<'_>,
    stage: &mut Stage,
    enough: u64,
    progress: &Progress,
) -> Result<u64, Failure> {
    // Counted in steps; `low` does not fit, `high` does.
    let (mut low, mut high) = (0, enough / STEP_BYTES);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        progress.begin(
            &format!("fitting {} bytes", middle * STEP_BYTES),
            plan.event_count() * plan.threads,
        );
        if fits(plan, stage, middle * STEP_BYTES, progress)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high * STEP_BYTES)
}

/// A size that the depot refuses as too small does not fit.
fn fits(
    plan: &Plan<'_>,
    stage: &mut Stage,
    bytes: u64,
    progress: &Progress,
) -> Result<bool, Failure> {
    if !Stage::is_valid(plan, bytes) {
        return Ok(false);
    }
    timed::fits(plan, stage, bytes, progress)
}
