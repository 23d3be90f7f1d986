//! The `stackdepot` command: records a program's stacks in bounded memory, and reads recordings.
//!
//! Read in this order: `args` (what can be asked), `run` (the recorder's side), `recording`
//! (a file as the readers see it), `symbols` (addresses to functions), then one file per verb.
//! Everything but `run` and `replay` is a pure reader. No file of this crate needs unsafe code,
//! except `run::preflight`, which asks the C library for its version.

mod args;
mod clean;
mod events;
mod failure;
mod json;
mod output;
mod recording;
mod replay;
mod report;
mod run;
mod stacks;
mod stats;
mod symbols;
mod text;
mod who;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{Error, ErrorKind};

use crate::args::{Arguments, Verb};
use crate::failure::Failure;

fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(arguments) => perform(arguments.verb),
        Err(error) => usage(&error),
    };
    done.unwrap_or_else(|failure| {
        // Nothing is left to tell a user whose stderr is closed.
        let _ = writeln!(std::io::stderr(), "stackdepot: {}", failure.message);
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
        _ => {
            let text = error.to_string();
            let complaint: Vec<&str> = text
                .lines()
                .take_while(|line| !line.is_empty())
                .map(str::trim)
                .collect();
            let complaint = complaint.join(" ");
            let complaint = complaint.strip_prefix("error: ").unwrap_or(&complaint);
            Err(Failure::new(format_args!(
                "{complaint} (see `stackdepot --help`)"
            )))
        }
    }
}
