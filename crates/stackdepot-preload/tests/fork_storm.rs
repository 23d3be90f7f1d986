//! Threads malloc and free without pause while another forks: children and parent both go on
//! recording, nobody hangs, and every file is right.
//!
//! The program (`programs/fork_storm.c`) counts by itself. It waits after each fork, so that the
//! files of its children are looked at before later ones take their room: exactly their own
//! events, their stack with its counts, the program's modules, nothing torn, nothing lost. The
//! parent's file is read while it is written, and must have counted every event at the end.
//! `STACKDEPOT_FORKS` says how often it forks (60); `cargo xtask fork-storm`: 1000 times.

#[allow(dead_code, reason = "some of it is for programs.rs only")]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use stackdepot::ring::{Event, EventKind};
use stackdepot_region::counters::Counter;
use stackdepot_region::reader::snapshot::{Amount, Skipped, Snapshot};
use support::{Place, library, snapshot};

const RUN_BYTES: u64 = 64 << 20;
/// Nothing that the program does between two lines takes that long; only a hang gets there.
const HANG: Duration = Duration::from_secs(30);
/// The parent's file is read while it is written once in so many forks.
const LIVE_READ_FORKS: u64 = 8;
/// From the site to the program's start there are more.
const LEAST_FRAMES: usize = 3;

/// What a child says about itself.
#[derive(Clone, Copy, Debug)]
struct Made {
    pid: u64,
    /// All its events; 0: not known.
    events: u64,
    /// What its stack allocated, and what of it is live.
    total: Amount,
    live: Amount,
}

/// The running program.
struct Storm<'p> {
    place: &'p Place,
    program: Child,
    lines: Receiver<String>,
    acks: ChildStdin,
}

/// What was seen until the end.
#[derive(Debug, Default)]
struct Seen {
    forks: u64,
    children: u64,
    /// Of all children of which the number is known.
    child_events: u64,
    /// As the parent counts them.
    parent_events: u64,
}

#[test]
fn parent_and_children_record_exactly_what_they_do() {
    let quiet = Place::new("quiet");
    let own = Storm::start(&quiet, 0, false).watch();
    // What the C library allocates for the threads.
    let extra_events = snapshot(&quiet.first()).ring_stats().events - own.parent_events;
    let place = Place::new("storm");
    let seen = Storm::start(&place, forks(), false).watch();
    let found = snapshot(&place.first());
    assert_eq!(
        found.ring_stats().events,
        seen.parent_events + extra_events,
        "events of the parent"
    );
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
    println!(
        "fork-storm: {} forks, {} children with {} events, {} of the parent, findings 0",
        seen.forks, seen.children, seen.child_events, seen.parent_events
    );
}

#[test]
fn children_record_though_the_parent_was_unloading_a_library() {
    let place = Place::new("unloading");
    let seen = Storm::start(&place, forks() / 2, true).watch();
    println!(
        "fork-storm: {} forks while a library is unloaded, {} children with {} events, findings 0",
        seen.forks, seen.children, seen.child_events
    );
}

fn forks() -> u64 {
    std::env::var("STACKDEPOT_FORKS").map_or(60, |forks| {
        forks.parse().expect("STACKDEPOT_FORKS is a number")
    })
}

