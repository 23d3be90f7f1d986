//! The project's own tasks, run as `cargo xtask TASK`.
//!
//! `check` holds the code to the house rules, `test` is `check` and every test, `overhead` and
//! `bars` measure the acceptance bars on real programs, `soak`, `every-instruction` and `fault` attack
//! the core, `setup` installs what all of these need.
#![deny(unsafe_code)]

mod attack;
mod attackers;
mod bars;
mod bench;
mod check;
mod child;
mod coverage;
mod fork_storm;
mod fuzz;
mod hostile;
mod house;
mod kernel;
mod linear;
mod models;
mod mutants;
mod overhead;
mod redis;
mod sanitize;
mod test;
mod tools;
mod workloads;

use house::House;
use std::process::ExitCode;

/// What a task answers: an error is one line that says what failed and what to do.
type Answer<T> = Result<T, String>;

const USAGE: &str = "usage: cargo xtask TASK
  check                            format, lints, documentation, layers, file sizes, orderings, paths
  test [--quick]                   check, every test of the workspace, and the loom models
  overhead [--rounds N] [--json]   CPU of real programs: bare, recorded, under heaptrack, sampled
  bars [N...]                      the acceptance bars that a machine can check (default: all)
  bench [--bars] [--corpora DIR] [--help]
                                   ours beside LLVM, Linux, other stores and the limit
  bench --instructions             instructions of the hot paths, against the record in bench/
  loom [--within SECONDS] [FILTER] the models of the core, on a copy with loom's search mended
  ordering-mutants [--sample N] [--part I/N] [--within SECONDS] [--again]
                                   each ordering of the core weakened, against the models
  soak [--seconds N] [--seed N]    threads, handlers, forks, kills and reopens on one region (60 s)
  every-instruction [--sample N]   a handler and a kill between any two instructions, or one in N
  sanitize [--sample]              the core's stress under ThreadSanitizer and AddressSanitizer
  fork-storm [--forks N]           forks while other threads malloc and free without pause (1000)
  linear [--histories N]           answers of threads that run at once, against the sequential model
  hostile                          stacks chosen to collide, and limits met all at once
  fault                            a death and a handler before every operation on a shared word
  fuzz [--smoke | --seconds N] [TARGET...]
                                   damaged files, corpora, regions, and the depot's twin (60 s each)
  attackers [--sample N] [BUG...]  plants bugs in a copy and shows each attacker find its own
  coverage                         lines of the core that its tests run, file by file
  mutants [--within SECONDS] [--sample N] [FILE]
                                   small changes of the core, against a quick choice of its tests
  kernel [--object | --uml | --x86 | --lockdep]
                                   the core inside Linux: build, boot, KUnit suites, beside C's depot
  setup                            install the programs that tests and bars run (apt-get, as root)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(2)
        }
    }
}

/// Runs one task; `Ok(false)` when it ran and found something wrong.
fn run(arguments: &[String]) -> Answer<bool> {
    let house = House::find()?;
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("check") => check::run(&house),
        Some("test") => test::run(&house, rest),
        Some("overhead") => overhead::run(&house, rest),
        Some("bars") => bars::run(&house, rest),
        Some("bench") => bench::run(&house, rest),
        Some("soak") => attack::soak(&house, rest),
        Some("every-instruction") => attack::every_instruction(&house, rest),
        Some("fault") => attack::fault(&house, rest),
        Some("fork-storm") => fork_storm::run(&house, rest),
        Some("linear") => linear::run(&house, rest),
        Some("hostile") => hostile::run(&house, rest),
        Some("sanitize") => sanitize::run(&house, rest),
        Some("loom") => models::loom(&house, rest),
        Some("ordering-mutants") => models::ordering_mutants(&house, rest),
        Some("fuzz") => fuzz::run(&house, rest),
        Some("attackers") => attackers::run(&house, rest),
        Some("coverage") => coverage::run(&house, rest),
        Some("mutants") => mutants::run(&house, rest),
        Some("kernel") => kernel::run(&house, rest),
        Some("setup") => house.setup(),
        Some("--help" | "-h") | None => {
            println!("{USAGE}");
            Ok(true)
        }
        Some(other) => Err(format!("no task `{other}`; try `cargo xtask --help`")),
    }
}
