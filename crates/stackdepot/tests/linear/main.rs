//! Histories of real threads on tiny regions, held against the sequential model.
//!
//! Threads save, acquire, put, renew, fetch and move the clock on a region of a few slots; each
//! call is stamped before and after (`history.rs`). A history is right when its calls can be put
//! into one order that keeps the stamps and in which each answers what the model does
//! (`model.rs`); `search.rs` looks for that order. Under `--cfg stackdepot_fault` (`cargo xtask
//! linear`) threads also give way between any two operations on shared words, at random: then a
//! few cores are enough for every mixture of steps.
//!
//! What is linearizable by design: every answer that names or shows a stack, and every `Evicted`.
//! So a save answers a handle that fetches to its frames; equal saves answer equal handles while
//! the stack stays; a fetch shows the very stack of its handle or says `Evicted`; what is gone
//! never comes back under its handle; and a stack that is held by a reference or a lease is
//! never answered `Evicted`, nor its slot given to another.
//!
//! What is not, and why: *evictions* are no calls. An unheld stack may go at any time, so the
//! model lets it go when an answer says so, and holds that against all later ones. *Refusals*
//! (`Full`, `Crowded`, `Contended`): a save looks at slots one after the other, and what it
//! saw need never have been so at one time; any save may be refused, and then has done nothing.
//! (`hand.rs` has tests of its own for `Full`.) *Recency*: which stack goes first.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

mod history;
mod model;
mod search;

use history::{Scene, record};
use model::Rules;
use search::is_linearizable;
use stackdepot::{Config, Geometry};

/// Histories of each scene, unless `STACKDEPOT_HISTORIES` says otherwise.
const HISTORIES: u64 = 2000;

/// Regions of a few slots; 0 is for stacks of one node, the others share outer nodes, too.
fn scenes() -> [Scene; 4] {
    let config = |slot_count, lease_ticks| Config {
        references: true,
        lease_ticks,
        ..Config::new(Geometry::of_slots(slot_count, 0).region_bytes)
    };
    let scene = |name, config, threads, variety, depth| Scene {
        name,
        config,
        threads,
        calls: 6,
        variety,
        depth,
    };
    [
        scene("three slots", config(3, 0), 3, 4, 1),
        scene("three slots with leases", config(3, 2), 3, 4, 1),
        scene("shared outer nodes", config(6, 0), 3, 5, 11),
        scene(
            "shared outer nodes, with leases, two threads",
            config(5, 1),
            2,
            5,
            11,
        ),
    ]
}

#[test]
fn histories_are_linearizable() {
    let histories = std::env::var("STACKDEPOT_HISTORIES").map_or(HISTORIES, |count| {
        count.parse().expect("STACKDEPOT_HISTORIES is a number")
    });
    let (mut calls, mut overlaps, mut evicted, mut refused) = (0, 0, 0, 0);
    let scenes = scenes();
    for scene in &scenes {
        let rules = Rules {
            lease_ticks: scene.config.lease_ticks,
        };
        record(scene, histories, |seed, history| {
            calls += history.calls.len() as u64;
            overlaps += history.overlaps();
            evicted += history.count(model::Answer::is_evicted);
            refused += history.count(model::Answer::is_refused);
            if !is_linearizable(&history, rules) {
                println!(
                    "FINDING {}, history {seed}: no order explains it",
                    scene.name
                );
                panic!("{history}");
            }
        });
    }
    // Where threads give way: a test that only saw calls one after the other has seen nothing.
    assert!(
        !cfg!(stackdepot_fault) || overlaps * 20 > calls,
        "{overlaps} of {calls} calls overlap"
    );
    println!(
        "linear: {} histories, {calls} calls, {overlaps} overlapping, {evicted} evicted, {refused} refused, findings 0",
        histories * scenes.len() as u64
    );
}
