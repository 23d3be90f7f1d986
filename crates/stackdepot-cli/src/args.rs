//! The arguments of every verb, as clap derives them, and the sizes that they share.
//!
//! Values that come from a user's head (sizes, addresses) are parsed here into one-line errors;
//! everything else about a verb is in the file of that name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::replay;

/// Records which stacks of an unmodified program hold its memory, in files that never grow.
#[derive(Debug, Parser)]
#[command(name = "stackdepot", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Example:
  stackdepot run -- sqlite3 my.db 'select count(*) from t'
  stackdepot report stackdepot.4711
  stackdepot who stackdepot.4711 0x7f3a5c0012a0

Exit status: 0 done, 1 error, 2 `who` has no record; `run` exits as its program does.";

/// The verbs; all but `run` and `replay` only read.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a program and record the stack of every malloc and free
    Run(RunArguments),
    /// List the stacks that hold memory, largest first
    Report(ReportArguments),
    /// Tell who allocated and who freed the memory at an address
    Who(WhoArguments),
    /// List the newest allocs and frees
    Events(EventsArguments),
    /// Show every counter: totals, what is lost, how full
    Stats(StatsArguments),
    /// Remove the files that killed runs left behind
    Clean(CleanArguments),
    /// Replay a recorded workload through the depot, checking every stack
    Replay(replay::Options),
}

/// `stackdepot run`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot run -- sqlite3 my.db 'select count(*) from t'
  stackdepot run --bytes 256M -o build.rec -- make -j8
  stackdepot run --sample 512K -- my-service

With --sample a block is recorded with a chance that grows with its size, from its alloc to its free,
so that what is recorded costs little and what holds much memory is found all the same; sums are
estimates then, and `who` knows the recorded blocks alone.
K, M and G are powers of 1024. The files of all processes of the run together stay within --bytes.
The program keeps its stdin, stdout, signals and exit status. 125 is the exit status when the
program cannot be recorded, 126 when it cannot be executed, 127 when it is not found.")]
pub struct RunArguments {
    /// Most bytes for the files of the whole run; 16M if not given with --sample
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "64M",
        default_value_if("sample", ArgPredicate::IsPresent, "16M")
    )]
    pub bytes: String,
    /// Record about one block in every SIZE bytes allocated, not every block
    #[arg(long, value_name = "SIZE")]
    pub sample: Option<String>,
    /// Record into FILE (children: FILE.PID-N) instead of ./stackdepot.PID
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// No report at the end
    #[arg(short, long)]
    pub quiet: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// What the list of stacks is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Bytes that are not freed
    LiveBytes,
    /// Blocks that are not freed
    LiveCount,
    /// Bytes that were ever allocated
    TotalBytes,
    /// Blocks that were ever allocated
    TotalCount,
}

/// `stackdepot report`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot report stackdepot.4711
  stackdepot report --by total-bytes --top 3 4711
  stackdepot report --json ./123 | jq '.stacks[0]'

A number is a pid; a file whose name is all digits is written ./123.")]
pub struct ReportArguments {
    /// Stacks to show; 0 for all (default: 10, with --json all)
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// What to sort by
    #[arg(long, value_enum, default_value = "live-bytes")]
    pub by: By,
    /// Write JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// A recording, or the pid of a recorded process
    #[arg(value_name = "FILE|PID")]
    pub target: OsString,
}

/// `stackdepot who`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot who stackdepot.4711 0x7f3a5c0012a0

ADDRESS may lie anywhere inside a block, live or freed; 0x... is hexadecimal.
Exit status 2: nothing is known about the address (any more).")]
pub struct WhoArguments {
    /// Write JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// A recording, or the pid of a recorded process
    #[arg(value_name = "FILE|PID")]
    pub target: OsString,
    /// The address: 0x7f3a5c0012a0
    #[arg(value_name = "ADDRESS")]
    pub address: String,
}

/// `stackdepot events`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot events --last 3 stackdepot.4711")]
pub struct EventsArguments {
    /// Events to show, newest first; 0 for all that are stored (default: 20, with --json all)
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Write JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// A recording, or the pid of a recorded process
    #[arg(value_name = "FILE|PID")]
    pub target: OsString,
}

/// `stackdepot stats`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot stats stackdepot.4711")]
pub struct StatsArguments {
    /// Write JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// A recording, or the pid of a recorded process
    #[arg(value_name = "FILE|PID")]
    pub target: OsString,
}

/// `stackdepot clean`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  stackdepot clean --dry-run
  stackdepot clean

Without FILE: the files that ended runs left in shared memory. Recordings that were moved to
./stackdepot.<pid> are yours: name them to remove them. What a live process uses stays.")]
pub struct CleanArguments {
    /// Only list what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Recordings to remove
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Reads `64M`: decimal digits and K, M, G or T as powers of 1024.
///
/// # Errors
/// One line that names the text and the form that is expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write bytes as 1048576, 1024K, 64M or 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is more than 64 bits can count"))
}

/// Reads an address: `0x7f..`, bare hexadecimal digits with a letter among them, or decimal.
///
/// # Errors
/// One line that names the text.
pub fn parse_address(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no address: write it as 0x7f3a5c0012a0");
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return parse_digits(digits, 16).ok_or_else(wrong);
    }
    parse_digits(text, 10)
        .or_else(|| parse_digits(text, 16))
        .ok_or_else(wrong)
}

/// `from_str_radix` without the sign that it also takes.
fn parse_digits(digits: &str, radix: u32) -> Option<u64> {
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_bytes("64M"), Ok(64 << 20));
        assert_eq!(parse_bytes("128k"), Ok(128 << 10));
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("1KiB"), Ok(1024));
    }

    #[test]
    fn nonsense_is_no_size() {
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1.5M",
            "0x10",
            "64 M",
            "64X",
            "99999999999999999999",
            "17179869184G",
            "٣M",
            "1é",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_hexadecimal_or_decimal() {
        assert_eq!(parse_address("0x7f00"), Ok(0x7f00));
        assert_eq!(parse_address("1024"), Ok(1024));
        assert_eq!(parse_address("55d0c0ffee"), Ok(0x0055_d0c0_ffee));
        for text in [
            "",
            "0x",
            "-1",
            "+1",
            "xyz",
            "0x1_0",
            "0x10000000000000000",
            "0x+1",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_declaration_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
