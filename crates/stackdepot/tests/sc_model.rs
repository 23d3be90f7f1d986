//! Publishing against publishing and retire, for three inserters of equal nodes: beyond loom, so
//! a model of its own, explored whole under sequential consistency (`protocols.md` D, E, A1).
//!
//! Key type: [`World`], the shared words: the cells in scan order and the state of each node.
//! Each step of an [`Inserter`] is one access. All nodes are equal and hang on one parent; each
//! inserter has a slot of its own. A retire may take any committed node that nobody holds,
//! at any moment, in two steps (dead, then unlinked); a slot is not reused, a claim between two
//! rounds gives the inserter its own node back. What is checked in every state: no two
//! committed entries lead to live nodes (INVARIANT 5). The mutants are the broken drafts of
//! `protocols.md` A1 and must fail. Orderings are loom's business.
#![cfg(not(loom))]
#![allow(clippy::indexing_slicing, reason = "a model stops where it fails")]

use std::collections::HashSet;

const INSERTERS: usize = 3;

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cell {
    Empty,
    Tentative(u8),
    Committed(u8),
}

/// The life of an inserter's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    /// Not published for good yet, or given up: only its maker holds it.
    Private,
    /// Committed, with that many references.
    Live(u8),
    /// Retired; its entry may still be there.
    Dead,
}

/// What an inserter does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Chooses a cell that is empty now.
    Choose,
    /// Exchanges the chosen cell from empty.
    Publish(u8),
    /// Looks at the `next` cell; its own is `mine`.
    Look {
        mine: u8,
        next: u8,
    },
    /// Saw this tentative entry, and exchanges it for what the protocol says.
    Decide {
        mine: u8,
        next: u8,
        seen: u8,
    },
    /// Saw a committed entry, and adds a reference.
    Acquire {
        mine: u8,
        next: u8,
        seen: u8,
    },
    /// Exchanges its own entry for a committed one.
    Commit {
        mine: u8,
    },
    /// Exchanges its own entry for empty: it adopted that slot's node.
    Withdraw {
        mine: u8,
        slot: u8,
    },
    /// Withdraws first, then helps (the mutant).
    Help {
        next: u8,
        seen: u8,
    },
    /// Drops its reference on a node, at any time.
    Holding(u8),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Inserter {
    step: Step,
    rounds: u8,
}

/// How equal tentative entries are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The protocol: kill it, wherever it is.
    Kill,
    /// Commit an earlier one for its owner, kill a later one.
    HelpEarlier,
    /// Kill an earlier one, pass over a later one.
    PassLater,
    /// Look before publishing instead of afterwards: every entry of the first scan was empty.
    NoScan,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    cells: Vec<Cell>,
    nodes: [Node; INSERTERS],
    inserters: [Inserter; INSERTERS],
}

/// The whole of a model: who takes part, and by which rule.
#[derive(Clone, Copy, Debug)]
struct Model {
    rule: Rule,
    cell_count: usize,
    inserter_count: usize,
    rounds: u8,
    retires: bool,
}

impl World {
    fn new(model: Model) -> World {
        let inserter = |index| Inserter {
            step: if index < model.inserter_count {
                Step::Choose
            } else {
                Step::Done
            },
            rounds: model.rounds,
        };
        World {
            cells: vec![Cell::Empty; model.cell_count],
            nodes: [Node::Private; INSERTERS],
            inserters: std::array::from_fn(inserter),
        }
    }

    /// INVARIANT 5.
    fn is_unique(&self) -> bool {
        let leads_to_live = |cell: &&Cell| matches!(cell, Cell::Committed(slot) if matches!(self.nodes[*slot as usize], Node::Live(_)));
        self.cells.iter().filter(leads_to_live).count() <= 1
    }

    /// The same world with one inserter's next step changed.
    fn with(&self, who: usize, step: Step) -> World {
        let mut world = self.clone();
        world.inserters[who].step = step;
        world
    }

