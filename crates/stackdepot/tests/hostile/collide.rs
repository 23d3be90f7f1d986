//! Stacks that are chosen to collide cost at most four times what ordinary ones do.
//!
//! Each set goes through a region that has room for all of it, twice (all new, then all stored),
//! and through one with room for an eighth. What each save looks at is counted, and so is what
//! the set's twin costs; mean and maximum of both are compared. No stack may lose its entry.

use stackdepot::{Config, HashChoice};

use crate::sets::{Set, ordinary, sets, slot_count};
use crate::watch::{Looks, Watched};
use crate::{mix, of_slots};

/// The bar: so many times the looks of ordinary stacks.
const MOST_TIMES: u64 = 4;
const SEEDS: [u64; 2] = [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b];

/// What the saves of one pass looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    saves: u64,
    entries: u64,
    nodes: u64,
    most_entries: u64,
    most_nodes: u64,
}

/// All passes of a set, and how often an entry had to make room for another.
#[derive(Clone, Copy, Debug, Default)]
struct Passes {
    new: Cost,
    stored: Cost,
    evicting: Cost,
    crowd_evicted: u64,
}

impl Cost {
    fn add(&mut self, looks: Looks) {
        self.saves += 1;
        self.entries += looks.entries;
        self.nodes += looks.nodes;
        self.most_entries = self.most_entries.max(looks.entries);
        self.most_nodes = self.most_nodes.max(looks.nodes);
    }

    /// Whether it is within the bar of what ordinary stacks cost.
    fn is_fair(&self, ordinary: &Cost) -> bool {
        let within = |cost: u64, fair: u64| cost <= MOST_TIMES * fair;
        within(self.entries, ordinary.entries)
            && within(self.nodes, ordinary.nodes)
            && within(self.most_entries, ordinary.most_entries)
            && within(self.most_nodes, ordinary.most_nodes)
    }

    /// How many times the looks of ordinary stacks the worse of its means is.
    fn times(&self, ordinary: &Cost) -> f64 {
        let times = |cost: u64, fair: u64| cost as f64 / fair.max(1) as f64;
        times(self.entries, ordinary.entries).max(times(self.nodes, ordinary.nodes))
    }
}

/// Saves all stacks in a region and counts.
fn pass(watched: &mut Watched, stacks: &[Vec<u64>], passes: usize) -> (Vec<Cost>, u64) {
    let (depot, parts) = watched.depot();
    let mut costs = vec![Cost::default(); passes];
    for cost in &mut costs {
        for stack in stacks {
            let (answer, looks) = parts.watch(|| depot.save(stack));
            answer.unwrap();
            cost.add(looks);
        }
    }
    (costs, depot.stats().crowd_evicted)
}

fn passes(stacks: &[Vec<u64>], hash: HashChoice, seed: u64) -> Passes {
    let slots = slot_count(stacks);
    let config = |slots| Config {
        hash,
        seed,
        max_frames: 1024,
        ..of_slots(slots)
    };
    let (costs, crowd_evicted) = pass(&mut Watched::new(config(slots + 8)), stacks, 2);
    let mut narrow = Watched::new(config((slots / 8).max(64)));
    let (narrow_costs, _) = pass(&mut narrow, stacks, 1);
    Passes {
        new: costs[0],
        stored: costs[1],
        evicting: narrow_costs[0],
        crowd_evicted,
    }
}

/// One set against its twin; answers the worst ratio of means.
fn compare(set: &Set, hash: HashChoice, seed: u64) -> f64 {
    let hostile = passes(&set.stacks, hash, seed);
    let fair = passes(&ordinary(&set.stacks, mix(seed)), hash, seed);
    let mut worst = 0f64;
    for (what, hostile, fair) in [
        ("new", hostile.new, fair.new),
        ("stored", hostile.stored, fair.stored),
        ("evicting", hostile.evicting, fair.evicting),
    ] {
        worst = worst.max(hostile.times(&fair));
        assert!(
            hostile.is_fair(&fair),
            "{}, {hash:?}, {what}: {hostile:?}, but ordinary stacks {fair:?}",
            set.name
        );
    }
    // Nobody's entry goes where the whole set has room.
    assert!(
        hostile.crowd_evicted <= MOST_TIMES * fair.crowd_evicted,
        "{}, {hash:?}: {} entries made room, of ordinary stacks {}",
        set.name,
        hostile.crowd_evicted,
        fair.crowd_evicted
    );
    worst
}

#[test]
fn stacks_chosen_to_collide_cost_what_ordinary_ones_do() {
    let (mut stack_count, mut worst, mut worst_name) = (0, 0f64, "");
    let sets = sets();
    for set in &sets {
        for hash in [HashChoice::Fastest, HashChoice::Portable] {
            for seed in SEEDS {
                let times = compare(set, hash, seed);
                if times > worst {
                    (worst, worst_name) = (times, set.name);
                }
                stack_count += set.stacks.len();
            }
        }
    }
    println!(
        "collide: {} sets, {stack_count} stacks, at worst {worst:.2} times the looks of ordinary ones ({worst_name})",
        sets.len()
    );
}
