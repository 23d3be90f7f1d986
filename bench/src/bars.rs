//! The bars of this benchmark: which figure is held to which, and what came of it.
//!
//! Key types: [`Clause`], one comparison that a bar asks for on each of its workloads, and
//! [`Finding`], its verdict: the worst over the workloads. What has no figure is undecided.

use std::fmt;

use crate::bound::{AtBound, cost};
use crate::figure::{Figure, Measure};
use crate::measure::{hits, onto, replay, threads};
use crate::statistics::{Bar, Ratio, Verdict};

/// One comparison.
pub struct Clause {
    /// The bar's number.
    pub number: u32,
    /// The task that measures both sides.
    pub task: &'static str,
    /// What of ours.
    pub ours: Measure,
    /// What of the other side.
    pub theirs: Measure,
    /// The other side.
    pub side: &'static str,
    /// How their ratio may be.
    pub bar: Bar,
    /// The workloads of the clause.
    pub scope: Scope,
}

/// On which workloads a clause is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every recorded one.
    Every,
    /// Those with many stacks.
    Large,
    /// None: the task has stacks of its own.
    Own,
}

/// Workloads in which the stacks, not the fixed costs, take the memory.
const LARGE: [&str; 3] = ["node", "python", "clang"];
/// What figures without a workload have in its place.
pub const OWN: &str = "made up";

/// All clauses, by number.
pub fn clauses() -> Vec<Clause> {
    let on = |number, task, ours, theirs, side, bar, scope| Clause {
        number,
        task,
        ours,
        theirs,
        side,
        bar,
        scope,
    };
    let same = |number, task, measure, side, bar| {
        on(number, task, measure, measure, side, bar, Scope::Every)
    };
    let large = |measure, task, side, bar| on(5, task, measure, measure, side, bar, Scope::Large);
    let own = |ours, theirs, most| {
        on(
            3,
            "onto",
            ours,
            theirs,
            "ours",
            Bar::AtMost(most),
            Scope::Own,
        )
    };
    let evicting = |index: usize| {
        let (ours, theirs) = (cost::MEASURES[index].0, cost::MEASURES[0].0);
        on(
            6,
            "bound",
            ours,
            theirs,
            "ours",
            Bar::AtMost(1.5),
            Scope::Every,
        )
    };
    let (most, least) = (Bar::AtMost, Bar::AtLeast);
    let referenced = "Linux refcounted";
    let mut clauses = vec![
        same(1, "stored", hits::STORED, "LLVM", most(1.0)),
        same(1, "stored", hits::DEPENDENT, "LLVM", most(1.0)),
        same(1, "held-stored", hits::HELD_STORED, referenced, most(0.45)),
        same(
            1,
            "held-stored",
            hits::HELD_DEPENDENT,
            referenced,
            most(0.45),
        ),
        same(1, "stored", hits::STORED, "limit", most(2.2)),
        same(1, "stored", hits::DEPENDENT, "limit", most(2.2)),
        same(2, "first", replay::FIRST, "LLVM", most(1.0)),
        same(2, "stored", hits::FETCH, "LLVM", most(1.0)),
        same(2, "ring", replay::RING, referenced, most(0.5)),
        same(2, "held", replay::HELD, referenced, most(0.5)),
        own(onto::ONTO_16, onto::PLAIN_8, 1.2),
        own(onto::ONTO_18, onto::PLAIN_8, 1.2),
        own(onto::ONTO_248, onto::PLAIN_8, 1.2),
        own(onto::ONTO_256, onto::PLAIN_8, 1.2),
        own(onto::ONTO_256, onto::ONTO_16, 1.15),
        same(4, "threads", threads::TWO, "LLVM", least(0.97)),
        same(4, "threads", threads::HOT_TWO, "LLVM", least(0.97)),
        large(replay::RESIDENT, "first", "LLVM", most(0.35)),
        large(
            replay::RESIDENT_HELD,
            "resident-held",
            referenced,
            most(0.25),
        ),
        evicting(1),
        evicting(2),
        evicting(3),
        evicting(4),
    ];
    if threads::processor_count() > 2 {
        clauses.push(same(4, "threads", threads::ALL, "LLVM", least(0.97)));
        clauses.push(same(4, "threads", threads::HOT_ALL, "LLVM", least(0.97)));
    }
    clauses.sort_by_key(|clause| clause.number);
    clauses
}

/// What became of a clause.
pub struct Finding {
    /// The worst of its verdicts.
    pub verdict: Verdict,
    /// Of each workload its ratio and verdict.
    pub ratios: Vec<(String, Ratio, Verdict)>,
    /// Why there is nothing to judge, if so.
    pub missing: Option<String>,
}

