//! `clean` beside runs that start: alone in its file, since it removes what other tests look at.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Scratch, run};

/// Enough for the library, or a new directory, to be taken away under some run that just starts.
const RUN_COUNT: usize = 60;

#[test]
fn runs_that_start_while_clean_works_are_recorded() {
    let scratch = Scratch::new("race");
    let is_done = AtomicBool::new(false);
    let command = |words: &[&str]| {
        let mut command = scratch.stackdepot();
        // No home: the library lies in shared memory, where `clean` looks.
        command.env("HOME", "/nonexistent");
        command
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_CACHE_HOME");
        run(command.args(words))
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let (status, _, stderr) = command(&["clean"]);
                assert_eq!(status, Some(0), "{stderr}");
            }
        });
        for _ in 0..RUN_COUNT {
            let (status, _, stderr) = command(&["run", "-q", "--bytes", "2M", "--", "true"]);
            if (status, stderr.as_str()) != (Some(0), "") || scratch.recordings().len() != 1 {
                is_done.store(true, Ordering::Relaxed);
                panic!("{status:?} {stderr}");
            }
            std::fs::remove_file(scratch.recording()).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
}
