//! The one error type of the command: a line for the user and an exit status.
//!
//! A line is lower case and says what went wrong, where (file, offset), and what to do. Statuses:
//! 1 is any error, 2 means `who` found no record, and `run` uses 125, 126 and 127 as env(1) and
//! timeout(1) do, so that its own failures are told apart from the program's exit status.

use std::fmt::Display;
use std::io::Write as _;

/// `who` knows nothing about the address.
pub const NO_RECORD: u8 = 2;
/// `run` could not set up the recording, or refuses to start a program that it cannot record.
pub const CANNOT_RECORD: u8 = 125;
/// `run` found the program, but it cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `run` did not find the program.
pub const NOT_FOUND: u8 = 127;

/// Why a verb stopped: one line and an exit status.
#[derive(Debug)]
pub struct Failure {
    /// The line, without `stackdepot: ` and without a newline.
    pub message: String,
    /// The exit status of the command.
    pub status: u8,
}

impl Failure {
    /// An ordinary error: status 1.
    pub fn new(message: impl Display) -> Failure {
        Failure::with_status(1, message)
    }

    /// An error with a status of its own.
    pub fn with_status(status: u8, message: impl Display) -> Failure {
        Failure {
            message: one_line(&message.to_string()),
            status,
        }
    }

    /// Says it on stderr.
    pub fn tell(&self) {
        // Nothing is left to tell a user whose stderr is closed.
        let _ = writeln!(std::io::stderr(), "stackdepot: {}", self.message);
    }
}

/// The text of an I/O error without Rust's `(os error N)`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|c| c.to_lowercase().to_string())
        .unwrap_or_default();
    first + characters.as_str()
}

/// Keeps what foreign text (a path, a program's name) could put into an error on one line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_one_line() {
        assert_eq!(Failure::new("a\nb\x1b[1m").message, "a\u{fffd}b\u{fffd}[1m");
    }
}
