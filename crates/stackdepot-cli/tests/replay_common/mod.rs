//! What the tests of `replay` share: running the command, reading its figures, finding corpora.
#![allow(dead_code)] // every test file uses its own part

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value};

/// The small corpus in git.
pub fn small_corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../stackdepot-corpus/tests/data/small.stk.zst")
}

/// Runs `stackdepot replay OPTIONS CORPUS`.
pub fn command(corpus: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stackdepot"))
        .arg("replay")
        .args(options)
        .arg(corpus)
        .output()
        .unwrap()
}

/// The figures of one replay, and the options that gave them.
pub struct Figures {
    options: String,
    json: Value,
}

impl Figures {
    /// Replays with `--json`; the command must succeed.
    pub fn of(corpus: &Path, options: &[&str]) -> Figures {
        let output = command(corpus, &[options, &["--json"]].concat());
        let options = format!("{} {}", options.join(" "), corpus.display());
        assert!(output.status.success(), "{options}: {output:?}");
        let json = serde_json::from_slice(&output.stdout).unwrap();
        Figures { options, json }
    }

    pub fn object(&self) -> &Map<String, Value> {
        self.json.as_object().unwrap()
    }

    pub fn number(&self, field: &str) -> u64 {
        self.json[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} of {self:?}"))
    }

    pub fn float(&self, field: &str) -> f64 {
        self.json[field]
            .as_f64()
            .unwrap_or_else(|| panic!("{field} of {self:?}"))
    }

    pub fn text(&self, field: &str) -> &str {
        self.json[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} of {self:?}"))
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay {}: {}", self.options, self.json)
    }
}

/// A fresh folder for one test.
pub fn temporary_folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("stackdepot-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
