//! Random operations against a naive twin: a map from weak handles to vectors of frames.
//!
//! The twin (`twin.rs`) knows what was saved, what is held and what was added to payloads, and
//! nothing about nodes, slots or hashes. Five configurations; the tiny one is full, evicts, stores
//! wide and wears slots out all the time. `fuzz/fuzz_targets/model.rs` lets a fuzzer choose the
//! operations of the same twin.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

mod twin;

use stackdepot::{Config, Depot, HashChoice, Line, Tick};
use twin::{Choices, Twin};

fn run(
    config: Config,
    rounds: usize,
    variety: usize,
    hold_one_in: usize,
) -> (stackdepot::Stats, u64) {
    let mut memory = vec![Line::ZERO; config.region_bytes.div_ceil(64)];
    let depot = Depot::new(&mut memory, &config).unwrap();
    let mut twin = Twin::new(depot, config, Choices::seeded(config.region_bytes as u64));
    for round in 0..rounds {
        twin.step(variety, hold_one_in);
        if round % 500 == 499 {
            twin.audit();
        }
    }
    twin.audit();
    let answered_full = twin.answered_full();
    let stats = twin.stats();
    twin.drain();
    (stats, answered_full)
}

#[test]
fn a_roomy_depot_with_everything_on_agrees_with_the_twin() {
    let config = Config {
        references: true,
        lease_ticks: 5,
        payload_words: 4,
        ..Config::new(1 << 20)
    };
    let (stats, full) = run(config, 40_000, 4, 10);
    assert!(full == 0 && stats.new_stacks > 2000, "{stats:?}");
}

#[test]
fn a_small_cache_without_holds_evicts_and_never_refuses() {
    let (stats, full) = run(Config::new(16 << 10), 60_000, 4, 40);
    assert!(full == 0 && stats.evicted_stacks > 5000, "{stats:?}");
}

#[test]
fn a_small_depot_with_leases_only_agrees_with_the_twin() {
    let config = Config {
        lease_ticks: 3,
        payload_words: 1,
        first_tick: Tick::MASK - 100,
        ..Config::new(24 << 10)
    };
    let (stats, _) = run(config, 60_000, 3, 10);
    assert!(stats.evicted_stacks > 1000, "{stats:?}");
}

#[test]
fn a_tiny_depot_is_full_and_wide_all_the_time_and_agrees_with_the_twin() {
    let first_tick = Tick::MASK - 5;
    let hash = HashChoice::Portable;
    let config = Config {
        references: true,
        lease_ticks: 2,
        payload_words: 2,
        first_tick,
        hash,
        ..Config::new(3 << 10)
    };
    let (stats, full) = run(config, 60_000, 2, 9);
    assert!(
        full > 1000 && stats.evicted_stacks > 1000 && stats.wide_nodes > 1000,
        "{stats:?}"
    );
}

#[test]
fn a_depot_whose_generations_run_out_wears_its_slots_out_and_never_repeats_a_name() {
    let config = Config {
        references: true,
        generation_limit: 64,
        max_frames: 15,
        hash: HashChoice::Portable,
        ..Config::new(4 << 10)
    };
    let (stats, _) = run(config, 30_000, 4, 12);
    assert!(stats.worn_slots > 0 && stats.truncated > 1000, "{stats:?}");
}
