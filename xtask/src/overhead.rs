//! `cargo xtask overhead`: what recording costs in CPU, beside the bare program and heaptrack.
//!
//! Rounds are interleaved (bare, ours, heaptrack, program after program), so that a change of the
//! machine's speed meets all of them. Shown are medians and spread over the rounds; the verdict is
//! bar 7. The user and system time of the whole process tree counts, heaptrack's helpers included;
//! of redis only the server process.

use crate::house::{House, system_program};
use crate::workloads::{self, Workload};
use crate::{Answer, child, redis};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Requests of each kind that redis-server answers per run.
const REDIS_REQUEST_COUNT: usize = 60_000;
/// Ours over bare may be at most this.
const MAX_RATIO: f64 = 2.5;
/// The same for redis.
const MAX_RATIO_REDIS: f64 = 3.0;

/// One way to run a program.
struct Way {
    name: &'static str,
    prefix: Vec<OsString>,
}

/// One program's samples, by way.
struct Row {
    program: &'static str,
    max_ratio: f64,
    seconds: [Vec<f64>; 3],
}

/// Measures, prints a table (or JSON) and the verdict of each program.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let (rounds, as_json) = options(arguments)?;
    child::adopt_orphans()?;
    let work = house.work("overhead")?;
    let ways = ways(house, &work)?;
    let programs = [
        workloads::sqlite3(&work)?,
        workloads::python3(house)?,
        workloads::cpp_compile(house, &work)?,
    ];
    let mut rows: Vec<Row> = programs
        .iter()
        .map(|program| Row::new(program.name, MAX_RATIO))
        .collect();
    rows.push(Row::new("redis-server", MAX_RATIO_REDIS));
    for round in 1..=rounds {
        for (index, row) in rows.iter_mut().enumerate() {
            for (way, seconds) in ways.iter().zip(&mut row.seconds) {
                seconds.push(match programs.get(index) {
                    Some(program) => program_seconds(program, way, &work)?,
                    None => redis_seconds(way, &work)?,
                });
                clear(&work)?;
            }
        }
        if !as_json {
            eprintln!("round {round} of {rounds}");
        }
    }
    if as_json {
        println!(
            "{}",
            json!({"rounds": rounds, "programs": rows.iter().map(Row::json).collect::<Vec<_>>()})
        );
    } else {
        print_table(&rows, rounds);
    }
    Ok(rows.iter().all(Row::passes))
}

fn options(arguments: &[String]) -> Answer<(usize, bool)> {
    let (mut rounds, mut as_json) = (11, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => as_json = true,
            "--rounds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                rounds = number
                    .filter(|number| *number > 0)
                    .ok_or("--rounds takes a number above 0")?;
            }
            other => return Err(format!("overhead: no option `{other}`")),
        }
    }
    Ok((rounds, as_json))
}

fn ways(house: &House, work: &Path) -> Answer<[Way; 3]> {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut ours = vec![house.stackdepot()?.into_os_string()];
    ours.extend(words(&["run", "--quiet", "--"]));
    let mut heaptrack = vec![system_program("heaptrack")?.into_os_string(), "-o".into()];
    heaptrack.push(work.join("records/heaptrack").into());
    Ok([
        Way {
            name: "bare",
            prefix: Vec::new(),
        },
        Way {
            name: "ours",
            prefix: ours,
        },
        Way {
            name: "heaptrack",
            prefix: heaptrack,
        },
    ])
}

fn program_seconds(program: &Workload, way: &Way, work: &Path) -> Answer<f64> {
    let mut command = program.command(&way.prefix)?;
    let (ran, seconds) = child::cpu_seconds(command.current_dir(records(work)?))?;
    if !ran.status.success() {
        return Err(format!(
            "{} {}: {} {}",
            way.name,
            program.name,
            ran.status,
            ran.errors().trim_end()
        ));
    }
    Ok(seconds)
}

fn redis_seconds(way: &Way, work: &Path) -> Answer<f64> {
    let served = redis::serve(&way.prefix, &records(work)?, REDIS_REQUEST_COUNT)
        .map_err(|e| format!("{} redis: {e}", way.name))?;
    Ok(served.cpu_seconds)
}

/// Where recorders leave their files.
fn records(work: &Path) -> Answer<std::path::PathBuf> {
    let records = work.join("records");
    fs::create_dir_all(&records).map_err(|e| format!("{}: {e}", records.display()))?;
    Ok(records)
}

fn clear(work: &Path) -> Answer<()> {
    fs::remove_dir_all(work.join("records")).map_err(|e| format!("records: {e}"))
}

impl Row {
    fn new(program: &'static str, max_ratio: f64) -> Row {
        Row {
            program,
            max_ratio,
            seconds: [Vec::new(), Vec::new(), Vec::new()],
        }
    }

    fn ratio(&self, way: usize) -> f64 {
        median(&self.seconds[way]) / median(&self.seconds[0])
    }

    fn passes(&self) -> bool {
        self.ratio(1) <= self.max_ratio && self.ratio(1) < self.ratio(2)
    }

    fn json(&self) -> Value {
        let way = |index: usize| {
            let seconds = &self.seconds[index];
            json!({"median": median(seconds), "min": least(seconds), "max": most(seconds), "ratio": self.ratio(index)})
        };
        json!({"program": self.program, "bare": way(0), "ours": way(1), "heaptrack": way(2),
            "max_ratio": self.max_ratio, "pass": self.passes()})
    }
}

fn print_table(rows: &[Row], rounds: usize) {
    println!("user+sys CPU seconds, median (least .. most) of {rounds} interleaved rounds");
    println!(
        "{:<13} {:<24} {:<24} {:<24} {:>6} {:>10}",
        "", "bare", "ours", "heaptrack", "ours", "heaptrack"
    );
    for row in rows {
        let cell = |s: &Vec<f64>| format!("{:.3} ({:.3} .. {:.3})", median(s), least(s), most(s));
        let [bare, ours, heaptrack] = &row.seconds;
        let (cells, ratios) = (
            [cell(bare), cell(ours), cell(heaptrack)],
            [row.ratio(1), row.ratio(2)],
        );
        println!(
            "{:<13} {:<24} {:<24} {:<24} {:>5.2}x {:>9.2}x",
            row.program, cells[0], cells[1], cells[2], ratios[0], ratios[1]
        );
    }
    for row in rows {
        let verdict = if row.passes() { "pass" } else { "FAIL" };
        println!(
            "bar 7 {}: {verdict}: {:.2}x bare (at most {:.1}x), heaptrack {:.2}x",
            row.program,
            row.ratio(1),
            row.max_ratio,
            row.ratio(2)
        );
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(0.0, f64::max)
}
