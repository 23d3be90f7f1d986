//! Loom models of the live table, with two buckets of one cell each. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p stackdepot --test loom_live --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use loom::sync::Arc;
use loom::thread;
use stackdepot::live::{Inserted, LiveBlock, LiveTable, Removed};
use stackdepot::{SectionMemory, WeakHandle};

/// Two header lines, one of tags, and two buckets of four lines.
const LINES: usize = 11;

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
    model(3, move || {
        // These two fill the two cells; the third may use either.
        let [small, big, newcomer] = [16, 32, 48];
        let memory = Arc::new(SectionMemory::new(LINES));
        assert_eq!(table(&memory).insert(small, &block(1, 0)), Inserted::Stored);
        assert_eq!(
            table(&memory).insert(big, &block(2, 1 << 30)),
            Inserted::Stored
        );
        let other = {
            let memory = memory.clone();
            thread::spawn(move || table(&memory).insert(newcomer, &block(3, 1 << 30)))
        };
        let removed = table(&memory).remove(small);
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
                .all(|(address, block)| address != small && is_whole(&block))
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
