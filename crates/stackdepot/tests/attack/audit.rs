//! What must be true of a depot: of its bytes at any instant, and of its counts at rest.
//!
//! Key type: [`Image`], a copy read by the core's safe reader (`stackdepot::image`), so that the
//! reader is attacked along with the writer. The index cells are read here as bare words.

use std::collections::{HashMap, HashSet};

use stackdepot::image::{HeaderImage, SlotImage};
use stackdepot::state::{State, Status};
use stackdepot::{Depot, RUN_FRAMES, SaveError};

use crate::stacks::filler;

const TENTATIVE: u64 = 1 << 32;

/// The bytes of a depot, copied.
pub struct Image<'b> {
    header: HeaderImage,
    bytes: &'b [u8],
}

/// The frames of a stack, leaf first, and whether it was cut.
type Chain = (Vec<u64>, bool);

impl<'b> Image<'b> {
    pub fn parse(bytes: &'b [u8]) -> Result<Image<'b>, String> {
        let header = HeaderImage::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Image { header, bytes })
    }

    fn slot(&self, number: u32) -> Option<SlotImage> {
        let index = (number as usize).checked_sub(1)?;
        let start = self.header.geometry.slots_offset + index * 64;
        let is_inside = number <= self.header.geometry.slot_count;
        Some(SlotImage::parse(
            self.bytes.get(start..start + 64)?.try_into().ok()?,
        ))
        .filter(|_| is_inside)
    }

    fn slots(&self) -> impl Iterator<Item = (u32, SlotImage)> {
        (1..=self.header.geometry.slot_count)
            .filter_map(|number| Some((number, self.slot(number)?)))
    }

    fn index_entries(&self) -> impl Iterator<Item = u64> {
        let geometry = &self.header.geometry;
        let cells = &self.bytes[geometry.buckets_offset..][..geometry.bucket_count as usize * 64];
        cells
            .as_chunks()
            .0
            .iter()
            .map(|cell| u64::from_le_bytes(*cell))
            .filter(|entry| *entry != 0)
    }

    fn run(&self, number: u32, slot: &SlotImage) -> Result<Vec<u64>, String> {
        let ext = slot.ext_slot().and_then(|ext| self.slot(ext));
        let mut run = [0; RUN_FRAMES];
        let length = slot.decode(&self.header, ext.as_ref(), &mut run);
        let length = length.map_err(|error| format!("node {number}: {error}"))?;
        Ok(run[..length].to_vec())
    }

    /// Follows a node to its root.
    fn chain(&self, leaf: u32) -> Result<Chain, String> {
        let (mut frames, mut number) = (Vec::new(), leaf);
        loop {
            let slot = self
                .slot(number)
                .ok_or_else(|| format!("node {leaf} leads to slot {number}"))?;
            frames.extend(self.run(number, &slot)?);
            if frames.len() > self.header.max_frames as usize {
                return Err(format!("node {leaf} is deeper than any stack"));
            }
            if slot.parent == 0 {
                return Ok((frames, slot.state.has(State::CUT)));
            }
            number = slot.parent;
        }
    }

    /// Every saved stack is readable and one that somebody saved; answers how many they are.
    /// True at every instant, wherever the writers are.
    pub fn check_readable(&self, is_known: impl Fn(&[u64]) -> bool) -> Result<u64, String> {
        let mut stack_count = 0;
        for (number, _) in self.slots().filter(|(_, slot)| slot.state.is_saved()) {
            let (frames, is_cut) = self.chain(number)?;
            if is_cut || !is_known(&frames) {
                return Err(format!(
                    "slot {number} holds a stack that nobody saved: {frames:x?}"
                ));
            }
            stack_count += 1;
        }
        Ok(stack_count)
    }

