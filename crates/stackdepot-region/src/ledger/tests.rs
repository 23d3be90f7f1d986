//! The ledger grants no more than the budget, and takes back what dead processes held.

use super::*;
use core::array::from_fn;
use std::ffi::CString;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

fn ledger(total_bytes: u64, first_bytes: u64) -> Ledger {
    let zero = || AtomicU64::new(0);
    let ledger = Ledger {
        total_bytes: zero(),
        budget_bytes: zero(),
        next_sequence: zero(),
        children_removed: zero(),
        children_unrecorded: zero(),
        children_recorded: zero(),
        unused: from_fn(|_| zero()),
        entries: from_fn(|_| LedgerEntry {
            word: zero(),
            start_ticks: zero(),
            ended_ns: zero(),
            unused: zero(),
        }),
    };
    ledger.begin(total_bytes, first_bytes);
    ledger
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("region-ledger-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).unwrap();
    path
}

fn first_path(directory: &Path) -> CString {
    CString::new(
        directory
            .join("first")
            .into_os_string()
            .into_encoded_bytes(),
    )
    .unwrap()
}

/// A process that was, and is no more.
fn dead() -> ProcessId {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let who = ProcessId {
        pid: child.id(),
        start_ticks: 1,
    };
    child.wait().unwrap();
    who
}

fn file_of(ledger: &Ledger, first: &CStr, who: &ProcessId, bytes: u64) -> PathBuf {
    let reservation = ledger.reserve(who, bytes).unwrap();
    let mut buffer = [0; PATH_LIMIT];
    let path = child_path(first, who.pid, reservation.sequence(), &mut buffer).unwrap();
    let path = PathBuf::from(path.to_str().unwrap());
    std::fs::write(&path, b"x").unwrap();
    ledger.confirm(reservation, who);
    path
}

#[test]
fn word_keeps_every_field_apart() {
    let word = EntryWord::claimed((1 << 24) - 1, (1 << 22) - 1, u16::MAX).unwrap();
    assert_eq!(
        (word.pages(), word.pid(), word.sequence()),
        ((1 << 24) - 1, (1 << 22) - 1, u16::MAX)
    );
    let word = EntryWord::claimed(5, 7, 9).unwrap();
    for (bits, state) in [
        (1, EntryState::Claimed),
        (2, EntryState::Active),
        (3, EntryState::Ended),
    ] {
        let word = word.with_state(bits);
        assert_eq!(
            (word.state(), word.pages(), word.pid(), word.sequence()),
            (state, 5, 7, 9)
        );
    }
    assert_eq!(EntryWord(0).state(), EntryState::Free);
    assert!(EntryWord::claimed(1 << 24, 7, 9).is_none());
    assert!(EntryWord::claimed(1, 1 << 22, 9).is_none());
    assert!(EntryWord::claimed(0, 1, 9).is_none());
}

#[test]
fn files_of_running_processes_are_never_removed() {
    let directory = directory("running");
    let first = first_path(&directory);
    let ledger = ledger(4 * MIB, 2 * MIB);
    // Two others that run: init, and the parent of this process.
    let init = ProcessId {
        pid: 1,
        start_ticks: 0,
    };
    let kept = [(); 2].map(|()| file_of(&ledger, &first, &init, MIB));
    let who = ProcessId::current();
    assert_eq!(
        ledger.reserve_or_remove(&first, &who, MIB),
        Err(LedgerError::NoRoom)
    );
    assert!(kept.iter().all(|path| path.exists()));
    assert_eq!(ledger.used_bytes(), 2 * MIB);
    assert_eq!(ledger.counts().children_removed, 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn file_whose_process_ended_first_goes_first() {
    let directory = directory("oldest");
    let first = first_path(&directory);
    let ledger = ledger(4 * MIB, MIB);
    let [one, two, three] = [(); 3].map(|()| dead());
    let kept = file_of(&ledger, &first, &one, MIB);
    let reservation = Reservation {
        index: 1,
        word: EntryWord::claimed(MIB / 4096, two.pid, 1).unwrap(),
    };
    let removed = file_of(&ledger, &first, &two, MIB);
    ledger.mark_ended(&reservation); // says itself that it ended, before the others are found dead
    let also_kept = file_of(&ledger, &first, &three, MIB);
    let who = ProcessId::current();
    ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    assert!(kept.exists() && !removed.exists() && also_kept.exists());
    assert_eq!(ledger.used_bytes(), 3 * MIB);
    assert_eq!(ledger.counts().children_removed, 1);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn exec_makes_room_out_of_the_file_of_the_program_before() {
    let directory = directory("exec");
    let first = first_path(&directory);
    let ledger = ledger(2 * MIB, MIB);
    let who = ProcessId::current();
    let before = file_of(&ledger, &first, &who, MIB);
    ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    assert!(!before.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn claim_of_a_process_that_died_half_way_comes_back() {
    let directory = directory("half-way");
    let first = first_path(&directory);
    let ledger = ledger(2 * MIB, MIB);
    ledger.reserve(&dead(), MIB).unwrap(); // neither file nor confirmation
    let who = ProcessId::current();
    let reservation = ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    assert_eq!(ledger.counts().children_removed, 0, "there was no file");
    ledger.cancel(&reservation);
    assert_eq!(ledger.used_bytes(), 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn threads_that_claim_at_once_stay_below_the_budget() {
    let ledger = ledger(9 * MIB, MIB);
    let who = ProcessId::current();
    let granted_bytes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Ok(reservation) = ledger.reserve(&who, 2 * MIB) {
                        let granted = granted_bytes.fetch_add(2 * MIB, Ordering::SeqCst) + 2 * MIB;
                        assert!(granted <= 8 * MIB, "{granted} bytes granted");
                        granted_bytes.fetch_sub(2 * MIB, Ordering::SeqCst);
                        ledger.cancel(&reservation);
                    }
                }
            });
        }
    });
    assert_eq!(ledger.used_bytes(), 0);
    let all = ledger.reserve(&who, 8 * MIB).unwrap();
    assert_eq!(ledger.reserve(&who, 4096), Err(LedgerError::Contended));
    ledger.confirm(all, &who);
    assert_eq!(ledger.reserve(&who, 4096), Err(LedgerError::NoRoom));
}
