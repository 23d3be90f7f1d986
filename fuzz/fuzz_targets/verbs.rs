//! The command's verbs over damaged files: the built `stackdepot`, a process for each input.
//!
//! The first byte chooses the verb, the second its options and whether the file is a recording or a
//! workload. Each run ends with status 0, 1 or 2, not by a signal, within its time; it complains in
//! whole lines that are no panic, and what it writes as JSON is closed. `STACKDEPOT` names the
//! command; `cargo xtask fuzz` builds one with overflow checks.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use stackdepot_corpus::synthetic::{SyntheticConfig, synthetic};
use stackdepot_fuzz::core_parts::Original;
use stackdepot_fuzz::damage::Part;
use stackdepot_fuzz::region::{Scratch, compact};
use stackdepot_fuzz::{damage, mutate};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A run takes milliseconds; on a busy machine some more.
const MOST_SECONDS: u64 = 10;
/// Addresses that the recorded program used, and some that nobody can use.
const ADDRESSES: [&str; 6] = [
    "0x7f000000",
    "0x7f001010",
    "0x7f002fff",
    "0",
    "0xffffffffffffffff",
    "0x7f00",
];

static RECORDING: LazyLock<Original> = LazyLock::new(compact);
static WORKLOAD: LazyLock<Original> = LazyLock::new(workload);
static PLACE: LazyLock<Place> = LazyLock::new(Place::new);

fuzz_target!(|input: &[u8]| {
    let [verb, options, script @ ..] = input else {
        return;
    };
    let is_workload = verb % 8 == 7;
    let original: &Original = if is_workload { &WORKLOAD } else { &RECORDING };
    let mut bytes = original.bytes.clone();
    damage::apply(script, &original.parts, &mut bytes);
    PLACE.file.write(&bytes);
    let mut command = Command::new(&PLACE.stackdepot);
    command.args(arguments(*verb, *options, &PLACE.file.path()));
    PLACE.check(&mut command);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::script(data, size, max_size, seed, 2)
});

/// The files that every run uses.
struct Place {
    stackdepot: PathBuf,
    file: Scratch,
    stdout: Scratch,
    stderr: Scratch,
}

impl Place {
    fn new() -> Place {
        let stackdepot = std::env::var_os("STACKDEPOT");
        Place {
            stackdepot: stackdepot.expect("STACKDEPOT names the command").into(),
            file: Scratch::new(),
            stdout: Scratch::new(),
            stderr: Scratch::new(),
        }
    }

    fn check(&self, command: &mut Command) {
        let open = |scratch: &Scratch| {
            scratch.write(&[]);
            let path = scratch.path();
            File::options()
                .append(true)
                .open(path)
                .expect("a file for output")
        };
        command
            .stdin(Stdio::null())
            .stdout(open(&self.stdout))
            .stderr(open(&self.stderr));
        let status = run(command);
        let complaint = String::from_utf8_lossy(&self.stderr.read()).into_owned();
        let is_right = matches!(status.code(), Some(0..=2)) && status.signal().is_none();
        assert!(is_right, "{command:?}: {status}: {complaint}");
        for line in complaint.lines() {
            assert!(line.starts_with("stackdepot: "), "{command:?}: {complaint}");
        }
        assert!(
            status.code() != Some(1) || complaint.lines().count() >= 1,
            "{command:?}: no word"
        );
        self.check_json(command, status);
    }

    /// A document that was begun is closed: the least that a JSON reader needs.
    fn check_json(&self, command: &Command, status: ExitStatus) {
        let is_json = command.get_args().any(|argument| argument == "--json");
        if is_json && status.code() != Some(1) {
            let document = String::from_utf8(self.stdout.read()).expect("JSON is UTF-8");
            let document = document.trim();
            assert!(
                document.starts_with('{') && document.ends_with('}'),
                "{command:?}: {document}"
            );
        }
    }
}

/// Waits for the end; panics when it does not come.
fn run(command: &mut Command) -> ExitStatus {
    let start = Instant::now();
    let mut child = command.spawn().expect("the command starts");
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if start.elapsed().as_secs() >= MOST_SECONDS {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?}: no end after {MOST_SECONDS} s");
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn arguments(verb: u8, options: u8, file: &Path) -> Vec<String> {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let address = ADDRESSES[usize::from(options >> 1) % ADDRESSES.len()];
    let orders = ["live-bytes", "live-count", "total-bytes", "total-count"];
    let order = orders[usize::from(options >> 1) % orders.len()];
    let mut arguments = match verb % 8 {
        0 | 1 => words(&["report", "--top", "0", "--by", order]),
        2 | 3 => words(&["who"]),
        4 => words(&["events", "--last", "0"]),
        5 => words(&["stats"]),
        6 => words(&["clean", "--dry-run"]),
        _ => match options >> 1 & 3 {
            0 => words(&[
                "replay", "--bytes", "64K", "--ring", "64", "--hold", "lease",
            ]),
            1 => words(&["replay", "--bytes", "16K", "--hold", "ref"]),
            2 => words(&["replay", "--bytes", "1M", "--fit"]),
            _ => words(&["replay", "--bytes", "4K", "--threads", "2"]),
        },
    };
    if options & 1 == 1 && verb % 8 != 6 {
        arguments.push("--json".to_owned());
    }
    arguments.push(file.display().to_string());
    if matches!(verb % 8, 2 | 3) {
        arguments.push(address.to_owned());
    }
    arguments
}

/// A small workload as its file: one zstd frame.
fn workload() -> Original {
    let config = SyntheticConfig {
        seed: 7,
        event_count: 200,
        site_count: 3,
    };
    let bytes = synthetic(&config).to_zstd();
    let parts = vec![Part::new(0, 32, 1), Part::new(0, bytes.len(), 1)];
    Original { bytes, parts }
}
