//! Pairs of clocks, and what turns a time stamp counter into seconds.
//!
//! Key types: [`ClockPair`], one reading of the three clocks by the writer; [`ClockScale`], two of
//! them, by which a reader turns the time stamps of events into wall-clock seconds.
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

/// Two pairs far enough apart to know how fast the time stamp counter runs.
#[derive(Clone, Copy, Debug)]
pub struct ClockScale {
    last: ClockPair,
    ticks_per_second: f64,
}

impl ClockScale {
    /// From the start and the newest pair; `None` when they are too near each other or nonsense.
    pub fn new(start: &ClockPair, last: &ClockPair) -> Option<ClockScale> {
        let elapsed_ns = last.monotonic_ns.checked_sub(start.monotonic_ns)?;
        let elapsed_ticks = last.tsc.checked_sub(start.tsc)?;
        if elapsed_ns < 100_000 || elapsed_ticks == 0 {
            return None;
        }
        Some(ClockScale {
            last: *last,
            ticks_per_second: elapsed_ticks as f64 / (elapsed_ns as f64 / 1e9),
        })
    }

    /// The wall clock at a time stamp, in seconds since 1970.
    pub fn unix_seconds(&self, tsc: u64) -> f64 {
        let distance = tsc.wrapping_sub(self.last.tsc) as i64;
        self.last.realtime_ns as f64 / 1e9 + distance as f64 / self.ticks_per_second
    }

    /// How long `tsc` lies before `end_tsc`, in seconds; never negative.
    pub fn seconds_between(&self, tsc: u64, end_tsc: u64) -> f64 {
        let distance = end_tsc.wrapping_sub(tsc) as i64;
        (distance as f64 / self.ticks_per_second).max(0.0)
    }

    /// How fast the time stamp counter runs.
    pub fn ticks_per_second(&self) -> f64 {
        self.ticks_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_become_seconds() {
        let start = ClockPair {
            realtime_ns: 1_000_000_000_000,
            monotonic_ns: 5_000_000_000,
            tsc: 700,
        };
        let last = ClockPair {
            realtime_ns: 1_002_000_000_000,
            monotonic_ns: 7_000_000_000,
            tsc: 2700,
        };
        let scale = ClockScale::new(&start, &last).unwrap();
        assert!((scale.ticks_per_second() - 1000.0).abs() < 1e-9);
        assert!((scale.unix_seconds(1700) - 1001.0).abs() < 1e-6);
        assert!((scale.seconds_between(1700, 2700) - 1.0).abs() < 1e-9);
        assert!(ClockScale::new(&last, &start).is_none());
        assert!(ClockScale::new(&start, &start).is_none());
    }

    #[test]
    fn clocks_run_forward() {
        let first = ClockPair::now();
        let second = ClockPair::now();
        assert!(second.monotonic_ns >= first.monotonic_ns);
        assert!(first.realtime_ns > 1_500_000_000_000_000_000);
    }
}
