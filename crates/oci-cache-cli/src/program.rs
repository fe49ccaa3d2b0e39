//! The frame of a program: from its work to its exit code.

use std::process::ExitCode;

use crate::exit::Exit;
use crate::{output, signals};

/// All of a program: does its work, and tells of the error that ended it, if one did.
pub fn run(work: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    signals::outlive_size_limit();
    work()
        .unwrap_or_else(|error| {
            output::complain(&format!("error: {error:#}"));
            Exit::of_error(&error)
        })
        .into()
}
