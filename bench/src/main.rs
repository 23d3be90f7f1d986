//! Measures the depot beside its peers and beside the limit, in one run.
//!
//! Run by `cargo xtask bench`, which builds the peers first. Read in this order: `figure` (the words),
//! `workload` and `proposal` (what is fed), `process` and `machine` (how a round is taken), `measure`
//! (the loops), `peers` (the sides), `statistics` and `bars` (what the rounds say), `bound` and
//! `instructions` (what needs no clock), `output`.
#![deny(unsafe_code)]

mod bars;
mod bound;
pub mod figure;
mod fit;
mod instructions;
mod machine;
mod measure;
mod options;
mod output;
mod peers;
mod process;
mod proposal;
mod statistics;
pub mod workload;

use std::path::Path;
use std::process::ExitCode;

use bars::{Clause, Finding};
use bound::AtBound;
use figure::Figure;
use measure::Task;
use options::Options;
use output::Report;
use statistics::Verdict;
use workload::Workload;

/// How often an undecided bar gets as many rounds again.
const MOST_REPEATS: usize = 3;
/// The task at the bound, which has hit ratios beside its figures.
const BOUND: &str = "bound";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((instructions::COUNT, rest)) = words.split_first().map(|(w, r)| (w.as_str(), r)) {
        return exit(instructions::count_here(rest).map(|()| true));
    }
    exit(Options::parse(words.into_iter()).and_then(|options| run(&options)))
}

fn exit(run: Result<bool, String>) -> ExitCode {
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::from(2)
        }
    }
}

/// Measures and prints; whether every bar is met, if they were asked for.
fn run(options: &Options) -> Result<bool, String> {
    peers::library::set_folder(options.peers.clone());
    if options.only_counts {
        return instructions::run(options).map(|(_, is_within)| is_within);
    }
    let workloads = workload::load(options)?;
    let tasks = measure::tasks::all();
    let is_asked = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    let tasks: Vec<Task> = tasks
        .into_iter()
        .filter(|task| is_asked(&options.tasks, task.name))
        .collect();
    say_what_is_missing(&tasks);
    let mut figures = Vec::new();
    for task in &tasks {
        for workload in on(task, &workloads) {
            eprintln!("measuring {} on {}", task.name, workload.name);
            task.run(workload, options.round_count, &mut figures);
        }
    }
    if options.judges_bars {
        decide(&tasks, &workloads, options.round_count, &mut figures);
    }
    let mut report = Report {
        findings: findings(&figures, &workloads, &tasks, options.judges_bars),
        figures,
        ..Report::default()
    };
    if is_asked(&options.tasks, BOUND) {
        report.sizes = hits_at_bound(&workloads);
    }
    print!("{}", output::table::text(&report));
    let are_bars_met = print_bars(&report);
    let mut are_counts_met = true;
    if options.judges_bars {
        (report.counts, are_counts_met) = instructions::run(options)?;
    }
    write(options.json.as_deref(), || output::json::text(&report))?;
    write(options.svg.as_deref(), || output::chart::svg(&report))?;
    Ok(are_bars_met && are_counts_met || !options.judges_bars)
}

/// The workloads that a task is run on.
fn on<'w>(task: &Task, workloads: &'w [Workload]) -> &'w [Workload] {
    if task.has_own_stacks {
        workloads.get(..1).unwrap_or_default()
    } else {
        workloads
    }
}

fn say_what_is_missing(tasks: &[Task]) {
    let mut said = Vec::new();
    for side in tasks.iter().flat_map(|task| &task.sides) {
        if let Some(reason) = (side.missing)().filter(|_| !said.contains(&side.name)) {
            println!("{}: skipped: {reason}", side.name);
            said.push(side.name);
        }
    }
}

/// Takes more rounds where a bar is undecided.
fn decide(tasks: &[Task], workloads: &[Workload], rounds: usize, figures: &mut Vec<Figure>) {
    let names = names(workloads);
    for _ in 0..MOST_REPEATS {
        for task in tasks {
            for workload in on(task, workloads) {
                let own = if task.has_own_stacks {
                    bars::OWN
                } else {
                    &workload.name
                };
                let is_open = bars::clauses().iter().any(|clause| {
                    let ratios = clause.judge(figures, &names).ratios;
                    let open = |(name, _, verdict): &(String, _, _)| {
                        name == own && *verdict == Verdict::Undecided
                    };
                    clause.task == task.name && ratios.iter().any(open)
                });
                if is_open {
                    eprintln!("more rounds of {} on {own}", task.name);
                    task.run_more(workload, rounds, figures);
                }
            }
        }
    }
}

fn names(workloads: &[Workload]) -> Vec<String> {
    workloads
        .iter()
        .map(|workload| workload.name.clone())
        .collect()
}

/// Hit ratios at the bound, which no round changes.
fn hits_at_bound(workloads: &[Workload]) -> Vec<AtBound> {
    workloads.iter().flat_map(bound::hit_ratios).collect()
}

/// What became of every bar, or of those of the tasks that were run.
fn findings(
    figures: &[Figure],
    workloads: &[Workload],
    tasks: &[Task],
    all: bool,
) -> Vec<(Clause, Finding)> {
    let names = names(workloads);
    let is_asked = |clause: &Clause| all || tasks.iter().any(|task| task.name == clause.task);
    bars::clauses()
        .into_iter()
        .filter(is_asked)
        .map(|clause| {
            let finding = clause.judge(figures, &names);
            (clause, finding)
        })
        .collect()
}

/// One line for each bar; whether all are met.
fn print_bars(report: &Report) -> bool {
    let mut are_met = true;
    for (clause, finding) in &report.findings {
        println!("{}", bars::Line(clause, finding));
        are_met &= finding.verdict == Verdict::Met;
    }
    if !report.sizes.is_empty() {
        let (are_hits_met, line) = bars::hits_line(&report.sizes);
        println!("{line}");
        are_met &= are_hits_met;
    }
    are_met
}

fn write(file: Option<&Path>, text: impl FnOnce() -> String) -> Result<(), String> {
    match file {
        Some(file) => std::fs::write(file, text()).map_err(|e| format!("{}: {e}", file.display())),
        None => Ok(()),
    }
}
