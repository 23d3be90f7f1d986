//! The stacks of a foreign depot, copied in three passes so that a live writer cannot mislead us.
//!
//! Key type: [`SlotCopy`]. Pass A notes every slot's generation, pass B copies everything, pass C
//! notes the generations again. A stack counts only if its leaf was live with one and the same
//! generation in all three: then it was not retired in between, nor was any ancestor that it held,
//! so what B copied of each is one life of it (`protocols.md` F). Ancestors are not asked for
//! more: one that was made just before its leaf may have been free when pass A went by.
//!
//! A slot's line may be copied half before and half after a change. Pass A therefore copies twice:
//! a first copy that has the new generation with the old "live" is followed by a second one
//! that shows the truth. Following parents is bounded by the depth limit, so no cycle of a
//! damaged file holds us.

use stackdepot::image::{HeaderImage, ImageError, SlotImage};
use stackdepot::state::State;
use stackdepot::{HEADER_BYTES, LINE_BYTES, MOST_PAYLOAD_WORDS, RUN_FRAMES, WeakHandle};

use super::snapshot::{Gone, Stack};
use super::source::Source;
use crate::error::ReadError;
use crate::plan::Section;

#[derive(Debug)]
pub(crate) struct SlotCopy {
    pub(crate) header: HeaderImage,
    /// By slot number less one: the generation, where the slot held one node all the time.
    stable: Vec<Option<u32>>,
    slots: Vec<u8>,
    payload: Vec<u8>,
    /// Live slots that changed while they were copied.
    pub(crate) changed_count: u64,
}

/// Why a depot section was not taken.
pub(crate) enum SlotError {
    /// The file failed.
    Read(ReadError),
    /// The section is no depot.
    Image(ImageError),
    /// The depot is larger than its section.
    TooLong,
}

impl From<ReadError> for SlotError {
    fn from(error: ReadError) -> SlotError {
        SlotError::Read(error)
    }
}

impl SlotCopy {
    pub(crate) fn take(source: &Source, section: &Section) -> Result<SlotCopy, SlotError> {
        let header = read_header(source, section)?;
        let geometry = header.geometry;
        if geometry.region_bytes > section.bytes {
            return Err(SlotError::TooLong);
        }
        let slots_at = (section.offset + geometry.slots_offset) as u64;
        let slots_bytes = u64::from(geometry.slot_count) * LINE_BYTES as u64;
        let mut stable = Vec::new();
        source.for_each_piece_twice(slots_at, slots_bytes, LINE_BYTES, |first, second| {
            let [first, second] = [first, second].map(generation_of_copy);
            stable.push(first.filter(|_| first == second));
        })?;
        let slots = source.read(slots_at, slots_bytes)?;
        let payload_at = (section.offset + geometry.payload_offset) as u64;
        let payload_bytes = u64::from(geometry.slot_count) * u64::from(geometry.payload_words) * 8;
        let payload = source.read(payload_at, payload_bytes)?;
        // Windows are only ever added: those read after the slots cover all slots.
        let header = read_header(source, section)?;
        let mut changed_count = 0;
        let mut noted = stable.iter_mut().zip(slots.chunks_exact(LINE_BYTES));
        source.for_each_piece(slots_at, slots_bytes, LINE_BYTES, |_, piece| {
            for (last, (first, copied)) in piece.chunks_exact(LINE_BYTES).zip(&mut noted) {
                let generation = *first;
                *first = first.filter(|_| {
                    generation == generation_of_copy(copied)
                        && generation == generation_of_copy(last)
                });
                changed_count += u64::from(*first != generation);
            }
        })?;
        if header.geometry != geometry {
            return Err(SlotError::Image(ImageError::Header("slot count")));
        }
        Ok(SlotCopy {
            header,
            stable,
            slots,
            payload,
            changed_count,
        })
    }

    /// The stacks that were there all the time.
    pub(crate) fn saved(&self) -> impl Iterator<Item = WeakHandle> + '_ {
        (1..=self.header.geometry.slot_count).filter_map(|number| {
            let slot = self.node(number)?;
            slot.state
                .is_saved()
                .then(|| WeakHandle::new(number, slot.generation))
        })
    }

    /// Nodes that were there all the time.
    pub(crate) fn node_count(&self) -> u64 {
        self.stable.iter().flatten().count() as u64
    }

    /// The payload words of a stack that was there all the time.
    pub(crate) fn payload(&self, weak: WeakHandle) -> Option<[u64; MOST_PAYLOAD_WORDS]> {
        self.leaf(weak)?;
        let words = self.header.geometry.payload_words as usize;
        let first = (weak.slot() as usize - 1) * words;
        let mut payload = [0; MOST_PAYLOAD_WORDS];
        for (index, word) in payload.iter_mut().enumerate().take(words) {
            *word = crate::format::word_at(&self.payload, (first + index) * 8)?;
        }
        Some(payload)
    }

    /// How many references a stack has.
    pub(crate) fn references(&self, weak: WeakHandle) -> u64 {
        self.leaf(weak).map_or(0, |slot| slot.state.references())
    }

    /// The frames of a stack, innermost first.
    pub(crate) fn stack(&self, weak: WeakHandle) -> Result<Stack, Gone> {
        let mut slot = self.leaf(weak).ok_or(Gone::Evicted)?;
        let most = self.header.max_frames as usize;
        let mut frames = Vec::new();
        loop {
            let ext = slot.ext_slot().and_then(|number| self.slot(number));
            let mut run = [0; RUN_FRAMES];
            let length = slot
                .decode(&self.header, ext.as_ref(), &mut run)
                .map_err(|_| Gone::Damaged)?;
            frames.extend(run.iter().take(length));
            if frames.len() > most {
                return Err(Gone::Damaged); // ends: every hop adds at least one frame
            }
            if slot.parent == 0 {
                break;
            }
            slot = self
                .slot(slot.parent)
                .filter(|parent| parent.is_node() && parent.state.length() == RUN_FRAMES)
                .ok_or(Gone::Damaged)?;
        }
        Ok(Stack {
            frames,
            is_cut: slot.state.has(State::CUT),
        })
    }

    fn leaf(&self, weak: WeakHandle) -> Option<SlotImage> {
        self.node(weak.slot())
            .filter(|slot| slot.generation == weak.generation())
    }

    /// A slot that held one node all the time.
    fn node(&self, number: u32) -> Option<SlotImage> {
        let index = number.checked_sub(1)? as usize;
        self.stable.get(index).copied().flatten()?;
        self.slot(number)
    }

    fn slot(&self, number: u32) -> Option<SlotImage> {
        let start = (number.checked_sub(1)? as usize).checked_mul(LINE_BYTES)?;
        let bytes = self.slots.get(start..)?.first_chunk()?;
        Some(SlotImage::parse(bytes))
    }
}

fn read_header(source: &Source, section: &Section) -> Result<HeaderImage, SlotError> {
    let bytes = source.read(
        section.offset as u64,
        section.bytes.min(HEADER_BYTES) as u64,
    )?;
    HeaderImage::parse(&bytes).map_err(SlotError::Image)
}

/// The generation of a copied slot that holds a node.
fn generation_of_copy(bytes: &[u8]) -> Option<u32> {
    let slot = SlotImage::parse(bytes.first_chunk()?);
    slot.is_node().then_some(slot.generation)
}
