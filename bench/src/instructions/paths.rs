//! The loops that are counted, on each side that has the path.

use std::hint::black_box;

use stackdepot::live::{LiveBlock, LiveTable, live_bytes};
use stackdepot::ring::{Event, EventKind, Ring, ring_bytes};
use stackdepot::{Ancestor, Hold, Line};
use stackdepot_corpus::Corpus;

use crate::figure::{Holding, Peer, Ringed};
use crate::measure::hits::fill;
use crate::peers::limit::Limit;
use crate::peers::linux::{Linux, LinuxReferenced};
use crate::peers::llvm;
use crate::peers::ours::{self, Ours};
use crate::workload::{MOST_FRAMES, Workload};

type Llvm = llvm::Llvm<{ llvm::RAW }>;

/// Slots of our depots: room for every stack of the counted events.
const SLOT_COUNT: u32 = 1 << 17;
/// Operations on paths that have no workload.
const OPERATION_COUNT: usize = 20_000;
/// Cells of the live table, and blocks that are in it at once.
const CELL_COUNT: usize = 65536;
const LIVE_COUNT: usize = 4096;
/// Known frames and new frames of a `save_onto`.
const KNOWN_FRAMES: u64 = 100;
const NEW_FRAMES: u64 = 6;

/// One path of one side.
pub struct Path {
    /// What is done.
    pub name: &'static str,
    /// By whom.
    pub side: &'static str,
    /// Why it cannot be counted here, if so.
    pub missing: fn() -> Option<String>,
    /// Does it, and answers how often.
    pub run: fn(&Workload) -> Result<usize, String>,
}

impl Path {
    const fn of<P: Peer>(name: &'static str, run: fn(&Workload) -> Result<usize, String>) -> Path {
        Path {
            name,
            side: P::NAME,
            missing: P::missing,
            run,
        }
    }
}

/// A save of a stack that is stored: what bar 8 prints beside the peers'.
pub const STORED: &str = "save, stored";

/// All that is counted.
pub const PATHS: &[Path] = &[
    Path::of::<Ours>(STORED, stored::<Ours>),
    Path::of::<Llvm>(STORED, stored::<Llvm>),
    Path::of::<Linux>(STORED, stored::<Linux>),
    Path::of::<LinuxReferenced>(STORED, stored::<LinuxReferenced>),
    Path::of::<Limit>(STORED, stored::<Limit>),
    Path::of::<Ours>("save, missing", missing::<Ours>),
    Path::of::<Llvm>("save, missing", missing::<Llvm>),
    Path::of::<Linux>("save, missing", missing::<Linux>),
    Path::of::<Limit>("save, missing", missing::<Limit>),
    Path::of::<Ours>("save+acquire, put", held::<Ours>),
    Path::of::<LinuxReferenced>("save+acquire, put", held::<LinuxReferenced>),
    Path::of::<Ours>("fetch", fetch::<Ours>),
    Path::of::<Llvm>("fetch", fetch::<Llvm>),
    Path::of::<Linux>("fetch", fetch::<Linux>),
    Path::of::<Ours>("ring push with its save", push::<Ours>),
    Path::of::<LinuxReferenced>("ring push with its save", push::<LinuxReferenced>),
    Path::of::<Ours>("ring push alone", push_alone),
    Path::of::<Ours>("live insert, remove", live),
    Path::of::<Ours>("save_onto, 6 new of 106", onto),
];

/// The names of all paths, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    let is_first = |(index, path): &(usize, &Path)| {
        PATHS[..*index].iter().all(|other| other.name != path.name)
    };
    PATHS
        .iter()
        .enumerate()
        .filter(is_first)
        .map(|(_, path)| path.name)
}

/// What runs in here is counted: valgrind knows the function by its name.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
}

/// The workload of the counted process.
pub fn workload(corpus: Corpus) -> Workload {
    Workload {
        name: "counted".to_owned(),
        corpus,
        slot_count: SLOT_COUNT,
    }
}

/// The stacks of the events, in order.
fn stacks(workload: &Workload) -> Vec<&[u64]> {
    let events = workload.corpus.events().iter();
    events
        .map(|event| workload.corpus.stack(event.stack))
        .collect()
}

fn stored<P: Peer>(workload: &Workload) -> Result<usize, String> {
    let peer = P::new(workload);
    fill(&peer, workload)?;
    let stacks = stacks(workload);
    counted(&mut || {
        for frames in &stacks {
            black_box(peer.save(frames));
        }
    });
    Ok(stacks.len())
}

