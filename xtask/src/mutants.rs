//! `cargo xtask mutants [--within SECONDS] [--sample N] [FILE]`: does a test notice when a line of
//! the core says something else?
//!
//! cargo-mutants changes the core in one place after the other, in copies below the build folder, and
//! runs the tests that `.cargo/mutants.toml` chooses; there, too, is the list of changes that mean
//! the same or are not built. What was decided is kept and holds until the changed file's product
//! lines change; what was missed is tried again when anything in the core or its tests changed. So a
//! run can be interrupted, or given `--within`, and continued. `--sample` spreads its choice evenly.

use crate::house::House;
use crate::tools::Tool;
use crate::{Answer, child, coverage, models};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "usage: cargo xtask mutants [--within SECONDS] [--sample N] [FILE]";
/// Of all mutants that compile, in hundredths, that must be caught.
const LEAST_CAUGHT: usize = 90;
/// A mutant whose test program uses more processor time hangs: the tests take four seconds in all.
const RUNNER: (&str, &str) = (
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
    "prlimit --cpu=20",
);
/// For those that hang asleep; long, because the machine may be busy.
const TIMEOUT_SECONDS: &str = "300";
const BUILD_TIMEOUT_SECONDS: &str = "300";
const JOBS: &str = "2";
const PACKAGE: &str = "crates/stackdepot";
const EXAMINED: &str = "crates/stackdepot/src/**";
const TOOL: Tool = Tool {
    name: "cargo-mutants",
    version: "25.3.1",
    prebuilt: None,
};
/// The files in which cargo-mutants lists its mutants by how they ended.
const VERDICTS: [&str; 4] = ["caught", "missed", "timeout", "unviable"];
const MISSED: &str = "missed";

/// What the arguments ask for.
struct Options {
    within: Option<u64>,
    sample: usize,
    /// Part of a path; empty for all.
    file: String,
}

/// Tries every mutant, a sample, or those of one file.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let options = options(arguments)?;
    let bench = Bench::new(house)?;
    let chosen = chosen(bench.list(&[])?, &options);
    if chosen.is_empty() {
        return Err(format!("no mutant in `{}`", options.file));
    }
    let mut memory = Memory::open(bench.folder.join("results.txt"), house)?;
    let open: Vec<&String> = chosen
        .iter()
        .filter(|name| memory.verdict(name).is_none())
        .collect();
    println!("{} mutants chosen, {} to try", chosen.len(), open.len());
    if !open.is_empty() {
        let ended = bench.attack(&open, options.within);
        memory.take(&bench.folder.join("mutants.out"))?;
        ended?;
    }
    Ok(report(&chosen, &memory, bench.left_out_count()?))
}

