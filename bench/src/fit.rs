//! The region of ours: as many slots as `stackdepot replay --fit` finds a workload to need.
//!
//! The command is asked once for each file; the answer is kept until the file or the command changes.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use stackdepot::Config;

/// Asks the command, or remembers what it said.
pub fn slot_count(command: &Path, file: &Path, memory: &Path) -> Result<u32, String> {
    let (name, stamp) = (crate::workload::name(file), stamp(command, file)?);
    let note = memory.join(format!("fit-{name}.json"));
    let known: Option<Value> = std::fs::read(&note)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let known = known.filter(|known| known.get("stamp").and_then(Value::as_str) == Some(&stamp));
    let bytes = match known.and_then(|known| known.get("bytes")?.as_u64()) {
        Some(bytes) => bytes,
        None => {
            eprintln!("{name}: looking for the smallest region");
            let bytes = ask(command, file)?;
            let text = json!({"stamp": stamp, "bytes": bytes}).to_string();
            std::fs::write(&note, text).map_err(|e| format!("{}: {e}", note.display()))?;
            bytes
        }
    };
    let geometry = Config::new(bytes as usize).geometry();
    Ok(geometry.map_err(|e| format!("{name}: {e}"))?.slot_count)
}

/// What changes when the file or the command does.
fn stamp(command: &Path, file: &Path) -> Result<String, String> {
    let of = |path: &Path| {
        let metadata = path
            .metadata()
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let modified = metadata
            .modified()
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<String, String>(format!(
            "{} {} {modified:?}",
            path.display(),
            metadata.len()
        ))
    };
    Ok(format!("{}, {}", of(command)?, of(file)?))
}

fn ask(command: &Path, file: &Path) -> Result<u64, String> {
    let mut replay = Command::new(command);
    replay.args(["replay", "--fit", "--json"]).arg(file);
    let ran = replay
        .output()
        .map_err(|e| format!("{}: {e}", command.display()))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).trim_end().to_owned());
    }
    let answer: Value = serde_json::from_slice(&ran.stdout)
        .map_err(|e| format!("{}: no JSON: {e}", command.display()))?;
    let bytes = answer.get("depot_bytes").and_then(Value::as_u64);
    bytes.ok_or_else(|| format!("{}: no depot_bytes in its answer", command.display()))
}
