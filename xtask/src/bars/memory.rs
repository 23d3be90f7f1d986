//! Bar 8: the bound in bytes: resident memory, millions of live blocks, builds with many processes.

use super::{Board, Site};
use crate::house::ask;
use crate::{Answer, child};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
    for is_shared in [false, true] {
        let place = if is_shared {
            "in shared memory"
        } else {
            "with -o"
        };
        let item = format!("a build with 500 processes, --bytes 64M, {place}");
        board.judge_answer(&item, build(site, is_shared));
    }
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

fn build(site: &Site, is_shared: bool) -> Answer<(bool, String)> {
    let work = site.house.work("build")?;
    write_project(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let bare = make(&work, &[], |_| {})?;
    let records = work.join("records");
    fs::create_dir(&records).map_err(|e| format!("{}: {e}", records.display()))?;
    let mut recorder = recorder(site, 64, &records.join("region"));
    if is_shared {
        // Without `-o FILE`: files lie in shared memory, and are moved here at the end.
        recorder.drain(5..7);
    }
    let (mut most, mut most_moving, mut runner) = (Size::default(), 0, 0);
    let ours = make(&work, &recorder, |pid| {
        runner = pid;
        let files = if is_shared {
            shared_files(pid)
        } else {
            size_of_files(&records, "")
        };
        most.bytes = most.bytes.max(files.bytes);
        most.blocks_bytes = most.blocks_bytes.max(files.blocks_bytes);
        let moved = size_of_files(&work, "stackdepot.");
        most_moving = most_moving.max(files.bytes + moved.bytes);
    })?;
    let (folder, prefix) = if is_shared {
        (&work, "stackdepot.")
    } else {
        (&records, "")
    };
    let first = first_file(folder, prefix).ok_or("no first file at the end")?;
    let unrecorded = site.json("report", &first)?["lost"]["children_unrecorded"].as_u64();
    let files = names(folder, prefix).count();
    let left = shared_files(runner).bytes;
    let figure = format!(
        "at most {} KiB in files ({} KiB in blocks; {} KiB while they were moved), {files} files at the end, unrecorded {unrecorded:?}, left behind {left}, status {:?} (bare {:?})",
        most.bytes >> 10,
        most.blocks_bytes >> 10,
        most_moving >> 10,
        ours.status,
        bare.status
    );
    let same = ours == bare && bare.status == Some(MAKE_FAILED);
    // A disk's own map of where a file lies (4 KiB and more on ext4) is not the file's; shared memory has none.
    let blocks_fit = !is_shared || most.blocks_bytes <= 64 * MIB;
    let fits = most.bytes <= 64 * MIB && blocks_fit && most.bytes > 0 && left == 0;
    Ok((same && fits && unrecorded.is_some(), figure))
}

/// Builds the project in `work` and answers what came of it; calls `look` every 10 ms meanwhile.
fn make(work: &Path, prefix: &[OsString], mut look: impl FnMut(u32)) -> Answer<Built> {
    let mut words = prefix
        .iter()
        .cloned()
        .chain(["make".into(), "-j2".into(), "-s".into()]);
    let mut command = Command::new(words.next().ok_or("no program")?);
    command.args(words).current_dir(work);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = command.spawn().map_err(|e| child::cannot(&command, &e))?;
    let status = loop {
        look(running.id());
        match running.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("wait: {error}")),
        }
    };
    let mut built = Built {
        status: status.code(),
        objects: Vec::new(),
    };
    for number in 0..OBJECT_COUNT {
        let object = work.join(format!("f{number}.o"));
        built.objects.push(fs::read(&object).unwrap_or_default());
        let _ = fs::remove_file(object);
    }
    Ok(built)
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

/// What files take together: by their sizes, and by the blocks that the file system counts.
#[derive(Default)]
struct Size {
    bytes: u64,
    blocks_bytes: u64,
}

fn names(folder: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

fn size_of_files(folder: &Path, prefix: &str) -> Size {
    let mut size = Size::default();
    for metadata in names(folder, prefix).filter_map(|path| fs::symlink_metadata(path).ok()) {
        size.bytes += metadata.len();
        size.blocks_bytes += metadata.blocks() * 512;
    }
    size
}

/// The files of the run that process `runner` started, while they lie in shared memory. A folder
/// of a run is called after its runner.
fn shared_files(runner: u32) -> Size {
    let root = format!("/dev/shm/stackdepot-{}", nix::unistd::geteuid());
    let mut size = Size::default();
    for folder in names(Path::new(&root), &format!("{runner}-")) {
        let files = size_of_files(&folder, "");
        size.bytes += files.bytes;
        size.blocks_bytes += files.blocks_bytes;
    }
    size
}

/// The first process's file has the shortest name.
fn first_file(folder: &Path, prefix: &str) -> Option<PathBuf> {
    names(folder, prefix).min_by_key(|path| path.as_os_str().len())
}
