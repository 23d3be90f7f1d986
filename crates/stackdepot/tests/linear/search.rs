//! Looks for an order of a history's calls that the model allows (Wing and Gong), remembering
//! where it was in vain.

use std::collections::HashSet;

use crate::history::History;
use crate::model::{Rules, State};

/// Whether there is one.
pub fn is_linearizable(history: &History, rules: Rules) -> bool {
    let mut search = Search {
        history,
        rules,
        in_vain: HashSet::new(),
    };
    let start = vec![0; history.threads.len()];
    search.succeeds_from(&start, &State::default())
}

struct Search<'h> {
    history: &'h History,
    rules: Rules,
    in_vain: HashSet<(Vec<usize>, State)>,
}

impl Search<'_> {
    /// `done` says how many calls of each thread are in the order already.
    fn succeeds_from(&mut self, done: &[usize], state: &State) -> bool {
        let next = |thread: usize| {
            let number = *self.history.threads[thread].get(done[thread])?;
            Some((thread, self.history.calls[number]))
        };
        let open: Vec<_> = (0..done.len()).filter_map(next).collect();
        let Some(first_return) = open.iter().map(|(_, record)| record.returned).min() else {
            return true;
        };
        if self.in_vain.contains(&(done.to_vec(), state.clone())) {
            return false;
        }
        // Who was called after another's answer comes after it.
        for (thread, record) in open {
            if record.called > first_return {
                continue;
            }
            let earliest = self.history.ticks_before(record.called);
            let after = state.after(record.call, record.answer, earliest, self.rules);
            if let Some(after) = after {
                let mut done = done.to_vec();
                done[thread] += 1;
                if self.succeeds_from(&done, &after) {
                    return true;
                }
            }
        }
        self.in_vain.insert((done.to_vec(), state.clone()));
        false
    }
}
