//! Holds against eviction: references and leases (`protocols.md` A8, A9, E).

use crate::{assert_nothing_is_held, check, config, frames_at, spawn};
use stackdepot::{Config, Depot};

#[test]
fn a_stack_that_was_acquired_is_not_retired() {
    check(None, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save(&[7]).unwrap();
        // The first lap of the hand is over: it may evict at once.
        let evicter = spawn(&memory, |depot| depot.save(&[9]));
        let held = depot.acquire(weak);
        if held.is_ok() {
            assert_eq!(frames_at(depot, weak), Some(vec![7]), "evicted while held");
        }
        let other = evicter.join().unwrap();
        match held {
            Ok(handle) => {
                assert_eq!(frames_at(depot, weak), Some(vec![7]), "evicted while held");
                depot.put(handle);
            }
            Err(_) => assert_eq!(frames_at(depot, other.unwrap()), Some(vec![9])),
        }
        assert_nothing_is_held(depot, 1);
    });
}

#[test]
fn a_put_stack_is_retired_only_after_its_holder_is_done() {
    let config = Config {
        payload_words: 1,
        ..config()
    };
    check(None, 1, config, |memory| {
        let depot = Depot::of(&memory);
        let held = depot.save_acquire(&[7]).unwrap();
        let evicter = spawn(&memory, |depot| depot.save(&[9]));
        depot.add_payload(held.handle, 0, 5);
        depot.put(held.handle);
        let other = evicter.join().unwrap();
        let (kept, evicted) = (depot.payload(held.weak), depot.stats().evicted_payload[0]);
        match other {
            Ok(other) => assert_eq!(
                (depot.payload(other).unwrap()[0], evicted),
                (0, 5),
                "numbers of two stacks are mixed"
            ),
            Err(_) => assert_eq!((kept.unwrap()[0], evicted), (5, 0)),
        }
    });
}

/// A look at the slot that came before the put is no part of the proof of `Full`.
#[test]
fn full_is_not_answered_for_ever_after_a_put() {
    check(None, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        let held = depot.save_acquire(&[7]).unwrap();
        let saver = spawn(&memory, |depot| depot.save(&[9]));
        depot.put(held.handle);
        drop(saver.join().unwrap());
        assert_nothing_is_held(depot, 1);
    });
}

#[test]
fn payload_of_an_evicted_stack_is_never_that_of_the_next() {
    let config = Config {
        payload_words: 1,
        ..config()
    };
    check(3, 1, config, |memory| {
        let depot = Depot::of(&memory);
        let held = depot.save_acquire(&[7]).unwrap();
        depot.add_payload(held.handle, 0, 5);
        depot.put(held.handle);
        let evicter = spawn(&memory, |depot| {
            let held = depot.save_acquire(&[9])?;
            depot.add_payload(held.handle, 0, 11);
            Ok::<_, stackdepot::SaveError>(())
        });
        if let Ok(payload) = depot.payload(held.weak) {
            assert_eq!(payload[0], 5, "of another life");
        }
        evicter.join().unwrap().unwrap();
    });
}

fn leases(lease_ticks: u32) -> Config {
    Config {
        references: false,
        lease_ticks,
        ..Config::new(0)
    }
}

/// The evicter may read the clock before the tick and the stamp after the renewal.
#[test]
fn a_lease_that_was_renewed_while_the_clock_moved_is_not_retired() {
    check(3, 1, leases(1), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save_lease(&[7]).unwrap().weak;
        depot.advance(1);
        let evicter = spawn(&memory, |depot| depot.save(&[9]));
        depot.advance(1);
        if depot.renew(weak).is_ok() {
            assert_eq!(
                frames_at(depot, weak),
                Some(vec![7]),
                "evicted while leased"
            );
            assert!(evicter.join().unwrap().is_err());
            assert_eq!(
                frames_at(depot, weak),
                Some(vec![7]),
                "evicted while leased"
            );
        } else {
            assert_eq!(
                frames_at(depot, evicter.join().unwrap().unwrap()),
                Some(vec![9])
            );
        }
    });
}

/// The saver's lease counts from the tick that the save answers, not from when it returns.
#[test]
fn a_tick_during_a_save_shortens_no_lease() {
    check(3, 1, leases(1), |memory| {
        let depot = Depot::of(&memory);
        depot.save(&[7]).unwrap();
        let mover = spawn(&memory, |depot| {
            depot.advance(2);
            let _ = depot.save(&[9]);
        });
        let leased = depot.save_lease(&[7]);
        mover.join().unwrap();
        let Ok(leased) = leased else { return };
        let is_leased = depot.now().0 - leased.from.0 <= 1;
        let found = frames_at(depot, leased.weak);
        assert!(
            found == Some(vec![7]) || (found.is_none() && !is_leased),
            "evicted while leased"
        );
    });
}
