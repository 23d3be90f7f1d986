//! The recorded instruction counts of ours, and what a change did to them.
//!
//! Key type: [`Baseline`], the lines of `bench/instructions.txt`: workload, path, count, and the
//! reason for that count. A line without a reason is refused, so nobody raises a count without saying why.

use std::fmt::Write;
use std::path::Path;

use super::Count;

/// A count may rise by this part.
const LATITUDE: f64 = 0.02;

const HEAD: &str = "\
# Instructions per operation of ours, counted by callgrind on the workload in git (`small`, with wide
# nodes) and on the made-up one (`proposal`), with what the processor named below can do.
# `cargo xtask bench --instructions` fails when a path takes 2 % more; a change that has to says why:
# `cargo xtask bench --record-instructions REASON`.
";

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    /// The instructions of the processor that the depot chooses by.
    processor: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq)]
struct Line {
    workload: String,
    path: String,
    instructions: f64,
    reason: String,
}

/// A path that is not what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It takes more than it may: workload and path, recorded, counted.
    Rose(String, f64, f64),
    /// It takes less by so much that the record should follow.
    Fell(String, f64, f64),
    /// It was never recorded, or is recorded and was not counted.
    Unknown(String),
}

impl Change {
    /// Whether the check fails by it.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Change::Fell(..))
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |from: &f64, to: &f64| (to / from - 1.0) * 100.0;
        match self {
            Change::Rose(path, from, to) => write!(
                out,
                "{path}: FAILED: {to:.1} instructions, {:+.1} % from {from:.1}",
                percent(from, to)
            ),
            Change::Fell(path, from, to) => write!(
                out,
                "{path}: {to:.1} instructions, {:+.1} % from {from:.1}: record it",
                percent(from, to)
            ),
            Change::Unknown(path) => {
                write!(out, "{path}: FAILED: recorded and counted do not meet")
            }
        }
    }
}

impl Baseline {
    /// Reads the record; an absent file is an empty one.
    pub fn read(file: &Path) -> Result<Baseline, String> {
        match std::fs::read_to_string(file) {
            Ok(text) => Baseline::parse(&text).map_err(|e| format!("{}: {e}", file.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Baseline::default()),
            Err(e) => Err(format!("{}: {e}", file.display())),
        }
    }

    fn parse(text: &str) -> Result<Baseline, String> {
        let mut baseline = Baseline::default();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            match fields.as_slice() {
                ["processor", processor] => baseline.processor = (*processor).to_owned(),
                [workload, path, count, reason] if !reason.is_empty() => {
                    let instructions = count.parse();
                    baseline.lines.push(Line {
                        workload: (*workload).to_owned(),
                        path: (*path).to_owned(),
                        instructions: instructions
                            .map_err(|_| format!("line {number}: `{count}`"))?,
                        reason: (*reason).to_owned(),
                    });
                }
                _ => {
                    return Err(format!(
                        "line {number}: not `workload | path | count | reason`"
                    ));
                }
            }
        }
        Ok(baseline)
    }

    /// The record with what was counted on this machine in it. Counts within the latitude stay as
    /// they are, so that small steps cannot add up unseen.
    ///
    /// # Errors
    /// A reason that is none.
    pub fn updated(&self, counts: &[Count], reason: &str) -> Result<Baseline, String> {
        if reason.trim().is_empty() || reason.contains(['|', '\n']) {
            return Err("a record takes a reason, in one line without `|`".to_owned());
        }
        let line = |count: &Count| {
            let recorded = self.lines.iter().find(|line| line.is_of(count));
            recorded
                .filter(|line| change(line, count).is_none())
                .cloned()
                .unwrap_or_else(|| Line {
                    workload: count.workload.clone(),
                    path: count.path.to_owned(),
                    instructions: count.instructions,
                    reason: reason.to_owned(),
                })
        };
        Ok(Baseline {
            processor: processor(),
            lines: counts.iter().map(line).collect(),
        })
    }

