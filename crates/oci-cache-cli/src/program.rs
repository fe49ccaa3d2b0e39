//! Runs a program, and turns its outcome into an exit code.

use std::process::ExitCode;

use crate::exit::Exit;
use crate::{output, signals};

/// Runs `work`, and prints the error if it fails.
pub fn run(work: impl FnOnce() -> anyhow::Result<Exit>) -> ExitCode {
    signals::outlive_size_limit();
    work()
        .unwrap_or_else(|error| {
            output::complain(&format!("error: {error:#}"));
            Exit::of_error(&error)
        })
        .into()
}