impl Clause {
    /// Judges the clause on all of the `workloads` that it is about.
    pub fn judge(&self, figures: &[Figure], workloads: &[String]) -> Finding {
        let mut finding = Finding {
            verdict: Verdict::Met,
            ratios: Vec::new(),
            missing: None,
        };
        for workload in self.workloads(workloads) {
            let ours = rounds(figures, self.ours, &workload, "ours");
            let theirs = rounds(figures, self.theirs, &workload, self.side);
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => {
                    let ratio = Ratio::new(ours, theirs);
                    let verdict = self.bar.judge(ratio);
                    finding.ratios.push((workload, ratio, verdict));
                    finding.verdict = worse(finding.verdict, verdict);
                }
                (None, _) => finding.miss(format!("ours has no figure on {workload}")),
                (_, None) => finding.miss(format!("{} has no figure on {workload}", self.side)),
            }
        }
        if finding.ratios.is_empty() && finding.missing.is_none() {
            finding.miss("no workload of this bar".to_owned());
        }
        finding
    }

    /// Those of the workloads that the clause is about.
    pub fn workloads(&self, workloads: &[String]) -> Vec<String> {
        let recorded = workloads
            .iter()
            .filter(|name| *name != crate::proposal::NAME);
        match self.scope {
            Scope::Every => recorded.cloned().collect(),
            Scope::Large => recorded
                .filter(|name| LARGE.contains(&name.as_str()))
                .cloned()
                .collect(),
            Scope::Own => vec![OWN.to_owned()],
        }
    }
}

impl Finding {
    fn miss(&mut self, reason: String) {
        self.missing.get_or_insert(reason);
        self.verdict = worse(self.verdict, Verdict::Undecided);
    }
}

/// Not met is worse than undecided, which is worse than met.
pub fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::NotMet, _) | (_, Verdict::NotMet) => Verdict::NotMet,
        (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
        (Verdict::Met, Verdict::Met) => Verdict::Met,
    }
}

fn rounds<'f>(
    figures: &'f [Figure],
    measure: Measure,
    workload: &str,
    side: &str,
) -> Option<&'f [f64]> {
    let found = figures.iter().find(|figure| {
        figure.measure == measure && figure.workload == workload && figure.side == side
    });
    found
        .map(|figure| figure.rounds.as_slice())
        .filter(|rounds| !rounds.is_empty())
}

/// `bar 1: save stored / LLVM <= 1: NOT MET: sqlite 1.92 (1.90 .. 1.94), ...`
pub struct Line<'c>(pub &'c Clause, pub &'c Finding);

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(clause, finding) = self;
        let Clause {
            number,
            ours,
            theirs,
            side,
            bar,
            ..
        } = clause;
        let other = if ours == theirs { side } else { theirs.0 };
        write!(
            out,
            "bar {number}: {} / {other} {bar}: {}:",
            ours.0, finding.verdict
        )?;
        for (workload, ratio, verdict) in &finding.ratios {
            let mark = if *verdict == Verdict::Met { "" } else { "*" };
            let Ratio { value, low, high } = ratio;
            write!(out, " {workload} {value:.2}{mark} ({low:.2} .. {high:.2})")?;
        }
        match &finding.missing {
            Some(reason) => write!(out, " {reason}"),
            None => Ok(()),
        }
    }
}

/// The rest of bar 6: `bar 6: hits at the bound: met: node 1/2 ours 0.612, LRU 0.601, ...`
pub fn hits_line(sizes: &[AtBound]) -> (bool, String) {
    let recorded = sizes
        .iter()
        .filter(|size| size.workload != crate::proposal::NAME);
    let failures: Vec<String> = recorded
        .clone()
        .filter(|size| !size.failures().is_empty())
        .map(|size| {
            format!(
                " {} 1/{} {}",
                size.workload,
                size.divisor,
                size.failures().join(", ")
            )
        })
        .collect();
    let is_met = failures.is_empty() && recorded.clone().count() > 0;
    let verdict = if is_met {
        Verdict::Met
    } else {
        Verdict::NotMet
    };
    let head = format!(
        "bar 6: hits at the bound, {} sizes: {verdict}",
        recorded.count()
    );
    (is_met, format!("{head}{}", failures.join(";")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(side: &str, workload: &str, value: f64) -> Figure {
        Figure {
            measure: hits::STORED,
            workload: workload.to_owned(),
            side: side.to_owned(),
            unit: "ns",
            rounds: vec![value; 7],
        }
    }

    #[test]
    fn the_worst_workload_decides_and_what_is_missing_is_undecided() {
        let all = clauses();
        let clause = &all[0];
        let names = ["a", "b", crate::proposal::NAME].map(str::to_owned);
        let mut figures = vec![figure("ours", "a", 1.0), figure("LLVM", "a", 2.0)];
        let judged = clause.judge(&figures, &names);
        assert_eq!(judged.verdict, Verdict::Undecided);
        assert!(
            Line(clause, &judged)
                .to_string()
                .ends_with("ours has no figure on b")
        );
        figures.extend([figure("ours", "b", 1.0), figure("LLVM", "b", 1.5)]);
        assert_eq!(clause.judge(&figures, &names).verdict, Verdict::Met);
        figures[3].rounds = vec![0.9; 7];
        assert_eq!(clause.judge(&figures, &names).verdict, Verdict::NotMet);
        assert_eq!(clause.judge(&figures, &[]).verdict, Verdict::Undecided);
    }

    #[test]
    fn every_clause_names_a_task_that_measures_it() {
        let tasks = crate::measure::tasks::all();
        for clause in clauses() {
            let task = tasks.iter().find(|task| task.name == clause.task).unwrap();
            for measure in [clause.ours, clause.theirs] {
                assert!(task.measures.iter().any(|(name, _)| *name == measure));
            }
            assert!(task.sides.iter().any(|side| side.name == clause.side));
        }
    }
}
