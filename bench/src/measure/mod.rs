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
    /// What `--task` calls it.
    pub name: &'static str,
    /// Names and units of a round's values.
    pub measures: &'static [(Measure, &'static str)],
    /// Whether it makes its stacks itself, so that it is run once and not on each workload.
    pub has_own_stacks: bool,
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

/// Rounds of sides that no bar asks about.
const ONLOOKER_ROUNDS: usize = 5;
/// Sides that bars ask about.
const DECIDING: [&str; 5] = ["ours", "LLVM", "Linux", "Linux refcounted", "limit"];

impl Task {
    /// Takes `round_count` rounds of every side that is there, in turns, and adds them to the
    /// figures.
    pub fn run(&self, workload: &Workload, round_count: usize, figures: &mut Vec<Figure>) {
        self.run_rounds(workload, round_count, ONLOOKER_ROUNDS, figures);
    }

    /// More rounds, of the sides that bars ask about.
    pub fn run_more(&self, workload: &Workload, round_count: usize, figures: &mut Vec<Figure>) {
        self.run_rounds(workload, round_count, 0, figures);
    }

    fn run_rounds(
        &self,
        workload: &Workload,
        round_count: usize,
        onlooker_rounds: usize,
        figures: &mut Vec<Figure>,
    ) {
        let mut players: Vec<Player<'_>> = self
            .sides
            .iter()
            .filter(|side| (side.missing)().is_none())
            .map(|side| Player {
                side,
                worker: None,
                taken: Vec::new(),
            })
            .collect();
        let count = players.len();
        for round in 0..round_count {
            for turn in 0..count {
                // Another one goes first each time.
                let player = &mut players[(turn + round) % count];
                if round < onlooker_rounds || DECIDING.contains(&player.side.name) {
                    player.take(workload, self.is_fresh);
                }
            }
        }
        for player in players {
            self.add(&player, workload, figures);
        }
    }

    /// Adds a side's rounds to its figures.
    fn add(&self, player: &Player<'_>, workload: &Workload, figures: &mut Vec<Figure>) {
        for (index, &(measure, unit)) in self.measures.iter().enumerate() {
            let rounds = player.taken.iter().filter_map(|values| values.get(index));
            let name = if self.has_own_stacks {
                crate::bars::OWN
            } else {
                &workload.name
            };
            let known = figures.iter_mut().find(|figure| {
                figure.measure == measure
                    && figure.workload == name
                    && figure.side == player.side.name
            });
            match known {
                Some(figure) => figure.rounds.extend(rounds),
                None => figures.push(Figure {
                    measure,
                    workload: name.to_owned(),
                    side: player.side.name.to_owned(),
                    unit,
                    rounds: rounds.copied().collect(),
                }),
            }
        }
    }
}

/// A side that takes part: its process, and the values of its rounds.
struct Player<'t> {
    side: &'t Side,
    worker: Option<Result<Worker, String>>,
    taken: Vec<Vec<f64>>,
}

impl Player<'_> {
    /// One round. What goes wrong is said, and the side is left out from then on.
    fn take(&mut self, workload: &Workload, is_fresh: bool) {
        if matches!(self.worker, Some(Err(_))) {
            return;
        }
        if is_fresh {
            // The old one ends before the new one begins.
            self.worker = None;
        }
        let worker = self
            .worker
            .get_or_insert_with(|| Worker::start(|| (self.side.start)(workload)));
        let answer = match worker {
            Ok(worker) => worker.round(),
            Err(message) => Err(message.clone()),
        };
        match answer {
            Ok(values) => self.taken.push(values),
            Err(message) => {
                eprintln!("{} on {}: {message}", self.side.name, workload.name);
                self.worker = Some(Err(message));
            }
        }
    }
}
