//! What is measured: tasks, the sides that take part in each, and rounds in turns.

pub mod batch;
pub mod hits;
pub mod onto;
pub mod replay;
pub mod tasks;
pub mod threads;

use crate::figure::{Figure, Measure, Peer};
use crate::process::{Round, Worker};
use crate::workload::Workload;

/// Some measures that are taken in one round.
pub struct Task {
    /// What `--only` calls it.
    pub name: &'static str,
    /// Names and units of a round's values.
    pub measures: &'static [(Measure, &'static str)],
    /// Whether each round starts from untouched memory.
    pub is_fresh: bool,
    /// Who takes part.
    pub sides: Vec<Side>,
}

/// One side of a task.
pub struct Side {
    /// Its name.
    pub name: &'static str,
    /// Why it cannot take part, if so.
    pub missing: fn() -> Option<String>,
    /// Makes the side in its own process.
    pub start: for<'w> fn(&'w Workload) -> Result<Round<'w>, String>,
}

impl Side {
    fn of<P: Peer>(start: for<'w> fn(&'w Workload) -> Result<Round<'w>, String>) -> Side {
        Side {
            name: P::NAME,
            missing: P::missing,
            start,
        }
    }
}

impl Task {
    /// Takes `round_count` rounds of every side that is there, in turns; what went wrong is said.
    pub fn run(&self, workload: &Workload, round_count: usize) -> Vec<Figure> {
        let mut sides = Vec::new();
        for side in &self.sides {
            if let Some(reason) = (side.missing)() {
                eprintln!("{}: skipped: {reason}", side.name);
                continue;
            }
            sides.push((side, None, Vec::new()));
        }
        for round in 0..round_count {
            // Another one goes first each time.
            let count = sides.len();
            for turn in 0..count {
                let (side, worker, taken) = &mut sides[(turn + round) % count];
                if worker.is_none() || self.is_fresh {
                    *worker = None;
                    *worker = Some(Worker::start(|| (side.start)(workload)));
                }
                let values = match worker {
                    Some(Ok(worker)) => worker.round(),
                    Some(Err(message)) => Err(message.clone()),
                    None => continue,
                };
                match values {
                    Ok(values) => taken.push(values),
                    Err(message) => eprintln!("{} on {}: {message}", side.name, workload.name),
                }
            }
        }
        let mut figures = Vec::new();
        for (index, &(measure, unit)) in self.measures.iter().enumerate() {
            for (side, _, taken) in &sides {
                figures.push(Figure {
                    measure,
                    workload: workload.name.clone(),
                    side: side.name.to_owned(),
                    unit,
                    rounds: taken.iter().map(|values| values[index]).collect(),
                });
            }
        }
        figures
    }
}
