//! Recorded kernel stacks for the comparison inside the kernel, in words that C reads without a library.

use crate::Answer;
use stackdepot_corpus::Corpus;
use std::path::Path;

/// The first events of the recording: enough for a pass to take milliseconds.
const EVENTS: usize = 65536;

/// The stacks of the first events, and the events: see `kernel/linux/lib/stackdepot_rs/bench_stacks.c`.
pub fn words(file: &Path) -> Answer<Vec<u8>> {
    let corpus = Corpus::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(written(&corpus.first_events(EVENTS)))
}

fn written(corpus: &Corpus) -> Vec<u8> {
    let stacks = || (0..corpus.stack_count() as u32).map(|number| corpus.stack(number));
    let frame_count: usize = stacks().map(<[u64]>::len).sum();
    let head = [corpus.stack_count(), frame_count, corpus.events().len()];
    let mut words: Vec<u64> = head.map(|count| count as u64).to_vec();
    for stack in stacks() {
        words.push(stack.len() as u64);
        words.extend(stack);
    }
    words.extend(corpus.events().iter().map(|event| u64::from(event.stack)));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};

    #[test]
    fn counts_stacks_and_events_follow_each_other() {
        let corpus = synthetic(&SyntheticConfig {
            seed: 1,
            event_count: 10,
            site_count: 2,
        });
        let bytes = written(&corpus);
        let words: Vec<u64> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect();
        let [stacks, frames, events] = [words[0], words[1], words[2]];
        assert_eq!((stacks as usize, events), (corpus.stack_count(), 10));
        assert_eq!(words.len() as u64, 3 + stacks + frames + events);
        assert_eq!(words[3], corpus.stack(0).len() as u64);
        assert_eq!(words[4..4 + corpus.stack(0).len()], *corpus.stack(0));
        assert_eq!(*words.last().unwrap(), u64::from(corpus.events()[9].stack));
    }
}
