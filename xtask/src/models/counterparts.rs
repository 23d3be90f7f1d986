//! Models that are not searched to their end, each with a smaller one that is, and the verdict on
//! those that did not end.
//!
//! The list is `verification/loom-counterparts.txt`: lines `MODEL -> COUNTERPART: REASON`. A model
//! that is not in it must end. An entry that names no model is a finding, too.

use super::runner::Model;
use crate::Answer;
use crate::house::House;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const LIST: &str = "verification/loom-counterparts.txt";

/// The smaller model of each large one.
pub struct Counterparts {
    smaller: BTreeMap<String, String>,
}

impl Counterparts {
    /// Reads the list and compares it with the models that there are.
    pub fn read(house: &House, models: &[Model]) -> Answer<Counterparts> {
        let text = fs::read_to_string(house.root.join(LIST)).map_err(|e| format!("{LIST}: {e}"))?;
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut smaller = BTreeMap::new();
        for line in lines {
            let parts = line
                .split_once(" -> ")
                .and_then(|(large, rest)| Some((large, rest.split_once(": ")?.0)));
            let (large, small) = parts.ok_or_else(|| format!("{LIST}: what is `{line}`?"))?;
            for name in [large, small] {
                if models.iter().all(|model| model.name != name) {
                    return Err(format!("{LIST}: no model is called `{name}`"));
                }
            }
            smaller.insert(large.to_owned(), small.to_owned());
        }
        Ok(Counterparts { smaller })
    }

    /// Whether a model need not end.
    pub fn has(&self, model: &Model) -> bool {
        self.smaller.contains_key(&model.name)
    }

    /// Whether it is chosen itself or as the smaller one of what is.
    pub fn is_chosen(&self, model: &Model, filter: &str) -> bool {
        let is_smaller_of =
            |(large, small): (&String, &String)| large.contains(filter) && *small == model.name;
        model.name.contains(filter) || self.smaller.iter().any(is_smaller_of)
    }

    /// Prints how each unfinished model is backed; answers how many are not.
    pub fn judge(&self, unfinished: &BTreeSet<String>, held: &BTreeSet<String>) -> usize {
        let mut findings = 0;
        for large in unfinished {
            match self.smaller.get(large) {
                Some(small) if held.contains(small) => {
                    println!("unfinished {large}: its counterpart ended, {small}");
                }
                Some(small) => {
                    findings += 1;
                    println!("FINDING unfinished {large}: its counterpart did not end, {small}");
                }
                None => {
                    findings += 1;
                    println!("FINDING unfinished {large}: it has no counterpart in {LIST}");
                }
            }
        }
        findings
    }
}
