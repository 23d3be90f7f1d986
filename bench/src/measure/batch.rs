//! Batches: the next events' stacks, copied where the cache is hot, as an unwinder leaves them.
//!
//! Key type: [`Batch`]. The copying is not timed; what is timed is the loop over a batch.

use crate::workload::{MOST_FRAMES, Workload};

/// Words of a batch: a quarter of the smallest first-level cache.
pub const BATCH_WORDS: usize = 1024;

/// Some stacks, one after the other.
pub struct Batch {
    words: [u64; BATCH_WORDS + MOST_FRAMES],
    /// Where each begins, and how many frames it has.
    spans: Vec<(u32, u32)>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Box<Batch> {
        Box::new(Batch {
            words: [0; BATCH_WORDS + MOST_FRAMES],
            spans: Vec::with_capacity(BATCH_WORDS),
        })
    }

    /// Copies stacks in until the batch is full; answers how many.
    pub fn fill(&mut self, workload: &Workload, mut stacks: impl Iterator<Item = u32>) -> usize {
        self.spans.clear();
        let mut end = 0;
        while end < BATCH_WORDS
            && let Some(index) = stacks.next()
        {
            let frames = workload.corpus.stack(index);
            let frames = &frames[..frames.len().min(MOST_FRAMES)];
            self.words[end..end + frames.len()].copy_from_slice(frames);
            self.spans.push((end as u32, frames.len() as u32));
            end += frames.len();
        }
        self.spans.len()
    }

    /// The stacks, in order.
    #[inline(always)]
    pub fn stacks(&self) -> impl Iterator<Item = &[u64]> {
        self.spans
            .iter()
            .map(|&(start, count)| &self.words[start as usize..][..count as usize])
    }

    /// The stacks, each found only once the answer to the one before is known.
    #[inline(always)]
    pub fn each_after(&self, mut work: impl FnMut(&[u64]) -> u64) {
        let mut delay = 0;
        for &(start, count) in &self.spans {
            let answer = work(&self.words[start as usize + delay..][..count as usize]);
            delay = crate::machine::zero_after(answer);
        }
    }
}
