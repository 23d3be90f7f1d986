//! A bound on steps: the CPU time that one run of the code under test may take.
//!
//! It is the thread's own time, so that a busy machine makes no finding. What never ends at all is
//! ended by libFuzzer's `-timeout`.

use rustix::time::{ClockId, clock_gettime};

/// Runs `work`; panics when it took more CPU milliseconds than `most_ms`.
pub fn within<T>(most_ms: u64, work: impl FnOnce() -> T) -> T {
    let start_ms = now_ms();
    let done = work();
    let spent_ms = now_ms() - start_ms;
    assert!(
        spent_ms <= most_ms,
        "{spent_ms} ms of CPU for one input, more than {most_ms}"
    );
    done
}

fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
