//! Loom models of a publication without the claims and the births around it: `tests/loom/publish.rs`
//! has these, too, and takes minutes where these take seconds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "models stop where they fail"
)]

use super::{NewNode, Publication};
use crate::config::Config;
use crate::error::SaveError;
use crate::evict::Wanted;
use crate::frame::{WindowTable, low, pack};
use crate::index::Entry;
use crate::layout::{Memory, Region};
use crate::slot::NodeData;
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

const RUN: [u64; 2] = [3, 4];
/// The slot of a stack that has nothing to do with it.
const UNRELATED: u32 = 3;

fn new_node() -> NewNode<'static> {
    NewNode {
        parent: 0,
        hash: 0,
        run: &RUN,
        length: 2,
        is_cut: false,
    }
}

/// Gives birth to a node that is not yet published.
fn make(region: Region<'_>, number: u32) {
    assert!(region.try_claim(number, Wanted::Free));
    let windows = WindowTable::of(region.header).windows_of(&RUN);
    let slot = region.slot(number).unwrap();
    slot.write_node(&NodeData {
        parent: 0,
        hash: 0,
        windows: windows.unwrap(),
        lows: pack(&RUN, low),
    });
    slot.bear(2, 0);
}

fn publish(region: Region<'_>, number: u32) -> Result<u32, SaveError> {
    let publication = Publication {
        region: &region,
        node: &new_node(),
        pair: region.pair(0).unwrap(),
        entry: Entry::new(0, number),
    };
    publication.run()
}

fn check(preemption_bound: usize, model: impl Fn(Arc<Memory>) + Send + Sync + 'static) {
    let config = Config {
        references: true,
        ..Config::new(0)
    };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(move || model(Arc::new(Memory::new(3, &config))));
}

fn assert_stored_once(memory: &Memory, answers: &[Result<u32, SaveError>]) {
    let mut stored = answers.iter().flatten();
    let first = stored.next();
    assert!(
        stored.all(|other| Some(other) == first),
        "stored twice: {answers:?}"
    );
    let region = memory.region();
    let cells = region.pair(0).unwrap().cells();
    let committed = cells.filter(|cell| {
        let entry = Entry(cell.load(Ordering::Relaxed));
        !entry.is_empty() && !entry.is_tentative() && entry.fits(0)
    });
    let stored = answers.iter().flatten().count();
    assert_eq!(committed.count(), stored.min(1), "{answers:?}");
}

/// One of them frees the cell before the one that the other takes, and takes it: each may look
/// at the other's cell too early, and only the fence decides.
#[test]
fn of_two_publications_one_sees_the_other_though_a_cell_before_it_becomes_free() {
    check(3, |memory| {
        let region = memory.region();
        let pair = region.pair(0).unwrap();
        pair.first.cells[0].store(Entry::new(!0, UNRELATED).0, Ordering::Relaxed);
        make(region, 1);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let region = memory.region();
                make(region, 2);
                publish(region, 2)
            })
        };
        pair.unlink(UNRELATED);
        let mine = publish(region, 1);
        assert_stored_once(&memory, &[mine, other.join().unwrap()]);
    });
}

/// Both look for a cell, publish, kill or adopt each other, and try again.
#[test]
fn of_two_publications_one_is_adopted_or_given_up() {
    check(4, |memory| {
        let region = memory.region();
        make(region, 1);
        make(region, 2);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || publish(memory.region(), 2))
        };
        let mine = publish(region, 1);
        assert_stored_once(&memory, &[mine, other.join().unwrap()]);
    });
}

/// Two may kill each other while the third looks at both.
#[test]
fn of_three_publications_one_is_adopted_or_given_up() {
    check(3, |memory| {
        let region = memory.region();
        (1..=3).for_each(|number| make(region, number));
        let others = [2, 3].map(|number| {
            let memory = memory.clone();
            thread::spawn(move || publish(memory.region(), number))
        });
        let mine = publish(region, 1);
        let [second, third] = others.map(|other| other.join().unwrap());
        assert_stored_once(&memory, &[mine, second, third]);
    });
}

/// The one that is found is retired meanwhile: then the new one is stored.
#[test]
fn a_publication_does_not_adopt_what_is_retired() {
    check(4, |memory| {
        let region = memory.region();
        make(region, 1);
        assert_eq!(publish(region, 1), Ok(1));
        region.release(1);
        make(region, 2);
        let evicter = {
            let memory = memory.clone();
            thread::spawn(move || memory.region().try_claim(1, Wanted::FreeOrUnheld))
        };
        let answer = publish(region, 2);
        let retired = evicter.join().unwrap();
        match answer {
            Ok(2) | Err(SaveError::Contended) => {}
            answer => assert_eq!((answer, retired), (Ok(1), false)),
        }
    });
}

/// The one that it sees first is retired, and its cell taken by one that may yet be given up.
#[test]
fn a_look_follows_no_entry_that_is_not_committed() {
    check(3, |memory| {
        let region = memory.region();
        make(region, 1);
        assert_eq!(publish(region, 1), Ok(1));
        region.release(1);
        make(region, 2);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let region = memory.region();
                assert!(region.try_claim(1, Wanted::FreeOrUnheld));
                publish(region, 2)
            })
        };
        let pair = region.pair(0).unwrap();
        if pair.find_committed(0, Some) == Some(2) {
            let is_uncommitted = |cell: &AtomicU64| {
                let entry = Entry(cell.load(Ordering::Relaxed));
                entry.slot() == 2 && entry.is_tentative()
            };
            assert!(!pair.cells().any(is_uncommitted), "found too early");
        }
        assert_eq!(other.join().unwrap(), Ok(2));
    });
}
