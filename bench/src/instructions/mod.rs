//! Instructions per operation on the hot paths, counted by callgrind: the figure that does not depend
//! on the weather.
//!
//! Read in this order: this file (what is counted, and by which processes), `paths` (the loops),
//! `baseline` (the recorded figures that a change is held to). A path is counted in a process of its
//! own: the benchmark starts itself under valgrind with the word `count`, and only what runs inside
//! of [`paths::counted`] is counted.

mod baseline;
mod paths;

use std::path::{Path, PathBuf};
use std::process::Command;

use stackdepot_corpus::Corpus;

use crate::options::Options;
use crate::statistics::Verdict;
use crate::{proposal, workload};
use baseline::{Baseline, Change};
use paths::PATHS;

/// The word that makes the benchmark the counted process.
pub const COUNT: &str = "count";
/// The workload in git, and the record, in the checkout.
const SMALL: &str = "crates/stackdepot-corpus/tests/data/small.stk.zst";
const RECORD: &str = "bench/instructions.txt";
/// Events of a workload that are counted; the rest would take minutes.
const EVENT_COUNT: usize = 20_000;

/// A path of one side on one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// The path's name.
    pub path: &'static str,
    /// Whose it is.
    pub side: &'static str,
    /// The workload.
    pub workload: String,
    /// Instructions per operation.
    pub instructions: f64,
}

/// Where counting happens.
pub struct Counter {
    /// A folder for what valgrind writes.
    pub work: PathBuf,
    /// The folder of the peers' shared objects.
    pub peers: PathBuf,
}

impl Counter {
    /// Counts those paths of a workload that `wanted` chooses by path and side; sides that are
    /// missing are left out.
    pub fn count(
        &self,
        name: &str,
        corpus: &Corpus,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<Count>, String> {
        let file = self.work.join("counted.stk");
        let raw = corpus.first_events(EVENT_COUNT).to_raw();
        std::fs::write(&file, raw).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut counts = Vec::new();
        for path in PATHS {
            if !wanted(path.name, path.side) || (path.missing)().is_some() {
                continue;
            }
            counts.push(Count {
                path: path.name,
                side: path.side,
                workload: name.to_owned(),
                instructions: self.instructions(path, &file)?,
            });
        }
        Ok(counts)
    }

    fn instructions(&self, path: &paths::Path, workload: &Path) -> Result<f64, String> {
        let this = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        let out = self.work.join("callgrind.out");
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args([
                "--tool=callgrind",
                "--toggle-collect=*instructions*counted*",
            ])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(this)
            .args([COUNT, path.name, path.side])
            .arg(workload)
            .arg(&self.peers);
        let ran = valgrind
            .output()
            .map_err(|e| format!("valgrind: {e}; run `cargo xtask setup`"))?;
        let failed = |what: &str| {
            let errors = String::from_utf8_lossy(&ran.stderr);
            // Valgrind's own lines begin so.
            let said = errors.lines().find(|line| !line.starts_with("=="));
            let said = said.unwrap_or_default();
            format!("{} of {}: {what}: {said}", path.name, path.side)
        };
        if !ran.status.success() {
            return Err(failed("ended badly under valgrind"));
        }
        let operations: f64 = String::from_utf8_lossy(&ran.stdout)
            .trim()
            .parse()
            .map_err(|_| failed("did not say how many operations"))?;
        let profile =
            std::fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        let total = total(&profile).ok_or_else(|| failed("was not counted"))?;
        Ok(total as f64 / operations)
    }
}

/// The instructions of a whole profile; none when nothing was collected.
fn total(profile: &str) -> Option<u64> {
    let line = profile
        .lines()
        .find_map(|line| line.strip_prefix("summary: "));
    line?.trim().parse().ok().filter(|total| *total > 0)
}

/// Counts all paths on the workload in git and on the made-up one, and the stored save on each recorded
/// workload that is at hand; prints, then compares ours with the record or changes it. Answers
/// the counts, and whether ours is within the record.
pub fn run(options: &Options) -> Result<(Vec<Count>, bool), String> {
    let counter = Counter {
        work: options.work.clone(),
        peers: options.peers.clone(),
    };
    let (mut all, mut ours) = (Vec::new(), Vec::new());
    for (name, corpus) in [
        ("small", open(&options.checkout.join(SMALL))?),
        (proposal::NAME, proposal::corpus()?),
    ] {
        let counts = counter.count(name, &corpus, |_, _| true)?;
        print!("{}", table(name, &counts));
        ours.extend(counts.iter().filter(|count| count.side == "ours").cloned());
        all.extend(counts);
    }
    if !options.corpora.as_os_str().is_empty() {
        for file in workload::files(&options.corpora)? {
            let name = workload::name(&file);
            let counts = counter.count(&name, &open(&file)?, |path, _| path == paths::STORED)?;
            print!("{}", table(&name, &counts));
            all.extend(counts);
        }
    }
    let record = options.checkout.join(RECORD);
    let baseline = Baseline::read(&record)?;
    if let Some(reason) = &options.record_reason {
        baseline.updated(&ours, reason)?.write(&record)?;
        println!("recorded in {RECORD}");
        return Ok((all, true));
    }
    let changes = baseline.changes(&ours)?;
    changes.iter().for_each(|change| println!("{change}"));
    let is_within = !changes.iter().any(Change::is_failure);
    let verdict = if is_within {
        Verdict::Met
    } else {
        Verdict::NotMet
    };
    println!("bar 8: instructions of ours / those recorded <= 1.02: {verdict}");
    Ok((all, is_within))
}

fn open(file: &Path) -> Result<Corpus, String> {
    Corpus::open(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// A line for each path, with every side's count beside ours.
fn table(workload: &str, counts: &[Count]) -> String {
    let mut text = format!("instructions per operation on {workload}\n");
    for path in paths::names() {
        let of_path: Vec<String> = counts
            .iter()
            .filter(|count| count.path == path)
            .map(|count| format!("{} {:.0}", count.side, count.instructions))
            .collect();
        if !of_path.is_empty() {
            text += &format!("  {path:<24} {}\n", of_path.join(", "));
        }
    }
    text
}

/// The counted process: `PATH SIDE WORKLOAD PEERS`; says how many operations it did.
pub fn count_here(words: &[String]) -> Result<(), String> {
    let [path, side, workload, peers] = words else {
        return Err(format!("{COUNT} takes PATH SIDE WORKLOAD PEERS"));
    };
    crate::peers::library::set_folder(peers.into());
    let raw = std::fs::read(workload).map_err(|e| format!("{workload}: {e}"))?;
    let corpus = Corpus::from_raw(raw.as_slice()).map_err(|e| format!("{workload}: {e}"))?;
    let found = PATHS
        .iter()
        .find(|known| known.name == path && known.side == side);
    let found = found.ok_or_else(|| format!("{side} has no path `{path}`"))?;
    println!("{}", (found.run)(&paths::workload(corpus))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_without_anything_collected_is_no_count() {
        assert_eq!(total("events: Ir\nsummary: 1234\n\n"), Some(1234));
        assert_eq!(total("events: Ir\nsummary: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn every_path_has_a_name_of_its_own_on_each_side() {
        for (index, path) in PATHS.iter().enumerate() {
            let same = |other: &paths::Path| (other.name, other.side) == (path.name, path.side);
            assert_eq!(PATHS.iter().position(same), Some(index), "{}", path.name);
        }
    }
}