    /// Writes the record.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        std::fs::write(file, self.to_text()).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}processor | {}\n", self.processor);
        for line in &self.lines {
            let Line {
                workload,
                path,
                instructions,
                reason,
            } = line;
            let _ = writeln!(
                text,
                "{workload:<8} | {path:<23} | {instructions:>7.1} | {reason}"
            );
        }
        text
    }

    /// What changed since the record, on the same kind of machine.
    pub fn changes(&self, counts: &[Count]) -> Result<Vec<Change>, String> {
        if self.processor != processor() {
            return Err(format!(
                "the recorded instructions are of a processor with `{}`, this one has `{}`",
                self.processor,
                processor()
            ));
        }
        let mut changes = Vec::new();
        for line in &self.lines {
            match counts.iter().find(|count| line.is_of(count)) {
                Some(count) => changes.extend(change(line, count)),
                None => changes.push(Change::Unknown(line.name())),
            }
        }
        let is_new = |count: &&Count| !self.lines.iter().any(|line| line.is_of(count));
        let new = counts.iter().filter(is_new);
        let name = |count: &Count| format!("{} on {}", count.path, count.workload);
        changes.extend(new.map(|count| Change::Unknown(name(count))));
        Ok(changes)
    }
}

impl Line {
    fn is_of(&self, count: &Count) -> bool {
        (self.workload.as_str(), self.path.as_str()) == (count.workload.as_str(), count.path)
    }

    fn name(&self) -> String {
        format!("{} on {}", self.path, self.workload)
    }
}

fn change(line: &Line, count: &Count) -> Option<Change> {
    let (from, to) = (line.instructions, count.instructions);
    if to > from * (1.0 + LATITUDE) {
        Some(Change::Rose(line.name(), from, to))
    } else if to < from * (1.0 - LATITUDE) {
        Some(Change::Fell(line.name(), from, to))
    } else {
        None
    }
}

/// What the depot asks of the processor, as valgrind's has it, too.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("aes", is_x86_feature_detected!("aes")),
        ("avx2", is_x86_feature_detected!("avx2")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found = [("", false); 0];
    let found = found.iter().filter(|(_, is_there)| *is_there);
    let names: Vec<&str> = found.map(|(name, _)| *name).collect();
    format!("{} {}", std::env::consts::ARCH, names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &'static str, instructions: f64) -> Count {
        Count {
            path,
            side: "ours",
            workload: "test".to_owned(),
            instructions,
        }
    }

    #[test]
    fn two_percent_more_fail_and_less_does_not() {
        let baseline = Baseline::default()
            .updated(&[count("fetch", 100.0)], "first")
            .unwrap();
        assert_eq!(baseline.changes(&[count("fetch", 101.9)]), Ok(Vec::new()));
        let rose = baseline.changes(&[count("fetch", 102.1)]).unwrap();
        assert!(rose.iter().any(Change::is_failure), "{rose:?}");
        let fell = baseline.changes(&[count("fetch", 90.0)]).unwrap();
        assert!(fell.len() == 1 && !fell[0].is_failure());
    }

    #[test]
    fn small_steps_do_not_add_up() {
        let mut baseline = Baseline::default()
            .updated(&[count("fetch", 100.0)], "first")
            .unwrap();
        for step in 1..4 {
            let counts = [count("fetch", 100.0 + f64::from(step))];
            let is_failure = baseline
                .changes(&counts)
                .unwrap()
                .iter()
                .any(Change::is_failure);
            assert_eq!(is_failure, step > 2);
            if !is_failure {
                baseline = baseline.updated(&counts, "another").unwrap();
            }
        }
    }

    #[test]
    fn what_is_recorded_or_counted_alone_fails() {
        let baseline = Baseline::default()
            .updated(&[count("fetch", 100.0)], "first")
            .unwrap();
        let changes = baseline.changes(&[count("save", 100.0)]).unwrap();
        assert_eq!(
            changes.iter().filter(|change| change.is_failure()).count(),
            2
        );
    }

    #[test]
    fn the_file_comes_back_as_it_was_and_every_line_has_its_reason() {
        let baseline = Baseline::default()
            .updated(&[count("fetch", 100.5)], "first record")
            .unwrap();
        assert_eq!(Baseline::parse(&baseline.to_text()), Ok(baseline));
        assert!(Baseline::parse("test | fetch | 100.5 |\n").is_err());
        assert!(Baseline::default().updated(&[], " ").is_err());
        assert!(Baseline::parse("test | fetch | many | why\n").is_err());
    }

    #[test]
    fn another_processor_is_not_compared() {
        let baseline = Baseline::parse("processor | z80\ntest | fetch | 1.0 | small\n").unwrap();
        assert!(baseline.changes(&[count("fetch", 1.0)]).is_err());
    }
}
