//! The bars of `replay` on the recorded corpora: exact, bounded, complete, small.
//!
//! Corpora come from `STACKDEPOT_CORPORA`, else from `../shared/corpora` beside the checkout;
//! where there are none, the small corpus in git stands in, with bars of its own. Without
//! optimisation this takes many minutes, so only `cargo test --release` runs it.

mod replay_common;

use std::path::{Path, PathBuf};

use replay_common::{Figures, small_corpus};

/// A corpus and its bars.
struct Bars {
    path: PathBuf,
    /// `--bytes` in which the stacks of a ring of 4096 events (small: 256) find room.
    ring_bytes: u64,
    ring: &'static str,
    /// Most bytes per unique stack.
    bytes_per_stack: f64,
}

const RECORDED: [(&str, u64, f64); 5] = [
    ("sqlite", 128, 115.0),
    ("kernel", 128, 125.0),
    ("node", 1024, 155.0),
    ("python", 1024, 105.0),
    ("clang", 1024, 165.0),
];

/// The corpora that are at hand; says which.
fn corpora() -> Vec<Bars> {
    let folder = std::env::var_os("STACKDEPOT_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        println!(
            "corpora: the small one in git; {} is not there",
            folder.display()
        );
        return vec![Bars {
            path: small_corpus(),
            ring_bytes: 32 << 10,
            ring: "256",
            bytes_per_stack: 200.0,
        }];
    }
    println!("corpora: {}", folder.display());
    let bars = |&(name, kib, bytes_per_stack): &(&str, u64, f64)| {
        let path = folder.join(format!("{name}.stk.zst"));
        Bars {
            path,
            ring_bytes: kib << 10,
            ring: "4096",
            bytes_per_stack,
        }
    };
    RECORDED.iter().map(bars).collect()
}

/// Bar 4, what holds in every replay.
fn assert_sound(figures: &Figures, threads: u64) {
    let get = |field| figures.number(field);
    assert_eq!((get("mismatches"), get("truncated")), (0, 0), "{figures:?}");
    assert_eq!(get("saves"), get("events") * threads, "{figures:?}");
    let answered = get("fetched") + get("evicted_before_fetch");
    assert_eq!(
        answered + get("full") + get("contended"),
        get("saves"),
        "{figures:?}"
    );
    if threads == 1 {
        assert_eq!(get("contended"), 0, "{figures:?}");
        assert_eq!(
            (get("ring_missing"), get("ring_checked")),
            (0, get("ring_expected")),
            "{figures:?}"
        );
    } else {
        assert!(get("contended") * 1_000_000 <= get("saves"), "{figures:?}");
        assert!(
            get("ring_checked") * 100 >= get("ring_expected") * 99,
            "{figures:?}"
        );
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes without optimisation: cargo test --release"
)]
fn in_64_mib_nothing_is_refused_with_any_hold() {
    for bars in corpora() {
        for (threads, hold) in [
            (1, "none"),
            (1, "lease"),
            (1, "ref"),
            (2, "none"),
            (2, "lease"),
            (2, "ref"),
        ] {
            let figures = Figures::of(
                &bars.path,
                &[
                    "--bytes",
                    "64M",
                    "--hold",
                    hold,
                    "--threads",
                    &threads.to_string(),
                ],
            );
            assert_sound(&figures, threads);
            assert!(figures.number("depot_bytes") <= 64 << 20, "{figures:?}");
            assert_eq!(figures.number("full"), 0, "{figures:?}");
        }
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes without optimisation: cargo test --release"
)]
fn a_bounded_ring_over_a_small_depot_loses_nothing() {
    for bars in corpora() {
        for threads in [1, 2] {
            let bytes = bars.ring_bytes * threads;
            let figures = Figures::of(
                &bars.path,
                &[
                    "--hold",
                    "lease",
                    "--ring",
                    bars.ring,
                    "--bytes",
                    &bytes.to_string(),
                    "--threads",
                    &threads.to_string(),
                ],
            );
            assert_sound(&figures, threads);
            assert!(figures.number("depot_bytes") <= bytes, "{figures:?}");
            assert_eq!(figures.number("full"), 0, "{figures:?}");
            // Nothing needs to go where the whole corpus finds room (sqlite, kernel in 256K).
            let fits = figures.number("stored_stacks") == figures.number("unique_stacks");
            assert!(
                figures.number("evicted") > 0 || (fits && threads == 2),
                "{figures:?}"
            );
        }
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes without optimisation: cargo test --release"
)]
fn a_small_cache_answers_every_save() {
    for bars in corpora() {
        for threads in [1, 2] {
            let figures = Figures::of(
                &bars.path,
                &["--bytes", "256K", "--threads", &threads.to_string()],
            );
            assert_sound(&figures, threads);
            assert_eq!(figures.number("full"), 0, "{figures:?}");
            let answered = figures.number("fetched") + figures.number("evicted_before_fetch");
            assert!(
                threads == 2 || answered == figures.number("saves"),
                "{figures:?}"
            );
        }
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes without optimisation: cargo test --release"
)]
fn the_smallest_depot_meets_the_bar_of_its_corpus() {
    for bars in corpora() {
        let figures = Figures::of(&bars.path, &["--fit"]);
        assert_sound(&figures, 1);
        assert_eq!(
            figures.number("stored_stacks"),
            figures.number("unique_stacks"),
            "{figures:?}"
        );
        assert!(
            figures.float("bytes_per_stack") <= bars.bytes_per_stack,
            "{figures:?}"
        );
        println!(
            "{}: {} bytes per stack",
            bars.path.display(),
            figures.float("bytes_per_stack")
        );
    }
}
