//! What the facade answers at its edges: errors as sentences, headers with one wrong number, cuts,
//! ancestors that no longer fit, payload words that are not there.
#![cfg(not(loom))]
#![allow(unsafe_code, reason = "opens memory that the test owns")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

use stackdepot::image::{HeaderImage, ImageError, SlotImage};
use stackdepot::live::{LiveTable, live_bytes};
use stackdepot::ring::{Ring, RingConfig, ring_bytes};
use stackdepot::state::{State, Status};
use stackdepot::{
    AttachError, Config, ConfigError, Depot, FetchError, HEADER_BYTES, Hold, HoldError, Line,
    SaveError, SectionError,
};
use std::collections::HashSet;
use std::error::Error;
use std::ptr::NonNull;

const LINES: usize = 64;

fn config() -> Config {
    Config {
        references: true,
        lease_ticks: 3,
        payload_words: 2,
        ..Config::new(LINES * 64)
    }
}

fn bytes_of(memory: &mut [Line]) -> &mut [u8] {
    let bytes = size_of_val(memory);
    // SAFETY: lines are plain bytes without padding, and borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), bytes) }
}

fn attach(memory: &mut [Line], bytes: usize) -> Result<Depot<'_>, AttachError> {
    // SAFETY: the buffer is valid, aligned and exclusively borrowed; no caller says more bytes.
    unsafe { Depot::attach(NonNull::from(memory).cast(), bytes) }
}

