//! Damaged and hostile corpora: each is one clear error, never a panic, never much memory.
//!
//! A test may index and panic: that is how it fails.
#![allow(clippy::indexing_slicing, clippy::panic)]

use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};
use stackdepot_corpus::{Corpus, CorpusError};

fn raw() -> Vec<u8> {
    synthetic(&SyntheticConfig {
        seed: 3,
        event_count: 301,
        site_count: 3,
    })
    .to_raw()
}

/// The message of the error that `bytes` must give.
fn error_of(bytes: &[u8]) -> CorpusError {
    match Corpus::from_raw(bytes) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

/// The valid corpus with one word of the header replaced.
fn with_count(offset: usize, value: u64) -> Vec<u8> {
    let mut bytes = raw();
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn truncation_at_every_byte_is_an_error_at_that_byte() {
    let bytes = raw();
    for length in 0..bytes.len() {
        let error = error_of(&bytes[..length]);
        assert_eq!(error.offset(), Some(length as u64), "{error}");
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let mut bytes = raw();
    bytes.push(0);
    assert!(error_of(&bytes).to_string().contains("follow the end"));
}

#[test]
fn another_version_is_named() {
    let mut bytes = raw();
    bytes[7] = b'2';
    let message = error_of(&bytes).to_string();
    assert!(
        message.contains("STKTRC02") && message.contains("STKTRC01"),
        "{message}"
    );
    assert!(
        error_of(&with_count(56, 1))
            .to_string()
            .contains("later version")
    );
}

#[test]
fn absurd_counts_are_refused_before_anything_is_read() {
    for offset in [8, 16, 24, 32, 40, 48] {
        for value in [u64::MAX, 1 << 63, 1 << 61, 1 << 40, u64::from(u32::MAX)] {
            let error = error_of(&with_count(offset, value));
            assert!(
                error.offset().is_some_and(|at| at < 64),
                "count at {offset} = {value}: {error}"
            );
        }
    }
    assert!(
        error_of(&with_count(32, 0))
            .to_string()
            .contains("no event")
    );
}

/// Counts that are too large by little run into the end of the data or into a wrong index.
#[test]
fn counts_that_the_data_does_not_back_are_refused() {
    let bytes = raw();
    for offset in [8, 16, 24, 32, 40, 48] {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[offset..offset + 8]);
        let count = u64::from_le_bytes(word);
        for changed in [count.wrapping_sub(1), count + 8, count * 2 + 8] {
            // More slots or threads than are used do no harm.
            let harmless = matches!(offset, 40 | 48) && changed > count;
            let parsed = Corpus::from_raw(with_count(offset, changed).as_slice());
            let accepted = parsed
                .as_ref()
                .is_ok_and(|corpus| corpus.slot_count() <= 301);
            assert!(
                parsed.is_err() || (harmless && accepted),
                "count at {offset}: {count} -> {changed}"
            );
        }
    }
}

#[test]
fn indexes_out_of_range_are_refused_with_their_place() {
    let corpus = synthetic(&SyntheticConfig {
        seed: 3,
        event_count: 304,
        site_count: 3,
    });
    let bytes = corpus.to_raw();
    let sections_end = bytes.len();
    let n = corpus.events().len();
    let (sizes, slots, stacks, threads) = (
        sections_end - 4 * n,
        sections_end - 8 * n,
        sections_end - 12 * n,
        sections_end - 14 * n,
    );
    let kinds = threads - n;
    for (place, length, what) in [
        (slots, 4, "slot"),
        (stacks, 4, "stack"),
        (threads, 2, "thread"),
        (kinds, 1, "kind"),
    ] {
        let mut damaged = bytes.clone();
        damaged[place..place + length].fill(0xfe);
        let error = error_of(&damaged);
        assert_eq!(error.offset(), Some(place as u64), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let mut bigger = bytes.clone();
    bigger[sizes..].fill(0xff);
    assert!(
        Corpus::from_raw(bigger.as_slice()).is_ok(),
        "any size is valid"
    );
}

#[test]
fn zstd_damage_is_an_error() {
    let corpus = synthetic(&SyntheticConfig {
        seed: 3,
        event_count: 301,
        site_count: 3,
    });
    let frame = corpus.to_zstd();
    let mut longer = frame.clone();
    longer.push(7);
    let error = Corpus::from_zstd(longer.as_slice())
        .map(drop)
        .map_err(|error| error.to_string());
    assert_eq!(error, Err("bytes follow the end of the zstd frame".into()));
    for length in 0..frame.len() {
        let cut = Corpus::from_zstd(&frame[..length]).map(drop);
        let text = cut.err().map_or(String::new(), |error| error.to_string());
        // The checksum behind the frame may be missed later, by its value.
        let is_told = text.contains("zstd frame is cut off") || text.contains("checksum");
        assert!(is_told, "cut at {length} of {}: {text}", frame.len());
    }
    // The last four bytes are the checksum of the content.
    let mut damaged = frame;
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    let error = Corpus::from_zstd(damaged.as_slice())
        .map(drop)
        .map_err(|error| error.to_string());
    assert!(
        error.as_ref().is_err_and(|text| text.contains("checksum")),
        "{error:?}"
    );
}

/// No damage to single bytes makes a panic; what is accepted keeps the promises of [`Corpus`].
#[test]
fn flipped_bytes_never_break_the_invariants() {
    let corpus = synthetic(&SyntheticConfig {
        seed: 5,
        event_count: 120,
        site_count: 3,
    });
    for bytes in [corpus.to_raw(), corpus.to_zstd()] {
        for index in 0..bytes.len() {
            for mask in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[index] ^= mask;
                let parsed = Corpus::from_raw(damaged.as_slice())
                    .or_else(|_| Corpus::from_zstd(damaged.as_slice()));
                let parsed = match parsed {
                    Ok(parsed) => parsed,
                    Err(error) => {
                        assert_reads_well(&error.to_string());
                        continue;
                    }
                };
                for event in parsed.events() {
                    assert!(!parsed.stack(event.stack).is_empty());
                    assert!(
                        (event.slot as usize) < parsed.slot_count()
                            || event.slot == stackdepot_corpus::NO_SLOT
                    );
                }
            }
        }
    }
}

/// A sentence, not the names of a library's types.
fn assert_reads_well(text: &str) {
    let is_type_name = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    let names = text.as_bytes().windows(2).any(is_type_name);
    assert!(!names && !text.contains(['{', '\n']), "{text}");
}
