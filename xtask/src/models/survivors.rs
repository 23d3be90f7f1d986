//! Weakened orderings that no model can catch, each with its reason, and the verdict on a run.
//!
//! The list is `verification/ordering-survivors.txt`: lines `MUTANT: REASON`. An entry is as much a
//! finding as a survivor when it is wrong: caught after all, or of no mutant that there is. What
//! is explained counts as not caught.

use crate::Answer;
use crate::house::House;
use std::collections::BTreeMap;
use std::fs;

/// Of all mutants, in hundredths, that must be caught.
const LEAST_CAUGHT: usize = 90;
const LIST: &str = "verification/ordering-survivors.txt";

/// The reasons, by mutant.
pub struct Survivors {
    reasons: BTreeMap<String, String>,
}

/// How one mutant ended.
pub struct Ended {
    /// The mutant's name.
    pub mutant: String,
    /// Whether a model failed.
    pub caught: bool,
    /// By which, or why none.
    pub remark: String,
}

impl Survivors {
    /// Reads the list.
    pub fn read(house: &House) -> Answer<Survivors> {
        let text = fs::read_to_string(house.root.join(LIST)).map_err(|e| format!("{LIST}: {e}"))?;
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut reasons = BTreeMap::new();
        for line in lines {
            let pair = line.split_once(": ");
            let (mutant, reason) = pair.ok_or_else(|| format!("{LIST}: no reason in `{line}`"))?;
            reasons.insert(mutant.to_owned(), reason.to_owned());
        }
        Ok(Survivors { reasons })
    }

    /// Prints survivors and figures; `names` are all mutants there are. Answers whether all is well.
    pub fn judge(&self, names: &[String], ended: &[Ended], seconds: u64) -> bool {
        let mut findings = 0;
        let mut explained = 0;
        for one in ended {
            match (one.caught, self.reasons.get(&one.mutant)) {
                (true, None) => {}
                (false, Some(reason)) => {
                    explained += 1;
                    println!("explained {}: {reason}", one.mutant);
                }
                (false, None) => {
                    findings += 1;
                    println!("FINDING survived: {}  ({})", one.mutant, one.remark);
                }
                (true, Some(_)) => {
                    findings += 1;
                    let (mutant, model) = (&one.mutant, &one.remark);
                    println!("FINDING caught by {model}, explained in {LIST}: {mutant}");
                }
            }
        }
        for unknown in self.reasons.keys().filter(|name| !names.contains(name)) {
            findings += 1;
            println!("FINDING no such mutant, explained in {LIST}: {unknown}");
        }
        let (count, caught) = (ended.len(), ended.iter().filter(|one| one.caught).count());
        let hundredths = caught * 100 / count.max(1);
        println!(
            "ordering-mutants: {count} of {} mutants run, {caught} caught ({hundredths} %, at least \
             {LEAST_CAUGHT} wanted), {explained} explained, {findings} findings, {seconds} s",
            names.len()
        );
        findings == 0 && hundredths >= LEAST_CAUGHT
    }
}
