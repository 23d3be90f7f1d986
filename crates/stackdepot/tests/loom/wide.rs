//! Wide nodes: the slot of the upper halves comes and goes with its node (`protocols.md` A12).

use crate::{assert_nothing_is_held, check, config, frames_at, spawn};
use loom::sync::Arc;
use stackdepot::{Depot, Memory, WeakHandle};

/// The two windows of the table are taken, then a third one is stored wide.
const WIDE: u64 = 3 << 32 | 1;

fn with_wide_stack(memory: &Arc<Memory>) -> (Depot<'_>, WeakHandle) {
    let depot = Depot::of(memory);
    depot.save(&[1 << 32 | 1, 2]).unwrap();
    let weak = depot.save(&[WIDE]).unwrap();
    (depot, weak)
}

#[test]
fn a_reader_never_sees_upper_halves_of_another_life() {
    check(3, 2, config(), |memory| {
        let (depot, weak) = with_wide_stack(&memory);
        let writer = spawn(&memory, |depot| [depot.save(&[4]), depot.save(&[5])]);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [WIDE]);
        }
        drop(writer.join().unwrap());
        assert_nothing_is_held(depot, 2);
    });
}

/// The same, where another thread frees the slot of the upper halves and this one takes it.
#[test]
fn who_takes_the_slot_of_upper_halves_sees_their_node_retired() {
    check(3, 2, config(), |memory| {
        let (depot, weak) = with_wide_stack(&memory);
        let other = spawn(&memory, |depot| depot.save(&[4]));
        let mine = depot.save(&[5]);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [WIDE], "{mine:?}");
        }
        drop(other.join().unwrap());
    });
}
