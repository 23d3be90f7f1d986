//! Rules over the text of tracked files: sizes, orderings, paths of a machine, licences.

use super::Findings;
use crate::house::House;
use crate::{Answer, child};
use std::fs;
use std::process::Command;

/// The longest file; at this size one thinks again, beyond it one splits.
const MAX_LINES: usize = 600;
/// How far above (or below, inside a statement) an operation its `ORDERING:` comment may stand.
const ORDERING_REACH_LINES: usize = 12;
/// Paths that exist on somebody's machine only.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/", "home/"),
    concat!("/", "root/"),
    concat!("/", "work/"),
    concat!("/", "Users/"),
    concat!("/tmp/", "target"),
];

/// The tracked (or not yet ignored) files with one of these endings; all files when there is none.
pub fn files(house: &House, endings: &[&str]) -> Answer<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(&house.root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = child::must(&mut git)?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let wanted = |file: &&str| {
        let ending = file.rsplit('.').next().unwrap_or_default();
        house.root.join(file).is_file() && (endings.is_empty() || endings.contains(&ending))
    };
    Ok(listed.lines().filter(wanted).map(str::to_owned).collect())
}

/// A file's text; bytes that are no text come as replacement characters.
pub fn read(house: &House, file: &str) -> Answer<String> {
    let bytes = fs::read(house.root.join(file)).map_err(|e| format!("{file}: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The code without line comments, up to the tests at the file's end; line numbers stay.
pub fn code_without_tests(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let lines = text.lines().take(lines_before_tests(text)).map(code);
    lines.collect::<Vec<_>>().join("\n")
}

/// Where the test modules at a file's end begin: a `cfg` with `test` in it right before a `mod`.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let starts = |pair: &[&str]| {
        let names_test = pair[0]
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "test");
        pair[0].starts_with("#[cfg(") && names_test && pair[1].starts_with("mod ")
    };
    lines.windows(2).position(starts).unwrap_or(lines.len())
}

/// Files longer than the limit, tests apart.
pub fn sizes(house: &House) -> Answer<Findings> {
    let mut findings = Findings::new();
    for file in files(house, &["rs", "c", "h", "cpp", "py"])? {
        if file.contains("/tests/") || file.ends_with("_tests.rs") || file.ends_with("/tests.rs") {
            continue;
        }
        let lines = lines_before_tests(&read(house, &file)?);
        if lines > MAX_LINES {
            findings.push(format!(
                "{file}: {lines} lines, more than {MAX_LINES}; split it by concept"
            ));
        }
    }
    Ok(findings)
}

/// Non-Relaxed orderings in the core without an `// ORDERING:` comment that names the partner.
pub fn orderings(house: &House) -> Answer<Findings> {
    let mut findings = Findings::new();
    for file in files(house, &["rs"])? {
        if !file.starts_with("crates/stackdepot/src/")
            || file.ends_with("/sync.rs")
            || file.ends_with("tests.rs")
        {
            continue;
        }
        let text = read(house, &file)?;
        let lines: Vec<&str> = text.lines().collect();
        for (index, code) in code_without_tests(&text).lines().enumerate() {
            let near =
                &lines[index.saturating_sub(ORDERING_REACH_LINES)..lines.len().min(index + 3)];
            let is_explained = near.iter().any(|line| line.contains("ORDERING:"));
            if orders(code) && !is_explained {
                findings.push(format!(
                    "{file}:{}: an ordering without `// ORDERING:` near it",
                    index + 1
                ));
            }
        }
    }
    Ok(findings)
}

fn orders(code: &str) -> bool {
    let is_import =
        code.trim_start().starts_with("use ") || code.trim_start().starts_with("pub use ");
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    !is_import
        && words
            .into_iter()
            .any(|word| matches!(word, "Acquire" | "Release" | "AcqRel" | "SeqCst"))
}

