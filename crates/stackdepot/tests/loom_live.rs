//! Loom models of the live table, with two buckets of one cell each. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p stackdepot --test loom_live --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use loom::sync::Arc;
use loom::thread;
use stackdepot::live::{Inserted, LiveBlock, LiveTable, Removed};
use stackdepot::{SectionError, SectionMemory, WeakHandle};

/// Two header lines, one of tags, and two buckets of one line.
const LINES: usize = 5;
/// Blocks whose home is the first bucket; each may also be in the second.
const SMALL: u64 = 16;
const BIG: u64 = 32;
const NEWCOMER: u64 = 48;
/// One whose home is the second bucket.
const ELSEWHERE: u64 = 256;
/// What is in the sample longer than any small block.
const BIG_SIZE: u64 = 1 << 30;

fn table(memory: &SectionMemory) -> LiveTable<'_> {
    LiveTable::of_memory(memory).unwrap()
}

fn model(preemption_bound: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(check);
}

fn block(number: u32, size: u64) -> LiveBlock {
    LiveBlock {
        stack: Some(WeakHandle::new(number, number)),
        size,
        thread: number,
        time: number.into(),
    }
}

fn is_whole(block: &LiveBlock) -> bool {
    *block == self::block(block.thread, block.size)
}

#[test]
fn racing_frees_of_one_block_get_it_once() {
    model(4, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(16, &block(1, 8)), Inserted::Stored);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).remove(16))
        };
        let removed = [table(&memory).remove(16), other.join().unwrap()];
        assert!(
            removed.contains(&Removed::Block(block(1, 8))) && removed.contains(&Removed::Unknown),
            "{removed:?}"
        );
    });
}

#[test]
fn racing_inserts_take_different_cells() {
    model(3, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).insert(32, &block(2, 8)))
        };
        let inserted = [
            table(&memory).insert(16, &block(1, 8)),
            other.join().unwrap(),
        ];
        let table = table(&memory);
        // With two cells one may find the other's choice taken and all candidates full.
        let stored: Vec<u64> = table
            .blocks()
            .map(|(_, block)| {
                assert!(is_whole(&block));
                block.time
            })
            .collect();
        let released: Vec<u64> = inserted
            .iter()
            .filter_map(Inserted::released)
            .map(|block| block.time)
            .collect();
        let refused = inserted
            .iter()
            .filter(|inserted| !inserted.is_stored())
            .count();
        assert_eq!(stored.len() + released.len() + refused, 2, "{inserted:?}");
    });
}

#[test]
fn block_that_is_pushed_out_while_it_is_freed_goes_to_one_side() {
    push_out_while_freed([SMALL, BIG], NEWCOMER);
}

/// Its home does not say any more that a block is elsewhere, for the newcomer is at home there.
#[test]
fn block_that_is_pushed_out_elsewhere_while_it_is_freed_goes_to_one_side() {
    push_out_while_freed([BIG, SMALL], ELSEWHERE);
}

/// These two fill the two cells, the first at home; the third may use either.
fn push_out_while_freed(stored: [u64; 2], newcomer: u64) {
    model(3, move || {
        let memory = Arc::new(SectionMemory::new(LINES));
        for address in stored {
            let stored = match address {
                SMALL => block(1, 0),
                _ => block(2, BIG_SIZE),
            };
            assert_eq!(table(&memory).insert(address, &stored), Inserted::Stored);
        }
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).insert(newcomer, &block(3, BIG_SIZE)))
        };
        let removed = table(&memory).remove(SMALL);
        let inserted = other.join().unwrap();
        match (removed, inserted) {
            (Removed::Block(freed), Inserted::Stored) => assert_eq!(freed, block(1, 0)),
            (Removed::Unsampled, Inserted::PushedOut(pushed)) => assert_eq!(pushed, block(1, 0)),
            // The pusher decided, lost the cell to the free, and found it empty or no other one.
            (Removed::Block(freed), _) => assert_eq!(freed, block(1, 0)),
            (removed, inserted) => panic!("{removed:?}, {inserted:?}"),
        }
        assert!(
            table(&memory)
                .blocks()
                .all(|(address, block)| address != SMALL && is_whole(&block))
        );
    });
}

#[test]
fn reader_of_a_cell_that_is_reused_sees_a_whole_block_or_none() {
    model(3, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(16, &block(1, 8)), Inserted::Stored);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let table = table(&memory);
                (table.remove(16), table.insert(16, &block(2, 9)))
            })
        };
        table(&memory)
            .blocks()
            .for_each(|(_, block)| assert!(is_whole(&block), "{block:?}"));
        assert_eq!(
            other.join().unwrap(),
            (Removed::Block(block(1, 8)), Inserted::Stored)
        );
    });
}

