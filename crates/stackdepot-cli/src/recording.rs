//! A recording as the verbs see it: opened by file or pid, copied once, with its symbols.
//!
//! [`Recording`] holds the copy; [`Trace`] is one allocation or free with thread, time and frames.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;
use stackdepot::WeakHandle;
use stackdepot::live::Sampling;
use stackdepot_region::caller::Caller;
use stackdepot_region::counters::Counter;
use stackdepot_region::reader::locate::TargetError;
use stackdepot_region::reader::snapshot::{Amount, BlockRecord, Skipped, Snapshot};
use stackdepot_region::reader::{Info, RegionFile, open_file_or_pid};

use crate::failure::Failure;
use crate::output;
use crate::processes::mapped_recording;
use crate::story;
use crate::symbols::{Frame, Symbols};
use crate::text::plain;

/// A copy of a region file, ready for questions.
pub struct Recording {
    /// The copy.
    pub snapshot: Snapshot,
    /// Names for addresses.
    pub symbols: Symbols,
    shown_path: String,
}

/// Who did something, when, and through which calls.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The kernel's thread id.
    pub thread: u32,
    /// The function that was called, or the one that its family is named after.
    pub family: Option<&'static str>,
    /// Before now, or before the end of a recording that has ended.
    pub seconds_ago: Option<f64>,
    /// Innermost first; empty when the stack is not available.
    pub frames: Vec<Frame>,
}

/// What the recorder refused, cut or overwrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Events that left the ring for newer ones: what a bounded ring does.
    pub overwritten: u64,
    /// Stacks refused because everything stored was held.
    pub full: u64,
    /// Stacks given up because other threads kept winning.
    pub contended: u64,
    /// Stacks cut at the limit of frames.
    pub truncated: u64,
    /// Stacks that could not be walked to their end.
    pub unwind_failed: u64,
    /// Live blocks that found no place.
    pub live_table_full: u64,
    /// Processes of the run that ran without a file.
    pub children_unrecorded: u64,
    /// Files of ended processes that made room for newer ones.
    pub children_removed: u64,
    /// Events whose place in the ring was lapped before they were written.
    pub lapped: u64,
    /// Allocations and frees that the recorder could not take at that moment.
    pub unrecorded: u64,
}

