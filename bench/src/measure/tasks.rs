//! The tasks: which measures are taken together, and who takes part.

use super::{Side, Task, hits, onto, replay, threads};
use crate::bound::cost;
use crate::peers::limit::Limit;
use crate::peers::linux::{Linux, LinuxReferenced};
use crate::peers::llvm::{self, DELTA, LZW};
use crate::peers::ours::Ours;
use crate::peers::rust::dashmap::Dash;
use crate::peers::rust::moka::Moka;
use crate::peers::rust::papaya::Papaya;
use crate::peers::rust::quick_cache::QuickCache;
use crate::peers::scudo::Scudo;

type Llvm = llvm::Llvm<{ llvm::RAW }>;
type LlvmDelta = llvm::Llvm<DELTA>;
type LlvmLzw = llvm::Llvm<LZW>;

/// All of them.
pub fn all() -> Vec<Task> {
    vec![
        stored(),
        held_stored(),
        first(),
        resident_held(),
        held(),
        ring(),
        scaling(),
        bound(),
        save_onto(),
    ]
}

/// Saves and fetches of stored stacks.
fn stored() -> Task {
    Task {
        name: "stored",
        measures: &[
            (hits::STORED, "ns"),
            (hits::DEPENDENT, "ns"),
            (hits::FETCH, "ns"),
        ],
        has_own_stacks: false,
        is_fresh: false,
        sides: vec![
            Side::of::<Ours>(hits::start::<Ours>),
            Side::of::<Llvm>(hits::start::<Llvm>),
            Side::of::<Linux>(hits::start::<Linux>),
            Side::of::<LlvmDelta>(hits::start::<LlvmDelta>),
            Side::of::<LlvmLzw>(hits::start::<LlvmLzw>),
            Side::of::<Scudo>(hits::start::<Scudo>),
            Side::of::<Limit>(hits::start::<Limit>),
            Side::of::<Dash>(hits::start::<Dash>),
            Side::of::<Papaya>(hits::start::<Papaya>),
            Side::of::<QuickCache>(hits::start::<QuickCache>),
            Side::of::<Moka>(hits::start::<Moka>),
        ],
    }
}

/// Saves of stored stacks that take a reference.
fn held_stored() -> Task {
    Task {
        name: "held-stored",
        measures: &[(hits::HELD_STORED, "ns"), (hits::HELD_DEPENDENT, "ns")],
        has_own_stacks: false,
        is_fresh: false,
        sides: vec![
            Side::of::<Ours>(hits::start_held::<Ours>),
            Side::of::<LinuxReferenced>(hits::start_held::<LinuxReferenced>),
        ],
    }
}

/// The first pass, and the memory after it.
fn first() -> Task {
    Task {
        name: "first",
        measures: &[(replay::FIRST, "ns"), (replay::RESIDENT, "bytes")],
        has_own_stacks: false,
        is_fresh: true,
        sides: vec![
            Side::of::<Ours>(replay::first::<Ours>),
            Side::of::<Llvm>(replay::first::<Llvm>),
            Side::of::<Linux>(replay::first::<Linux>),
            Side::of::<LlvmDelta>(replay::first::<LlvmDelta>),
            Side::of::<LlvmLzw>(replay::first::<LlvmLzw>),
            Side::of::<Scudo>(replay::first::<Scudo>),
            Side::of::<Limit>(replay::first::<Limit>),
            Side::of::<Dash>(replay::first::<Dash>),
            Side::of::<Papaya>(replay::first::<Papaya>),
            Side::of::<QuickCache>(replay::first::<QuickCache>),
            Side::of::<Moka>(replay::first::<Moka>),
        ],
    }
}

/// The memory of stacks that are all held.
fn resident_held() -> Task {
    Task {
        name: "resident-held",
        measures: &[(replay::RESIDENT_HELD, "bytes")],
        has_own_stacks: false,
        is_fresh: true,
        sides: vec![
            Side::of::<Ours>(replay::resident_held::<Ours>),
            Side::of::<LinuxReferenced>(replay::resident_held::<LinuxReferenced>),
        ],
    }
}

/// Objects that hold their stacks.
fn held() -> Task {
    Task {
        name: "held",
        measures: &[(replay::HELD, "ns")],
        has_own_stacks: false,
        is_fresh: true,
        sides: vec![
            Side::of::<Ours>(replay::held::<Ours>),
            Side::of::<LinuxReferenced>(replay::held::<LinuxReferenced>),
        ],
    }
}

/// The ring of the newest events.
fn ring() -> Task {
    Task {
        name: "ring",
        measures: &[(replay::RING, "ns")],
        has_own_stacks: false,
        is_fresh: true,
        sides: vec![
            Side::of::<Ours>(replay::ring::<Ours>),
            Side::of::<LinuxReferenced>(replay::ring::<LinuxReferenced>),
        ],
    }
}

/// Threads on stored stacks.
fn scaling() -> Task {
    Task {
        name: "threads",
        measures: &[
            (threads::TWO, "times"),
            (threads::ALL, "times"),
            (threads::HOT_TWO, "times"),
            (threads::HOT_ALL, "times"),
        ],
        has_own_stacks: false,
        is_fresh: false,
        sides: vec![
            Side::of::<Ours>(threads::start::<Ours>),
            Side::of::<Llvm>(threads::start::<Llvm>),
            Side::of::<Linux>(threads::start::<Linux>),
            Side::of::<LinuxReferenced>(threads::start::<LinuxReferenced>),
            Side::of::<Dash>(threads::start::<Dash>),
            Side::of::<Papaya>(threads::start::<Papaya>),
            Side::of::<QuickCache>(threads::start::<QuickCache>),
            Side::of::<Moka>(threads::start::<Moka>),
        ],
    }
}

/// Saves that miss, with room and at the bound, ours alone.
fn bound() -> Task {
    Task {
        name: "bound",
        measures: &cost::MEASURES,
        has_own_stacks: false,
        is_fresh: true,
        sides: vec![Side::of::<Ours>(cost::start)],
    }
}

/// `save_onto`, ours alone, on stacks of its own.
fn save_onto() -> Task {
    Task {
        name: "onto",
        measures: &[
            (onto::PLAIN_8, "ns"),
            (onto::ONTO_16, "ns"),
            (onto::ONTO_256, "ns"),
            (onto::ONTO_18, "ns"),
            (onto::ONTO_248, "ns"),
        ],
        has_own_stacks: true,
        is_fresh: false,
        sides: vec![Side::of::<Ours>(onto::start)],
    }
}