/// INVARIANT L4: a tag is changed while the cell is its owner's. Otherwise the one who takes the
/// cell next has a tag that is made of both, and a free of that block does not find it.
#[test]
fn block_that_took_the_place_of_a_freed_one_is_found() {
    model(3, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(SMALL, &block(1, 8)), Inserted::Stored);
        assert_eq!(
            table(&memory).insert(ELSEWHERE, &block(2, BIG_SIZE)),
            Inserted::Stored
        );
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).remove(SMALL))
        };
        let inserted = table(&memory).insert(NEWCOMER, &block(3, BIG_SIZE));
        if inserted.is_stored() {
            assert_eq!(
                table(&memory).remove(NEWCOMER),
                Removed::Block(block(3, BIG_SIZE))
            );
        }
        let removed = other.join().unwrap();
        let pushed_out = inserted.released() == Some(block(1, 8));
        assert_eq!(removed == Removed::Block(block(1, 8)), !pushed_out);
    });
}

#[test]
fn block_that_pushed_out_another_that_was_coming_is_found() {
    model(2, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(
            table(&memory).insert(ELSEWHERE, &block(2, BIG_SIZE)),
            Inserted::Stored
        );
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).insert(SMALL, &block(1, 8)).is_stored())
        };
        let inserted = table(&memory).insert(NEWCOMER, &block(3, BIG_SIZE));
        if inserted.is_stored() {
            assert_eq!(
                table(&memory).remove(NEWCOMER),
                Removed::Block(block(3, BIG_SIZE)),
                "{inserted:?}"
            );
        }
        let _ = other.join().unwrap();
    });
}

/// OVERFLOWN shares its word with tags that others change at the same time.
#[test]
fn block_that_found_its_home_full_is_found_elsewhere() {
    model(3, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(SMALL, &block(1, 8)), Inserted::Stored);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).remove(SMALL))
        };
        let table = table(&memory);
        assert_eq!(table.insert(NEWCOMER, &block(3, 8)), Inserted::Stored);
        assert_eq!(table.remove(NEWCOMER), Removed::Block(block(3, 8)));
        assert_eq!(other.join().unwrap(), Removed::Block(block(1, 8)));
        // No tag is left behind: both cells can be used and found again.
        let both = [(SMALL, block(4, 8)), (BIG, block(5, 8))];
        for (address, block) in both {
            assert_eq!(table.insert(address, &block), Inserted::Stored);
        }
        for (address, block) in both {
            assert_eq!(table.remove(address), Removed::Block(block));
        }
    });
}

/// INVARIANT L1, where a program frees twice at once and the key comes back between the look and
/// the claim (versions have two bits here): each reference leaves the table once.
#[test]
fn each_reference_comes_back_once_though_the_same_key_came_back() {
    model(2, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(SMALL, &block(1, 8)), Inserted::Stored);
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let table = table(&memory);
                let again = |number| {
                    let removed = table.remove(SMALL);
                    let inserted = table.insert(SMALL, &block(number, 8));
                    assert!(inserted.is_stored());
                    [of_removed(removed), inserted.released()]
                };
                [again(2), again(3)]
            })
        };
        let mine = of_removed(table(&memory).remove(SMALL));
        let theirs = other.join().unwrap();
        let kept = table(&memory).blocks().map(|(_, block)| block);
        let all = theirs
            .into_iter()
            .flatten()
            .chain([mine])
            .flatten()
            .chain(kept);
        let mut numbers: Vec<u32> = all.map(|block| block.thread).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
    });
}

fn of_removed(removed: Removed) -> Option<LiveBlock> {
    match removed {
        Removed::Block(block) => Some(block),
        Removed::Unsampled | Removed::Unknown => None,
    }
}

/// INVARIANT L3, where the cell of the weakest block holds a stronger one under the same key by
/// the time it is claimed. (One switch, in the right place, is all that this takes.)
#[test]
fn block_of_the_sample_is_not_pushed_out_in_the_place_of_a_weaker_one() {
    model(1, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(SMALL, &block(1, 8)), Inserted::Stored);
        assert_eq!(
            table(&memory).insert(ELSEWHERE, &block(2, BIG_SIZE)),
            Inserted::Stored
        );
        let other = {
            let memory = memory.clone();
            thread::spawn(move || {
                let table = table(&memory);
                for _ in 0..2 {
                    let _ = table.remove(SMALL);
                    let _ = table.insert(SMALL, &block(1, BIG_SIZE));
                }
            })
        };
        let table = table(&memory);
        let inserted = table.insert(NEWCOMER, &block(3, BIG_SIZE));
        if let Inserted::PushedOut(old) = inserted {
            let address = if old.thread == 1 { SMALL } else { ELSEWHERE };
            assert!(!table.sampling().contains(address, old.size), "{old:?}");
        }
        other.join().unwrap();
    });
}

#[test]
fn who_sees_the_magic_sees_the_header() {
    model(3, || {
        let memory = Arc::new(SectionMemory::new(LINES));
        let maker = {
            let memory = memory.clone();
            thread::spawn(move || LiveTable::create_in(&memory).map(drop))
        };
        if let Err(error) = LiveTable::attach_in(&memory) {
            assert_eq!(error, SectionError::Foreign { what: "live table" });
        }
        maker.join().unwrap().unwrap();
    });
}
