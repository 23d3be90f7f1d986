//! A pid finds its file, old runs are listed, and wrong pids are told apart.

mod common;

use common::*;
use stackdepot_region::reader::locate::{TargetError, locate, old_runs, own_runs_directory};
use stackdepot_region::reader::open_file_or_pid;

#[test]
fn running_process_finds_its_file_and_its_run_is_listed() {
    let runs = own_runs_directory();
    let run = runs.join(format!("test-{}", std::process::id()));
    std::fs::create_dir_all(&run).unwrap();
    let pid = std::process::id();
    let before = locate(pid);
    let path = run.join("region");
    let writer = create(&path, 1 << 20);
    let found = locate(pid);
    let opened = open_file_or_pid(pid.to_string().as_ref());
    let listed = old_runs();
    writer.mark_ended();
    std::fs::remove_dir_all(&run).unwrap();
    assert!(
        matches!(before, Err(TargetError::NotRecorded(_))),
        "{before:?}"
    );
    assert_eq!(found.unwrap(), path);
    assert_eq!(opened.unwrap().process().pid, pid);
    let listed: Vec<_> = listed.iter().filter(|old| old.directory == run).collect();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].is_running);
    assert_eq!(
        (listed[0].bytes, listed[0].files.as_slice()),
        (1 << 20, [path].as_slice())
    );
}

#[test]
fn wrong_pids_are_told_in_one_line() {
    let tell = |name: &str| {
        let line = open_file_or_pid(name.as_ref()).unwrap_err().to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    assert!(tell("4194303").contains("no such process"));
    for no_pid in ["0", "99999999999999999999", "4294967296"] {
        assert!(tell(no_pid).contains("no pid"), "{no_pid}");
    }
    assert!(tell("12x").contains("12x: cannot open: no such file"));
    assert!(tell("./123").contains("./123: cannot open"));
}