fn missing<P: Peer>(workload: &Workload) -> Result<usize, String> {
    let peer = P::new(workload);
    let stack_count = workload.corpus.stack_count() as u32;
    counted(&mut || {
        for stack in 0..stack_count {
            black_box(peer.save(workload.corpus.stack(stack)));
        }
    });
    Ok(stack_count as usize)
}

fn held<P: Holding>(workload: &Workload) -> Result<usize, String> {
    let peer = P::new(workload);
    fill(&peer, workload)?;
    let stacks = stacks(workload);
    counted(&mut || {
        for frames in &stacks {
            peer.put(black_box(peer.save_acquire(frames)));
        }
    });
    Ok(stacks.len())
}

fn fetch<P: Peer>(workload: &Workload) -> Result<usize, String> {
    let peer = P::new(workload);
    let handles = fill(&peer, workload)?;
    let events = workload.corpus.events();
    let mut out = [0; MOST_FRAMES];
    counted(&mut || {
        for event in events {
            black_box(peer.fetch(handles[event.stack as usize], black_box(&mut out)));
        }
    });
    Ok(events.len())
}

fn push<P: Ringed>(workload: &Workload) -> Result<usize, String> {
    let peer = P::new(workload);
    let events: Vec<_> = workload
        .corpus
        .events()
        .iter()
        .zip(stacks(workload))
        .collect();
    let mut pass = || {
        for (event, frames) in &events {
            peer.push(event, frames);
        }
    };
    // Stacks are stored and the ring is full once two passes are over.
    pass();
    pass();
    counted(&mut pass);
    Ok(events.len())
}

fn push_alone(_: &Workload) -> Result<usize, String> {
    let depot = ours::depot(&ours::config(SLOT_COUNT));
    let bytes = ring_bytes(&ours::RING).map_err(|e| e.to_string())?;
    let mut memory = vec![Line::ZERO; bytes.div_ceil(size_of::<Line>())];
    let ring = Ring::new(&mut memory, &ours::RING).map_err(|e| e.to_string())?;
    let mut pass = || {
        for number in 0..OPERATION_COUNT as u64 {
            let place = ring.claim(&depot, 0);
            let event = Event::new(EventKind::Alloc, number << 4, 64, None);
            ring.fill(place, black_box(&event));
        }
    };
    pass();
    pass();
    counted(&mut pass);
    Ok(OPERATION_COUNT)
}

/// Each block goes when some thousand others have come.
fn live(_: &Workload) -> Result<usize, String> {
    let bytes = live_bytes(CELL_COUNT).map_err(|e| e.to_string())?;
    let mut memory = vec![Line::ZERO; bytes.div_ceil(size_of::<Line>())];
    let table = LiveTable::new(&mut memory).map_err(|e| e.to_string())?;
    let address = |number: usize| 0x5555_0000_0000 + (number as u64 * 0x9e37 % 0x10_0000) * 16;
    let block = |number: usize| LiveBlock {
        stack: None,
        size: 64,
        thread: 1,
        time: number as u64,
    };
    let insert = |number| table.insert(address(number), &block(number)).is_stored();
    if !(0..LIVE_COUNT).all(insert) {
        return Err("a block was not stored".to_owned());
    }
    counted(&mut || {
        for number in LIVE_COUNT..LIVE_COUNT + OPERATION_COUNT {
            black_box(insert(number));
            let _removed = black_box(table.remove(address(number - LIVE_COUNT)));
        }
    });
    Ok(OPERATION_COUNT)
}

fn onto(_: &Workload) -> Result<usize, String> {
    let depot = ours::depot(&ours::config(SLOT_COUNT));
    let ends = 64;
    let stacks: Vec<Vec<u64>> = (1..=ends)
        .map(|end| {
            let new = (0..NEW_FRAMES).map(|place| 0x5555_0000_0000 + (end << 12) + place * 8);
            let known = (0..KNOWN_FRAMES).map(|place| 0x5555_1000_0000 + place * 8);
            new.chain(known).collect()
        })
        .collect();
    let mut trail: [Option<Ancestor>; 16] = [None; 16];
    let mut ancestor = None;
    for stack in &stacks {
        let saved = depot.save_onto(None, stack, Hold::None, &mut trail);
        saved.map_err(|e| format!("a stack was refused: {e:?}"))?;
        ancestor = trail[KNOWN_FRAMES as usize / 10 - 1];
    }
    if ancestor.is_none_or(|known| known.depth() as u64 != KNOWN_FRAMES) {
        return Err("the known frames have no token".to_owned());
    }
    counted(&mut || {
        for number in 0..OPERATION_COUNT {
            let stack = &stacks[number % stacks.len()];
            let _ = black_box(depot.save_onto(ancestor.as_ref(), stack, Hold::None, &mut trail));
        }
    });
    Ok(OPERATION_COUNT)
}
