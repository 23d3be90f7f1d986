//! Bar 9: wrong input of every kind gives one line and a non-zero exit, never a panic.

use super::{Board, Site};
use crate::house::ask;
use crate::{Answer, child};
use nix::unistd::Uid;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A file is cut at every multiple of this.
const CUT_BYTES: usize = 4096;
/// Where the format's version stands, after the magic.
const VERSION_OFFSET: usize = 8;
/// The user `nobody`.
const NOBODY: u32 = 65534;

/// Judges each wrong input against every verb that reads a file.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    let work = site.house.work("inputs")?;
    let good = record(site, &work)?;
    let bytes = fs::read(&good).map_err(|e| format!("{}: {e}", good.display()))?;
    let written = |name: &str, bytes: &[u8]| -> Answer<PathBuf> {
        let path = work.join(name);
        fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    };
    let noise: Vec<u8> = (0..bytes.len() as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let mut other_version = bytes.clone();
    other_version[VERSION_OFFSET] ^= 0x40;
    let wrong: [(&str, PathBuf); 6] = [
        ("missing", work.join("missing")),
        ("empty", written("empty", b"")?),
        ("random bytes", written("random", &noise)?),
        ("another version", written("version", &other_version)?),
        ("a directory", work.clone()),
        ("a dead pid", dead_pid()?.into()),
    ];
    for (name, path) in &wrong {
        board.judge_answer(
            name,
            every_verb(site, path).map(|problems| verdict(&problems, 4)),
        );
    }
    board.judge_answer("truncated at every 4 KiB", truncated(site, &work, &bytes));
    board.judge_answer("truncated while it is read", shrinking(site, &work, &bytes));
    board.judge_answer("a pid of another user", other_users_pid(site));
    for address in ["zebra", "", "0x", "0xfffffffffffffffff", "-1"] {
        let who = ask(
            &site.stackdepot,
            &["who".as_ref(), good.as_os_str(), address.as_ref()],
        )?;
        board.judge_answer(
            &format!("who {address:?}"),
            Ok(verdict(&[problem(&who)], 1)),
        );
    }
    for words in [
        vec!["run"],
        vec!["run", "--bytes", "none", "--", "true"],
        vec!["run", "--bytes", "1", "--", "true"],
        vec!["run", "--", "/no/such/program"],
        vec!["replay", "/no/such/corpus"],
        vec!["replay", "Makefile"],
        vec!["fly"],
    ] {
        let ran = ask(&site.stackdepot, &words)?;
        board.judge_answer(
            &format!("stackdepot {}", words.join(" ")),
            Ok(verdict(&[problem(&ran)], 1)),
        );
    }
    Ok(())
}

fn record(site: &Site, work: &Path) -> Answer<PathBuf> {
    let region = work.join("good");
    let mut words: Vec<OsString> = ["run", "--quiet", "--bytes", "1M", "-o"]
        .iter()
        .map(OsString::from)
        .collect();
    words.push(region.clone().into());
    words.extend(
        ["--", "sqlite3", ":memory:", "select 1"]
            .iter()
            .map(OsString::from),
    );
    let ran = ask(&site.stackdepot, &words)?;
    if !ran.status.success() {
        return Err(format!("could not record: {}", ran.errors()));
    }
    site.json("report", &region)?;
    Ok(region)
}

/// What is wrong with an answer to wrong input, if anything.
fn problem(ran: &child::Ran) -> Option<String> {
    let said = ran.errors();
    let lines = said.lines().count();
    if ran.crashed() {
        return Some(format!("crashed: {} {}", ran.status, said.trim()));
    }
    if ran.status.success() {
        return Some("exit status 0".to_owned());
    }
    (lines != 1).then(|| {
        format!(
            "{lines} lines on stderr: {:?}",
            said.lines().take(2).collect::<Vec<_>>()
        )
    })
}

fn verdict(problems: &[Option<String>], tried: usize) -> (bool, String) {
    let found: Vec<&String> = problems.iter().flatten().collect();
    let first = found
        .first()
        .map_or(String::new(), |problem| format!(", first: {problem}"));
    (
        found.is_empty(),
        format!("{} of {tried} wrong{first}", found.len()),
    )
}

fn every_verb(site: &Site, path: &Path) -> Answer<Vec<Option<String>>> {
    let mut problems = Vec::new();
    for verb in ["report", "events", "stats", "who"] {
        let mut words: Vec<OsString> = vec![verb.into(), path.into()];
        words.extend((verb == "who").then(|| "0x1000".into()));
        problems.push(
            problem(&ask(&site.stackdepot, &words)?).map(|problem| format!("{verb}: {problem}")),
        );
    }
    Ok(problems)
}