impl Storm<'_> {
    fn start(place: &Place, forks: u64, is_unloading: bool) -> Storm<'_> {
        let program = place.compile("fork_storm.c");
        let plugin = is_unloading.then(|| place.compile("plugin.c"));
        let mut program = Command::new(program)
            .arg(forks.to_string())
            .args(plugin)
            .env("LD_PRELOAD", library())
            .env("STACKDEPOT_RUN", place.first())
            .env("STACKDEPOT_BYTES", RUN_BYTES.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the program starts");
        let acks = program.stdin.take().expect("a pipe");
        let output = BufReader::new(program.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let texts = output.lines().map_while(Result::ok);
            texts
                .map_while(|line| sender.send(line).ok())
                .for_each(drop);
        });
        Storm {
            place,
            program,
            lines,
            acks,
        }
    }

    /// Follows the program to its end.
    fn watch(mut self) -> Seen {
        let mut seen = Seen::default();
        let mut made = Vec::new();
        loop {
            let line = self.next_line();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["go"] => {
                    self.look(&made, seen.forks);
                    seen.forks += 1;
                    seen.children += made.len() as u64;
                    seen.child_events += made.iter().map(|made: &Made| made.events).sum::<u64>();
                    made.clear();
                    self.acks.write_all(b".").expect("the program goes on");
                }
                ["made", ..] => made.push(Made::read(&words)),
                ["parent", events] => {
                    seen.parent_events = number(events);
                    break;
                }
                _ => panic!("the program says {line:?}"),
            }
        }
        let status = self.program.wait().expect("the program ends");
        assert!(status.success(), "{status}");
        let found = snapshot(&self.place.first());
        check_file(&found);
        let counts = found.ledger_counts();
        assert_eq!(counts.children_recorded, seen.children, "{counts:?}");
        assert_eq!(counts.children_unrecorded, 0, "{counts:?}");
        seen
    }

    /// The next line; whoever hangs is killed, with all its children.
    fn next_line(&mut self) -> String {
        if let Ok(line) = self.lines.recv_timeout(HANG) {
            return line;
        }
        let group = format!("-{}", self.program.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        panic!("no line: hung, or ended with {:?}", self.program.wait());
    }

    /// All children of a fork have ended: their files are right, and the run is within its bytes.
    fn look(&self, made: &[Made], fork: u64) {
        assert!(!made.is_empty(), "a child ended without a word");
        for made in made {
            let found = snapshot(&self.file_of(made.pid));
            check_file(&found);
            made.check(&found);
        }
        if fork.is_multiple_of(LIVE_READ_FORKS) {
            let found = snapshot(&self.place.first());
            assert_eq!(found.problems(), [""; 0]);
            assert!(found.ring_stats().events > 0);
        }
        let files = self
            .place
            .children()
            .into_iter()
            .chain([self.place.first()]);
        let bytes: u64 = files
            .map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()))
            .sum();
        assert!(
            bytes <= RUN_BYTES,
            "the files of the run take {bytes} bytes"
        );
    }

    fn file_of(&self, pid: u64) -> PathBuf {
        let beginning = format!("first.{pid}-");
        let is_its = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&beginning)
        };
        let mut files = self.place.children().into_iter().filter(is_its);
        let file = files.next();
        assert_eq!(files.next(), None, "a second file of {pid}");
        file.unwrap_or_else(|| panic!("child {pid} has no file"))
    }
}

impl Made {
    fn read(words: &[&str]) -> Made {
        let [_, pid, events, count, size, kept] = words else {
            panic!("the program says {words:?}");
        };
        let amount = |count| Amount {
            count,
            bytes: count * number(size),
        };
        Made {
            pid: number(pid),
            events: number(events),
            total: amount(number(count)),
            live: amount(number(kept)),
        }
    }

    /// A child's file is about the child: its events, its stack, its modules.
    fn check(&self, found: &Snapshot) {
        let events = found.ring_stats().events;
        assert_eq!(u64::from(found.info().pid), self.pid);
        assert!(
            self.events == 0 || events == self.events,
            "{self:?}: {events}"
        );
        // The block that it inherited: not recorded here, but no wrong free either.
        assert_eq!(found.counters().get(Counter::FreesUnknown), 1, "{self:?}");
        let is_wrong = |event: &&Event| event.kind == EventKind::UnknownFree;
        assert_eq!(found.events().iter().find(is_wrong), None, "{self:?}");
        let is_site = |stack: &&_| amounts(stack) == (self.total, self.live);
        let stacks: Vec<_> = found.stacks().collect();
        let sites: Vec<_> = stacks.iter().filter(is_site).collect();
        assert_eq!(sites.len(), 1, "{self:?}: {stacks:?}");
        let frames = found.stack(sites[0].weak).expect("it is stored").frames;
        assert!(frames.len() >= LEAST_FRAMES, "{self:?}: {frames:x?}");
        let module = found.module_at(frames[0], None);
        let path = module.map(|module| String::from_utf8_lossy(&module.path).into_owned());
        let is_program = path
            .as_ref()
            .is_some_and(|path| path.ends_with("fork_storm"));
        assert!(is_program, "{self:?}: {:x} is in {path:?}", frames[0]);
    }
}

/// What every file of an ended process owes, whatever it recorded.
fn check_file(found: &Snapshot) {
    assert_eq!(found.problems(), [""; 0]);
    let stats = found.ring_stats();
    // A killed thread may have been inside of one entry; here no thread is killed while it records.
    assert_eq!(found.skipped(), Skipped::default(), "{stats:?}");
    assert_eq!(found.counters().get(Counter::EventsUnrecorded), 0);
    let without_stack = found.events().iter().filter(|event| event.stack.is_none());
    assert_eq!(without_stack.count(), 0, "events without a stack");
}

fn amounts(stack: &stackdepot_region::reader::snapshot::StackRecord) -> (Amount, Amount) {
    (stack.total, stack.live)
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} is no number"))
}
