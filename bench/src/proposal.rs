//! The shape of the kernel's own proposal: 32768 stacks, 32 frames deep, 75 % of them shared.
//!
//! The outer 24 frames are the same in all stacks, the inner 8 are each stack's own. Every stack is
//! saved once, then all of them again in a scattered order, some times over.

use stackdepot_corpus::Corpus;

/// What the corpus is called.
pub const NAME: &str = "proposal";

const STACK_COUNT: u32 = 32768;
const DEPTH: u32 = 32;
const SHARED_COUNT: u32 = 24;
/// Times that every stack is saved.
const PASS_COUNT: u32 = 16;
const SLOT_COUNT: u32 = 4096;
/// The kernel's text.
const SHARED_TEXT: u64 = 0xffff_ffff_8100_0000;
const OWN_TEXT: u64 = 0xffff_ffff_8200_0000;
/// Any multiplier that is odd, and 1 modulo 4: steps through all stacks in a scattered order.
const MULTIPLIER: u32 = 0x915d;

/// The workload as the bytes of a corpus file, not compressed.
pub fn raw() -> Vec<u8> {
    let map = b"ffffffff81000000-ffffffff83000000 0 [kernel.text]\n";
    let event_count = STACK_COUNT * PASS_COUNT;
    let counts = [
        map.len() as u64,
        STACK_COUNT.into(),
        u64::from(STACK_COUNT * DEPTH),
        event_count.into(),
        SLOT_COUNT.into(),
        1,
        0,
    ];
    let mut out = b"STKTRC01".to_vec();
    out.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    section(&mut out, map.iter().copied());
    section(&mut out, words((0..STACK_COUNT).map(|_| DEPTH)));
    section(
        &mut out,
        (0..STACK_COUNT).flat_map(frames).flat_map(u64::to_le_bytes),
    );
    // An alloc and a free in turns; each free ends an object half of all slots old.
    let is_free = |event: u32| event % 2 == 1;
    let slot = |event: u32| (event / 2 + event % 2 * (SLOT_COUNT / 2)) % SLOT_COUNT;
    section(
        &mut out,
        (0..event_count).map(|event| 1 + u8::from(is_free(event))),
    );
    section(&mut out, (0..event_count).flat_map(|_| 0u16.to_le_bytes()));
    section(&mut out, words(order()));
    section(&mut out, words((0..event_count).map(slot)));
    section(
        &mut out,
        words((0..event_count).map(|event| 64 * u32::from(!is_free(event)))),
    );
    out
}

/// The workload.
pub fn corpus() -> Result<Corpus, String> {
    Corpus::from_raw(raw().as_slice()).map_err(|error| format!("{NAME}: {error}"))
}

/// A stack, innermost frame first.
fn frames(stack: u32) -> impl Iterator<Item = u64> {
    let own_count = DEPTH - SHARED_COUNT;
    let own = (0..own_count).map(move |place| OWN_TEXT + u64::from(stack * own_count + place) * 16);
    own.chain((0..SHARED_COUNT).map(|place| SHARED_TEXT + u64::from(place) * 256))
}

/// The stacks of the events: in order first, then scattered, each pass from another start.
fn order() -> impl Iterator<Item = u32> {
    let scattered = (1..PASS_COUNT).flat_map(|pass| {
        let mut stack = pass;
        (0..STACK_COUNT).map(move |_| {
            stack = stack.wrapping_mul(MULTIPLIER).wrapping_add(12345) % STACK_COUNT;
            stack
        })
    });
    (0..STACK_COUNT).chain(scattered)
}

fn words(values: impl Iterator<Item = u32>) -> impl Iterator<Item = u8> {
    values.flat_map(u32::to_le_bytes)
}

/// Bytes of one section, padded to whole words.
fn section(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stack_is_saved_in_every_pass_and_shares_its_outer_frames() {
        let corpus = corpus().unwrap();
        assert_eq!(corpus.stack_count(), STACK_COUNT as usize);
        for pass in corpus.events().chunks(STACK_COUNT as usize) {
            let mut seen = vec![false; STACK_COUNT as usize];
            pass.iter()
                .for_each(|event| seen[event.stack as usize] = true);
            assert!(seen.iter().all(|seen| *seen));
        }
        let (first, last) = (corpus.stack(0), corpus.stack(STACK_COUNT - 1));
        assert_eq!(first.len(), DEPTH as usize);
        assert_eq!(first[8..], last[8..]);
        assert!(first[..8].iter().all(|frame| !last.contains(frame)));
    }
}
