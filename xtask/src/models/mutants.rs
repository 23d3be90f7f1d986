//! `cargo xtask ordering-mutants [--sample N] [--part I/N] [--within SECONDS] [--again]`: is each
//! ordering of the core needed, and does a model see it?
//!
//! First every model runs unchanged, which also tells which sites it reaches. Then each site is
//! weakened by each step, alone, and the models that reach it run, fastest first, until one
//! fails: most mutants are caught within a second. A model that does not end in its time counts
//! as one that saw nothing. Results are kept in the build folder until the core or a model
//! changes, so that a run can be continued, and done in parts. `survivors.rs` judges them.

use super::runner::{self, Model};
use super::scratch::Scratch;
use super::sites::{self, Site};
use super::survivors::{Ended, Survivors};
use crate::Answer;
use crate::house::House;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: cargo xtask ordering-mutants [--sample N] [--part I/N] \
                     [--within SECONDS] [--again]";
/// Models that take longer unchanged, in seconds, run last and for so long at most: they catch
/// by failing early (`cargo xtask loom` shows that they hold). `--within` says otherwise.
const BASE_LIMIT: usize = 20;
/// What is remembered of a model that did not end.
const SLOW: &str = "slow";
const NOBODY: &str = "-";

/// One site, one step weaker.
struct Mutant {
    /// Names the site and the step; stays the same when lines are added elsewhere.
    name: String,
    site: usize,
    step: &'static str,
}

/// A model that holds, with what it costs and reaches.
struct Base {
    model: Model,
    seconds: f64,
    sites: Vec<usize>,
}

/// Lines `key<TAB>value` that outlive the run.
struct Memory {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

impl Memory {
    /// What is remembered about exactly these sources.
    fn open(path: PathBuf, hash: u64, again: bool) -> Answer<Memory> {
        let head = format!("sources\t{hash:016x}");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut known = BTreeMap::new();
        if text.lines().next() == Some(&head) && !again {
            let pairs = text
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once('\t'));
            known.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        } else {
            fs::write(&path, format!("{head}\n"))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(Memory { path, known })
    }

    fn add(&mut self, key: String, value: String) -> Answer<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(|e| format!("{}: {e}", self.path.display()))?;
        writeln!(file, "{key}\t{value}").map_err(|e| format!("{}: {e}", self.path.display()))?;
        self.known.insert(key, value);
        Ok(())
    }
}

/// Runs the mutants, all or a sample.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let Options {
        sample,
        part,
        within,
        again,
    } = options(arguments)?;
    let started = Instant::now();
    let survivors = Survivors::read(house)?;
    let (found, hasher) = (RefCell::new(Vec::new()), RefCell::new(DefaultHasher::new()));
    let scratch = Scratch::prepare(house, "mutants", &|file, text| {
        (file, text).hash(&mut *hasher.borrow_mut());
        sites::instrument(file, text, &mut found.borrow_mut())
    })?;
    let sites: Vec<Site> = found.into_inner();
    let path = house.target.join("models/mutants.txt");
    let mut memory = Memory::open(path, hasher.into_inner().finish(), again)?;
    let bases = bases(&scratch.build()?, house, within, &mut memory)?;
    let all = all(&sites);
    let names: Vec<String> = all.iter().map(|mutant| mutant.name.clone()).collect();
    let mutants = chosen(all, sample, part);
    println!(
        "{} sites, {} mutants, {} chosen",
        sites.len(),
        names.len(),
        mutants.len()
    );
    let open: Vec<&Mutant> = mutants
        .iter()
        .filter(|mutant| !is_decided(memory.known.get(&mutant.name), within))
        .collect();
    let mut failure = Ok(());
    runner::each(
        &open,
        |mutant| attack(mutant, &bases, within),
        |mutant, catcher| {
            println!(
                "{:8} {}  {catcher}",
                verdict(&catcher),
                shown(&sites, mutant)
            );
            let added = memory.add(mutant.name.clone(), catcher);
            failure = failure.clone().and(added);
        },
    )?;
    failure?;
    let ended: Vec<Ended> = mutants
        .iter()
        .map(|mutant| ended(mutant, &memory))
        .collect();
    Ok(survivors.judge(&names, &ended, started.elapsed().as_secs()))
}

struct Options {
    sample: usize,
    /// Which part, from 0, of how many.
    part: (usize, usize),
    within: usize,
    again: bool,
}

fn options(arguments: &[String]) -> Answer<Options> {
    let mut options = Options {
        sample: usize::MAX,
        part: (0, 1),
        within: BASE_LIMIT,
        again: false,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let place = match argument.as_str() {
            "--again" => {
                options.again = true;
                continue;
            }
            "--part" => {
                let part = rest.next().and_then(|part| part.split_once('/'));
                let part = part.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
                let part = part.filter(|(part, of)| (1..=*of).contains(part));
                options.part = part
                    .map(|(part, of): (usize, usize)| (part - 1, of))
                    .ok_or(USAGE)?;
                continue;
            }
            "--sample" => &mut options.sample,
            "--within" => &mut options.within,
            _ => return Err(USAGE.to_owned()),
        };
        let count = rest.next().and_then(|count| count.parse().ok());
        *place = count.filter(|count| *count > 0).ok_or(USAGE)?;
    }
    Ok(options)
}