/// Numbered invariants: ARCHITECTURE.md's table, the files that own them and the comments that cite
/// them must agree.
pub fn invariants(house: &House) -> Answer<Findings> {
    let mut findings = Findings::new();
    let page = read(house, "ARCHITECTURE.md")?;
    let owned: Vec<(&str, &str)> = page.lines().filter_map(table_row).collect();
    for (number, file) in &owned {
        let text = read(house, file).unwrap_or_default();
        if !text.contains(&format!("INVARIANT {number}:")) {
            findings.push(format!(
                "ARCHITECTURE.md: {file} does not state INVARIANT {number}"
            ));
        }
    }
    for file in files(house, &["rs"])? {
        if file.starts_with("xtask/") {
            continue;
        }
        for (index, line) in read(house, &file)?.lines().enumerate() {
            for number in line.split("INVARIANT ").skip(1).map(first_word) {
                let place = format!("{file}:{}", index + 1);
                let known = owned.iter().find(|(other, _)| *other == number);
                match known {
                    None => findings.push(format!(
                        "{place}: INVARIANT {number} is not in ARCHITECTURE.md"
                    )),
                    Some((_, owner))
                        if !file.contains("tests")
                            && line.contains(&format!("INVARIANT {number}:"))
                            && *owner != file =>
                    {
                        findings.push(format!(
                            "{place}: states INVARIANT {number}, which {owner} owns"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    Ok(findings)
}

/// `| number | text | `file` |` of the table of invariants.
fn table_row(line: &str) -> Option<(&str, &str)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [number, _, file] = cells[..] else {
        return None;
    };
    let is_number = number.ends_with(|c: char| c.is_ascii_digit());
    is_number.then_some((number, file.trim_matches('`')))
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default()
}

/// Paths of somebody's machine in any tracked file.
pub fn paths(house: &House) -> Answer<Findings> {
    let mut findings = Findings::new();
    for file in files(house, &[])? {
        for (index, line) in read(house, &file)?.lines().enumerate() {
            if let Some(path) = MACHINE_PATHS.iter().find(|path| has_path(line, path)) {
                findings.push(format!(
                    "{file}:{}: a path of one machine: {path}",
                    index + 1
                ));
            }
        }
    }
    Ok(findings)
}

/// Whether `path` stands in the line as the start of a path, not inside a longer one.
fn has_path(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '.' || c == '_' || c == '-' || c == '}';
    line.match_indices(path)
        .any(|(at, _)| !line[..at].ends_with(inside))
}

/// Both licences with their full texts.
pub fn licences(house: &House) -> Answer<Findings> {
    let mut findings = Findings::new();
    for (file, last_words) in [
        ("LICENSE-MIT", "THE SOFTWARE IS PROVIDED \"AS IS\""),
        ("LICENSE-APACHE", "END OF TERMS AND CONDITIONS"),
    ] {
        if !read(house, file).unwrap_or_default().contains(last_words) {
            findings.push(format!("{file}: missing or not the full text"));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ordered_operations_need_an_explanation() {
        assert!(orders("state.load(Acquire)"));
        assert!(orders("fence(Ordering::SeqCst);"));
        assert!(!orders("count.fetch_add(1, Ordering::Relaxed)"));
        assert!(!orders("use crate::sync::Ordering::{Acquire, Release};"));
        assert!(!orders("struct ReleaseNotes;"));
    }

    #[test]
    fn tests_at_the_end_of_a_file_do_not_count() {
        let text = "#[cfg(test)]\nuse x;\nfn f() {} // note\n#[cfg(all(test, not(loom)))]\nmod tests {\n}\n";
        assert_eq!(lines_before_tests(text), 3);
        assert_eq!(code_without_tests(text), "#[cfg(test)]\nuse x;\nfn f() {} ");
    }

    #[test]
    fn a_path_counts_only_where_it_starts() {
        let path = MACHINE_PATHS[2];
        assert!(has_path(&format!("cd {path}x"), path));
        assert!(!has_path(&format!("target{path}x"), path));
    }
}
