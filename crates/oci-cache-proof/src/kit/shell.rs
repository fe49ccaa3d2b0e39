//! Commands by xshell that must succeed.
//!
//! Guarantees: the error of a command that fails includes the last line of its stderr.

use anyhow::Context as _;
use xshell::{Cmd, Shell};

/// A shell in the current directory.
///
/// # Errors
///
/// If the current directory is unknown.
pub(crate) fn shell() -> anyhow::Result<Shell> {
    Shell::new().context("find the current directory")
}

/// Runs a command that must exit with 0. Returns its stdout.
///
/// # Errors
///
/// If it cannot run or fails. The error includes the last line of stderr.
pub(crate) fn output_of(command: Cmd<'_>) -> anyhow::Result<String> {
    let command = command.quiet().ignore_status();
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing)");
    anyhow::bail!("`{command}` ended with {}: {said}", output.status)
}
