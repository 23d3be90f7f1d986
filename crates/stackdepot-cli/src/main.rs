//! The `stackdepot` command: records a program's stacks in bounded memory, and reads recordings.
//!
//! Read in this order: `args` (what can be asked), `run` (the recorder's side), `recording`
//! (a file as the readers see it), `symbols` (addresses to functions), then one file per verb.
//! Everything but `run` and `replay` is a pure reader. No file of this crate needs unsafe code,
//! except `run::preflight`, which asks the C library for its version.

mod args;
mod clean;
mod death;
mod events;
mod failure;
mod json;
mod output;
mod processes;
mod recording;
mod replay;
mod report;
mod run;
mod stacks;
mod stats;
mod story;
mod symbols;
mod text;
mod who;
mod wrong;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{Error, ErrorKind};

use crate::args::{Arguments, Verb};
use crate::failure::{CANNOT_RECORD, Failure};

fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(arguments) => perform(arguments.verb),
        Err(error) => usage(&error),
    };
    done.unwrap_or_else(|failure| {
        failure.tell();
        ExitCode::from(failure.status)
    })
}

fn perform(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Run(arguments) => run::perform(&arguments),
        Verb::Report(arguments) => report::perform(&arguments),
        Verb::Who(arguments) => who::perform(&arguments),
        Verb::Events(arguments) => events::perform(&arguments),
        Verb::Stats(arguments) => stats::perform(&arguments),
        Verb::Clean(arguments) => clean::perform(&arguments),
        Verb::Replay(options) => replay::perform(&options),
    }
}

/// Help and version go where clap sends them; every other complaint becomes one line.
fn usage(error: &Error) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A pager that closed its end has seen enough.
            let _ = error.print();
            Ok(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Ok(ExitCode::FAILURE)
        }
        _ => Err(complaint(error)),
    }
}

fn complaint(error: &Error) -> Failure {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let complaint = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let complaint = complaint.strip_prefix("error: ").unwrap_or(&complaint);
    if std::env::args_os().nth(1).is_none_or(|verb| verb != "run") {
        return Failure::new(format_args!("{complaint} (see `stackdepot --help`)"));
    }
    // The status of a `run` that failed is never one that its program could have meant.
    let has_dashes = std::env::args_os().any(|word| word == "--");
    let advice = if has_dashes {
        "see `stackdepot run --help`"
    } else {
        "write `--` before the program: stackdepot run -- PROGRAM ARGS..."
    };
    Failure::with_status(CANNOT_RECORD, format_args!("{complaint} ({advice})"))
}