fn truncated(site: &Site, work: &Path, bytes: &[u8]) -> Answer<(bool, String)> {
    let path = work.join("truncated");
    let mut problems = Vec::new();
    for length in (0..bytes.len()).step_by(CUT_BYTES) {
        fs::write(&path, &bytes[..length]).map_err(|e| format!("{}: {e}", path.display()))?;
        let found = every_verb(site, &path)?;
        problems.extend(
            found
                .into_iter()
                .map(|problem| problem.map(|problem| format!("at {length}: {problem}"))),
        );
    }
    Ok(verdict(&problems, problems.len()))
}

/// A file that shrinks while `report` reads it: an error or a partial answer, in time, no crash.
fn shrinking(site: &Site, work: &Path, bytes: &[u8]) -> Answer<(bool, String)> {
    let path = work.join("shrinking");
    let (mut problems, mut partial) = (Vec::new(), 0);
    for round in 0..60_u64 {
        fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut report = Command::new(&site.stackdepot);
        let reading = report
            .arg("report")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let reading = reading.map_err(|e| child::cannot(&report, &e))?;
        std::thread::sleep(Duration::from_micros(round * 100));
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        file.set_len(bytes.len() as u64 * (round % 7) / 8)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let output = reading
            .wait_with_output()
            .map_err(|e| format!("report: {e}"))?;
        let ran = child::Ran {
            status: output.status,
            stdout: output.stdout,
            stderr: output.stderr,
        };
        partial += u32::from(ran.status.success());
        // A report that was through before the cut is right to succeed.
        problems.push(if ran.status.success() && !ran.crashed() {
            None
        } else {
            problem(&ran)
        });
    }
    let (passed, figure) = verdict(&problems, problems.len());
    Ok((
        passed,
        format!("{figure}; {partial} had been read or were partial"),
    ))
}

/// The pid of a process that has ended.
fn dead_pid() -> Answer<OsString> {
    let mut ended = Command::new("/bin/true")
        .spawn()
        .map_err(|e| format!("/bin/true: {e}"))?;
    ended.wait().map_err(|e| format!("wait: {e}"))?;
    Ok(ended.id().to_string().into())
}

/// Records a program as the user that we are, and asks about it as somebody else.
fn other_users_pid(site: &Site) -> Answer<(bool, String)> {
    if !Uid::effective().is_root() {
        // Process 1 is root's.
        return Ok(verdict(&every_verb(site, Path::new("1"))?, 4));
    }
    // A place that the other user may read: the answer must not be about the command's own file.
    let folder = Path::new("/dev/shm").join(format!("stackdepot-bars-{}", std::process::id()));
    fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let answer = ask_as_nobody(site, &folder);
    fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    answer
}

fn ask_as_nobody(site: &Site, folder: &Path) -> Answer<(bool, String)> {
    let command = folder.join("stackdepot");
    fs::copy(&site.stackdepot, &command).map_err(|e| format!("{}: {e}", command.display()))?;
    let mut runner = Command::new(&site.stackdepot);
    runner
        .args(["run", "--quiet", "--", "/bin/sleep", "20"])
        .current_dir(folder)
        .stdin(Stdio::null());
    let mut running = runner.spawn().map_err(|e| child::cannot(&runner, &e))?;
    let pid = wait_for_child(&running)?;
    let asked = child::run(
        Command::new(&command)
            .args(["report", &pid])
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY),
    );
    let own = child::run(
        Command::new(&site.stackdepot)
            .args(["report", &pid])
            .current_dir("/"),
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.parse().unwrap_or(i32::MAX)),
        nix::sys::signal::Signal::SIGTERM,
    )
    .map_err(|e| format!("kill {pid}: {e}"))?;
    running.wait().map_err(|e| format!("wait: {e}"))?;
    let (asked, own) = (asked?, own?);
    let (passed, figure) = verdict(&[problem(&asked)], 1);
    Ok((
        passed && own.status.success(),
        format!(
            "{figure}; its own user: {}; said {:?}",
            own.status,
            asked.errors().trim()
        ),
    ))
}

fn wait_for_child(running: &Child) -> Answer<String> {
    let started = Instant::now();
    let path = format!("/proc/{0}/task/{0}/children", running.id());
    while started.elapsed() < Duration::from_secs(10) {
        let children = fs::read_to_string(&path).unwrap_or_default();
        if let Some(pid) = children.split_whitespace().next() {
            // Time for the recorder to make its file.
            std::thread::sleep(Duration::from_millis(500));
            return Ok(pid.to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("`stackdepot run` started nothing".to_owned())
}
