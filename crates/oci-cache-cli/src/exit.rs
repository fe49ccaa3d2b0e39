//! Exit codes, the same for every command.

use std::process::ExitCode;

use crate::style;

/// What stands above the exit codes in the help.
const HEADING: &str = "Exit codes:";

/// The exit codes and their meanings, as the help of every command and the documents give them.
pub const CODES: [(&str, &str); 5] = [
    ("0", "done, even if there was nothing to do"),
    ("1", "not all could be done; what was done is reported"),
    ("2", "wrong usage, or the directory is refused; the cache was not touched"),
    ("3", "done, and what was asked about is not so: a goal not met, corrupt or missing blobs, over budget"),
    (
        "128 + N",
        "interrupted by signal N: SIGHUP (129), SIGINT (130), SIGTERM (143), SIGXCPU (152); what was done is reported",
    ),
];

/// The exit codes as the help of every command ends.
#[must_use]
pub fn help() -> String {
    CODES.iter().fold(HEADING.to_owned(), |help, (codes, meaning)| {
        // Help is 100 columns wide: what follows a colon gets a line of its own.
        let meaning = meaning.replace(": ", &format!(":\n{:12}", ""));
        format!("{help}\n  {codes:8}  {meaning}")
    })
}

/// As [`help`], with the heading as clap styles its own.
#[must_use]
pub fn styled_help() -> String {
    help().replacen(HEADING, &style::paint(style::TITLE, HEADING), 1)
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, even if there was nothing to do.
    Done,
    /// 1: not all could be done; what was done has been reported.
    Incomplete,
    /// 2: wrong usage, or the directory was refused; the cache was not touched.
    Refused,
    /// 3: done, and what was asked about is not so: a goal not met, corrupt or missing blobs, over budget.
    Found,
    /// 128 plus the signal's number: stopped by a signal after the current blob.
    Signalled(u8),
}

impl Exit {
    /// The exit for a command that ended with an error.
    #[must_use]
    pub fn of_error(error: &anyhow::Error) -> Self {
        let is_refusal = matches!(error.downcast_ref(), Some(oci_cache::Error::Refused { .. }));
        if is_refusal || error.is::<UsageError>() { Self::Refused } else { Self::Incomplete }
    }

    /// Whether the command did all that it was asked to do.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::Found)
    }

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Incomplete => 1,
            Self::Refused => 2,
            Self::Found => 3,
            Self::Signalled(signal) => 128 + signal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The request is invalid: exit 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
