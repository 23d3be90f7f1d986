//! A copy of a region file's contents at about one moment, and the questions that reports ask of it.
//!
//! Key type: [`Snapshot`]. The ring and the live table are copied before the depot: their stacks
//! are held while they name them, so a stack that is gone by then was let go in between. What
//! is damaged, torn or gone is left out and counted in [`Skipped`], or named in `problems`; the rest stands.

use std::collections::HashMap;

use stackdepot::ring::{Event, EventImage, RingHeaderImage, RingStats};
use stackdepot::{LINE_BYTES, MOST_PAYLOAD_WORDS, WeakHandle};

use super::caches::{CacheCopy, Waiting};
use super::live::LiveCopy;
use super::slots::{SlotCopy, SlotError};
use super::source::Source;
use super::{Info, RegionFile};
use crate::counters::CounterValues;
use crate::error::ReadError;
use crate::format::SectionName;
use crate::ledger::LedgerCounts;
use crate::modules::{MODULE_ENTRY_BYTES, ModuleRecord};
use crate::plan::Section;

pub use super::live::{BlockRecord, LiveStats};

/// Why a weak handle names no stack in this copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It is no longer stored, or was not while we copied.
    Evicted,
    /// Its nodes do not add up: a damaged file.
    Damaged,
}

/// The frames of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Return addresses, innermost first.
    pub frames: Vec<u64>,
    /// Whether more frames were cut off at the outer end.
    pub is_cut: bool,
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a stack has allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackRecord {
    /// Its name: see [`Snapshot::stack`].
    pub weak: WeakHandle,
    /// Since it is stored: an evicted stack that comes back starts at 0.
    pub total: Amount,
    /// Live now; an estimate while [`Snapshot::is_sampled`].
    pub live: Amount,
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Nodes that changed while they were copied.
    pub nodes_changed: u64,
    /// Ring entries that were empty, being written, or torn.
    pub events_torn: u64,
    /// Cells of the live table that changed while they were copied.
    pub blocks_torn: u64,
    /// Entries of hold caches of which counts went over to their stack while they were copied.
    pub counts_moved: u64,
    /// Module entries that were being written or make no sense.
    pub modules_torn: u64,
}

/// A copy of a file's contents.
#[derive(Debug)]
pub struct Snapshot {
    info: Info,
    counters: CounterValues,
    ledger_counts: LedgerCounts,
    modules: Vec<ModuleRecord>,
    events: Vec<Event>,
    ring_stats: RingStats,
    live: LiveCopy,
    slots: Option<SlotCopy>,
    waiting: Waiting,
    sampled_live: HashMap<u64, Amount>,
    skipped: Skipped,
    problems: Vec<String>,
}

impl Snapshot {
    pub(super) fn take(file: &RegionFile) -> Result<Snapshot, ReadError> {
        let (source, header) = (&file.source, &file.header);
        let mut skipped = Skipped::default();
        let mut problems = Vec::new();
        let ring = header.section(SectionName::Ring);
        let (events, ring_stats) = read_ring(source, &ring, &mut skipped, &mut problems)?;
        let live_section = header.section(SectionName::Live);
        let live = LiveCopy::take(
            source,
            &live_section,
            header.sampling,
            &mut skipped,
            &mut problems,
        )?;
        let caches = CacheCopy::take(source, header.section(SectionName::Caches))?;
        let slots = read_slots(source, &header.section(SectionName::Depot), &mut problems)?;
        let waiting = caches.compare()?;
        skipped.counts_moved = waiting.moved_count;
        skipped.nodes_changed = slots.as_ref().map_or(0, |slots| slots.changed_count);
        let modules_section = header.section(SectionName::Modules);
        let modules = read_modules(source, &modules_section, &mut skipped)?;
        let mut info = file.info()?;
        let alloc_times = live.blocks().iter().map(|record| record.block.time);
        let newest = events.first().map(|event| event.time);
        let death = info.death.as_ref().map(|report| report.death.time);
        newest
            .into_iter()
            .chain(death)
            .chain(alloc_times)
            .for_each(|tsc| info.note(tsc));
        Ok(Snapshot {
            info,
            counters: file.counters()?,
            ledger_counts: file.ledger_counts()?,
            modules,
            events,
            ring_stats,
            sampled_live: live.amounts(),
            live,
            slots,
            waiting,
            skipped,
            problems,
        })
    }

