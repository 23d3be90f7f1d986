//! The files of all processes of a run stay below its bound.
#![allow(unsafe_code)] // forks, or gives a mapping back

mod common;

use std::path::Path;

use common::*;
use stackdepot_region::error::CreateError;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::writer::{RegionWriter, Scope};

const MIB: u64 = 1 << 20;

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

fn has_ended(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the child is ours; `status` is a valid place.
    match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
        0 => None,
        _ => Some(status),
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}

/// Many short processes, several at once: each gets a file or runs without one.
#[test]
fn bytes_of_all_files_stay_below_the_bound_while_processes_come_and_go() {
    let directory = Directory::new();
    let first = c_path(&directory.path("first"));
    let total_bytes = 16 * MIB;
    let writer = RegionWriter::join_run(&first, total_bytes, Scope::of_every_block(64)).unwrap();
    assert_eq!(writer.file_bytes() as u64, 8 * MIB);
    let mut running: Vec<i32> = Vec::new();
    let (mut started, mut most_bytes) = (0u64, 0);
    while started < 150 || !running.is_empty() {
        if started < 150 && running.len() < 12 {
            let seed = started + 1;
            running.push(fork(|| {
                match RegionWriter::join_run(&first, total_bytes, Scope::of_every_block(64)) {
                    Ok(writer) => {
                        churn(&writer, 0, seed, 100, |round| round < 20 + seed % 50 * 40);
                        if seed % 3 == 0 {
                            writer.mark_ended();
                        }
                        0
                    }
                    Err(CreateError::Ledger(_)) => 0,
                    Err(_) => 1,
                }
            }));
            started += 1;
        }
        most_bytes = most_bytes.max(bytes_in(&directory.path("")));
        running.retain(|pid| match has_ended(*pid) {
            Some(status) => {
                assert_eq!(status, 0);
                false
            }
            None => true,
        });
    }
    assert!(most_bytes <= total_bytes, "{most_bytes}");
    assert!(
        most_bytes > 12 * MIB,
        "later processes had files: {most_bytes}"
    );
    let counts = RegionFile::open(&directory.path("first"))
        .unwrap()
        .ledger_counts()
        .unwrap();
    assert_eq!(
        counts.children_recorded + counts.children_unrecorded,
        150,
        "{counts:?}"
    );
    assert!(
        counts.children_recorded > 8 && counts.children_removed > 0,
        "{counts:?}"
    );
    let left = std::fs::read_dir(directory.path("")).unwrap().count() as u64 - 1;
    assert_eq!(left, counts.children_recorded - counts.children_removed);
}

#[test]
fn later_process_gets_a_sixteenth_and_is_marked_as_such() {
    let directory = Directory::new();
    let first = c_path(&directory.path("first"));
    let writer = RegionWriter::join_run(&first, 64 * MIB, Scope::of_every_block(64)).unwrap();
    assert_eq!(writer.run_ledger.total_bytes(), 64 * MIB);
    // This process again, as after an exec: it gets a file of its own kind beside the first.
    let later = RegionWriter::join_run(&first, 64 * MIB, Scope::of_every_block(64)).unwrap();
    assert_eq!(later.file_bytes() as u64, 4 * MIB);
    let names: Vec<_> = std::fs::read_dir(directory.path(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(names.len(), 2);
    let child = names.iter().find(|path| !path.ends_with("first")).unwrap();
    let info = RegionFile::open(child).unwrap().info().unwrap();
    assert!(info.is_child);
    assert_eq!(info.pid, std::process::id());
    assert_eq!(writer.run_ledger.used_bytes(), 4 * MIB);
}

#[test]
fn what_is_no_first_file_is_refused() {
    let directory = Directory::new();
    let path = directory.path("first");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let joined = RegionWriter::join_run(&c_path(&path), 64 * MIB, Scope::of_every_block(64));
    assert!(matches!(joined, Err(CreateError::NotARun)));
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 100_000]);
}