#[test]
fn every_error_is_a_line_of_its_own_with_its_numbers() {
    let (given_bytes, needed_bytes) = (4711, 4812);
    let errors: Vec<(Box<dyn Error>, &[&str])> = vec![
        (
            Box::new(Config::new(100).geometry().unwrap_err()),
            &["region_bytes", "100"],
        ),
        (
            Box::new(ConfigError::Unaligned {
                address: 0x1230,
                alignment: 64,
            }),
            &["0x1230", "64"],
        ),
        (
            Box::new(AttachError::TooShort {
                given_bytes,
                needed_bytes,
            }),
            &["4711", "4812"],
        ),
        (Box::new(AttachError::Unaligned), &["depot", "64"]),
        (Box::new(AttachError::NotADepot), &["no depot"]),
        (Box::new(AttachError::Version { found: 77 }), &["77"]),
        (
            Box::new(AttachError::HashKind { found: 9 }),
            &["hash kind 9"],
        ),
        (
            Box::new(AttachError::Damaged {
                field: "slot_count",
            }),
            &["slot_count"],
        ),
        (Box::new(SaveError::Empty), &["without frames"]),
        (Box::new(SaveError::Full), &["full"]),
        (Box::new(SaveError::Contended), &["other threads"]),
        (Box::new(SaveError::Crowded), &["buckets"]),
        (Box::new(SaveError::Saturated), &["references"]),
        (Box::new(SaveError::Disabled), &["hold"]),
        (Box::new(HoldError::Evicted), &["no longer stored"]),
        (Box::new(HoldError::Contended), &["lease"]),
        (Box::new(FetchError::Evicted), &["no longer stored"]),
        (Box::new(SectionError::Unaligned), &["section", "64"]),
        (
            Box::new(SectionError::TooShort {
                given_bytes: 4711,
                needed_bytes: 4812,
            }),
            &["4711", "4812"],
        ),
        (
            Box::new(SectionError::Foreign { what: "ring" }),
            &["no ring"],
        ),
        (Box::new(SectionError::Version { found: 78 }), &["78"]),
        (
            Box::new(SectionError::Damaged {
                field: "shard_count",
            }),
            &["shard_count"],
        ),
        (Box::new(ImageError::TooShort), &["too short"]),
        (Box::new(ImageError::NotADepot), &["magic"]),
        (Box::new(ImageError::Version(79)), &["79"]),
        (Box::new(ImageError::HashKind(8)), &["hash kind 8"]),
        (Box::new(ImageError::Header("slot count")), &["slot count"]),
        (Box::new(ImageError::NotANode), &["no node"]),
        (Box::new(ImageError::Windows), &["upper halves"]),
    ];
    for (error, parts) in errors {
        let line = error.to_string();
        assert!(line.lines().count() == 1 && !line.ends_with('.'), "{line}");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert_eq!(
        HoldError::Saturated.to_string(),
        SaveError::Saturated.to_string()
    );
    assert_eq!(
        HoldError::Disabled.to_string(),
        SaveError::Disabled.to_string()
    );
}

/// Where a number of the header lies, how long it is, and how both readers call it when it is wrong.
const FIELDS: [(usize, usize, &str); 9] = [
    (0, 8, "magic"),
    (8, 4, "version"),
    (12, 4, "header_bytes"),
    (16, 8, "region_bytes"),
    (24, 4, "slot_count"),
    (28, 4, "bucket_count"),
    (32, 4, "payload_words"),
    (36, 4, "max_frames"),
    (40, 4, "lease_ticks"),
];

#[test]
fn a_header_with_one_wrong_number_is_refused() {
    for (offset, length, field) in FIELDS {
        let mut memory = vec![Line::ZERO; LINES];
        Depot::new(&mut memory, &config()).unwrap();
        assert!(attach(&mut memory, LINES * 64).is_ok());
        let bytes = bytes_of(&mut memory);
        // Too large for any field; also more bytes than are there.
        bytes[offset..offset + length].fill(0xee);
        let image = HeaderImage::parse(bytes).unwrap_err();
        let refused = attach(&mut memory, LINES * 64).unwrap_err();
        match field {
            "magic" => {
                assert_eq!(
                    (refused, image),
                    (AttachError::NotADepot, ImageError::NotADepot)
                );
            }
            "version" => {
                let found = 0xeeee_eeee;
                assert_eq!(refused, AttachError::Version { found });
                assert_eq!(image, ImageError::Version(found));
            }
            _ => {
                assert!(
                    matches!(refused, AttachError::Damaged { .. }),
                    "{field}: {refused:?}"
                );
                assert!(matches!(image, ImageError::Header(_)), "{field}: {image:?}");
            }
        }
    }
}

#[test]
fn a_header_brings_back_what_the_depot_was_made_with() {
    for (references, lease_ticks, payload_words) in [(false, 3, 0), (true, 0, 4), (false, 0, 1)] {
        let mut memory = vec![Line::ZERO; LINES];
        let config = Config {
            references,
            lease_ticks,
            payload_words,
            max_frames: 77,
            ..config()
        };
        Depot::new(&mut memory, &config).unwrap();
        let depot = attach(&mut memory, LINES * 64).unwrap();
        assert_eq!((depot.lease_ticks(), depot.max_frames()), (lease_ticks, 77));
        assert_eq!(depot.save_acquire(&[1]).is_ok(), references);
        assert_eq!(depot.save_lease(&[1]).is_ok(), lease_ticks != 0);
        let image = HeaderImage::parse(bytes_of(&mut memory)).unwrap();
        assert_eq!(
            (image.references, image.lease_ticks),
            (references, lease_ticks)
        );
        assert_eq!(
            (image.geometry.payload_words, image.max_frames),
            (payload_words, 77)
        );
    }
}

#[test]
fn counts_that_are_one_off_are_refused() {
    for (offset, change) in [(24, 1i8), (24, -1), (28, 1), (28, -1), (12, 1)] {
        let mut memory = vec![Line::ZERO; LINES];
        Depot::new(&mut memory, &config()).unwrap();
        let bytes = bytes_of(&mut memory);
        bytes[offset] = bytes[offset].wrapping_add_signed(change);
        let image = HeaderImage::parse(bytes);
        assert!(
            matches!(image, Err(ImageError::Header(_))),
            "{offset} {change}"
        );
        let refused = attach(&mut memory, LINES * 64).unwrap_err();
        assert!(
            matches!(refused, AttachError::Damaged { .. }),
            "{offset} {change}"
        );
    }
}

#[test]
fn memory_that_is_short_or_askew_is_refused_and_exactly_enough_is_taken() {
    let mut memory = vec![Line::ZERO; LINES];
    let depot = Depot::new(&mut memory, &config()).unwrap();
    let used = depot.region_bytes();
    assert!(used <= LINES * 64 && used > (LINES - 3) * 64);
    assert_eq!((depot.max_frames(), depot.lease_ticks()), (256, 3));
    assert!(attach(&mut memory, used).is_ok());
    let too_short = |given_bytes, needed_bytes| AttachError::TooShort {
        given_bytes,
        needed_bytes,
    };
    assert_eq!(
        attach(&mut memory, used - 1).err(),
        Some(too_short(used - 1, used))
    );
    let header = HEADER_BYTES - 1;
    assert_eq!(
        attach(&mut memory, header).err(),
        Some(too_short(header, HEADER_BYTES))
    );
    assert!(attach(&mut memory, HEADER_BYTES).is_err());
    let bytes = bytes_of(&mut memory);
    assert_eq!(
        HeaderImage::parse(&bytes[..header]),
        Err(ImageError::TooShort)
    );
    assert!(HeaderImage::parse(&bytes[..HEADER_BYTES]).is_ok());

    let askew = NonNull::from(&mut bytes[8..]).cast();
    // SAFETY: the rest of the buffer, exclusively borrowed; refused for its address.
    let attached = unsafe { Depot::attach(askew, used - 8) };
    assert_eq!(attached.err(), Some(AttachError::Unaligned));
    bytes.fill(0);
    // SAFETY: as above, and all zero.
    let created = unsafe {
        Depot::create(
            askew,
            &Config {
                region_bytes: used - 64,
                ..config()
            },
        )
    };
    assert!(matches!(
        created.err(),
        Some(ConfigError::Unaligned { alignment: 64, .. })
    ));
    let asked = Config::new(LINES * 64 + 1);
    let refused = Depot::new(&mut memory, &asked).err();
    assert!(matches!(
        refused,
        Some(ConfigError::OutOfRange {
            field: "region_bytes",
            ..
        })
    ));
}

#[test]
fn sections_that_end_early_are_named_with_their_bytes() {
    let mut memory = vec![Line::ZERO; 100];
    let used = live_bytes(64).unwrap();
    LiveTable::new(&mut memory[..used / 64]).unwrap();
    for (given_bytes, needed_bytes) in [(0, 11 * 64), (64, used as u64), (used - 64, used as u64)] {
        // SAFETY: the buffer is valid, aligned and exclusively borrowed.
        let refused = unsafe { LiveTable::attach(NonNull::from(&mut *memory).cast(), given_bytes) };
        let short = SectionError::TooShort {
            given_bytes: given_bytes as u64,
            needed_bytes,
        };
        assert_eq!(refused.err(), Some(short));
    }
    // SAFETY: as above.
    assert!(unsafe { LiveTable::attach(NonNull::from(&mut *memory).cast(), used) }.is_ok());

    let config = RingConfig::new(64);
    let used = ring_bytes(&config).unwrap();
    Ring::new(&mut memory, &config).unwrap();
    for (given_bytes, needed_bytes) in [(0, 64), (64, used as u64), (used - 64, used as u64)] {
        // SAFETY: as above.
        let refused = unsafe { Ring::attach(NonNull::from(&mut *memory).cast(), given_bytes) };
        let short = SectionError::TooShort {
            given_bytes: given_bytes as u64,
            needed_bytes,
        };
        assert_eq!(refused.err(), Some(short));
    }
    // SAFETY: as above.
    assert!(unsafe { Ring::attach(NonNull::from(&mut *memory).cast(), used) }.is_ok());
}

#[test]
fn payload_words_are_added_where_they_are_said_and_ignored_beyond() {
    let mut memory = vec![Line::ZERO; LINES];
    let depot = Depot::new(&mut memory, &config()).unwrap();
    let held = depot.save_acquire(&[0x1000]).unwrap();
    depot.add_payload_words(held.handle, 0, &[1, 2, 3]);
    depot.add_payload_words(held.handle, 1, &[40, 50]);
    depot.add_payload_words(held.handle, 2, &[600]);
    depot.add_payload(held.handle, 0, u64::MAX);
    depot.prefetch(held.weak);
    assert_eq!(depot.payload(held.weak), Ok([0, 42, 0, 0]));
    let walked = depot.walk().next().unwrap();
    assert_eq!((walked.weak, walked.references), (held.weak, 1));
    assert_eq!(walked.payload, [0, 42, 0, 0]);
}

#[test]
fn no_frames_are_refused_by_every_save() {
    let mut memory = vec![Line::ZERO; LINES];
    let depot = Depot::new(&mut memory, &config()).unwrap();
    let empty = Some(SaveError::Empty);
    assert_eq!(depot.save(&[]).err(), empty);
    assert_eq!(depot.save_acquire(&[]).err(), empty);
    assert_eq!(depot.save_acquire_lease(&[]).err(), empty);
    assert_eq!(depot.save_onto(None, &[], Hold::None, &mut []).err(), empty);
    let stats = depot.stats();
    assert_eq!((stats.new_nodes, stats.full, stats.contended), (0, 0, 0));
}

#[test]
fn a_stack_longer_than_the_most_frames_is_cut_marked_and_another() {
    let mut memory = vec![Line::ZERO; LINES];
    let config = Config {
        max_frames: 12,
        ..config()
    };
    let depot = Depot::new(&mut memory, &config).unwrap();
    let frames: Vec<u64> = (1..=13).map(|frame| frame << 4).collect();
    let (cut, whole) = (
        depot.save(&frames).unwrap(),
        depot.save(&frames[..12]).unwrap(),
    );
    assert_ne!(cut, whole);
    assert_eq!(depot.stats().truncated, 1);
    for (weak, is_cut) in [(cut, true), (whole, false)] {
        let mut out = [0; 16];
        let fetched = depot.fetch(weak, &mut out).unwrap();
        assert_eq!((fetched.frame_count, fetched.is_cut), (12, is_cut));
        assert_eq!(out[..12], frames[..12]);
    }
    let mut trail = [None; 2];
    let onto = depot
        .save_onto(None, &frames, Hold::None, &mut trail)
        .unwrap();
    assert_eq!((onto.weak, trail), (cut, [None; 2]));
}

#[test]
fn an_ancestor_that_was_evicted_costs_a_full_save_and_no_wrong_answer() {
    let mut memory = vec![Line::ZERO; LINES];
    let depot = Depot::new(&mut memory, &config()).unwrap();
    let frames: Vec<u64> = (1..=25).map(|frame| frame << 4).collect();
    let mut trail = [None; 3];
    let first = depot
        .save_onto(None, &frames, Hold::None, &mut trail)
        .unwrap()
        .weak;
    let depths = trail.map(|ancestor| ancestor.map(|ancestor| ancestor.depth()));
    assert_eq!(depths, [Some(10), Some(20), None]);
    let again = depot
        .save_onto(trail[1].as_ref(), &frames, Hold::None, &mut [])
        .unwrap();
    assert_eq!(again.weak, first);
    assert!((0..500).all(|frame| depot.save(&[0x9000 + frame]).is_ok()));
    assert_eq!(depot.fetch(first, &mut [0; 32]), Err(FetchError::Evicted));
    let mut new_trail = [None; 3];
    let later = depot
        .save_onto(trail[1].as_ref(), &frames, Hold::None, &mut new_trail)
        .unwrap();
    assert_ne!(later.weak, first);
    assert_ne!(new_trail[1], trail[1]);
    let mut out = [0; 32];
    assert_eq!(depot.fetch(later.weak, &mut out).unwrap().frame_count, 25);
    assert_eq!(out[..25], frames);
}

#[test]
fn each_status_is_told_from_the_word_alone() {
    let statuses: HashSet<String> = (0..8)
        .map(|bits| format!("{:?}", State(bits).status()))
        .collect();
    assert_eq!(statuses.len(), 7, "two values without a meaning");
    assert_eq!(State(State::OWNED).status(), Status::Owned);
    // FREE with a length, LIVE with one that no node has, and a node.
    for (state, is_node) in [
        (5 << 4, false),
        (2, false),
        (11 << 4 | 2, false),
        (10 << 4 | 2, true),
    ] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&u64::to_le_bytes(state));
        let slot = SlotImage::parse(&bytes);
        assert_eq!(
            (slot.is_node(), slot.ext_slot()),
            (is_node, None),
            "{state:#x}"
        );
    }
}

#[test]
fn a_stack_that_is_saved_again_and_again_is_not_evicted() {
    let mut memory = vec![Line::ZERO; LINES];
    let depot = Depot::new(&mut memory, &Config::new(LINES * 64)).unwrap();
    let hot = depot.save(&[0x1000]).unwrap();
    for cold in 0..2000 {
        depot.save(&[0x2000 + cold]).unwrap();
        assert_eq!(depot.save(&[0x1000]), Ok(hot), "evicted by {cold}");
    }
    assert!(depot.stats().evicted_stacks > 1900);
}