    /// What the file is about.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The recorder's counters.
    pub fn counters(&self) -> &CounterValues {
        &self.counters
    }

    /// What the run's ledger counted.
    pub fn ledger_counts(&self) -> LedgerCounts {
        self.ledger_counts
    }

    /// What could not be read.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Parts that are damaged, one line each. Empty for a sound file.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The frames of a stack.
    ///
    /// # Errors
    /// When it is not in this copy any more.
    pub fn stack(&self, weak: WeakHandle) -> Result<Stack, Gone> {
        self.slots.as_ref().ok_or(Gone::Damaged)?.stack(weak)
    }

    /// Every stack that is stored, with what it allocated, in no order.
    pub fn stacks(&self) -> impl Iterator<Item = StackRecord> + '_ {
        let saved = self.slots.iter().flat_map(SlotCopy::saved);
        saved.filter_map(|weak| self.stack_record(weak))
    }

    /// What one stack allocated; `None` when it is not in this copy any more.
    pub fn stack_record(&self, weak: WeakHandle) -> Option<StackRecord> {
        let payload = self.slots.as_ref()?.payload(weak)?;
        let payload = self.waiting.added_to(weak, payload);
        let [total_count, total_bytes, freed_count, freed_bytes] = payload;
        let sampled = || self.sampled_live.get(&weak.to_bits()).copied();
        let live = match self.is_sampled() {
            true => sampled().unwrap_or_default(),
            // A free may be counted before its alloc was read: never below nothing.
            false => Amount {
                count: total_count.saturating_sub(freed_count),
                bytes: total_bytes.saturating_sub(freed_bytes),
            },
        };
        Some(StackRecord {
            weak,
            total: Amount {
                count: total_count,
                bytes: total_bytes,
            },
            live,
        })
    }

    /// Whether live numbers are estimates from a sample of the blocks; the totals are too where the
    /// recorder took a sample ([`Info::sampling`]).
    pub fn is_sampled(&self) -> bool {
        self.info.sampling.is_on() || self.live.stats().is_sampled()
    }

    /// How the live table stands.
    pub fn live_stats(&self) -> LiveStats {
        self.live.stats()
    }

    /// The events of the ring, newest first.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the ring has seen.
    pub fn ring_stats(&self) -> RingStats {
        self.ring_stats
    }

    /// The live blocks that were recorded (a sample of them while `is_sampled`), by address.
    pub fn live_blocks(&self) -> &[BlockRecord] {
        self.live.blocks()
    }

    /// The live block that an address lies in.
    pub fn block_at(&self, address: u64) -> Option<&BlockRecord> {
        self.live.block_at(address)
    }

    /// The modules, those that were unloaded too.
    pub fn modules(&self) -> &[ModuleRecord] {
        &self.modules
    }

    /// The module that an address belonged to at a time stamp (`None`: at the time of the copy).
    pub fn module_at(&self, address: u64, tsc: Option<u64>) -> Option<&ModuleRecord> {
        let was_there = |module: &&ModuleRecord| match (tsc, module.unloaded_tsc) {
            (_, None) => tsc.is_none_or(|tsc| module.loaded_tsc <= tsc),
            (Some(tsc), Some(unloaded_tsc)) => (module.loaded_tsc..=unloaded_tsc).contains(&tsc),
            (None, Some(_)) => false,
        };
        let covers = |module: &&ModuleRecord| (module.start..module.end).contains(&address);
        let covering = || self.modules.iter().filter(covers);
        // A stack that was first seen while its module was not yet noted still belongs to it.
        covering()
            .filter(was_there)
            .max_by_key(|module| module.loaded_tsc)
            .or_else(|| covering().max_by_key(|module| module.loaded_tsc))
    }

    /// How the depot stands; `None` when its section is damaged.
    pub fn depot_stats(&self) -> Option<DepotStats> {
        let slots = self.slots.as_ref()?;
        Some(DepotStats {
            region_bytes: slots.header.geometry.region_bytes as u64,
            slot_count: slots.header.geometry.slot_count.into(),
            node_count: slots.node_count(),
            counters: slots.header.counters,
            evicted_payload: slots.header.evicted_payload,
        })
    }

    /// How many references hold a stack (children included); 0 when it is gone.
    pub fn references(&self, weak: WeakHandle) -> u64 {
        self.slots
            .as_ref()
            .map_or(0, |slots| slots.references(weak))
    }
}

