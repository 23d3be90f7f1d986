//! `cargo xtask attackers`: shows that each attacker finds the bugs that are planted for it.
//!
//! A planted bug is a patch in `crates/stackdepot/tests/planted`, whose first lines name the bug and
//! the attackers that must find it. A scratch copy of the checkout gets one patch after the other.
//! An attacker that finds something without a bug, or nothing with one, fails the task.

use crate::fuzz::Fuzzer;
use crate::house::House;
use crate::sanitize::Sanitizer;
use crate::{Answer, attack, child, fork_storm, hostile, linear, models};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "usage: cargo xtask attackers [--sample N] [BUG...]";
/// Longer than an attacker takes; then it hangs, which is a finding, too.
const HANG_SECONDS: u64 = 90;
/// The same for the attackers that interrupt every instruction or fork hundreds of times.
const LONG_HANG_SECONDS: u64 = 600;

/// A bug to plant.
struct Planted {
    name: String,
    patch: PathBuf,
    bug: String,
    attackers: Vec<String>,
}

/// How an attack ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Clean,
    Found(String),
}

/// Plants every bug, every Nth, or those that are named.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let planted = chosen(planted(house)?, arguments)?;
    let scratch = Scratch::new(house)?;
    let attackers: BTreeSet<&str> = planted
        .iter()
        .flat_map(|planted| planted.attackers.iter().map(String::as_str))
        .collect();
    let mut failures = 0;
    for attacker in attackers {
        if let Ended::Found(finding) = scratch.attack(attacker, false)? {
            println!("attackers: {attacker}: FAILED without a planted bug: {finding}");
            failures += 1;
        }
    }
    let mut caught = 0;
    for bug in &planted {
        scratch.patch(bug, &[])?;
        for attacker in &bug.attackers {
            match scratch.attack(attacker, true)? {
                Ended::Found(finding) => {
                    println!("attackers: {}: caught by {attacker}: {finding}", bug.name);
                    caught += 1;
                }
                Ended::Clean => {
                    println!(
                        "attackers: {}: MISSED by {attacker} ({})",
                        bug.name, bug.bug
                    );
                    failures += 1;
                }
            }
        }
        scratch.patch(bug, &["--reverse"])?;
    }
    let count = planted.len();
    println!("attackers: {count} bugs planted, {caught} times caught, {failures} failures");
    Ok(failures == 0)
}

/// The planted bugs that can no longer be planted, one line each.
pub fn stale(house: &House) -> Answer<Vec<String>> {
    let mut findings = Vec::new();
    for bug in planted(house)? {
        if !child::run(&mut patch(&house.root, &bug, &["--dry-run"]))?
            .status
            .success()
        {
            findings.push(format!("{} no longer applies", bug.name));
        }
    }
    Ok(findings)
}

/// The command that plants a bug in the files below a folder.
fn patch(root: &Path, bug: &Planted, options: &[&str]) -> Command {
    let mut patch = Command::new("patch");
    patch.current_dir(root);
    patch
        .args(["--strip=1", "--silent", "--force"])
        .args(options);
    patch.arg("--input").arg(&bug.patch);
    patch
}

fn planted(house: &House) -> Answer<Vec<Planted>> {
    let folder = house.root.join("crates/stackdepot/tests/planted");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.sort();
    patches.into_iter().map(Planted::read).collect()
}

fn chosen(mut planted: Vec<Planted>, arguments: &[String]) -> Answer<Vec<Planted>> {
    match arguments {
        [] => {}
        [option, every] if option == "--sample" => {
            let every = every.parse().ok().filter(|every| *every > 0);
            let every = every.ok_or(USAGE)?;
            planted = planted.into_iter().step_by(every).collect();
        }
        names => {
            let is_known = |name: &String| planted.iter().any(|bug| bug.name == *name);
            if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
                return Err(format!("no planted bug `{unknown}`; {USAGE}"));
            }
            planted.retain(|bug| names.contains(&bug.name));
        }
    }
    Ok(planted)
}

impl Planted {
    fn read(patch: PathBuf) -> Answer<Planted> {
        let text = fs::read_to_string(&patch).map_err(|e| format!("{}: {e}", patch.display()))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.ok_or_else(|| format!("{}: no line `{name}`", patch.display()))
        };
        let attackers = field("attackers: ")?.split(' ').map(str::to_owned);
        Ok(Planted {
            name: patch
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bug: field("bug: ")?.to_owned(),
            attackers: attackers.collect(),
            patch: patch.clone(),
        })
    }
}

