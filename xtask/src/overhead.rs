//! `cargo xtask overhead`: what recording costs in CPU, beside the bare program and heaptrack.
//!
//! Rounds are interleaved (bare, ours, heaptrack, sampled, program after program), so that a change of
//! the machine's speed meets all of them. Shown are medians and spread over the rounds, and a verdict
//! for each program, whole and sampled. The user and system time of the whole process tree counts,
//! heaptrack's helpers included; of redis only the server process.

use crate::house::{House, system_program};
use crate::workloads::{self, Workload};
use crate::{Answer, child, redis};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Requests of each kind that redis-server answers per run.
const REDIS_REQUEST_COUNT: usize = 60_000;
/// Bytes from sample to sample in the sampled runs.
const SAMPLE: &str = "512K";

/// What a program may cost over bare.
#[derive(Clone, Copy)]
struct Bar {
    recorded: f64,
    sampled: f64,
}

const BAR: Bar = Bar {
    recorded: 2.5,
    sampled: 1.05,
};
const BAR_REDIS: Bar = Bar {
    recorded: 3.0,
    sampled: 1.05,
};
const BAR_MALLOC_ONLY: Bar = Bar {
    recorded: 6.0,
    sampled: 1.5,
};

/// The ways, in their order in a row.
const BARE: usize = 0;
const OURS: usize = 1;
const HEAPTRACK: usize = 2;
const SAMPLED: usize = 3;
const WAY_COUNT: usize = 4;

/// One way to run a program.
struct Way {
    name: &'static str,
    prefix: Vec<OsString>,
}

/// One program's samples, by way.
struct Row {
    program: &'static str,
    bar: Bar,
    seconds: [Vec<f64>; WAY_COUNT],
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
        workloads::malloc_only(house)?,
    ];
    let bars = [BAR, BAR, BAR, BAR_MALLOC_ONLY];
    let named = programs.iter().map(|program| program.name).zip(bars);
    let mut rows: Vec<Row> = named.map(|(name, bar)| Row::new(name, bar)).collect();
    rows.push(Row::new("redis-server", BAR_REDIS));
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

fn ways(house: &House, work: &Path) -> Answer<[Way; WAY_COUNT]> {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let stackdepot = house.stackdepot()?.into_os_string();
    let run = |options: &[&str]| {
        let all = [&["run", "--quiet"], options, &["--"]].concat();
        [vec![stackdepot.clone()], words(&all)].concat()
    };
    let mut heaptrack = vec![system_program("heaptrack")?.into_os_string(), "-o".into()];
    heaptrack.push(work.join("records/heaptrack").into());
    Ok([
        Way {
            name: "bare",
            prefix: Vec::new(),
        },
        Way {
            name: "ours",
            prefix: run(&[]),
        },
        Way {
            name: "heaptrack",
            prefix: heaptrack,
        },
        Way {
            name: "sampled",
            prefix: run(&["--sample", SAMPLE]),
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
    fn new(program: &'static str, bar: Bar) -> Row {
        Row {
            program,
            bar,
            seconds: Default::default(),
        }
    }

    fn ratio(&self, way: usize) -> f64 {
        median(&self.seconds[way]) / median(&self.seconds[BARE])
    }

    fn passes(&self) -> bool {
        self.passes_recorded() && self.passes_sampled()
    }

    fn passes_recorded(&self) -> bool {
        self.ratio(OURS) <= self.bar.recorded && self.ratio(OURS) < self.ratio(HEAPTRACK)
    }

    fn passes_sampled(&self) -> bool {
        self.ratio(SAMPLED) <= self.bar.sampled
    }

    fn json(&self) -> Value {
        let way = |index: usize| {
            let seconds = &self.seconds[index];
            json!({"median": median(seconds), "min": least(seconds), "max": most(seconds), "ratio": self.ratio(index)})
        };
        json!({"program": self.program, "bare": way(BARE), "ours": way(OURS), "heaptrack": way(HEAPTRACK),
            "sampled": way(SAMPLED), "max_ratio": self.bar.recorded, "max_ratio_sampled": self.bar.sampled,
            "pass": self.passes_recorded(), "pass_sampled": self.passes_sampled()})
    }
}

fn print_table(rows: &[Row], rounds: usize) {
    println!("user+sys CPU seconds, median (least .. most) of {rounds} interleaved rounds");
    println!(
        "{:<13} {:<22} {:<22} {:<22} {:<22}  over bare",
        "", "bare", "ours", "heaptrack", "sampled"
    );
    for row in rows {
        let cell = |s: &Vec<f64>| format!("{:.2} ({:.2} .. {:.2})", median(s), least(s), most(s));
        let cells: Vec<String> = row
            .seconds
            .iter()
            .map(|s| format!("{:<22}", cell(s)))
            .collect();
        println!(
            "{:<13} {}  {:.2}x {:.2}x {:.3}x",
            row.program,
            cells.join(" "),
            row.ratio(OURS),
            row.ratio(HEAPTRACK),
            row.ratio(SAMPLED)
        );
    }
    for row in rows {
        let verdict = |passes: bool| if passes { "pass" } else { "FAIL" };
        println!(
            "bar 7 {}: {}: {:.2}x bare (at most {:.1}x), heaptrack {:.2}x; sampled every {SAMPLE}: {}: {:.3}x (at most {:.2}x)",
            row.program,
            verdict(row.passes_recorded()),
            row.ratio(OURS),
            row.bar.recorded,
            row.ratio(HEAPTRACK),
            verdict(row.passes_sampled()),
            row.ratio(SAMPLED),
            row.bar.sampled,
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
