//! Finds the orderings and fences of the core and makes them weakenable.
//!
//! In the copy, `Ordering::Release` at site 7 becomes `crate::sync::sites::at(7, Ordering::Release)`,
//! a fence the like; the functions answer a weaker ordering when the environment asks for
//! it (`STACKDEPOT_MUTANT=7:Relaxed`), and note which sites a model reaches
//! (`STACKDEPOT_SITES=FILE`). So one build holds every mutant.

/// An ordering stronger than Relaxed, or a fence.
#[derive(Clone, Debug)]
pub struct Site {
    /// Below the core's folder.
    pub file: String,
    /// In the file, from 1.
    pub line: usize,
    /// The function it is in.
    pub function: String,
    /// `Acquire`, `Release`, `AcqRel` or `SeqCst`.
    pub ordering: String,
    /// Whether it is a fence's.
    pub is_fence: bool,
}

/// Not looked at: recovery runs alone, and a model of it would have one thread; tests and models
/// are no part of the product.
const LEFT_OUT: [&str; 5] = ["recover.rs", "models.rs", "tests.rs", "sync.rs", "fault.rs"];

const ORDERINGS: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];

impl Site {
    /// What it can be weakened to; `none` removes a fence.
    pub fn steps(&self) -> &'static [&'static str] {
        match (self.is_fence, self.ordering.as_str()) {
            (true, "SeqCst") => &["AcqRel", "none"],
            (true, "AcqRel") => &["Acquire", "Release", "none"],
            (true, _) => &["none"],
            (false, "SeqCst") => &["AcqRel", "Acquire", "Release", "Relaxed"],
            (false, "AcqRel") => &["Acquire", "Release", "Relaxed"],
            (false, _) => &["Relaxed"],
        }
    }

    /// What it is, by names that stay when lines are added elsewhere.
    pub fn name(&self) -> String {
        let what = if self.is_fence { "fence " } else { "" };
        format!("{} {} {what}{}", self.file, self.function, self.ordering)
    }
}

/// Rewrites a file of the core; the sites found are added to `sites`.
pub fn instrument(file: &str, text: &str, sites: &mut Vec<Site>) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    if file == "src/sync.rs" {
        return format!("{text}\n{SHIM}");
    }
    if !file.starts_with("src/") || LEFT_OUT.contains(&name) {
        return text.to_owned();
    }
    let mut changed = String::new();
    // A `#[cfg(not(loom))]` item ends with the first line that closes at its indentation.
    let mut skipped: Option<usize> = None;
    let mut cfg_indent: Option<usize> = None;
    let mut function = String::new();
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("#[cfg(") && line.contains("not(loom)") {
            cfg_indent = Some(indent);
        } else if let Some(start) = cfg_indent
            && !line.trim_start().starts_with("#[")
        {
            cfg_indent = None;
            skipped = (!line.trim_end().ends_with([';', '}'])).then_some(start);
        } else if skipped == Some(indent) && line.trim_start().starts_with('}') {
            skipped = None;
        }
        let is_comment = line.trim_start().starts_with("//");
        if let (Some(name), false) = (function_of(line), is_comment) {
            function = name.to_owned();
        }
        if is_comment || skipped.is_some() {
            changed.push_str(line);
        } else {
            let before = sites.len();
            changed.push_str(&instrument_line(file, line, sites));
            for site in sites.iter_mut().skip(before) {
                site.line = index + 1;
                site.function.clone_from(&function);
            }
        }
        changed.push('\n');
    }
    changed
}

/// The name of the function that begins in a line.
fn function_of(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_item = before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || ["const", "unsafe", "extern"].contains(&word));
    let name = after.split(|letter: char| letter != '_' && !letter.is_alphanumeric());
    name.into_iter().next().filter(|_| is_item)
}

/// Rewrites a line; where its sites are, the caller knows.
fn instrument_line(file: &str, line: &str, sites: &mut Vec<Site>) -> String {
    let (mut changed, mut rest) = (String::new(), line);
    while let Some(start) = rest.find("Ordering::") {
        let (before, after) = rest.split_at(start);
        let after = after.strip_prefix("Ordering::").unwrap_or(after);
        let end = after
            .find(|letter: char| !letter.is_alphanumeric())
            .unwrap_or(after.len());
        let (ordering, remaining) = after.split_at(end);
        rest = remaining;
        if !ORDERINGS.contains(&ordering) {
            changed.push_str(&format!("{before}Ordering::{ordering}"));
            continue;
        }
        let site = sites.len();
        let fence = before.strip_suffix("fence(");
        match fence {
            Some(before) => changed.push_str(&format!(
                "{before}crate::sync::sites::fence({site}, Ordering::{ordering}"
            )),
            None => changed.push_str(&format!(
                "{before}crate::sync::sites::at({site}, Ordering::{ordering})"
            )),
        }
        sites.push(Site {
            file: file.to_owned(),
            line: 0,
            function: String::new(),
            ordering: ordering.to_owned(),
            is_fence: fence.is_some(),
        });
    }
    changed + rest
}

/// Appended to the copy's `sync.rs`.
const SHIM: &str = r#"
/// Orderings that the environment can weaken.
#[cfg(loom)]
pub(crate) mod sites {
    use super::Ordering;
    use std::io::Write;
    use std::sync::atomic::AtomicBool;
    use std::sync::{LazyLock, Mutex};

    static CHOSEN: LazyLock<Option<(usize, String)>> = LazyLock::new(|| {
        let chosen = std::env::var("STACKDEPOT_MUTANT").ok()?;
        let (site, step) = chosen.split_once(':').unwrap();
        Some((site.parse().unwrap(), step.to_owned()))
    });
    static REACHED: [AtomicBool; 512] = [const { AtomicBool::new(false) }; 512];
    static LIST: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
        let path = std::env::var_os("STACKDEPOT_SITES")?;
        Some(Mutex::new(std::fs::File::create(path).unwrap()))
    });

    fn step(site: usize) -> Option<&'static str> {
        if !REACHED[site].swap(true, Ordering::Relaxed) && let Some(list) = &*LIST {
            writeln!(list.lock().unwrap(), "{site}").unwrap();
        }
        match &*CHOSEN {
            Some((chosen, step)) if *chosen == site => Some(step),
            _ => None,
        }
    }

    fn weaker(step: &str) -> Ordering {
        match step {
            "AcqRel" => Ordering::AcqRel,
            "Acquire" => Ordering::Acquire,
            "Release" => Ordering::Release,
            _ => Ordering::Relaxed,
        }
    }

    pub(crate) fn at(site: usize, ordering: Ordering) -> Ordering {
        step(site).map_or(ordering, weaker)
    }

    pub(crate) fn fence(site: usize, ordering: Ordering) {
        match step(site) {
            Some("none") => {}
            Some(step) => super::fence(weaker(step)),
            None => super::fence(ordering),
        }
    }
}
"#;
