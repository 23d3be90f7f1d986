//! Bar 3: real programs run unchanged, every event is recorded or counted as lost, and the
//! unwinder agrees with libunwind.

use super::{Board, Site};
use crate::workloads::{self, Workload};
use crate::{Answer, child, redis};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Big enough that no child goes unrecorded and no file is removed.
const BYTES: &str = "1G";
/// Every how many events a second stack is taken, and how many must be compared at least.
const CHECK_EVERY: &str = "100";
const CHECKED_LEAST: u64 = 10_000;
/// The least share of them that must be equal.
const EQUAL_LEAST: f64 = 0.999;
/// What `stats` calls the calls that reached no file.
const COUNTED_LOSS: &str = "events_unrecorded";
/// Requests of each kind to redis: enough for the events that check mode needs.
const REDIS_REQUEST_COUNT: usize = 60_000;

/// Runs the six programs bare and recorded, and judges what came of it.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    let work = site.house.work("programs")?;
    let house = site.house;
    let (sqlite, [git, clone]) = (workloads::sqlite3(&work)?, workloads::git(&work)?);
    let (python, compile) = (
        workloads::python3(house)?,
        workloads::cpp_compile(house, &work)?,
    );
    let threads = workloads::short_threads(house)?;
    for program in [&sqlite, &python, &compile, &git, &threads] {
        board.judge_answer(
            &format!("{} unchanged", program.name),
            unchanged(site, &work, program),
        );
    }
    let served = redis::serve(
        &recorder(site, &fresh(&work, "redis")?),
        &work,
        REDIS_REQUEST_COUNT,
    );
    let bare = redis::serve(&[], &work, REDIS_REQUEST_COUNT)?;
    let compared = served.map(|served| {
        let same = served.status == bare.status && !served.keys.is_empty();
        (same, format!("{}, {}", served.status, served.keys))
    });
    board.judge_answer("redis-server under redis-benchmark", compared);
    for program in [&sqlite, &clone, &compile] {
        board.judge_answer(
            &format!("{} events", program.name),
            events_equal(site, &work, program),
        );
    }
    for program in [&sqlite, &python, &compile] {
        let region = fresh(&work, "check")?;
        let mut command = program.command(&recorder(site, &region))?;
        let ran = child::run(command.env("STACKDEPOT_CHECK", CHECK_EVERY))?;
        let agreed = if ran.status.success() {
            agreement(site, &region)
        } else {
            Err(ran.errors())
        };
        board.judge_answer(&format!("{} agrees with libunwind", program.name), agreed);
    }
    let region = fresh(&work, "check")?;
    let mut prefix: Vec<OsString> = vec![
        "env".into(),
        format!("STACKDEPOT_CHECK={CHECK_EVERY}").into(),
    ];
    prefix.extend(recorder(site, &region));
    let served =
        redis::serve(&prefix, &work, REDIS_REQUEST_COUNT).and_then(|_| agreement(site, &region));
    board.judge_answer("redis-server agrees with libunwind", served);
    Ok(())
}

/// `stackdepot run` with its options, up to the program.
fn recorder(site: &Site, region: &Path) -> Vec<OsString> {
    let options = ["run", "--quiet", "--bytes", BYTES, "-o"];
    let mut words = vec![site.stackdepot.clone().into_os_string()];
    words.extend(options.iter().map(OsString::from));
    words.extend([region.into(), "--".into()]);
    words
}

/// A region file's path in an emptied folder of its own.
fn fresh(work: &Path, name: &str) -> Answer<PathBuf> {
    let folder = work.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder.join("region"))
}

