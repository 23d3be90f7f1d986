//! What is switched off costs nothing: no byte, no look, no write; and a stored save writes nothing.

use stackdepot::{Config, Depot, Geometry};

use crate::memory;

const BYTES: usize = 1 << 20;

/// Everything that can be switched on.
fn with_all() -> Config {
    Config {
        references: true,
        lease_ticks: 16,
        payload_words: 4,
        ..Config::new(BYTES)
    }
}

#[test]
fn holds_cost_no_byte_and_payload_its_own() {
    let plain = Config::new(BYTES).geometry().unwrap();
    let held = Config {
        payload_words: 0,
        ..with_all()
    };
    assert_eq!(held.geometry().unwrap(), plain);
    for words in [1, 2, 4] {
        let bytes = |words| Geometry::of_slots(10_000, words).region_bytes;
        assert_eq!(bytes(words) - bytes(0), 10_000 * 8 * words as usize);
    }
    assert_eq!(plain.payload_offset, plain.region_bytes);
    // A line for the slot, and two cells of the index.
    let slot_bytes =
        (plain.region_bytes - plain.buckets_offset) as f64 / f64::from(plain.slot_count);
    assert!(slot_bytes < 80.01, "{slot_bytes} bytes a slot");
}

/// Stacks of several levels that share some.
fn stacks() -> Vec<Vec<u64>> {
    let stack = |number: u64| {
        let own = (0..1 + number % 17).map(move |place| 0x40_0000 + number * 64 + place);
        own.chain((0..10 + number % 3 * 10).map(|place| 0x50_0000 + place))
            .collect()
    };
    (0..400).map(stack).collect()
}

#[test]
fn the_same_stacks_take_the_same_nodes_with_and_without_holds() {
    let nodes = |config: Config| {
        let mut memory = memory(&config);
        let depot = Depot::new(&mut memory, &config).unwrap();
        for stack in stacks() {
            depot.save(&stack).unwrap();
        }
        (depot.stats().node_count, depot.stats().new_stacks)
    };
    assert_eq!(nodes(Config::new(BYTES)), nodes(with_all()));
}

#[cfg(stackdepot_fault)]
mod watched {
    use super::*;
    use crate::of_slots;
    use crate::watch::{Looks, Parts, Watched};
    use stackdepot::Hold;

    /// Operations of a stored save: two windows, the entry, the leaf's generation before and
    /// after, and of each node its state, its link and its frames.
    const BASE_LOOKS: u64 = 5;
    const NODE_LOOKS: u64 = 7;

    /// Saves all stacks, and what that looks at.
    fn pass(depot: Depot<'_>, parts: Parts, hold: Hold) -> Vec<Looks> {
        let save = |stack: &Vec<u64>| {
            let (answer, looks) = parts.watch(|| depot.save_held(stack, hold));
            let leased = answer.unwrap();
            if hold == Hold::Reference {
                depot.put(leased.handle);
            }
            looks
        };
        stacks().iter().map(save).collect()
    }

    fn sum(looks: &[Looks], field: impl Fn(&Looks) -> u64) -> u64 {
        looks.iter().map(field).sum()
    }

    #[test]
    fn a_stored_save_writes_nothing_and_looks_at_no_more_than_its_nodes() {
        let mut plain = Watched::new(Config::new(BYTES));
        let (depot, parts) = plain.depot();
        pass(depot, parts, Hold::None);
        // The first use since it was stored may be noted, once.
        let noted = pass(depot, parts, Hold::None);
        assert!(noted.iter().all(|looks| looks.writes <= 1), "{noted:?}");
        let stored = pass(depot, parts, Hold::None);
        for (stack, looks) in stacks().iter().zip(&stored) {
            let nodes = stack.len().div_ceil(10) as u64;
            assert_eq!(
                (looks.writes, looks.clock, looks.payload),
                (0, 0, 0),
                "{looks:?}"
            );
            assert_eq!(looks.nodes, nodes, "{looks:?}");
        }
        let most: u64 = stacks()
            .iter()
            .map(|stack| BASE_LOOKS + NODE_LOOKS * stack.len().div_ceil(10) as u64)
            .sum();
        // Few are not at home in the index, and look at whole buckets.
        assert!(
            sum(&stored, |looks| looks.all) <= most * 11 / 10,
            "{stored:?}"
        );
    }

    #[test]
    fn a_stored_save_with_a_lease_writes_nothing_within_a_tick_and_a_reference_one_word() {
        let mut all = Watched::new(with_all());
        let (depot, parts) = all.depot();
        pass(depot, parts, Hold::Lease);
        let leased = pass(depot, parts, Hold::Lease);
        assert_eq!(sum(&leased, |looks| looks.writes), 0);
        depot.advance(1);
        let renewed = pass(depot, parts, Hold::Lease);
        assert!(renewed.iter().all(|looks| looks.writes == 1), "{renewed:?}");
        let referenced = pass(depot, parts, Hold::Reference);
        assert!(
            referenced.iter().all(|looks| looks.writes == 1),
            "{referenced:?}"
        );
    }

    /// New, stored and evicting saves: where all is off nobody looks at the clock or at payload,
    /// and no save takes more operations than where references and payload are on. (Leases do
    /// without the visited bit, which elsewhere is written once after a stack was stored.)
    #[test]
    fn what_is_off_is_not_looked_at() {
        for slot_count in [10_000, 100] {
            let counted = Config {
                region_bytes: Geometry::of_slots(slot_count, 4).region_bytes,
                lease_ticks: 0,
                ..with_all()
            };
            let mut plain = Watched::new(of_slots(slot_count));
            let mut counted = Watched::new(counted);
            let ((plain, plain_parts), (counted, parts)) = (plain.depot(), counted.depot());
            for _ in 0..3 {
                let cheap = pass(plain, plain_parts, Hold::None);
                let dear = pass(counted, parts, Hold::None);
                for (cheap, dear) in cheap.iter().zip(&dear) {
                    assert_eq!((cheap.clock, cheap.payload), (0, 0), "{cheap:?}");
                    assert!(
                        cheap.all <= dear.all && cheap.writes <= dear.writes,
                        "{cheap:?}, {dear:?}"
                    );
                }
                let (cheap, dear) = (
                    sum(&cheap, |looks| looks.all),
                    sum(&dear, |looks| looks.all),
                );
                println!(
                    "thrift: {slot_count} slots: {cheap} operations where all is off, {dear} with payload"
                );
            }
        }
    }
}
