//! The ledger grants no more than the budget, and takes back what dead processes held.

use super::entry::{EntryState, EntryWord, LedgerEntry};
use super::*;
use crate::process::namespace_digest;
use crate::sys;
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
        namespace: zero(),
        unused: zero(),
        entries: from_fn(|_| LedgerEntry {
            word: zero(),
            start_ticks: zero(),
            ended_ns: zero(),
            namespace: zero(),
        }),
    };
    ledger.begin(total_bytes, first_bytes, namespace_digest());
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
        namespace: namespace_digest(),
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
    let word = EntryWord::claimed((1 << 23) - 1, (1 << 22) - 1, u16::MAX).unwrap();
    assert_eq!(
        (word.pages(), word.pid(), word.sequence()),
        ((1 << 23) - 1, (1 << 22) - 1, u16::MAX)
    );
    assert!(!word.is_from_outside() && word.marked_outside().is_from_outside());
    assert_eq!(word.marked_outside().pages(), word.pages());
    assert_eq!(word.marked_outside().state(), EntryState::Claimed);
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
    assert!(EntryWord::claimed(1 << 23, 7, 9).is_none());
    assert!(EntryWord::claimed(1, 1 << 22, 9).is_none());
    assert!(EntryWord::claimed(0, 1, 9).is_none());
}

/// The lock that a writer's mapping keeps.
fn lock(path: &Path) -> sys::Fd {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let fd = sys::open(&name, libc::O_RDWR, 0).unwrap();
    sys::lock(&fd).unwrap();
    fd
}

/// A process that runs and is not this one.
fn init() -> ProcessId {
    ProcessId {
        pid: 1,
        start_ticks: 0,
        namespace: namespace_digest(),
    }
}

#[test]
fn files_of_running_processes_are_never_removed() {
    let directory = directory("running");
    let first = first_path(&directory);
    let ledger = ledger(4 * MIB, 2 * MIB);
    let kept = [(); 2].map(|()| file_of(&ledger, &first, &init(), MIB));
    let _locks = [lock(&kept[0]), lock(&kept[1])];
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
fn file_of_an_earlier_program_of_a_running_process_makes_room() {
    let directory = directory("earlier");
    let first = first_path(&directory);
    let ledger = ledger(3 * MIB, MIB);
    // An exec took the mapping away, and with it the lock; the process goes on with another file.
    let [earlier, now] = [(); 2].map(|()| file_of(&ledger, &first, &init(), MIB));
    let _lock = lock(&now);
    let who = ProcessId::current();
    ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    assert!(!earlier.exists() && now.exists());
    assert_eq!(ledger.counts().children_removed, 1);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn file_that_is_not_there_counts_as_its_process_does() {
    let directory = directory("missing");
    let first = first_path(&directory);
    let ledger = ledger(3 * MIB, MIB);
    let [of_dead, of_init] = [dead(), init()].map(|who| file_of(&ledger, &first, &who, MIB));
    std::fs::remove_file(of_dead).unwrap();
    std::fs::remove_file(of_init).unwrap(); // its process may map it still
    let who = ProcessId::current();
    let reservation = ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    ledger.cancel(&reservation);
    let refused = Err(LedgerError::NoRoom);
    assert_eq!(ledger.reserve_or_remove(&first, &who, 2 * MIB), refused);
    assert_eq!(ledger.used_bytes(), MIB);
    assert_eq!(ledger.counts().children_removed, 0);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn bytes_of_a_file_that_cannot_be_removed_stay_in_use() {
    let directory = directory("stuck");
    let first = first_path(&directory);
    let ledger = ledger(2 * MIB, MIB);
    let path = file_of(&ledger, &first, &dead(), MIB);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap(); // refuses as a file of another user would
    let who = ProcessId::current();
    let refused = Err(LedgerError::NoRoom);
    assert_eq!(ledger.reserve_or_remove(&first, &who, MIB), refused);
    assert_eq!(ledger.used_bytes(), MIB);
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

#[test]
fn process_of_another_namespace_is_not_taken_for_dead() {
    let directory = directory("namespace");
    let first = first_path(&directory);
    let ledger = ledger(2 * MIB, MIB);
    let who = ProcessId::current();
    let elsewhere = ProcessId {
        namespace: who.namespace + 1,
        ..dead()
    };
    let claim = ledger.reserve(&elsewhere, MIB).unwrap();
    let refused = Err(LedgerError::Contended);
    assert_eq!(ledger.reserve_or_remove(&first, &who, MIB), refused);
    ledger.cancel(&claim);
    // With a file its lock tells.
    let path = file_of(&ledger, &first, &elsewhere, MIB);
    let fd = lock(&path);
    let refused = Err(LedgerError::NoRoom);
    assert_eq!(ledger.reserve_or_remove(&first, &who, MIB), refused);
    assert!(path.exists());
    drop(fd);
    ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    assert!(!path.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn file_that_a_forked_child_still_maps_keeps_its_bytes() {
    let directory = directory("mapped");
    let first = first_path(&directory);
    let ledger = ledger(2 * MIB, MIB);
    let who = ProcessId::current();
    let path = file_of(&ledger, &first, &dead(), MIB);
    let fd = lock(&path);
    let refused = Err(LedgerError::NoRoom);
    assert_eq!(ledger.reserve_or_remove(&first, &who, MIB), refused);
    drop(fd);
    ledger.reserve_or_remove(&first, &who, MIB).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}