/// How a copied depot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepotStats {
    /// The bytes that it uses of its section.
    pub region_bytes: u64,
    /// Its slots.
    pub slot_count: u64,
    /// Those that held a node during the whole copy.
    pub node_count: u64,
    /// The counters in the order of `stackdepot::Stats`, from `new_stacks` to `undone_nodes`.
    pub counters: [u64; 14],
    /// Sums of the payload of evicted stacks.
    pub evicted_payload: [u64; MOST_PAYLOAD_WORDS],
}

fn read_slots(
    source: &Source,
    section: &Section,
    problems: &mut Vec<String>,
) -> Result<Option<SlotCopy>, ReadError> {
    let what = match SlotCopy::take(source, section) {
        Ok(slots) => return Ok(Some(slots)),
        Err(SlotError::Read(error)) => return Err(error),
        Err(SlotError::Image(error)) => error.to_string(),
        Err(SlotError::TooLong) => "the depot is longer than its section".to_string(),
    };
    problems.push(problem(section, &what));
    Ok(None)
}

/// One line about a damaged part.
pub(super) fn problem(section: &Section, what: &str) -> String {
    format!(
        "at offset {}: {what}; this part is left out",
        section.offset
    )
}

fn read_ring(
    source: &Source,
    section: &Section,
    skipped: &mut Skipped,
    problems: &mut Vec<String>,
) -> Result<(Vec<Event>, RingStats), ReadError> {
    let start = section.offset as u64;
    let first = source.read(start, section.bytes.min(RingHeaderImage::BYTES) as u64)?;
    let header = match RingHeaderImage::parse(&first, section.bytes as u64) {
        Ok(header) => header,
        Err(error) => {
            problems.push(problem(section, &error.to_string()));
            return Ok((Vec::new(), RingStats::default()));
        }
    };
    let (entries_at, entry_count) = header.entries();
    let entries_bytes = u64::from(entry_count) * LINE_BYTES as u64;
    let mut events = Vec::new();
    source.for_each_unit_twice(
        start + entries_at,
        entries_bytes,
        LINE_BYTES,
        |_, first, second| {
            let pair = (first.first_chunk(), second.first_chunk());
            let (Some(first), Some(second)) = pair else {
                return;
            };
            match EventImage::parse_twice(first, second) {
                Some(event) => events.push(event),
                None if first.iter().all(|byte| *byte == 0) => {}
                None => skipped.events_torn += 1,
            }
        },
    )?;
    // Time orders events across shards; the place number those of one moment.
    events.sort_by_key(|image| std::cmp::Reverse((image.event.time, image.number)));
    let (shards_at, shard_count) = header.shards();
    let shards = source.read(
        start + shards_at,
        u64::from(shard_count) * LINE_BYTES as u64,
    )?;
    let first = source.read(start, RingHeaderImage::BYTES as u64)?;
    let header = RingHeaderImage::parse(&first, section.bytes as u64).unwrap_or(header);
    events.truncate(header.config().event_count as usize);
    let events = events.into_iter().map(|image| image.event).collect();
    Ok((events, header.stats(&shards)))
}

fn read_modules(
    source: &Source,
    section: &Section,
    skipped: &mut Skipped,
) -> Result<Vec<ModuleRecord>, ReadError> {
    let mut modules = Vec::new();
    let bytes = section.bytes / MODULE_ENTRY_BYTES * MODULE_ENTRY_BYTES;
    source.for_each_unit_twice(
        section.offset as u64,
        bytes as u64,
        MODULE_ENTRY_BYTES,
        |_, first, second| match ModuleRecord::parse(first).filter(|_| first == second) {
            Some(module) => modules.push(module),
            None if first.iter().all(|byte| *byte == 0) => {}
            None => skipped.modules_torn += 1,
        },
    )?;
    modules.sort_by_key(|module| (module.start, module.loaded_tsc));
    Ok(modules)
}
