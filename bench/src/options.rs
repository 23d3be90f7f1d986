//! The command line, as `cargo xtask bench` passes it on.

use std::path::PathBuf;

/// What is asked.
#[derive(Debug)]
pub struct Options {
    /// The folder of the peers' shared objects.
    pub peers: PathBuf,
    /// The built command.
    pub stackdepot: PathBuf,
    /// A folder for what is worth remembering.
    pub work: PathBuf,
    /// The folder of the recorded workloads.
    pub corpora: PathBuf,
    /// The checkout: the workload in git and the record of instructions are there.
    pub checkout: PathBuf,
    /// Whether instructions are counted, and nothing else is measured.
    pub only_counts: bool,
    /// Why the record of instructions is to be changed, if it is.
    pub record_reason: Option<String>,
    /// Whether the bars are judged.
    pub judges_bars: bool,
    /// Rounds of each side.
    pub round_count: usize,
    /// Tasks to run; all when empty.
    pub tasks: Vec<String>,
    /// Workloads to run on; all when empty.
    pub workloads: Vec<String>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where the chart goes.
    pub svg: Option<PathBuf>,
}

/// Rounds when nobody says.
const ROUND_COUNT: usize = 11;

impl Options {
    /// Reads the words after the program's name.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            peers: PathBuf::new(),
            stackdepot: PathBuf::new(),
            work: PathBuf::new(),
            corpora: PathBuf::new(),
            checkout: PathBuf::new(),
            only_counts: false,
            record_reason: None,
            judges_bars: false,
            round_count: ROUND_COUNT,
            tasks: Vec::new(),
            workloads: Vec::new(),
            json: None,
            svg: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bars" => {
                    options.judges_bars = true;
                    continue;
                }
                "--instructions" => {
                    options.only_counts = true;
                    continue;
                }
                _ => {}
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{word} takes a value"))?;
            options.set(&word, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, word: &str, value: String) -> Result<(), String> {
        let list = |value: &str| value.split(',').map(str::to_owned).collect();
        match word {
            "--peers" => self.peers = value.into(),
            "--stackdepot" => self.stackdepot = value.into(),
            "--work" => self.work = value.into(),
            "--checkout" => self.checkout = value.into(),
            "--record-instructions" => {
                self.only_counts = true;
                self.record_reason = Some(value);
            }
            "--corpora" => self.corpora = value.into(),
            "--json" => self.json = Some(value.into()),
            "--svg" => self.svg = Some(value.into()),
            "--task" => self.tasks = list(&value),
            "--on" => self.workloads = list(&value),
            "--rounds" => {
                let count = value.parse().ok().filter(|count| *count > 0);
                self.round_count = count.ok_or("--rounds takes a number above 0")?;
            }
            other => return Err(format!("no option `{other}`")),
        }
        Ok(())
    }
}
