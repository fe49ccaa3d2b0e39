//! Exit codes, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, even if there was nothing to do.
    Done,
    /// 1: incomplete; what was done has been reported.
    Incomplete,
    /// 2: wrong usage, or the directory was refused; the cache was not touched.
    Refused,
    /// 3: a check found what it looks for: corrupt blobs, or a cache over budget.
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
