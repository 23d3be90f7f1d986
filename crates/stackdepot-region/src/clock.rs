//! Pairs of clocks, and what turns a time stamp counter into seconds.
//!
//! Key types: [`ClockPair`], one reading of the three clocks by the writer; [`ClockScale`], by which a
//! reader turns distances between time stamps into seconds.
#![allow(unsafe_code)] // reading the time stamp counter and clock_gettime

/// The wall clock, the monotonic clock and the time stamp counter, read one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockPair {
    /// Nanoseconds since 1970.
    pub realtime_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// The time stamp counter.
    pub tsc: u64,
}

impl ClockPair {
    /// Reads the clocks now. No system call where the kernel offers a vDSO; leaves `errno` alone.
    pub fn now() -> ClockPair {
        ClockPair {
            realtime_ns: nanoseconds(libc::CLOCK_REALTIME),
            monotonic_ns: nanoseconds(libc::CLOCK_MONOTONIC),
            tsc: tsc(),
        }
    }
}

/// The time stamp counter, or the monotonic clock where there is none.
#[inline]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    nanoseconds(libc::CLOCK_MONOTONIC)
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer; both clocks exist, so errno stays as it is.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}

/// Nearer pairs say nothing: reading them takes too much of the time between.
const LEAST_BASE_NS: u64 = 100_000;
/// Pairs this far apart are as good as any.
const GOOD_BASE_NS: u64 = 1_000_000_000;

/// How fast the time stamp counter runs, out of two pairs far enough apart.
#[derive(Clone, Copy, Debug)]
pub struct ClockScale {
    ticks_per_second: f64,
}

impl ClockScale {
    /// From what a file noted; where its writer noted too little (it was killed, or lived shortly),
    /// from its start until `now`, which is `None` where the counter is not the writer's.
    pub fn new(
        start: &ClockPair,
        noted: &ClockPair,
        now: Option<&ClockPair>,
    ) -> Option<ClockScale> {
        let noted_scale = || ClockScale::between(start, noted, LEAST_BASE_NS);
        ClockScale::between(start, noted, GOOD_BASE_NS)
            .or_else(|| ClockScale::between(start, now?, LEAST_BASE_NS))
            .or_else(noted_scale)
    }

    /// `None` when the pairs are nearer each other than `least_ns`, or nonsense.
    fn between(start: &ClockPair, end: &ClockPair, least_ns: u64) -> Option<ClockScale> {
        let elapsed_ns = end.monotonic_ns.checked_sub(start.monotonic_ns)?;
        let elapsed_ticks = end.tsc.checked_sub(start.tsc)?;
        let is_enough = elapsed_ns >= least_ns && elapsed_ticks > 0;
        is_enough.then_some(ClockScale {
            ticks_per_second: elapsed_ticks as f64 / (elapsed_ns as f64 / 1e9),
        })
    }

    /// How long `tsc` lies before `end_tsc`, in seconds; never negative.
    pub fn seconds_between(&self, tsc: u64, end_tsc: u64) -> f64 {
        let distance = end_tsc.wrapping_sub(tsc) as i64;
        (distance as f64 / self.ticks_per_second).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: ClockPair = ClockPair {
        realtime_ns: 1_000_000_000_000,
        monotonic_ns: 5_000_000_000,
        tsc: 700,
    };

    fn later(milliseconds: u64, ticks: u64) -> ClockPair {
        ClockPair {
            realtime_ns: START.realtime_ns + milliseconds * 1_000_000,
            monotonic_ns: START.monotonic_ns + milliseconds * 1_000_000,
            tsc: START.tsc + ticks,
        }
    }

    #[test]
    fn time_stamps_become_seconds() {
        let noted = later(2000, 2000);
        let scale = ClockScale::new(&START, &noted, None).unwrap();
        assert!((scale.seconds_between(1700, 2700) - 1.0).abs() < 1e-9);
        assert_eq!(scale.seconds_between(2701, 2700), 0.0);
        assert!(ClockScale::new(&noted, &START, None).is_none());
        assert!(ClockScale::new(&START, &START, None).is_none());
    }

    #[test]
    fn longer_of_two_bases_counts() {
        let seconds = |noted: &ClockPair, now: Option<&ClockPair>| {
            let scale = ClockScale::new(&START, noted, now);
            scale.map(|scale| scale.seconds_between(0, 1000))
        };
        let now = later(10_000, 20_000); // 2000 a second
        assert_eq!(seconds(&START, Some(&now)), Some(0.5));
        assert_eq!(seconds(&later(1, 1), Some(&now)), Some(0.5));
        assert_eq!(seconds(&later(1, 1), None), Some(1.0));
        assert_eq!(seconds(&later(1000, 1000), Some(&now)), Some(1.0));
        // The counter was set back (a suspended machine): what was noted is all there is.
        let set_back = ClockPair { tsc: 1, ..now };
        assert_eq!(seconds(&later(1, 1), Some(&set_back)), Some(1.0));
        assert_eq!(seconds(&START, Some(&set_back)), None);
    }

    #[test]
    fn clocks_run_forward() {
        let first = ClockPair::now();
        let second = ClockPair::now();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        assert!(first.realtime_ns > 1_500_000_000_000_000_000);
    }
}
