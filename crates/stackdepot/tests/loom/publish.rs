//! Publishing: equal stacks saved at once end in one node (INVARIANT 5, `protocols.md` D).
//! Three savers and retires are beyond loom: `sc_model.rs`.

use crate::{assert_held, assert_nothing_is_held, check, config, spawn};
use stackdepot::{Depot, Held, SaveError};

type Answer = Result<Held, SaveError>;

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Err(SaveError::Contended | SaveError::Full))
}

fn assert_stored_once(answers: &[Answer]) {
    let mut stored = answers.iter().filter_map(|answer| answer.ok());
    let first = stored.next();
    assert!(
        stored.all(|held| Some(held) == first),
        "stored twice: {answers:?}"
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.is_ok() || is_refusal(answer)),
        "{answers:?}"
    );
}

#[test]
fn two_threads_that_save_the_same_stack_get_the_same_name() {
    check(3, 2, config(), |memory| {
        let other = spawn(&memory, |depot| depot.save_acquire(&[7]));
        let depot = Depot::of(&memory);
        let answers = [depot.save_acquire(&[7]), other.join().unwrap()];
        assert_stored_once(&answers);
        answers
            .iter()
            .for_each(|answer| assert_held(depot, *answer, &[7]));
        assert_nothing_is_held(depot, 2);
    });
}

/// Equal publishers race for the same free cell, and coherence of that one word decides; the
/// total fence is needed when one of them finds an earlier cell that was just freed. So here
/// an unrelated stack sits in the first cell, and one of the savers has to evict it. (Which
/// stacks share a first bucket is the hash's secret: several are tried.)
#[test]
fn two_threads_get_the_same_name_while_an_earlier_cell_becomes_free() {
    for unrelated in [8, 9, 10, 11] {
        check(3, 2, config(), move |memory| {
            let depot = Depot::of(&memory);
            depot.save(&[unrelated]).unwrap();
            let other = spawn(&memory, |depot| depot.save_acquire(&[7]));
            let answers = [depot.save_acquire(&[7]), other.join().unwrap()];
            assert_stored_once(&answers);
        });
    }
}
