//! Bar 6: SIGKILL of a recorded program and of `run` with it, at 100 random moments; the file must
//! be readable every time.

use super::{Board, Site};
use crate::house::ask;
use crate::{Answer, child};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KILL_COUNT: u64 = 100;
/// The latest moment of a kill; the program runs until it is killed.
const LATEST: Duration = Duration::from_millis(600);

/// Kills a hundred times and reads the file after each.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    let work = site.house.work("kill")?;
    let program = site.house.program("busy")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| e.to_string())?;
    let mut random = now.as_nanos() as u64 | 1;
    let (mut absent, mut recorded, mut problems) = (0, 0, Vec::new());
    // A kill before the file exists shows nothing; only the others count, up to a bound.
    for _ in 0..KILL_COUNT * 3 {
        if recorded + problems.len() as u64 == KILL_COUNT {
            break;
        }
        random = next(random);
        // A third of the moments lie in the first 30 ms, where the file comes into being.
        let latest = if random.is_multiple_of(3) {
            LATEST / 20
        } else {
            LATEST
        };
        let delay = latest.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64);
        let region = work.join("region");
        let _ = fs::remove_file(&region);
        kill_after(site, &program, &region, delay)?;
        if !region.exists() {
            absent += 1;
            continue;
        }
        match read_back(site, &region) {
            Ok(()) => recorded += 1,
            Err(problem) => problems.push(format!("after {delay:?}: {problem}")),
        }
    }
    let figure = format!(
        "{recorded} read, {absent} killed before the file existed, {} unreadable",
        problems.len()
    );
    board.judge(
        problems.is_empty() && recorded == KILL_COUNT,
        "killed at 100 moments",
        &figure,
    );
    problems
        .iter()
        .take(3)
        .for_each(|problem| println!("  {problem}"));
    Ok(())
}

fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

fn kill_after(site: &Site, program: &Path, region: &Path, delay: Duration) -> Answer<()> {
    let mut command = Command::new(&site.stackdepot);
    command
        .args(["run", "--quiet", "--bytes", "8M", "-o"])
        .arg(region)
        .arg("--")
        .arg(program);
    // A group of their own, so that one signal reaches both at the same moment.
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut runner = command.spawn().map_err(|e| child::cannot(&command, &e))?;
    std::thread::sleep(delay);
    let group = Pid::from_raw(i32::try_from(runner.id()).map_err(|e| e.to_string())?);
    killpg(group, Signal::SIGKILL).map_err(|e| format!("kill: {e}"))?;
    runner.wait().map_err(|e| format!("wait: {e}"))?;
    Ok(())
}

/// `report` must read it; `who` must answer, also about an address that the events name.
fn read_back(site: &Site, region: &Path) -> Answer<()> {
    site.json("report", region)
        .map_err(|e| format!("report: {e}"))?;
    let events = site
        .json("events", region)
        .map_err(|e| format!("events: {e}"))?;
    let known = events["events"]
        .as_array()
        .and_then(|events| events.first()?["address"].as_str());
    let address = known.unwrap_or("0x10");
    let who = ask(
        &site.stackdepot,
        &[
            "who".as_ref(),
            "--json".as_ref(),
            region.as_os_str(),
            address.as_ref(),
        ],
    )?;
    match (who.status.code(), known) {
        (Some(0), _) | (Some(2), None) => Ok(()),
        _ => Err(format!(
            "who {address}: {} {}",
            who.status,
            who.errors().trim()
        )),
    }
}
