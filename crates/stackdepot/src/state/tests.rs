//! The table of the state word, as numbers: files of regions know them.

use super::*;

#[test]
fn the_word_is_laid_out_as_its_table_says() {
    let flags = [
        State::VISITED,
        State::LEASED,
        State::WIDE,
        State::CUT,
        State::MARK,
    ];
    assert_eq!(flags, [1 << 3, 1 << 8, 1 << 9, 1 << 10, 1 << 11]);
    let word = State(0x0abc_def9_8765_46a6);
    assert_eq!(word.status(), Status::Live { saved: true });
    assert_eq!(
        (word.length(), word.stamp(), word.references()),
        (0xa, 0x98_7654, 0x00ab_cdef)
    );
    assert_eq!(
        flags.map(|flag| word.has(flag)),
        [false, false, true, true, false]
    );
    assert_eq!(word.with_stamp(0x12_3456), State(0x0abc_def1_2345_67a6));
    assert_eq!(word.with_stamp(u32::MAX), State(0x0abc_deff_ffff_f7a6));
    assert_eq!((State::REF, State::REF_LIMIT), (1 << 36, 1 << 26));
    let pinned = State(word.0 | State::PINNED);
    assert_eq!((State::PINNED, pinned.references()), (1 << 63, 0xab_cdef));
}

#[test]
fn each_status_is_a_number_and_only_nodes_are_live() {
    let numbers = [
        State::FREE,
        State::OWNED,
        State::LIVE,
        State::EXT,
        State::WORN,
    ];
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let live = (0..8).map(|bits| State(bits | 0xff0)).map(State::is_live);
    assert!(live.eq([false, false, true, false, false, false, true, false]));
    let saved = (0..8).map(|bits| State(bits | 0xff0)).map(State::is_saved);
    assert!(saved.eq([false, false, false, false, false, false, true, false]));
}