fn unchanged(site: &Site, work: &Path, program: &Workload) -> Answer<(bool, String)> {
    let bare = child::run(&mut program.command(&[])?)?;
    let bare_product = program.product_bytes();
    let region = fresh(work, "unchanged")?;
    let ours = child::run(&mut program.command(&recorder(site, &region))?)?;
    let same = (
        bare.status == ours.status,
        bare.stdout == ours.stdout,
        bare.stderr == ours.stderr,
        bare_product == program.product_bytes(),
    );
    let differs: Vec<&str> = [
        (same.0, "status"),
        (same.1, "stdout"),
        (same.2, "stderr"),
        (same.3, "product"),
    ]
    .iter()
    .filter_map(|(same, what)| (!same).then_some(*what))
    .collect();
    let recorded = region.is_file();
    let figure = format!(
        "{}, {} bytes of output, recorded {recorded}, differs: {differs:?}",
        ours.status,
        ours.stdout.len()
    );
    Ok((differs.is_empty() && recorded, figure))
}

/// Recorded events plus counted losses against the counting preload library, over all processes.
/// Both count in one run: a compiler's allocations follow its addresses, and those are random.
fn events_equal(site: &Site, work: &Path, program: &Workload) -> Answer<(bool, String)> {
    let region = fresh(work, "events")?;
    let count_file = work.join("events/count");
    fs::write(&count_file, [0; 4096]).map_err(|e| format!("{}: {e}", count_file.display()))?;
    let counter = site.house.shared_object("count", "count")?;
    let mut command = program.command(&recorder(site, &region))?;
    let ran = child::run(
        command
            .env("LD_PRELOAD", &counter)
            .env("COUNT_FILE", &count_file),
    )?;
    if !ran.status.success() {
        return Err(format!("{}: {}", ran.status, ran.errors()));
    }
    let words = fs::read(&count_file).map_err(|e| format!("{}: {e}", count_file.display()))?;
    let word = |index: usize| {
        words[index * 8..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let (expected, images) = (word(0) + word(1), word(3));
    let (mut events, mut lost, mut files) = (0, 0, 0);
    for file in region_files(&region)? {
        let stats = site.json("stats", &file)?;
        events += stats["ring"]["events"]
            .as_u64()
            .ok_or("stats has no ring.events")?;
        lost += find(&stats, COUNTED_LOSS)
            .and_then(Value::as_u64)
            .ok_or("stats has no count of what reached no file")?;
        files += 1;
    }
    let figure = format!(
        "{events} recorded and {lost} counted as lost in {files} files, {expected} counted in {images} images"
    );
    Ok((events + lost == expected, figure))
}

/// The region file and its children's, which carry its name and more.
fn region_files(region: &Path) -> Answer<Vec<PathBuf>> {
    let folder = region.parent().ok_or("no folder")?;
    let listed = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = listed.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("region"))
        })
        .collect())
}

fn agreement(site: &Site, region: &Path) -> Answer<(bool, String)> {
    let stats = site.json("stats", region)?;
    let number = |name: &str| {
        find(&stats, name)
            .and_then(Value::as_u64)
            .ok_or_else(|| format!("stats has no {name}"))
    };
    let (total, equal, truncated) = (
        number("check_total")?,
        number("check_equal")?,
        number("check_truncated")?,
    );
    let compared = total.saturating_sub(truncated);
    let share = if compared == 0 {
        0.0
    } else {
        equal as f64 / compared as f64
    };
    let passed = compared >= CHECKED_LEAST && share >= EQUAL_LEAST;
    Ok((
        passed,
        format!(
            "{equal} of {compared} equal ({:.3} %), {truncated} truncated",
            share * 100.0
        ),
    ))
}

/// A member of that name at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let members = value.as_object()?;
    members
        .get(name)
        .or_else(|| members.values().find_map(|member| find(member, name)))
}

impl Site<'_> {
    /// `stackdepot VERB --json FILE`.
    pub fn json(&self, verb: &str, file: &Path) -> Answer<Value> {
        crate::house::ask(
            &self.stackdepot,
            &[verb.as_ref(), "--json".as_ref(), file.as_os_str()],
        )?
        .json()
    }
}
