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
            judges_bars: false,
            round_count: ROUND_COUNT,
            tasks: Vec::new(),
            workloads: Vec::new(),
            json: None,
            svg: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            if word == "--bars" {
                options.judges_bars = true;
                continue;
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
