//! A writer that is killed at any moment leaves a file that can be read.
#![allow(unsafe_code)] // forks, or gives a mapping back

mod common;

use std::mem::offset_of;
use std::path::Path;
use std::time::Duration;

use common::*;
use stackdepot_region::error::CreateError;
use stackdepot_region::format::FileHeader;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::{BlockRecord, Gone};
use stackdepot_region::writer::{CreateOptions, RegionWriter};

/// Forks; the child runs `work` and ends with its answer, without any handler of the harness.
fn fork(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs the writer half, which allocates nothing and takes no lock.
    match unsafe { libc::fork() } {
        0 => {
            let status = work();
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) }
        }
        pid => pid,
    }
}

fn kill_and_wait(pid: i32) {
    // SAFETY: the child is ours and not waited for yet.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait(pid);
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: as above; `status` is a valid place.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Checks all that the file of a killed process shows, of the first one that wrote it or of a later
/// one; answers how many stacks.
fn check(path: &Path, is_first: bool) -> usize {
    let file = RegionFile::open(path).unwrap();
    assert!(!file.is_running());
    let snapshot = file.snapshot().unwrap();
    assert!(snapshot.problems().is_empty(), "{:?}", snapshot.problems());
    assert_eq!(
        snapshot.skipped().nodes_changed,
        0,
        "nothing changes any more"
    );
    let (mut count, mut counted) = (0, 0);
    for record in snapshot.stacks() {
        check_frames(&snapshot.stack(record.weak).unwrap().frames);
        count += 1;
        counted += record.live.count;
    }
    let with_stack = |block: &&BlockRecord| block.block.stack.is_some();
    let there = snapshot.live_blocks().iter().filter(with_stack).count() as u64;
    if is_first && snapshot.skipped().counts_moved == 0 {
        assert!(
            (there..=there + 1).contains(&counted),
            "{counted} blocks counted, {there} there, at most one on its way"
        );
    }
    for block in snapshot.live_blocks() {
        let Some(weak) = block.block.stack else {
            continue;
        }; // its save was refused: all is held
        let id = check_frames(&snapshot.stack(weak).unwrap().frames); // held, so it must be there
        assert_eq!(u64::from(id) + 1, block.block.size);
    }
    for event in snapshot.events() {
        let is_alloc = event.kind == stackdepot::ring::EventKind::Alloc;
        let of_block = if is_alloc {
            event.stack
        } else {
            event.other_stack
        };
        match of_block.map(|weak| snapshot.stack(weak)) {
            Some(Ok(stack)) => assert_eq!(u64::from(check_frames(&stack.frames)) + 1, event.size),
            Some(Err(gone)) => assert_eq!(gone, Gone::Evicted),
            None => {} // its save was refused
        }
    }
    count
}

#[test]
fn file_of_a_killed_process_is_read_whole() {
    let directory = Directory::new();
    let mut random = Random(4242);
    let mut stack_count = 0;
    for round in 0..60 {
        let path = directory.path(&format!("file{round}"));
        let name = c_path(&path);
        let file_bytes = if round % 2 == 0 { 1 << 20 } else { 2 << 20 };
        let pid = fork(|| {
            let Ok(writer) = RegionWriter::create(&name, &CreateOptions::alone(file_bytes)) else {
                return 1;
            };
            churn(&writer, 0, round + 1, 150, |_| true);
            0
        });
        while RegionFile::open(&path).is_err() {
            std::thread::sleep(Duration::from_micros(200)); // ends with the child's creation
        }
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        kill_and_wait(pid);
        stack_count += check(&path, true);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(stack_count > 1000, "{stack_count}");
}

#[test]
fn ages_of_a_killed_process_count_back_from_its_newest_event() {
    let directory = Directory::new();
    let path = directory.path("file");
    let name = c_path(&path);
    let pid = fork(|| {
        let Ok(writer) = RegionWriter::create(&name, &CreateOptions::alone(1 << 20)) else {
            return 1;
        };
        record_alloc(&writer, 0, 0x1000, 8, 7);
        std::thread::sleep(Duration::from_millis(30));
        record_alloc(&writer, 0, 0x2000, 8, 7);
        0 // without a word about its end
    });
    assert_eq!(wait(pid), 0);
    std::thread::sleep(Duration::from_millis(100));
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    let ages: Vec<f64> = snapshot
        .events()
        .iter()
        .map(|event| snapshot.info().seconds_ago(event.time).unwrap())
        .collect();
    assert_eq!(ages.len(), 2);
    assert_eq!(ages[0], 0.0);
    assert!((0.03..1.0).contains(&ages[1]), "{ages:?}");
    // On another machine, or after a reboot, nothing tells how fast its counter ran.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset_of!(FileHeader, boot_digest)] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    assert_eq!(snapshot.info().seconds_ago(snapshot.events()[0].time), None);
}

#[test]
fn process_killed_while_it_makes_a_file_leaves_a_whole_one_or_none() {
    let directory = Directory::new();
    let mut random = Random(777);
    let mut made_count = 0;
    for round in 0..60 {
        let path = directory.path(&format!("file{round}"));
        let name = c_path(&path);
        let pid = fork(|| {
            let _ = RegionWriter::create(&name, &CreateOptions::alone(8 << 20));
            0
        });
        std::thread::sleep(Duration::from_micros(random.below(6_000)));
        kill_and_wait(pid);
        let left = std::fs::read_dir(directory.path("")).unwrap().count();
        let is_made = path.exists();
        if is_made {
            let file = RegionFile::open(&path).unwrap();
            assert!(file.snapshot().unwrap().problems().is_empty());
            std::fs::remove_file(&path).unwrap();
            made_count += 1;
        }
        // Memory file systems have files without a name; elsewhere a killed maker leaves one.
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(left, usize::from(is_made));
        }
    }
    assert!((1..60).contains(&made_count), "{made_count}");
}

#[test]
fn file_of_a_killed_process_goes_on_when_it_is_opened_again() {
    let directory = Directory::new();
    let path = directory.path("file");
    let name = c_path(&path);
    let mut random = Random(31);
    let first = fork(|| {
        let Ok(writer) = RegionWriter::create(&name, &CreateOptions::alone(2 << 20)) else {
            return 1;
        };
        churn(&writer, 0, 1, 300, |_| true);
        0
    });
    while RegionFile::open(&path).is_err() {
        std::thread::sleep(Duration::from_micros(200)); // ends with the child's creation
    }
    assert!(matches!(
        RegionWriter::reopen(&name),
        Err(CreateError::Busy)
    ));
    kill_and_wait(first);
    for round in 0..40u64 {
        let pid = fork(|| {
            let Ok((writer, _)) = RegionWriter::reopen(&name) else {
                return 1;
            };
            churn(&writer, 0, round + 1, 300, |_| true);
            0
        });
        std::thread::sleep(Duration::from_micros(3_000 + random.below(20_000)));
        kill_and_wait(pid);
        check(&path, false);
    }
    let (writer, recovered) = RegionWriter::reopen(&name).unwrap();
    assert!(
        recovered.kept_nodes > 0 && recovered.restored_holds > 0,
        "{recovered:?}"
    );
    churn(&writer, 0, 5, 300, |round| round < 20_000);
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    assert!(snapshot.problems().is_empty());
    for block in snapshot.live_blocks() {
        let Some(weak) = block.block.stack else {
            continue;
        };
        check_frames(&snapshot.stack(weak).unwrap().frames);
    }
    let held: u64 = snapshot
        .live_blocks()
        .iter()
        .filter(|block| block.block.stack.is_some())
        .count() as u64;
    assert!(held > 50, "{held}");
}

#[test]
fn damaged_or_foreign_files_are_not_opened_for_writing() {
    let directory = Directory::new();
    let path = directory.path("file");
    std::fs::write(&path, vec![1; 100_000]).unwrap();
    assert!(matches!(
        RegionWriter::reopen(&c_path(&path)),
        Err(CreateError::Damaged)
    ));
    let sound = directory.path("sound");
    // SAFETY: the writer is not used after this.
    unsafe { create(&sound, 1 << 20).unmap() };
    let bytes = std::fs::read(&sound).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4096]).unwrap();
    assert!(matches!(
        RegionWriter::reopen(&c_path(&path)),
        Err(CreateError::Damaged)
    ));
    let missing = c_path(&directory.path("missing"));
    assert!(matches!(
        RegionWriter::reopen(&missing),
        Err(CreateError::Open(_))
    ));
}

