//! The `replay` verb: `Options` are its arguments, `perform` does it.

use std::process::ExitCode;

use crate::failure::Failure;

/// `stackdepot replay`
#[derive(Debug, clap::Args)]
pub struct Options {}

/// Replays a recorded workload through the depot.
pub fn perform(_: &Options) -> Result<ExitCode, Failure> {
    Err(Failure::new("replay is being built"))
}
