//! The corpus reader over damaged workloads, compressed and not.
//!
//! The first byte chooses the way in: edits of a true corpus (raw, or behind a sound zstd frame, or
//! of the zstd frame itself), or any bytes. What is accepted keeps every promise of [`Corpus`], and
//! comes back equal when it is written and read again.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};
use stackdepot_corpus::{Corpus, CorpusError, NO_SLOT};
use stackdepot_fuzz::core_parts::Original;
use stackdepot_fuzz::damage::Part;
use stackdepot_fuzz::{budget, damage, mutate};
use std::sync::LazyLock;

/// CPU of one input: even what a few kilobytes of zstd blow up to is read within it.
const MOST_MS: u64 = 10_000;

static RAW: LazyLock<Original> = LazyLock::new(raw);
static ZSTD: LazyLock<Original> = LazyLock::new(zstd);

fuzz_target!(|input: &[u8]| {
    let Some((choice, script)) = input.split_first() else {
        return;
    };
    let damaged = |original: &Original| {
        let mut bytes = original.bytes.clone();
        damage::apply(script, &original.parts, &mut bytes);
        bytes
    };
    let compress = |bytes: Vec<u8>| compress_to_vec(&*bytes, CompressionLevel::Fastest);
    budget::within(MOST_MS, || match choice % 8 {
        0..=3 => check(Corpus::from_raw(&*damaged(&RAW))),
        4 => check(Corpus::from_zstd(&*compress(damaged(&RAW)))),
        5 => check(Corpus::from_zstd(&*damaged(&ZSTD))),
        6 => check(Corpus::from_zstd(script)),
        _ => check(Corpus::from_raw(script)),
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::script(data, size, max_size, seed, 1)
});

/// The words of the header, then each section in elements of its own size.
fn raw() -> Original {
    let corpus = small();
    let bytes = corpus.to_raw();
    let frame_count = (0..corpus.stack_count() as u32)
        .map(|index| corpus.stack(index).len())
        .sum();
    let n = corpus.events().len();
    let sections = [
        (corpus.module_map().len(), 1),
        (corpus.stack_count(), 4),
        (frame_count, 8),
        (n, 1),
        (n, 2),
        (n, 4),
        (n, 4),
        (n, 4),
    ];
    let mut parts = vec![Part::new(0, 64, 8)];
    let mut start: usize = 64;
    for (count, element_bytes) in sections {
        parts.push(Part::new(start, count * element_bytes, element_bytes));
        start = (start + count * element_bytes).next_multiple_of(8);
    }
    assert_eq!(start, bytes.len());
    Original { bytes, parts }
}

fn zstd() -> Original {
    let bytes = small().to_zstd();
    let parts = vec![Part::new(0, 32, 1), Part::new(0, bytes.len(), 1)];
    Original { bytes, parts }
}

fn small() -> Corpus {
    let config = SyntheticConfig {
        seed: 3,
        event_count: 61,
        site_count: 3,
    };
    synthetic(&config)
}

fn check(read: Result<Corpus, CorpusError>) {
    match read {
        Ok(corpus) => check_corpus(&corpus),
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

fn check_corpus(corpus: &Corpus) {
    assert!(!corpus.events().is_empty(), "a corpus without events");
    let mut seen_count = 0;
    for event in corpus.events() {
        assert!(
            event.stack <= seen_count,
            "stacks are numbered by first appearance"
        );
        seen_count = seen_count.max(event.stack + 1);
        assert!((event.stack as usize) < corpus.stack_count());
        assert!((1..=64).contains(&corpus.stack(event.stack).len()));
        assert!((event.slot as usize) < corpus.slot_count() || event.slot == NO_SLOT);
        assert!((event.thread as usize) < corpus.thread_count());
    }
    let again = Corpus::from_raw(corpus.to_raw().as_slice());
    assert_eq!(again.ok().as_ref(), Some(corpus), "written and read again");
}