/// Runs every model unchanged.
fn bases(
    programs: &[PathBuf],
    house: &House,
    within: usize,
    memory: &mut Memory,
) -> Answer<Vec<Base>> {
    let models = runner::list(programs)?;
    let folder = house.target.join("models/sites");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let key = |model: &Model| format!("model {} within {within} s", model.name);
    let open: Vec<&Model> = models
        .iter()
        .filter(|model| !memory.known.contains_key(&key(model)))
        .collect();
    let mut failure = Ok(());
    runner::each(
        &open,
        |model| {
            let list = folder.join(model.name.replace(':', "-"));
            let variables = [("STACKDEPOT_SITES", list.display().to_string())];
            let ran = runner::run(model, &variables, Duration::from_secs(within as u64))?;
            if ran.timed_out {
                return Ok(format!("{SLOW}{}", read_sites(&list)?));
            }
            if !ran.passed {
                return Err(format!(
                    "{} fails unchanged:\n{}",
                    model.name,
                    ran.output.trim_end()
                ));
            }
            Ok(format!("{:.3}{}", ran.seconds, read_sites(&list)?))
        },
        |model, value| {
            println!(
                "model    {}  {} s",
                model.name,
                value.split(' ').next().unwrap_or("")
            );
            failure = failure.clone().and(memory.add(key(model), value));
        },
    )?;
    failure?;
    let base = |model: &Model| {
        let mut words = memory.known.get(&key(model))?.split(' ');
        let seconds = match words.next()? {
            SLOW => within as f64,
            seconds => seconds.parse().ok()?,
        };
        let sites = words.filter_map(|word| word.parse().ok()).collect();
        Some(Base {
            model: model.clone(),
            seconds,
            sites,
        })
    };
    let mut bases: Vec<Base> = models.iter().filter_map(base).collect();
    bases.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    Ok(bases)
}

/// The sites in a list, each with a blank before it.
fn read_sites(list: &Path) -> Answer<String> {
    let text = fs::read_to_string(list).unwrap_or_default();
    Ok(text.lines().map(|site| format!(" {site}")).collect())
}

fn all(sites: &[Site]) -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (site, found) in sites.iter().enumerate() {
        let earlier = sites.iter().take(site);
        let nth = 1 + earlier.filter(|other| other.name() == found.name()).count();
        let nth = if nth == 1 {
            String::new()
        } else {
            format!(" #{nth}")
        };
        for step in found.steps() {
            let name = format!("{}{nth} -> {step}", found.name());
            mutants.push(Mutant { name, site, step });
        }
    }
    mutants
}

/// All mutants, or that many of them, spread evenly; of these, one part.
fn chosen(all: Vec<Mutant>, sample: usize, (part, of): (usize, usize)) -> Vec<Mutant> {
    let count = all.len();
    let wanted = sample.min(count);
    let is_chosen = |index: usize| (index + 1) * wanted / count != index * wanted / count;
    all.into_iter()
        .enumerate()
        .filter(|(index, _)| is_chosen(*index))
        .map(|(_, mutant)| mutant)
        .enumerate()
        .filter(|(index, _)| index % of == part)
        .map(|(_, mutant)| mutant)
        .collect()
}

fn shown(sites: &[Site], mutant: &Mutant) -> String {
    let line = sites.get(mutant.site).map_or(0, |site| site.line);
    format!("{} (line {line})", mutant.name)
}

/// Whether an earlier run decided it: caught, or not caught by models that had as long as now.
fn is_decided(known: Option<&String>, within: usize) -> bool {
    let same_limit = format!("within {within} s");
    known.is_some_and(|known| !known.starts_with(NOBODY) || known.ends_with(&same_limit))
}

/// The model that fails, or why none does.
fn attack(mutant: &Mutant, bases: &[Base], within: usize) -> Answer<String> {
    let mut outcome = format!("{NOBODY} no model reaches it within {within} s");
    for base in bases
        .iter()
        .filter(|base| base.sites.contains(&mutant.site))
    {
        let variables = [(
            "STACKDEPOT_MUTANT",
            format!("{}:{}", mutant.site, mutant.step),
        )];
        let seconds = (base.seconds * 3.0 + 5.0).min(within as f64);
        let limit = Duration::from_secs_f64(seconds);
        let ran = runner::run(&base.model, &variables, limit)?;
        if !ran.passed && !ran.timed_out {
            return Ok(base.model.name.clone());
        }
        outcome = format!("{NOBODY} every model holds within {within} s");
    }
    Ok(outcome)
}

fn verdict(catcher: &str) -> &'static str {
    if catcher.starts_with(NOBODY) {
        "SURVIVED"
    } else {
        "caught"
    }
}

fn ended(mutant: &Mutant, memory: &Memory) -> Ended {
    let catcher = memory
        .known
        .get(&mutant.name)
        .map_or(NOBODY, String::as_str);
    Ended {
        mutant: mutant.name.clone(),
        caught: !catcher.starts_with(NOBODY),
        remark: catcher.trim_start_matches(NOBODY).trim().to_owned(),
    }
}
