//! Arrows point down only: between the core's modules, and between the crates.
//!
//! The allowed order is the block marked `layers` in ARCHITECTURE.md, read from there, so that the
//! page cannot say one thing and the code another. Each of its lines is `NAME: low < ... < high`;
//! what stands between two `<` may import each other and everything to the left. The core also
//! has no dependency at all, but for its loom models.

use super::{Findings, text};
use crate::house::House;
use crate::{Answer, child};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A name's height in its line of the table.
type Heights = HashMap<String, usize>;

/// Everything that points up, or that the table does not know.
pub fn findings(house: &House) -> Answer<Findings> {
    let page = house.root.join("ARCHITECTURE.md");
    let page = fs::read_to_string(&page).map_err(|e| format!("{}: {e}", page.display()))?;
    let mut findings = module_findings(house, &table(&page, "modules")?)?;
    findings.extend(crate_findings(house, &table(&page, "crates")?)?);
    Ok(findings)
}

/// Reads the line `name:` of the block marked `layers`.
fn table(page: &str, name: &str) -> Answer<Heights> {
    let block = page
        .split("```layers\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let block = block.ok_or("ARCHITECTURE.md has no block marked `layers`")?;
    let line = block
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("ARCHITECTURE.md: no line `{name}:` in the layers"))?;
    let layers = line.split('<').enumerate();
    Ok(layers
        .flat_map(|(height, names)| {
            names
                .split_whitespace()
                .map(move |n| (n.to_owned(), height))
        })
        .collect())
}

fn module_findings(house: &House, heights: &Heights) -> Answer<Findings> {
    let source = house.root.join("crates/stackdepot/src");
    let mut findings = Findings::new();
    for file in text::files(house, &["rs"])? {
        let Ok(inside) = house
            .root
            .join(&file)
            .strip_prefix(&source)
            .map(Path::to_path_buf)
        else {
            continue;
        };
        let parts: Vec<String> = inside
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        let module = &parts[0];
        if module == "lib" {
            continue;
        }
        let Some(height) = heights.get(module) else {
            findings.push(format!(
                "{file}: module `{module}` is not in ARCHITECTURE.md's layers"
            ));
            continue;
        };
        // Tests may use what lies above, in a file of their own as in the module.
        if parts.last().is_some_and(|part| part == "tests") {
            continue;
        }
        let code = text::code_without_tests(&text::read(house, &file)?);
        for used in used_modules(&code, parts.len() == 1) {
            match heights.get(&used) {
                Some(other) if other <= height => {}
                Some(_) => findings.push(format!(
                    "{file}: `{module}` uses `{used}`, which lies above it"
                )),
                None => findings.push(format!(
                    "{file}: uses `crate::{used}`, which is no module of the layers"
                )),
            }
        }
    }
    Ok(findings)
}

/// The first names after `crate::` (and `super::` in a file at the top), braces included.
fn used_modules(code: &str, at_top: bool) -> Vec<String> {
    let mut used = Vec::new();
    let starts = if at_top {
        &["crate::", "super::"][..]
    } else {
        &["crate::"][..]
    };
    for start in starts {
        for (at, _) in code.match_indices(start) {
            // `$crate::` and `pub(crate)` are no imports; neither are longer names that end so.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let names = first_names(&code[at + start.len()..]);
            // `super::Item` in a module inside the file is the file's own.
            used.extend(
                names
                    .into_iter()
                    .filter(|name| *start == "crate::" || !name.starts_with(char::is_uppercase)),
            );
        }
    }
    used.sort();
    used.dedup();
    used
}

/// `a::b` gives `a`; `{a::{b, c}, d}` gives `a` and `d`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(list) = path.strip_prefix('{') else {
        return Some(name(path))
            .filter(|name| !name.is_empty())
            .into_iter()
            .collect();
    };
    let (mut names, mut depth, mut item) = (Vec::new(), 0, String::new());
    for letter in list.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(std::mem::take(&mut item)),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                item.push(letter);
            }
        }
    }
    names.push(item);
    names
        .iter()
        .map(|item| name(item.trim()))
        .filter(|item| !item.is_empty())
        .collect()
}

fn crate_findings(house: &House, heights: &Heights) -> Answer<Findings> {
    let ran = child::must(house.cargo().args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--offline",
    ]))?;
    let metadata = ran.json()?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut findings = Findings::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(height) = heights.get(name) else {
            findings.push(format!("crate `{name}` is not in ARCHITECTURE.md's layers"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_for_tests = dependency["kind"] == "dev" || dependency["target"] == "cfg(loom)";
            if name == "stackdepot" && !is_for_tests {
                findings.push(format!(
                    "the core depends on `{used}`; it must have no dependency"
                ));
            }
            let points_up = heights.get(used).is_none_or(|other| other >= height);
            if names.contains(&used) && dependency["kind"] != "dev" && points_up {
                findings.push(format!(
                    "crate `{name}` depends on `{used}`, which does not lie below it"
                ));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_import_names_its_module() {
        let code = "use crate::slot::Slot;\nuse crate::{index::{a, b}, hand, sync::fence};\nlet x = crate::walk::Walk::new();";
        assert_eq!(
            used_modules(code, true),
            ["hand", "index", "slot", "sync", "walk"]
        );
    }

    #[test]
    fn super_is_the_crate_only_at_the_top() {
        assert_eq!(
            used_modules("use super::depot::Depot; use super::*;", true),
            ["depot"]
        );
        assert!(used_modules("use super::depot::Depot;", false).is_empty());
    }

    #[test]
    fn a_reexported_item_does_not_hide_its_module() {
        assert_eq!(used_modules("use crate::Depot;", false), ["Depot"]);
    }

    #[test]
    fn the_table_gives_heights() {
        let page = "```layers\nmodules: a b < c\ncrates: x\n```";
        let heights = table(page, "modules").unwrap();
        assert_eq!((heights["a"], heights["b"], heights["c"]), (0, 0, 1));
        assert!(table(page, "others").is_err());
    }
}