#[test]
fn file_size_limit_refuses_and_does_not_kill() {
    let directory = Directory::new();
    let path = directory.path("file");
    let name = c_path(&path);
    let pid = fork(|| {
        let limit = libc::rlimit {
            rlim_cur: 1 << 20,
            rlim_max: 1 << 20,
        };
        // SAFETY: only the child is limited.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) };
        let made = RegionWriter::create(&name, &CreateOptions::alone(2 << 20));
        i32::from(!matches!(made, Err(CreateError::Preallocate(_))))
    });
    assert_eq!(wait(pid), 0, "neither SIGXFSZ nor a file");
    assert!(!path.exists());
}

#[test]
fn creation_keeps_errno() {
    let directory = Directory::new();
    let name = c_path(&directory.path("no/such/place"));
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = 12345 };
    let made = RegionWriter::create(&name, &CreateOptions::alone(1 << 20));
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, 12345);
    assert!(made.is_err());
}

#[test]
fn counts_that_waited_in_a_hold_cache_are_not_lost() {
    let directory = Directory::new();
    let path = directory.path("file");
    let name = c_path(&path);
    let pid = fork(|| {
        let Ok(writer) = RegionWriter::create(&name, &CreateOptions::alone(1 << 20)) else {
            return 1;
        };
        (0..100).for_each(|number| record_alloc(&writer, 0, 0x10000 + number * 256, 64, 63));
        0
    });
    assert_eq!(wait(pid), 0);
    let total = || {
        let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
        let total = snapshot.stacks().next().unwrap().total;
        (total.count, total.bytes)
    };
    assert_eq!(total(), (100, 6400));
    let (writer, _) = RegionWriter::reopen(&name).unwrap();
    assert_eq!(total(), (100, 6400));
    let weak = writer.depot.walk().next().unwrap().weak;
    assert_eq!(writer.depot.payload(weak).unwrap(), [100, 6400, 0, 0]);
    // The references of the cache died with its writer: those of the blocks are what is left.
    assert_eq!(writer.depot.walk().next().unwrap().references, 100);
}
