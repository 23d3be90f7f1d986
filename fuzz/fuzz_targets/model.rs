//! The depot's operations, chosen by the fuzzer, against the naive twin of the core's tests.
//!
//! The first byte chooses the configuration: tiny ones, in which everything is full, evicted, wide
//! or worn out after few operations, and one with room. The rest are the twin's choices.
#![no_main]

#[path = "../../crates/stackdepot/tests/model/twin.rs"]
mod twin;

use libfuzzer_sys::fuzz_target;
use stackdepot::{Config, Depot, HashChoice, Tick};
use stackdepot_fuzz::budget;
use stackdepot_fuzz::memory::Memory;
use twin::{Choices, Twin};

/// An audit looks at everything: after every operation it would be all that the run does.
const STEPS_PER_AUDIT: u64 = 32;
/// CPU of one input of a few thousand operations, under the sanitizer, many times over.
const MOST_MS: u64 = 5000;

fuzz_target!(|input: &[u8]| {
    if let Some((choice, choices)) = input.split_first() {
        budget::within(MOST_MS, || run(config(*choice), *choice, choices));
    }
});

fn run(config: Config, choice: u8, choices: &[u8]) {
    let mut memory = Memory::zeros(config.region_bytes);
    let depot = Depot::new(memory.lines(), &config).expect("a sound configuration");
    let mut twin = Twin::new(depot, config, Choices::Given(choices));
    let (variety, hold_one_in) = (
        1 + usize::from(choice >> 4 & 3),
        9 + usize::from(choice >> 6),
    );
    for number in 1.. {
        if twin.is_over() {
            break;
        }
        twin.step(variety, hold_one_in);
        if number % STEPS_PER_AUDIT == 0 {
            twin.audit();
        }
    }
    twin.audit();
    assert_eq!(twin.stats().full, twin.answered_full());
    twin.drain();
}

fn config(choice: u8) -> Config {
    let (hash, references) = (HashChoice::Portable, true);
    match choice & 7 {
        0 => Config::new(2560),
        1 => Config {
            references,
            lease_ticks: 2,
            payload_words: 2,
            first_tick: Tick::MASK - 5,
            hash,
            ..Config::new(3 << 10)
        },
        2 => Config {
            lease_ticks: 3,
            payload_words: 1,
            first_tick: Tick::MASK - 2,
            ..Config::new(4 << 10)
        },
        3 => Config {
            references,
            generation_limit: 3,
            max_frames: 15,
            hash,
            ..Config::new(4 << 10)
        },
        4 => Config {
            references,
            max_frames: 10,
            ..Config::new(2304)
        },
        5 => Config {
            references,
            lease_ticks: 1,
            payload_words: 4,
            generation_limit: 16,
            ..Config::new(6 << 10)
        },
        6 => Config {
            references,
            payload_words: 1,
            max_frames: 1,
            ..Config::new(2304)
        },
        _ => Config {
            references,
            lease_ticks: 5,
            payload_words: 4,
            ..Config::new(64 << 10)
        },
    }
}
