//! Threads hammering one region in several configurations, with every fetched stack checked.
//!
//! A program of its own (no libtest), so that it runs under the sanitizers without reports about
//! anything but the depot: `cargo xtask sanitize`. ThreadSanitizer sees only what is not atomic,
//! and all of a region is; so each number that travels through a region, a ring or a live table
//! carries a plain word (`carried.rs`), written before it is handed over and read by whoever gets
//! it: an ordering that is missing on the way is a data race there. It does not see an ordering of
//! which another one of the same thread on the same word does the work (a birth or a live-table key
//! without release: the claim of the same word releases, too), nor fences: the models see
//! those. AddressSanitizer guards the ends of regions that take exactly their bytes. Whatever is
//! wrong is a panic or a sanitizer's report; each ends the program without its closing line.
//! `STACKDEPOT_STRESS_PERCENT` says how many of the usual steps are made (100).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

#[cfg(not(loom))]
mod carried;
#[cfg(not(loom))]
mod hammer;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod numbers;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod recorder;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    let percent = std::env::var("STACKDEPOT_STRESS_PERCENT").map_or(100, |percent| {
        percent
            .parse()
            .unwrap_or_else(|_| panic!("STACKDEPOT_STRESS_PERCENT is no number: {percent:?}"))
    });
    let mut all = Figures::default();
    let mut count = 0;
    for (name, attack) in configurations() {
        let figures = attack(percent);
        println!("stress {name}: {figures}");
        all.add(&figures);
        count += 1;
    }
    println!("stress: {count} configurations, {all}, findings 0");
}

/// What was done and seen.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Calls of the depot, the ring and the live table.
    operations: u64,
    /// Fetched stacks that were compared frame by frame.
    checked: u64,
    /// Fetches answered `Evicted`.
    evicted: u64,
    /// Saves and holds answered with a refusal.
    refused: u64,
}

#[cfg(not(loom))]
impl Figures {
    fn add(&mut self, other: &Figures) {
        self.operations += other.operations;
        self.checked += other.checked;
        self.evicted += other.evicted;
        self.refused += other.refused;
    }
}

#[cfg(not(loom))]
impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} operations, {} stacks checked, {} times evicted before, {} refused",
            self.operations, self.checked, self.evicted, self.refused
        )
    }
}

#[cfg(not(loom))]
type Attack = Box<dyn Fn(u64) -> Figures>;

/// Every configuration, with what runs it.
#[cfg(not(loom))]
fn configurations() -> Vec<(&'static str, Attack)> {
    use hammer::{Load, hammer};
    use stackdepot::{Config, HashChoice};
    let all_on = |region_bytes| Config {
        references: true,
        lease_ticks: 4,
        payload_words: 1,
        ..Config::new(region_bytes)
    };
    let load = |threads, steps, variety, most_held| Load {
        threads,
        steps,
        variety,
        most_held,
    };
    let plain = |config: Config, load: Load| -> Attack {
        Box::new(move |percent| hammer(config, &load.scaled(percent)))
    };
    let leases_only = Config {
        references: false,
        payload_words: 0,
        ..all_on(4 << 10)
    };
    let references_only = Config {
        lease_ticks: 0,
        payload_words: 4,
        max_frames: 30,
        hash: HashChoice::Portable,
        ..all_on(8 << 10)
    };
    vec![
        (
            "roomy",
            plain(all_on(256 << 10), load(2, 150_000, 20_000, 50)),
        ),
        (
            "mostly held",
            plain(all_on(32 << 10), load(4, 60_000, 2_000, 30)),
        ),
        (
            "a dozen slots",
            plain(all_on(3 << 10), load(3, 60_000, 60, 1)),
        ),
        (
            "the same few stacks, always evicted",
            plain(all_on(6 << 10), load(3, 80_000, 40, 0)),
        ),
        (
            "no references, no leases",
            plain(Config::new(4 << 10), load(3, 60_000, 200, 0)),
        ),
        ("leases only", plain(leases_only, load(3, 60_000, 200, 0))),
        (
            "references only, cut stacks",
            plain(references_only, load(3, 60_000, 200, 4)),
        ),
        (
            "tiny recorder",
            Box::new(|percent| recorder::attack(&recorder::TINY, percent)),
        ),
        (
            "sharded recorder, sampling",
            Box::new(|percent| recorder::attack(&recorder::SHARDED, percent)),
        ),
    ]
}
