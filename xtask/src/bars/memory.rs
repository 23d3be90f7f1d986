//! Bar 8: the bound in bytes: resident memory, millions of live blocks, builds with many processes.

use super::{Board, Site};
use crate::house::ask;
use crate::{Answer, child};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What recording may add to resident memory beyond `--bytes`.
const SLACK_BYTES: u64 = 8 * MIB;
/// Objects of the build; each is a shell, gcc, cc1 and as.
const OBJECT_COUNT: usize = 130;

/// What make ends with when a recipe failed, as the last one does: a status that must come through.
const MAKE_FAILED: i32 = 2;

/// Judges the three parts.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    for mib in [8, 64] {
        board.judge_answer(
            &format!("resident memory, --bytes {mib}M"),
            resident(site, mib),
        );
    }
    board.judge_answer("5 million live blocks, --bytes 8M", many_live(site));
    board.judge_answer("a build with 500 processes, --bytes 64M", build(site));
    Ok(())
}

/// `stackdepot run --quiet --bytes MIB -o REGION --`.
fn recorder(site: &Site, mib: u64, region: &Path) -> Vec<OsString> {
    let mut words = vec![site.stackdepot.clone().into_os_string()];
    words.extend(["run", "--quiet", "--bytes"].iter().map(OsString::from));
    words.extend([
        format!("{mib}M").into(),
        "-o".into(),
        region.into(),
        "--".into(),
    ]);
    words
}

fn resident(site: &Site, mib: u64) -> Answer<(bool, String)> {
    let work = site.house.work("memory")?;
    let mut words: Vec<OsString> = vec![site.house.program("many_threads")?.into()];
    for number in 0..8 {
        words.push(
            site.house
                .shared_object("plugin", &format!("plugin{number}"))?
                .into(),
        );
    }
    let bare = resident_when_ready(&words, false)?;
    let mut recorded = recorder(site, mib, &work.join("region"));
    recorded.append(&mut words);
    let ours = resident_when_ready(&recorded, true)?;
    let (added, most) = (ours.saturating_sub(bare), mib * MIB + SLACK_BYTES);
    let events = site.json("report", &work.join("region"))?["events"]
        .as_u64()
        .unwrap_or(0);
    let figure = format!(
        "bare {} KiB, recorded {} KiB, added {} KiB of {} KiB, {events} events",
        bare >> 10,
        ours >> 10,
        added >> 10,
        most >> 10
    );
    Ok((added <= most && events > 20_000, figure))
}

/// Starts it, waits for its "ready", reads its resident bytes, and lets it end.
fn resident_when_ready(words: &[OsString], is_child_of_runner: bool) -> Answer<u64> {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut started = command.spawn().map_err(|e| child::cannot(&command, &e))?;
    let mut ready = [0; 6];
    let said = started
        .stdout
        .as_mut()
        .ok_or("no stdout")?
        .read_exact(&mut ready);
    let pid = if is_child_of_runner {
        child_of(started.id())
    } else {
        Ok(started.id())
    };
    let bytes = pid.and_then(resident_bytes);
    if let Some(mut stdin) = started.stdin.take() {
        let _ = stdin.write_all(b"\n");
    }
    let status = started.wait().map_err(|e| format!("wait: {e}"))?;
    said.map_err(|e| format!("the program was not ready: {e}, {status}"))?;
    if !status.success() {
        return Err(format!("the program ended with {status}"));
    }
    bytes
}

fn child_of(pid: u32) -> Answer<u32> {
    let tasks =
        fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| format!("/proc/{pid}: {e}"))?;
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        if let Some(child) = children
            .split_whitespace()
            .next()
            .and_then(|child| child.parse().ok())
        {
            return Ok(child);
        }
    }
    Err(format!("process {pid} has no child"))
}

fn resident_bytes(pid: u32) -> Answer<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("{path}: no Rss"))? * 1024)
}

