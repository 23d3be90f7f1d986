//! The small corpus in git, and the recorded corpora where they are at hand.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use stackdepot_corpus::Corpus;
use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn small_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/small.stk.zst")
}

#[test]
fn small_corpus_in_git_is_what_the_generator_makes() -> Outcome {
    let config = SyntheticConfig {
        seed: 1,
        event_count: 6_000,
        site_count: 6,
    };
    assert_eq!(
        Corpus::open(&small_path())?,
        synthetic(&config),
        "run the example `generate` again"
    );
    assert!(std::fs::metadata(small_path())?.len() <= 50 << 10);
    Ok(())
}

#[test]
fn another_seed_makes_another_workload() {
    let config = SyntheticConfig {
        seed: 1,
        event_count: 500,
        site_count: 6,
    };
    assert_ne!(
        synthetic(&config),
        synthetic(&SyntheticConfig { seed: 2, ..config })
    );
    assert_eq!(synthetic(&config), synthetic(&config));
}

#[test]
fn writing_and_reading_gives_the_same_corpus() -> Outcome {
    for event_count in [1, 2, 7, 999] {
        let corpus = synthetic(&SyntheticConfig {
            seed: 7,
            event_count,
            site_count: 3,
        });
        assert_eq!(Corpus::from_zstd(corpus.to_zstd().as_slice())?, corpus);
        assert_eq!(Corpus::from_raw(corpus.to_raw().as_slice())?, corpus);
    }
    Ok(())
}

#[test]
fn the_first_events_are_a_corpus_of_their_own_with_the_stacks_that_they_need() -> Outcome {
    let corpus = Corpus::open(&small_path())?;
    for event_count in [0, 1, 700, 6_000, 7_000] {
        let first = corpus.first_events(event_count);
        let same = corpus.events().iter().take(event_count.max(1));
        assert!(first.events().iter().eq(same));
        assert_eq!(Corpus::from_raw(first.to_raw().as_slice())?, first);
        for event in first.events() {
            assert_eq!(first.stack(event.stack), corpus.stack(event.stack));
        }
    }
    assert_eq!(corpus.first_events(7_000), corpus);
    Ok(())
}

/// Sizes from the README of the recorded corpora: events, unique stacks, slots, threads.
const RECORDED: [(&str, [usize; 4]); 5] = [
    ("sqlite", [1_116_290, 2_126, 5_729, 1]),
    ("kernel", [418_968, 1_529, 57_432, 446]),
    ("node", [556_783, 155_572, 17_463, 6]),
    ("python", [2_500_000, 173_470, 139_087, 1]),
    ("clang", [4_000_000, 179_004, 112_934, 1]),
];

#[test]
fn recorded_corpora_have_their_documented_sizes_and_no_stack_twice() -> Outcome {
    let folder = std::env::var_os("STACKDEPOT_CORPORA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        eprintln!(
            "corpora: {} is not there; only the small one is tested",
            folder.display()
        );
        return Ok(());
    }
    eprintln!("corpora: {}", folder.display());
    for (name, sizes) in RECORDED {
        let corpus = Corpus::open(&folder.join(format!("{name}.stk.zst")))?;
        let found = [
            corpus.events().len(),
            corpus.stack_count(),
            corpus.slot_count(),
            corpus.thread_count(),
        ];
        assert_eq!(found, sizes, "{name}");
        let unique: HashSet<&[u64]> = (0..corpus.stack_count() as u32)
            .map(|index| corpus.stack(index))
            .collect();
        assert_eq!(
            unique.len(),
            corpus.stack_count(),
            "{name} has a stack twice"
        );
        assert!(!corpus.module_map().is_empty());
    }
    Ok(())
}
