//! What threads hold in advance and have not counted in the depot yet, in a foreign file.
//!
//! Key type: [`CacheCopy`], which reads the caches before and after the depot: what went over to the
//! depot's payload in between is in there or not, nobody knows. It is left out, and counted.

use std::collections::HashMap;

use stackdepot::cache::EntryImage;
use stackdepot::{MOST_PAYLOAD_WORDS, WeakHandle};

use super::source::Source;
use crate::error::ReadError;
use crate::plan::Section;

/// A copy of the caches from before the depot was copied.
pub(crate) struct CacheCopy<'f> {
    source: &'f Source,
    section: Section,
    entries: Vec<Option<EntryImage>>,
}

/// What the caches add to the depot's payload, by stack.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_stack: HashMap<u64, [u64; MOST_PAYLOAD_WORDS]>,
    /// Entries that changed stack or went over while the depot was copied, or as their writer died.
    pub(crate) moved_count: u64,
}

impl<'f> CacheCopy<'f> {
    /// To be taken before the depot is copied.
    pub(crate) fn take(source: &'f Source, section: Section) -> Result<CacheCopy<'f>, ReadError> {
        let entries = read_entries(source, &section)?;
        Ok(CacheCopy {
            source,
            section,
            entries,
        })
    }

    /// To be called after the depot is copied: what waited all the time.
    pub(crate) fn compare(self) -> Result<Waiting, ReadError> {
        let mut waiting = Waiting::default();
        let later = read_entries(self.source, &self.section)?;
        for pair in self.entries.into_iter().zip(later) {
            match pair {
                (None, None) => {}
                (Some(first), Some(second)) if first.has_not_moved_until(&second) => {
                    waiting.add(&first);
                }
                _ => waiting.moved_count += 1,
            }
        }
        Ok(waiting)
    }
}

impl Waiting {
    fn add(&mut self, entry: &EntryImage) {
        self.moved_count += u64::from(entry.is_moving);
        let sums = self.by_stack.entry(entry.stack.to_bits()).or_default();
        for (sum, word) in sums.iter_mut().zip(entry.waiting) {
            *sum = sum.wrapping_add(word);
        }
    }

    /// The payload of a stack with what waited.
    pub(crate) fn added_to(
        &self,
        stack: WeakHandle,
        payload: [u64; MOST_PAYLOAD_WORDS],
    ) -> [u64; MOST_PAYLOAD_WORDS] {
        let mut sums = payload;
        if let Some(waiting) = self.by_stack.get(&stack.to_bits()) {
            for (sum, word) in sums.iter_mut().zip(waiting) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sums
    }
}

fn read_entries(source: &Source, section: &Section) -> Result<Vec<Option<EntryImage>>, ReadError> {
    let bytes = source.read(section.offset as u64, section.bytes as u64)?;
    let (entries, _) = bytes.as_chunks();
    Ok(entries.iter().map(EntryImage::parse).collect())
}
