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
use super::source::{PAIR_BYTES, Source, SparseBytes};
use crate::error::ReadError;
use crate::plan::Section;

#[derive(Debug)]
pub(crate) struct SlotCopy {
    pub(crate) header: HeaderImage,
    /// Number and generation of each slot that held one node all the time, by number.
    stable: Vec<(u32, u32)>,
    slots: SparseBytes,
    payload: SparseBytes,
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
        let mut noted = Vec::new();
        source.for_each_unit_twice(slots_at, slots_bytes, LINE_BYTES, |at, first, second| {
            let [first, second] = [first, second].map(generation_of_copy);
            if let Some(generation) = first.filter(|_| first == second) {
                noted.push((slot_number(at), generation));
            }
        })?;
        let slots = source.read_sparse(slots_at, slots_bytes)?;
        let payload_at = (section.offset + geometry.payload_offset) as u64;
        let payload_bytes = u64::from(geometry.slot_count) * u64::from(geometry.payload_words) * 8;
        let payload = source.read_sparse(payload_at, payload_bytes)?;
        // Windows are only ever added: those read after the slots cover all slots.
        let header = read_header(source, section)?;
        let mut stable = Vec::new();
        source.for_each_piece(slots_at, slots_bytes, PAIR_BYTES, |at, piece| {
            for (line, at) in piece
                .chunks_exact(LINE_BYTES)
                .zip((at..).step_by(LINE_BYTES))
            {
                let Some(last) = generation_of_copy(line) else {
                    continue;
                };
                let (number, copied) = (slot_number(at), slots.chunk::<LINE_BYTES>(at));
                if generation_of_copy(&copied) == Some(last)
                    && generation_in(&noted, number) == Some(last)
                {
                    stable.push((number, last));
                }
            }
        })?;
        let changed_count = (noted.len() - stable.len()) as u64;
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
        self.stable.iter().filter_map(|(number, _)| {
            let slot = self.slot(*number)?;
            slot.state
                .is_saved()
                .then(|| WeakHandle::new(*number, slot.generation))
        })
    }

    /// Nodes that were there all the time.
    pub(crate) fn node_count(&self) -> u64 {
        self.stable.len() as u64
    }

    /// The payload words of a stack that was there all the time.
    pub(crate) fn payload(&self, weak: WeakHandle) -> Option<[u64; MOST_PAYLOAD_WORDS]> {
        self.leaf(weak)?;
        let words = self.header.geometry.payload_words as usize;
        let first = (weak.slot() as usize - 1) * words;
        let mut payload = [0; MOST_PAYLOAD_WORDS];
        for (index, word) in payload.iter_mut().enumerate().take(words) {
            *word = u64::from_le_bytes(self.payload.chunk((first + index) as u64 * 8));
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
        generation_in(&self.stable, number)?;
        self.slot(number)
    }

    fn slot(&self, number: u32) -> Option<SlotImage> {
        if number > self.header.geometry.slot_count {
            return None;
        }
        let at = u64::from(number.checked_sub(1)?) * LINE_BYTES as u64;
        Some(SlotImage::parse(&self.slots.chunk(at)))
    }
}

/// The slot at an offset from the first.
fn slot_number(at: u64) -> u32 {
    (at / LINE_BYTES as u64) as u32 + 1
}

/// The generation that is noted with a slot.
fn generation_in(noted: &[(u32, u32)], number: u32) -> Option<u32> {
    let place = noted.binary_search_by_key(&number, |(number, _)| *number);
    let (_, generation) = noted.get(place.ok()?)?;
    Some(*generation)
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