fn many_live(site: &Site) -> Answer<(bool, String)> {
    let region = site.house.work("many_live")?.join("region");
    let words = recorder(site, 8, &region);
    let ran = child::must(
        Command::new(&words[0])
            .args(&words[1..])
            .arg(site.house.program("many_live")?),
    )?;
    let report = site.json("report", &region)?;
    let text = ask(&site.stackdepot, &["report".as_ref(), region.as_os_str()])?;
    let is_marked =
        report["sampled"] == true && String::from_utf8_lossy(&text.stdout).contains("estimate");
    let size = fs::metadata(&region)
        .map_err(|e| format!("region: {e}"))?
        .len();
    let (mut worst, mut figure) = (0.0_f64, String::new());
    for line in String::from_utf8_lossy(&ran.stdout).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [site_name, _, bytes] = words[..] else {
            return Err(format!("many_live said {line:?}"));
        };
        let bytes: f64 = bytes
            .parse()
            .map_err(|_| format!("many_live said {line:?}"))?;
        let stacks = report["stacks"].as_array().into_iter().flatten();
        let holds = |stack: &&serde_json::Value| {
            stack["frames"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|frame| frame["function"] == site_name)
        };
        let shown: f64 = stacks
            .filter(holds)
            .filter_map(|stack| stack["live_bytes"].as_f64())
            .sum();
        let off = (shown / bytes - 1.0) * 100.0;
        worst = worst.max(off.abs());
        // Writing into a String cannot fail.
        let _ = write!(figure, "{site_name} {off:+.1} %, ");
    }
    let passed = worst <= 10.0 && is_marked && size <= 8 * MIB && !figure.is_empty();
    Ok((
        passed,
        format!(
            "{figure}marked as estimates {is_marked}, file {} KiB",
            size >> 10
        ),
    ))
}

fn build(site: &Site) -> Answer<(bool, String)> {
    let work = site.house.work("build")?;
    write_project(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let make = |prefix: &[OsString]| -> Answer<Built> {
        let mut words = prefix
            .iter()
            .cloned()
            .chain(["make".into(), "-j2".into(), "-s".into()]);
        let mut command = Command::new(words.next().ok_or("no program")?);
        let ran = child::run(command.args(words).current_dir(&work))?;
        let mut built = Built {
            status: ran.status.code(),
            objects: Vec::new(),
        };
        for number in 0..OBJECT_COUNT {
            let object = work.join(format!("f{number}.o"));
            built.objects.push(fs::read(&object).unwrap_or_default());
            let _ = fs::remove_file(object);
        }
        Ok(built)
    };
    let bare = make(&[])?;
    let records = work.join("records");
    fs::create_dir(&records).map_err(|e| format!("{}: {e}", records.display()))?;
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let ours = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(bytes_in(&records), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let ours = make(&recorder(site, 64, &records.join("region")));
        done.store(true, Ordering::Relaxed);
        ours
    })?;
    let most = most.into_inner();
    let report = site.json("report", &records.join("region"))?;
    let unrecorded = report["lost"]["children_unrecorded"].as_u64();
    let files = fs::read_dir(&records).map_or(0, Iterator::count);
    let figure = format!(
        "at most {} KiB in files, {files} files at the end, unrecorded {unrecorded:?}, status {:?} (bare {:?})",
        most >> 10,
        ours.status,
        bare.status
    );
    let same = ours == bare && bare.status == Some(MAKE_FAILED);
    Ok((
        same && most <= 64 * MIB && most > 0 && unrecorded.is_some(),
        figure,
    ))
}

/// What a build came to.
#[derive(PartialEq)]
struct Built {
    status: Option<i32>,
    objects: Vec<Vec<u8>>,
}

/// A makefile with a C file per object, and a last step that fails.
fn write_project(work: &Path) -> std::io::Result<()> {
    let objects: Vec<String> = (0..OBJECT_COUNT)
        .map(|number| format!("f{number}.o"))
        .collect();
    let makefile = format!(
        "all: {}\n\t@exit 3\n\n%.o: %.c\n\tsh -c 'gcc -O1 -c $< -o $@; exit $$?'\n",
        objects.join(" ")
    );
    fs::write(work.join("Makefile"), makefile)?;
    for number in 0..OBJECT_COUNT {
        let source = format!(
            "int f{number}(int a) {{ int s = 0; while (a-- > {number}) s += a * {number}; return s; }}\n"
        );
        fs::write(work.join(format!("f{number}.c")), source)?;
    }
    Ok(())
}

/// The bytes of all files in a folder. Files are preallocated, so their size is what they take; a
/// disk's own map of where a file lies (4 KiB and more on ext4) is not the file's.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| fs::symlink_metadata(entry.path()).ok());
    sizes.map(|metadata| metadata.len()).sum()
}