impl Recording {
    /// Opens `FILE|PID` and copies it. What is damaged or torn is noted on stderr.
    ///
    /// # Errors
    /// One line: no such file or process, no region file, or damaged beyond reading.
    pub fn open(target: &OsStr) -> Result<Recording, Failure> {
        let file = match open_file_or_pid(target) {
            // It may write a file of `-o`, which lies anywhere.
            Err(error @ (TargetError::NotRecorded(pid) | TargetError::OtherUser(pid))) => {
                let path = mapped_recording(pid).ok_or_else(|| Failure::new(error))?;
                RegionFile::open(&path).map_err(Failure::new)?
            }
            found => found.map_err(Failure::new)?,
        };
        Recording::read(&file)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Recording::open`].
    pub fn open_file(path: &Path) -> Result<Recording, Failure> {
        Recording::read(&RegionFile::open(path).map_err(Failure::new)?)
    }

    fn read(file: &RegionFile) -> Result<Recording, Failure> {
        let snapshot = file.snapshot().map_err(Failure::new)?;
        let shown_path = file.path().display().to_string();
        for problem in snapshot.problems() {
            output::note(&format!("{shown_path}: {problem}"));
        }
        let symbols = Symbols::new(snapshot.modules());
        Ok(Recording {
            snapshot,
            symbols,
            shown_path,
        })
    }

    /// What it is about.
    pub fn info(&self) -> &Info {
        self.snapshot.info()
    }

    /// With `run --sample`, the bytes from one sample to the next.
    pub fn sample_bytes(&self) -> Option<u64> {
        let sampling = self.info().sampling;
        sampling.is_on().then(|| sampling.sample_bytes())
    }

    /// The program's path.
    pub fn program(&self) -> String {
        plain(&String::from_utf8_lossy(&self.info().executable))
    }

    /// The command line, quoted so that a shell reads it back.
    pub fn command(&self) -> String {
        let words = self
            .info()
            .command
            .iter()
            .map(|word| shell_word(OsStr::from_bytes(word)));
        plain(&words.collect::<Vec<_>>().join(" "))
    }

    /// The frames of a stack; empty when it is not available.
    pub fn frames(&mut self, stack: Option<WeakHandle>, tsc: Option<u64>) -> Vec<Frame> {
        let found = stack.and_then(|weak| self.snapshot.stack(weak).ok());
        found.map_or_else(Vec::new, |found| self.symbols.stack(&found.frames, tsc))
    }

    /// One allocation, by the bits of its caller.
    pub fn allocation(
        &mut self,
        caller: u32,
        tsc: Option<u64>,
        stack: Option<WeakHandle>,
    ) -> Trace {
        let name = story::alloc_name(Caller::from_bits(caller));
        self.trace(caller, name, tsc, stack)
    }

    /// One free.
    pub fn free(&mut self, caller: u32, tsc: Option<u64>, stack: Option<WeakHandle>) -> Trace {
        let name = story::free_name(Caller::from_bits(caller));
        self.trace(caller, name, tsc, stack)
    }

    fn trace(
        &mut self,
        caller: u32,
        family: Option<&'static str>,
        tsc: Option<u64>,
        stack: Option<WeakHandle>,
    ) -> Trace {
        Trace {
            thread: Caller::from_bits(caller).thread(),
            family,
            seconds_ago: tsc.and_then(|tsc| self.info().seconds_ago(tsc)),
            frames: self.frames(stack, tsc),
        }
    }

    /// What is live: by stack, and the blocks whose stack was refused.
    pub fn live(&self) -> Amount {
        self.snapshot
            .stacks()
            .fold(self.without_stack(), |sum, stack| add(sum, stack.live))
    }

    /// Live blocks whose stack was refused: `lost` counts the refusals.
    pub fn without_stack(&self) -> Amount {
        let blocks = self.snapshot.live_blocks().iter();
        let scaled = |record: &BlockRecord, number: u64| {
            let sum = u128::from(number) * u128::from(record.factor) / u128::from(Sampling::ONE);
            u64::try_from(sum).unwrap_or(u64::MAX)
        };
        blocks.filter(|record| record.block.stack.is_none()).fold(
            Amount::default(),
            |sum, record| {
                let count = scaled(record, 1);
                let bytes = scaled(record, record.block.size);
                add(sum, Amount { count, bytes })
            },
        )
    }

    /// What was ever allocated: by stored stacks, by those that were evicted, and what is live
    /// though its stack was refused.
    pub fn total(&self) -> Amount {
        let evicted = self
            .snapshot
            .depot_stats()
            .map_or([0; 4], |depot| depot.evicted_payload);
        let [count, bytes, ..] = evicted;
        let start = add(self.without_stack(), Amount { count, bytes });
        self.snapshot
            .stacks()
            .fold(start, |sum, stack| add(sum, stack.total))
    }

    /// What was lost.
    pub fn lost(&self) -> Lost {
        let counters = self.snapshot.counters();
        let ledger = self.snapshot.ledger_counts();
        let ring = self.snapshot.ring_stats();
        Lost {
            overwritten: ring.overwritten,
            full: [
                Counter::SaveFull,
                Counter::SaveCrowded,
                Counter::SaveSaturated,
            ]
            .into_iter()
            // A damaged file may say anything.
            .fold(0, |sum: u64, counter| {
                sum.saturating_add(counters.get(counter))
            }),
            contended: counters.get(Counter::SaveContended),
            truncated: counters.get(Counter::Truncated),
            unwind_failed: counters.get(Counter::UnwindFailed),
            live_table_full: counters.get(Counter::LiveTableFull),
            children_unrecorded: ledger.children_unrecorded,
            children_removed: ledger.children_removed,
            lapped: ring.lapped,
            unrecorded: counters.get(Counter::EventsUnrecorded),
        }
    }

    /// Says on stderr what could not be looked up or read. For the end of a verb.
    pub fn note_gaps(&self) {
        for note in self.symbols.notes() {
            output::note(note);
        }
        let Skipped {
            nodes_changed,
            events_torn,
            blocks_torn,
            counts_moved,
            modules_torn,
        } = self.snapshot.skipped();
        let skipped = nodes_changed + events_torn + blocks_torn + counts_moved + modules_torn;
        if skipped > 0 {
            output::note(&format!(
                "{}: skipped what changed or made no sense while it was read: {nodes_changed} nodes, {events_torn} events, {blocks_torn} blocks, {counts_moved} counts, {modules_torn} modules",
                self.shown_path
            ));
        }
    }
}

impl Lost {
    /// Every loss but `overwritten`, which a bounded ring always has: number and words.
    pub fn worth_telling(&self) -> Vec<(u64, &'static str)> {
        self.of_process().into_iter().chain(self.of_run()).collect()
    }

    fn of_process(&self) -> Vec<(u64, &'static str)> {
        let all = [
            (self.full, "stacks refused (everything held)"),
            (self.contended, "stacks refused (contended)"),
            (self.truncated, "stacks cut at the frame limit"),
            (self.unwind_failed, "stacks not unwound to the end"),
            (self.live_table_full, "live blocks without a place"),
            (self.lapped, "events lapped in the ring"),
            (self.unrecorded, "events not recorded"),
        ];
        all.into_iter().filter(|(number, _)| *number > 0).collect()
    }

    /// What the first process's file says of the run as a whole.
    pub fn of_run(&self) -> Vec<(u64, &'static str)> {
        let all = [
            (self.children_unrecorded, "processes not recorded"),
            (self.children_removed, "files of ended processes removed"),
        ];
        all.into_iter().filter(|(number, _)| *number > 0).collect()
    }
}

fn add(sum: Amount, more: Amount) -> Amount {
    Amount {
        count: sum.count.saturating_add(more.count),
        bytes: sum.bytes.saturating_add(more.bytes),
    }
}

/// A word so that a shell reads it back: as it is, quoted, or `$'...'` with bytes that are no text.
pub fn shell_word(word: &OsStr) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            let bytes = word.as_bytes().iter();
            let escaped: String = bytes
                .flat_map(|byte| std::ascii::escape_default(*byte))
                .map(char::from)
                .collect();
            format!("$'{escaped}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let quote = |word: &str| shell_word(OsStr::new(word));
        assert_eq!(quote("a-b.c"), "a-b.c");
        assert_eq!(quote("select 1"), "'select 1'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("für"), "'für'");
        assert_eq!(quote("a\nb\x1b'"), r"$'a\nb\x1b\''");
        assert_eq!(shell_word(OsStr::from_bytes(b"o\xfe.rec")), r"$'o\xfe.rec'");
    }
}