    /// Every world that one access can lead to.
    fn successors(&self, model: Model) -> Vec<World> {
        let mut worlds = Vec::new();
        for who in 0..INSERTERS {
            self.advance(who, model, &mut worlds);
        }
        if model.retires {
            self.retire(&mut worlds);
        }
        worlds
    }

    fn retire(&self, worlds: &mut Vec<World>) {
        for (slot, node) in self.nodes.iter().enumerate() {
            if *node == Node::Live(0) {
                let mut world = self.clone();
                world.nodes[slot] = Node::Dead;
                worlds.push(world);
            }
            let entry = Cell::Committed(slot as u8);
            if let (Node::Dead, Some(cell)) =
                (node, self.cells.iter().position(|cell| *cell == entry))
            {
                let mut world = self.clone();
                world.cells[cell] = Cell::Empty;
                worlds.push(world);
            }
        }
    }

    fn advance(&self, who: usize, model: Model, worlds: &mut Vec<World>) {
        match self.inserters[who].step {
            Step::Done => {}
            Step::Choose => self.choose(who, worlds),
            Step::Publish(cell) => worlds.push(self.publish(who, cell, model)),
            Step::Look { mine, next } => worlds.push(self.look(who, mine, next, model)),
            Step::Decide { mine, next, seen } => {
                worlds.push(self.decide(who, mine, next, seen, model))
            }
            Step::Acquire { mine, next, seen } => worlds.push(self.acquire(who, mine, next, seen)),
            Step::Commit { mine } => worlds.push(self.commit(who, mine)),
            Step::Withdraw { mine, slot } => worlds.push(self.withdraw(who, mine, slot)),
            Step::Help { next, seen } => worlds.push(self.help(who, next, seen)),
            Step::Holding(slot) => worlds.push(self.put(who, slot)),
        }
    }

    /// Any cell that is empty: the order in which the code fills buckets is not relied on.
    fn choose(&self, who: usize, worlds: &mut Vec<World>) {
        if self.inserters[who].rounds == 0 {
            worlds.push(self.with(who, Step::Done));
            return;
        }
        for (cell, value) in self.cells.iter().enumerate() {
            if *value == Cell::Empty {
                let mut world = self.with(who, Step::Publish(cell as u8));
                world.inserters[who].rounds = self.inserters[who].rounds - 1;
                worlds.push(world);
            }
        }
        if !self.cells.contains(&Cell::Empty) {
            worlds.push(self.with(who, Step::Done));
        }
    }

    fn publish(&self, who: usize, cell: u8, model: Model) -> World {
        if self.cells[cell as usize] != Cell::Empty {
            return self.with(who, Step::Choose);
        }
        let next = if model.rule == Rule::NoScan {
            Step::Commit { mine: cell }
        } else {
            Step::Look {
                mine: cell,
                next: 0,
            }
        };
        let mut world = self.with(who, next);
        world.cells[cell as usize] = Cell::Tentative(who as u8);
        world
    }

    fn look(&self, who: usize, mine: u8, next: u8, model: Model) -> World {
        if next as usize == model.cell_count {
            return self.with(who, Step::Commit { mine });
        }
        let passed = Step::Look {
            mine,
            next: next + 1,
        };
        let step = match self.cells[next as usize] {
            _ if next == mine => passed,
            Cell::Empty => passed,
            Cell::Committed(seen) => Step::Acquire { mine, next, seen },
            Cell::Tentative(_) if model.rule == Rule::PassLater && next > mine => passed,
            Cell::Tentative(seen) => Step::Decide { mine, next, seen },
        };
        self.with(who, step)
    }

    /// A tentative entry: killed; by the mutant's rule an earlier one is helped, after withdrawing.
    fn decide(&self, who: usize, mine: u8, next: u8, seen: u8, model: Model) -> World {
        if model.rule == Rule::HelpEarlier && next < mine {
            let mut world = self.with(who, Step::Help { next, seen });
            if world.cells[mine as usize] == Cell::Tentative(who as u8) {
                world.cells[mine as usize] = Cell::Empty;
            }
            return world;
        }
        if self.cells[next as usize] != Cell::Tentative(seen) {
            return self.with(who, Step::Look { mine, next });
        }
        let mut world = self.with(
            who,
            Step::Look {
                mine,
                next: next + 1,
            },
        );
        world.cells[next as usize] = Cell::Empty;
        world
    }

