//! Runs models, each in a process of its own and within a limit of time, two at a time.

use crate::Answer;
use crate::child;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Models that run at the same time.
const JOBS: usize = 2;
/// Limits are of processor time, so that a busy machine changes no verdict; a model that has had
/// not even one part in this of a processor is ended, too.
const LEAST_SHARE: u32 = 20;

/// One model: a test of a program.
#[derive(Clone, Debug)]
pub struct Model {
    /// The test program.
    pub program: PathBuf,
    /// The test's name in its program.
    pub test: String,
    /// Its name among all models.
    pub name: String,
}

/// How a model ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Whether it held.
    pub passed: bool,
    /// Whether it was ended at the limit.
    pub timed_out: bool,
    /// Processor time that it took.
    pub seconds: f64,
    /// What it wrote.
    pub output: String,
}

impl Model {
    fn new(program: &Path, test: &str) -> Model {
        // Cargo adds a hash to the program's name.
        let stem = program.file_stem().unwrap_or_default().to_string_lossy();
        let crate_name = stem.rsplit_once('-').map_or(&*stem, |(name, _)| name);
        Model {
            program: program.to_owned(),
            test: test.to_owned(),
            name: format!("{crate_name}::{test}"),
        }
    }
}

/// The tests of the programs, but for the ignored ones.
pub fn list(programs: &[PathBuf]) -> Answer<Vec<Model>> {
    let mut models = Vec::new();
    for program in programs {
        let listed = child::must(Command::new(program).arg("--list"))?;
        let ignored = child::must(Command::new(program).args(["--list", "--ignored"]))?;
        let ignored = String::from_utf8_lossy(&ignored.stdout).into_owned();
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let is_ignored = ignored.lines().any(|other| other == line);
            let name = line.strip_suffix(": test");
            // The core's own program has unit tests besides.
            let is_unit = line.contains("tests::");
            if let (Some(name), false, false) = (name, is_ignored, is_unit) {
                models.push(Model::new(program, name));
            }
        }
    }
    Ok(models)
}

/// Runs one model with some variables set, for so much processor time at most.
pub fn run(model: &Model, variables: &[(&str, String)], limit: Duration) -> Answer<Ran> {
    let fails = |error: std::io::Error| format!("{}: {error}", model.program.display());
    let mut output = tempfile().map_err(fails)?;
    let mut command = Command::new(&model.program);
    command
        .args(["--exact", &model.test, "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(fails)?)
        .stderr(output.try_clone().map_err(fails)?);
    let started = Instant::now();
    let mut child = command.spawn().map_err(fails)?;
    let mut used = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(fails)? {
            break Some(status);
        }
        used = processor_time(child.id()).unwrap_or(used);
        if used > limit || started.elapsed() > limit * LEAST_SHARE {
            child.kill().map_err(fails)?;
            child.wait().map_err(fails)?;
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut text = Vec::new();
    output.rewind().map_err(fails)?;
    output.read_to_end(&mut text).map_err(fails)?;
    let ended = match status {
        Some(status) if status.code().is_none() => format!("ended by {status}\n"),
        None => format!("not done within {} s\n", limit.as_secs()),
        Some(_) => String::new(),
    };
    Ok(Ran {
        passed: status.is_some_and(|status| status.success()),
        timed_out: status.is_none(),
        seconds: used.as_secs_f64(),
        output: String::from_utf8_lossy(&text).into_owned() + &ended,
    })
}

/// What a process has used so far, to a hundredth of a second; `None` when it is over.
fn processor_time(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, so count from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// A file without a name.
fn tempfile() -> std::io::Result<File> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("xtask-{}-{number}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Does `work` on each item, two at a time, and hands each result to `done` as it comes.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Answer<R> + Sync,
    mut done: impl FnMut(&T, R),
) -> Answer<()> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..JOBS {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((item, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (item, result) in receiver {
            done(item, result?);
        }
        Ok(())
    })
}