    /// While nobody writes: nothing is in flight, every node is found in the index exactly once
    /// and stored once, and every reference is a child's or one of `holds` (by slot).
    pub fn check_at_rest(&self, holds: &HashMap<u32, u64>) -> Result<(), String> {
        self.check_index()?;
        let (mut references, mut ext_owners) = (holds.clone(), HashSet::new());
        let mut nodes: HashMap<(u32, bool, Vec<u64>), u32> = HashMap::new();
        for (number, slot) in self.slots().filter(|(_, slot)| slot.is_node()) {
            *references.entry(slot.parent).or_default() += 1;
            if slot.ext_slot().is_some_and(|ext| !ext_owners.insert(ext)) {
                return Err(format!("node {number} shares its extra slot"));
            }
            let key = (
                slot.parent,
                slot.state.has(State::CUT),
                self.run(number, &slot)?,
            );
            if let Some(twin) = nodes.insert(key, number) {
                return Err(format!("nodes {twin} and {number} are equal"));
            }
        }
        for (number, slot) in self.slots() {
            let expected = references.get(&number).copied().unwrap_or(0);
            let is_sound = match slot.state.status() {
                Status::Live { .. } => slot.is_node(),
                Status::Free => slot.state.0 == State::FREE,
                Status::Worn => true,
                Status::Ext => ext_owners.contains(&number),
                Status::Owned | Status::Invalid => false,
            };
            if !is_sound || slot.state.references() != expected {
                return Err(format!(
                    "slot {number}: {:?}, {expected} references expected, {} found",
                    slot.state.status(),
                    slot.state.references()
                ));
            }
        }
        self.check_gauges()
    }

    fn check_index(&self) -> Result<(), String> {
        let mut linked = HashSet::new();
        for entry in self.index_entries() {
            let number = entry as u32;
            if entry & TENTATIVE != 0 {
                return Err(format!("slot {number} has a tentative entry"));
            }
            if !self.slot(number).is_some_and(|slot| slot.is_node()) {
                return Err(format!("an entry leads to slot {number}, which is no node"));
            }
            if !linked.insert(number) {
                return Err(format!("two entries lead to slot {number}"));
            }
        }
        let lost = self
            .slots()
            .find(|(number, slot)| slot.is_node() && !linked.contains(number));
        lost.map_or(Ok(()), |(number, _)| {
            Err(format!("no entry leads to node {number}"))
        })
    }

    /// What was stored less what was evicted is what is there.
    fn check_gauges(&self) -> Result<(), String> {
        let count = |is_one: fn(&SlotImage) -> bool| {
            self.slots().filter(|(_, slot)| is_one(slot)).count() as u64
        };
        let [new_stacks, new_nodes, evicted_stacks, evicted_nodes, ..] = self.header.counters;
        let gauges = [
            (
                "stacks",
                new_stacks,
                evicted_stacks,
                count(|slot| slot.state.is_saved()),
            ),
            ("nodes", new_nodes, evicted_nodes, count(SlotImage::is_node)),
        ];
        for (what, new, evicted, there) in gauges {
            if new.wrapping_sub(evicted) != there {
                return Err(format!(
                    "{new} new {what} less {evicted} evicted, but {there} are there"
                ));
            }
        }
        Ok(())
    }
}

/// Every stored stack is found again under its own handle; leases of the depot are over.
pub fn check_found_again(depot: &Depot<'_>) -> Result<u64, String> {
    let mut stack_count = 0;
    for walked in depot.walk() {
        let mut frames = vec![0; depot.max_frames()];
        let Ok(fetched) = depot.fetch(walked.weak, &mut frames) else {
            return Err(format!(
                "walk names {:?}, which cannot be fetched",
                walked.weak
            ));
        };
        let again = depot.save(&frames[..fetched.frame_count]);
        if !fetched.is_cut && again != Ok(walked.weak) {
            return Err(format!("{:?} is saved again as {again:?}", walked.weak));
        }
        stack_count += 1;
    }
    Ok(stack_count)
}

/// Nothing is held: then every slot can be held at once, and at most `lost_allowed` are lost. Takes away whatever
/// was stored. Some stacks find both their buckets full, so there are twice as many attempts.
pub fn check_nothing_leaked(depot: &Depot<'_>, lost_allowed: u64) -> Result<u64, String> {
    let before = depot.stats();
    let mut handles = Vec::new();
    for number in 0..before.slot_count * 2 {
        match depot.save_acquire(&filler(number)) {
            Ok(held) => handles.push(held.handle),
            // In large regions one claim's steps end before everything is seen to be held.
            Err(SaveError::Crowded | SaveError::Full | SaveError::Contended) => {}
            Err(error) => return Err(format!("{error:?} to a save of one frame")),
        }
    }
    let after = depot.stats();
    let held_count = handles.len() as u64;
    handles.into_iter().for_each(|handle| depot.put(handle));
    if held_count + after.worn_slots + lost_allowed < before.slot_count {
        return Err(format!(
            "slots leaked: {held_count} could be held, {after:?}"
        ));
    }
    Ok(held_count)
}
