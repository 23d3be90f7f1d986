//! Loom models of the ring: claims, writers a lap late, readers. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p stackdepot --test loom_ring --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use loom::sync::Arc;
use loom::thread;
use stackdepot::ring::{Event, EventKind, Pushed, Ring, RingConfig};
use stackdepot::{Config, Depot, Memory, SectionError, SectionMemory};

/// What the threads of a model share.
struct Shared {
    depot: Memory,
    ring: SectionMemory,
    config: RingConfig,
}

impl Shared {
    fn new(config: RingConfig) -> Arc<Shared> {
        let depot = Memory::new(
            1,
            &Config {
                lease_ticks: config.lease_ticks(),
                ..Config::new(4096)
            },
        );
        Arc::new(Shared {
            depot,
            ring: SectionMemory::new(config.model_line_count()),
            config,
        })
    }

    fn view(&self) -> (Ring<'_>, Depot<'_>) {
        (
            Ring::of_memory(&self.ring, &self.config).unwrap(),
            Depot::of(&self.depot),
        )
    }
}

fn model(preemption_bound: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(check);
}

fn event(number: u64) -> Event {
    Event {
        time: number,
        ..Event::new(EventKind::Alloc, number, number, None)
    }
}

fn is_whole(event: &Event) -> bool {
    (event.address, event.size) == (event.time, event.time) && event.time != 0
}

fn push(ring: &Ring<'_>, depot: &Depot<'_>) -> Pushed {
    let place = ring.claim(depot, 0);
    let number = place.number();
    ring.fill(place, &event(number))
}

#[test]
fn writers_a_lap_apart_never_tear_an_entry() {
    model(3, || {
        let shared = Shared::new(RingConfig::new(1));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (ring, depot) = shared.view();
                    push(&ring, &depot)
                })
            })
            .collect();
        let written = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .filter(|pushed| *pushed == Pushed::Yes)
            .count();
        let (ring, _) = shared.view();
        let found: Vec<Event> = ring.events().collect();
        assert!(found.iter().all(is_whole), "{found:?}");
        let stats = ring.stats();
        assert_eq!((stats.events, stats.lapped), (2, 2 - written as u64));
        assert!(written >= 1);
    });
}

#[test]
fn reader_of_an_entry_that_is_overwritten_sees_it_whole_or_not_at_all() {
    model(3, || {
        let shared = Shared::new(RingConfig::new(1));
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (ring, depot) = shared.view();
                (push(&ring, &depot), push(&ring, &depot))
            })
        };
        let (ring, _) = shared.view();
        let found: Vec<Event> = ring.events().collect();
        assert!(found.iter().all(is_whole), "{found:?}");
        assert_eq!(writer.join().unwrap(), (Pushed::Yes, Pushed::Yes));
        assert_eq!(
            ring.events().map(|event| event.time).collect::<Vec<_>>(),
            [2]
        );
    });
}

#[test]
fn late_claim_sees_the_ticks_of_every_earlier_claim_but_the_last_of_each_thread() {
    model(3, || {
        // Two events a tick: claims 2 and 4 move the clock.
        let shared = Shared::new(RingConfig::new(32));
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (ring, depot) = shared.view();
                (0..4).for_each(|_| drop(ring.claim(&depot, 0)))
            })
        };
        let (ring, depot) = shared.view();
        let place = ring.claim(&depot, 0);
        assert!(
            u64::from(place.tick().0) + 1 >= place.number() / 2,
            "{place:?}"
        );
        other.join().unwrap();
        assert_eq!(depot.now().0, 2);
    });
}

#[test]
fn threads_of_one_shard_get_different_places_and_count_each_event() {
    model(3, || {
        let config = RingConfig {
            event_count: 64,
            shard_count: 2,
        };
        let shared = Shared::new(config);
        let claims = |shared: &Shared| {
            let (ring, depot) = shared.view();
            [(); 3].map(|()| ring.claim(&depot, 0).number())
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || claims(&shared))
        };
        let mut numbers = claims(&shared).to_vec();
        numbers.extend(other.join().unwrap());
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 6, "a place was handed out twice");
        assert_eq!(shared.view().0.stats().events, 6);
    });
}

/// What readers of events rely on: who did not find the stack finds its lease over.
#[test]
fn stack_of_an_event_that_is_still_leased_is_there() {
    model(3, || {
        let shared = Shared::new(RingConfig::new(1));
        let (ring, depot) = shared.view();
        let leased = depot.save_lease(&[7]).unwrap();
        let event = Event {
            from: leased.from,
            stack: Some(leased.weak),
            ..event(1)
        };
        let evicter = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (ring, depot) = shared.view();
                depot.advance(ring.lease_ticks() + 1);
                depot.save(&[9])
            })
        };
        let found = depot.fetch(leased.weak, &mut [0; 1]);
        assert!(
            found.is_ok() || !ring.still_leased(&depot, &event),
            "evicted while leased"
        );
        drop(evicter.join().unwrap());
    });
}

#[test]
fn who_sees_the_magic_sees_the_header() {
    model(3, || {
        let config = RingConfig::new(1);
        let memory = Arc::new(SectionMemory::new(config.model_line_count()));
        let maker = {
            let memory = memory.clone();
            thread::spawn(move || Ring::create_in(&memory, &config).map(drop))
        };
        match Ring::attach_in(&memory) {
            Ok(ring) => assert_eq!(ring.config(), config),
            Err(error) => assert_eq!(error, SectionError::Foreign { what: "ring" }),
        }
        maker.join().unwrap().unwrap();
    });
}