    fn help(&self, who: usize, next: u8, seen: u8) -> World {
        let mut world = self.with(who, Step::Done);
        if self.cells[next as usize] == Cell::Tentative(seen) {
            world.cells[next as usize] = Cell::Committed(seen);
            world.nodes[seen as usize] = Node::Live(1);
        }
        world
    }

    fn acquire(&self, who: usize, mine: u8, next: u8, seen: u8) -> World {
        match self.nodes[seen as usize] {
            Node::Live(count) => {
                let mut world = self.with(who, Step::Withdraw { mine, slot: seen });
                world.nodes[seen as usize] = Node::Live(count + 1);
                world
            }
            // Dying, and that is final.
            _ => self.with(
                who,
                Step::Look {
                    mine,
                    next: next + 1,
                },
            ),
        }
    }

    fn commit(&self, who: usize, mine: u8) -> World {
        if self.cells[mine as usize] != Cell::Tentative(who as u8) {
            // Killed, or (mutant) helped.
            let is_helped = self.cells[mine as usize] == Cell::Committed(who as u8);
            return self.with(
                who,
                if is_helped {
                    Step::Holding(who as u8)
                } else {
                    Step::Choose
                },
            );
        }
        let mut world = self.with(who, Step::Holding(who as u8));
        world.cells[mine as usize] = Cell::Committed(who as u8);
        world.nodes[who] = Node::Live(1);
        world
    }

    fn withdraw(&self, who: usize, mine: u8, slot: u8) -> World {
        let mut world = self.with(who, Step::Holding(slot));
        if world.cells[mine as usize] == Cell::Tentative(who as u8) {
            world.cells[mine as usize] = Cell::Empty;
        }
        world
    }

    fn put(&self, who: usize, slot: u8) -> World {
        let mut world = self.with(who, Step::Done);
        if let Node::Live(count) = self.nodes[slot as usize] {
            world.nodes[slot as usize] = Node::Live(count - 1);
        }
        world
    }
}

/// Visits every state; answers how many there are, or one with two committed equal nodes.
fn explore(model: Model) -> Result<usize, Box<World>> {
    let first = World::new(model);
    let (mut seen, mut open) = (HashSet::from([first.clone()]), vec![first]);
    while let Some(world) = open.pop() {
        if !world.is_unique() {
            return Err(Box::new(world));
        }
        for next in world.successors(model) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

const KILL: Model = Model {
    rule: Rule::Kill,
    cell_count: 3,
    inserter_count: 3,
    rounds: 2,
    retires: true,
};

#[test]
fn three_inserters_and_retires_never_commit_two_equal_nodes() {
    let state_count = explore(KILL).expect("never two");
    println!("{state_count} states");
    assert!(
        state_count > 100_000,
        "the model does not reach what it is for: {state_count} states"
    );
}

#[test]
fn two_inserters_with_more_cells_and_rounds_never_commit_two_equal_nodes() {
    let state_count = explore(Model {
        cell_count: 4,
        inserter_count: 2,
        rounds: 4,
        ..KILL
    })
    .expect("never two");
    println!("{state_count} states");
    assert!(state_count > 1000);
}

#[test]
fn helping_an_earlier_entry_commits_two_equal_nodes() {
    assert!(
        explore(Model {
            rule: Rule::HelpEarlier,
            retires: false,
            ..KILL
        })
        .is_err()
    );
}

#[test]
fn passing_over_later_entries_commits_two_equal_nodes() {
    assert!(
        explore(Model {
            rule: Rule::PassLater,
            inserter_count: 2,
            retires: false,
            ..KILL
        })
        .is_err()
    );
}

#[test]
fn committing_without_a_scan_commits_two_equal_nodes() {
    assert!(
        explore(Model {
            rule: Rule::NoScan,
            inserter_count: 2,
            retires: false,
            ..KILL
        })
        .is_err()
    );
}