/// A copy of the checkout with a build folder of its own.
struct Scratch {
    house: House,
    fuzzer: Fuzzer,
}

impl Scratch {
    fn new(house: &House) -> Answer<Scratch> {
        let root = house.work("attackers")?;
        let mut list = Command::new("git");
        list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let listed = child::must(list.current_dir(&house.root))?;
        for file in String::from_utf8_lossy(&listed.stdout).lines() {
            copy(&house.root.join(file), &root.join(file))?;
        }
        let fuzzer = Fuzzer::new(house, &root);
        let target = house.target.join("attackers");
        let house = House { root, target };
        Ok(Scratch { house, fuzzer })
    }

    fn patch(&self, bug: &Planted, options: &[&str]) -> Answer<()> {
        let patched = child::must(&mut patch(&self.house.root, bug, options));
        patched.map_err(|e| format!("{} no longer applies, bring it up to date: {e}", bug.name))?;
        Ok(())
    }

    fn attack(&self, attacker: &str, is_planted: bool) -> Answer<Ended> {
        if let Some(target) = attacker.strip_prefix("fuzz:") {
            let finding = self.fuzzer.attack(target, is_planted)?;
            return Ok(finding.map_or(Ended::Clean, Ended::Found));
        }
        if attacker.starts_with("loom_") {
            let finding = models::attack(&self.house, attacker)?;
            return Ok(finding.map_or(Ended::Clean, Ended::Found));
        }
        let mut tests = match (attacker, Sanitizer::named(attacker)) {
            (_, Some(sanitizer)) => sanitizer.tests(&self.house),
            ("fault", _) => attack::fault_tests(&self.house),
            ("fork_storm", _) => fork_storm::tests(&self.house),
            ("linear", _) => linear::tests(&self.house),
            ("collide" | "overload" | "wrap" | "thrift", _) => {
                hostile::tests(&self.house, &format!("{attacker}::"))
            }
            _ => attack::tests(&self.house, attacker),
        };
        if is_planted {
            // Some bugs last for two instructions; it ends at its third finding.
            tests.env("STACKDEPOT_SAMPLE", "1");
        }
        self.build(&tests)?;
        let mut limited = Command::new("timeout");
        let patience = match attacker {
            "every_instruction" | "fork_storm" => LONG_HANG_SECONDS,
            _ => HANG_SECONDS,
        };
        limited.args(["--kill-after=1", &patience.to_string()]);
        let ran = child::run(&mut self.inherit(&mut limited, &tests))?;
        if ran.status.success() {
            return Ok(Ended::Clean);
        }
        if ran.status.code() == Some(124) {
            return Ok(Ended::Found("it hangs".to_owned()));
        }
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.errors();
        let is_finding = |line: &&str| {
            line.starts_with("FINDING ")
                || line.contains(" before step ")
                || line.starts_with("no line: ")
                || line.contains("assertion")
                || line.starts_with("SUMMARY: ")
                || line.contains("panicked at")
        };
        let finding = said.lines().find(is_finding).unwrap_or("a test failed");
        Ok(Ended::Found(finding.to_owned()))
    }

    /// Builds first: a bug that does not compile is no bug.
    fn build(&self, tests: &Command) -> Answer<()> {
        let options = tests.get_args().take_while(|argument| *argument != "--");
        let mut build = Command::new(tests.get_program());
        build.args(options).arg("--no-run");
        build.envs(variables(tests));
        child::must(&mut self.inherit(&mut Command::new("env"), &build)).map(|_| ())
    }

    /// `wrapper` with the command, folder and variables of `tests` behind it.
    fn inherit(&self, wrapper: &mut Command, tests: &Command) -> Command {
        let mut all = Command::new(wrapper.get_program());
        all.args(wrapper.get_args())
            .arg(tests.get_program())
            .args(tests.get_args());
        all.current_dir(&self.house.root)
            .env("CARGO_TARGET_DIR", &self.house.target);
        all.envs(variables(tests));
        all
    }
}

fn variables(command: &Command) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    let all = command.get_envs();
    all.filter_map(|(name, value)| Some((name, value?)))
}

fn copy(from: &Path, to: &Path) -> Answer<()> {
    if !from.is_file() {
        return Ok(());
    }
    let folder = to.parent().ok_or("a file without a folder")?;
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    fs::copy(from, to).map_err(|e| format!("{}: {e}", from.display()))?;
    Ok(())
}
