//! The ring as bytes that somebody else reads: whole, damaged, or never a ring.

use super::*;

#[test]
fn copied_bytes_show_what_the_ring_holds() {
    let config = RingConfig {
        event_count: 512,
        shard_count: 3,
    };
    let mut lines = memory(&config);
    let (bytes, expected, stats) = {
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        (0..2000).for_each(|number| {
            assert_eq!(
                push(&ring, &clock, number as usize % 3, number),
                Pushed::Yes
            )
        });
        let expected: Vec<Event> = ring.events().collect();
        (bytes_of(&ring), expected, ring.stats())
    };
    let header = RingHeaderImage::parse(&bytes, bytes.len() as u64).unwrap();
    assert_eq!(header.config(), config);
    let (at, count) = header.shards();
    assert_eq!(
        header.stats(&bytes[at as usize..][..count as usize * LINE_BYTES]),
        stats
    );
    let (at, count) = header.entries();
    let entries = bytes[at as usize..]
        .chunks_exact(LINE_BYTES)
        .take(count as usize);
    let mut found: Vec<EventImage> = entries
        .filter_map(|entry| EventImage::parse(entry.try_into().unwrap()))
        .filter(|event| header.is_current(event))
        .collect();
    found.sort_by_key(|event| core::cmp::Reverse(event.number));
    assert!(found.iter().map(|event| event.event).take(512).eq(expected));
}

/// The ring's lines as a reader of the file sees them.
fn bytes_of(ring: &Ring<'_>) -> Vec<u8> {
    let header = [
        MAGIC,
        VERSION,
        ring.config.event_count.into(),
        ring.config.shard_count.into(),
        ring.config.entry_count().into(),
        0,
        0,
        0,
    ];
    let head = [
        ring.places.head.load(Ordering::Relaxed),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    let lines = ring.places.shards.iter().chain(ring.entries);
    let words = lines.flat_map(|line| line.0.each_ref().map(|word| word.load(Ordering::Relaxed)));
    header
        .into_iter()
        .chain(head)
        .chain(words)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[test]
fn hostile_bytes_are_refused() {
    let config = RingConfig::new(64);
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let good = bytes_of(&ring);
    let refused = |bytes: &[u8], section_bytes: usize| {
        format!(
            "{}",
            RingHeaderImage::parse(bytes, section_bytes as u64).unwrap_err()
        )
    };
    assert!(refused(&good[..100], good.len()).contains("needs 128 bytes"));
    assert!(refused(&good, good.len() - 1).contains("bytes"));
    assert!(refused(&[0; 128], good.len()).contains("magic"));
    for (word, value) in [
        (1, 2),
        (2, 0),
        (2, u64::MAX),
        (2, 1 << 25),
        (3, 0),
        (3, 1 << 20),
        (4, 65),
    ] {
        let mut bytes = good.clone();
        bytes[word * 8..][..8].copy_from_slice(&u64::to_le_bytes(value));
        refused(&bytes, good.len());
    }
    let mut random = Random(3);
    for _ in 0..10_000 {
        let noise: [u8; LINE_BYTES] = core::array::from_fn(|_| random.below(256) as u8);
        let _ = EventImage::parse(&noise);
        let mut other = noise;
        other[random.below(64) as usize] ^= 1;
        assert_eq!(EventImage::parse_twice(&noise, &other), None);
    }
}

#[test]
fn an_image_takes_exactly_the_bytes_and_places_of_its_ring() {
    let config = RingConfig {
        event_count: 512,
        shard_count: 3,
    };
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let entry_count = 512 + 2 * 32;
    ring.places.head.store(5000, Ordering::Relaxed);
    let bytes = bytes_of(&ring);
    assert_eq!(bytes.len(), (2 + 3 + entry_count) * 64);
    let header = RingHeaderImage::parse(&bytes[..128], bytes.len() as u64).unwrap();
    assert_eq!(header.shards(), (128, 3));
    assert_eq!(header.entries(), ((2 + 3) * 64, entry_count as u32));
    assert!(RingHeaderImage::parse(&bytes[..127], bytes.len() as u64).is_err());
    assert!(RingHeaderImage::parse(&bytes, bytes.len() as u64 - 1).is_err());
    let event = |number| EventImage {
        number,
        event: event_of(number),
    };
    for (number, is_current) in [
        (5001, false),
        (5000, true),
        (5000 - entry_count as u64 + 1, true),
        (5000 - entry_count as u64, false),
    ] {
        assert_eq!(header.is_current(&event(number)), is_current, "{number}");
    }
}

#[test]
fn only_a_finished_entry_of_a_possible_place_is_an_event() {
    let mut bytes = [0; LINE_BYTES];
    for (place, word) in bytes[8..].chunks_exact_mut(8).zip(event_of(5).to_words()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    for (sequence, number) in [
        (5 << 2 | 1, Some(5)),
        (PLACE_MASK << 2 | 1, Some(PLACE_MASK)),
        ((PLACE_MASK + 1) << 2 | 1, None),
        (5 << 2, None),
        (5 << 2 | 2, None),
        (5 << 2 | 3, None),
    ] {
        bytes[..8].copy_from_slice(&u64::to_le_bytes(sequence));
        let event = EventImage::parse(&bytes);
        assert_eq!(event.map(|event| event.number), number, "{sequence:#x}");
        assert!(event.is_none_or(|event| event.event == event_of(5)));
    }
}
