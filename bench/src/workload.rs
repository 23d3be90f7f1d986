//! Workloads: the recorded corpora, and the shape of the kernel's own proposal.
//!
//! Key type: [`Workload`], a corpus with its name and what ours needs to hold all of it.

use std::path::{Path, PathBuf};

use stackdepot_corpus::Corpus;

use crate::options::Options;
use crate::{fit, proposal};

/// Events that the ring keeps in every ring measure.
pub const RING_EVENT_COUNT: u32 = 32768;
/// Most frames of a recorded stack.
pub const MOST_FRAMES: usize = 64;

/// What every side is fed with.
#[derive(Debug)]
pub struct Workload {
    /// The file's name without its endings.
    pub name: String,
    /// Stacks and events.
    pub corpus: Corpus,
    /// Slots of the depot that `stackdepot replay --fit` found for it.
    pub slot_count: u32,
}

/// The workloads that are asked for.
pub fn load(options: &Options) -> Result<Vec<Workload>, String> {
    let is_asked = |name: &str| {
        options.workloads.is_empty() || options.workloads.iter().any(|asked| asked == name)
    };
    let mut workloads = Vec::new();
    for file in files(&options.corpora)? {
        if is_asked(&name(&file)) {
            workloads.push(open(options, &file)?);
        }
    }
    if is_asked(proposal::NAME) {
        // A file, because the command that finds the region's size reads files.
        let file = options.work.join(format!("{}.stk.zst", proposal::NAME));
        if !file.is_file() {
            let bytes = proposal::corpus()?.to_zstd();
            std::fs::write(&file, bytes).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        workloads.push(open(options, &file)?);
    }
    if workloads.is_empty() {
        return Err(format!(
            "no workload is called {}",
            options.workloads.join(" or ")
        ));
    }
    Ok(workloads)
}

fn open(options: &Options, file: &Path) -> Result<Workload, String> {
    Ok(Workload {
        name: name(file),
        corpus: Corpus::open(file).map_err(|e| format!("{}: {e}", file.display()))?,
        slot_count: fit::slot_count(&options.stackdepot, file, &options.work)?,
    })
}

/// The recorded workloads of a folder, by name.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".stk.zst"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no NAME.stk.zst in it", folder.display()));
    }
    Ok(files)
}

/// The workload's name: the file's, up to its first point.
pub fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