fn options(arguments: &[String]) -> Answer<Options> {
    let mut options = Options {
        within: None,
        sample: usize::MAX,
        file: String::new(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || {
            let parsed = rest.next().and_then(|number| number.parse::<u64>().ok());
            parsed.filter(|number| *number > 0).ok_or(USAGE)
        };
        match argument.as_str() {
            "--within" => options.within = Some(number()?),
            "--sample" => options.sample = number()? as usize,
            file if !file.starts_with('-') && options.file.is_empty() => {
                file.clone_into(&mut options.file)
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

/// Those of the file, or that many of them, spread evenly.
fn chosen(mut all: Vec<String>, options: &Options) -> Vec<String> {
    let is_of_file = |name: &String| {
        name.split(':')
            .next()
            .is_some_and(|path| path.contains(&options.file))
    };
    all.retain(is_of_file);
    let count = all.len();
    let wanted = options.sample.min(count);
    let is_chosen = |index: usize| (index + 1) * wanted / count != index * wanted / count;
    let numbered = all.into_iter().enumerate();
    numbered
        .filter(|(index, _)| is_chosen(*index))
        .map(|(_, name)| name)
        .collect()
}

/// cargo-mutants with its folder.
struct Bench<'h> {
    house: &'h House,
    program: PathBuf,
    folder: PathBuf,
}

impl Bench<'_> {
    fn new(house: &House) -> Answer<Bench<'_>> {
        let folder = house.target.join("mutants");
        let scratch = folder.join("scratch");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        }
        fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        let program = TOOL.install(&house.target.join("tools"))?;
        Ok(Bench {
            house,
            program,
            folder,
        })
    }

    /// The tool in the checkout, with its copies in the build folder.
    fn mutants(&self, wrapper: &[String]) -> Command {
        let mut words = wrapper
            .iter()
            .map(Into::into)
            .chain([self.program.clone().into_os_string()]);
        let mut mutants = Command::new(words.next().unwrap_or_default());
        mutants.args(words).current_dir(&self.house.root);
        mutants.args(["mutants", "--package", "stackdepot", "--colors", "never"]);
        mutants.env("TMPDIR", self.folder.join("scratch"));
        // Each copy has a build folder of its own.
        mutants.env_remove("CARGO_TARGET_DIR");
        mutants
    }

    /// The names of all mutants: path, line, column and change.
    fn list(&self, more: &[&str]) -> Answer<Vec<String>> {
        let listed = child::must(self.mutants(&[]).arg("--list").args(more))?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// How many the settings leave out, each for a reason that stands there.
    fn left_out_count(&self) -> Answer<usize> {
        Ok(self.list(&["--no-config", "--file", EXAMINED])?.len() - self.list(&[])?.len())
    }

    /// Tries them one after the other until all are decided, or the time is up.
    fn attack(&self, names: &[&String], within: Option<u64>) -> Answer<()> {
        let limit = within
            .map(|seconds| ["timeout", "--signal=INT", &seconds.to_string()].map(str::to_owned));
        let mut mutants = self.mutants(limit.as_ref().map_or(&[], |limit| limit));
        mutants.args([
            "--timeout",
            TIMEOUT_SECONDS,
            "--build-timeout",
            BUILD_TIMEOUT_SECONDS,
        ]);
        mutants
            .args(["--jobs", JOBS, "--no-times", "--output"])
            .arg(&self.folder);
        mutants
            .env(RUNNER.0, RUNNER.1)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("STACKDEPOT_STRESS_PERCENT", "5")
            .env("RUST_BACKTRACE", "0");
        for name in names {
            mutants.arg("--re").arg(exactly(name));
        }
        // What an earlier run said about other sources.
        let outcome = self.folder.join("mutants.out");
        if outcome.exists() {
            fs::remove_dir_all(&outcome).map_err(|e| format!("{}: {e}", outcome.display()))?;
        }
        let status = mutants.status().map_err(|e| child::cannot(&mutants, &e))?;
        // 2 and 3: some were missed, some hung; 124 and 130: the time was up.
        match status.code() {
            Some(0 | 2 | 3 | 124 | 130) => Ok(()),
            Some(4) => Err("the tests fail without a mutant".to_owned()),
            _ => Err(format!("cargo-mutants: {status}")),
        }
    }
}

/// A regular expression for just that name.
fn exactly(name: &str) -> String {
    let is_plain =
        |letter: char| letter.is_alphanumeric() || " /_-:<>=,'\"&%!@#~;".contains(letter);
    let mut expression = String::from("^");
    for letter in name.chars() {
        if !is_plain(letter) {
            expression.push('\\');
        }
        expression.push(letter);
    }
    expression + "$"
}

/// What was decided, as lines `verdict<TAB>digest of the file<TAB>digest of all<TAB>name`.
struct Memory {
    path: PathBuf,
    known: BTreeMap<String, String>,
    digests: BTreeMap<String, u64>,
    digest_of_all: u64,
}

impl Memory {
    fn open(path: PathBuf, house: &House) -> Answer<Memory> {
        let mut memory = Memory {
            path,
            known: BTreeMap::new(),
            digests: BTreeMap::new(),
            digest_of_all: 0,
        };
        let mut all = DefaultHasher::new();
        let core = house.root.join(PACKAGE);
        for file in models::rust_files(&core.join("src"))?
            .into_iter()
            .chain(models::rust_files(&core.join("tests"))?)
        {
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            text.hash(&mut all);
            let below = file
                .strip_prefix(&house.root)
                .unwrap_or(&file)
                .display()
                .to_string();
            let mut product = DefaultHasher::new();
            text.lines()
                .take(coverage::product_line_count(&text))
                .for_each(|line| line.hash(&mut product));
            memory.digests.insert(below, product.finish());
        }
        memory.digest_of_all = all.finish();
        for line in fs::read_to_string(&memory.path).unwrap_or_default().lines() {
            let mut words = line.splitn(4, '\t');
            if let (Some(verdict), Some(file), Some(all), Some(name)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                let is_of_now = file == memory.digest_of(name);
                if is_of_now
                    && (verdict != MISSED || all == format!("{:016x}", memory.digest_of_all))
                {
                    memory.known.insert(name.to_owned(), verdict.to_owned());
                }
            }
        }
        Ok(memory)
    }

    fn digest_of(&self, name: &str) -> String {
        let path = name.split(':').next().unwrap_or_default();
        format!(
            "{:016x}",
            self.digests.get(path).copied().unwrap_or_default()
        )
    }

    fn verdict(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(String::as_str)
    }

    /// Adds what the tool wrote, and keeps it.
    fn take(&mut self, outcome: &Path) -> Answer<()> {
        for verdict in VERDICTS {
            let list =
                fs::read_to_string(outcome.join(verdict).with_extension("txt")).unwrap_or_default();
            self.known.extend(
                list.lines()
                    .map(|name| (name.to_owned(), verdict.to_owned())),
            );
        }
        let line = |(name, verdict): (&String, &String)| {
            format!(
                "{verdict}\t{}\t{:016x}\t{name}\n",
                self.digest_of(name),
                self.digest_of_all
            )
        };
        let text: String = self.known.iter().map(line).collect();
        fs::write(&self.path, text).map_err(|e| format!("{}: {e}", self.path.display()))
    }
}

/// Prints what was missed and the figures; whether enough was caught.
fn report(chosen: &[String], memory: &Memory, left_out_count: usize) -> bool {
    let of = |wanted: Option<&str>| {
        chosen
            .iter()
            .filter(|name| memory.verdict(name) == wanted)
            .count()
    };
    for name in chosen
        .iter()
        .filter(|name| memory.verdict(name) == Some(MISSED))
    {
        println!("missed {name}");
    }
    let [caught, missed, timeout, unviable] = VERDICTS.map(|verdict| of(Some(verdict)));
    let tried = caught + missed + timeout;
    let hundredths = (caught + timeout) as f64 * 100.0 / tried.max(1) as f64;
    println!(
        "mutants: {} chosen, {caught} caught, {timeout} timeouts, {missed} missed, {unviable} unviable, {} open, \
         {left_out_count} left out for reasons given in .cargo/mutants.toml: {hundredths:.1} % caught, at least {LEAST_CAUGHT} wanted",
        chosen.len(),
        of(None),
    );
    tried > 0 && (caught + timeout) * 100 >= LEAST_CAUGHT * tried
}
