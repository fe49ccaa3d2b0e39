//! A user without rights.
//!
//! Guarantees: who runs as `nobody` has none of root's rights, groups included, and no home.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::kit::process::wrapped;

/// `nobody`, and its group.
pub(crate) const NOBODY: u32 = 65534;

/// The command, run by `nobody`.
pub(crate) fn as_nobody(command: &Command) -> Command {
    let user = NOBODY.to_string();
    let words = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"];
    let mut wrapper = wrapped(&words, command);
    wrapper.env("HOME", "/nonexistent");
    wrapper
}

/// Gives a file or a directory to `nobody`.
///
/// # Errors
///
/// If that is not allowed.
pub(crate) fn give(path: &Path) -> std::io::Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))
}

/// Gives what is in a directory to `nobody`.
///
/// # Errors
///
/// If that is not allowed.
pub(crate) fn give_entries(directory: &Path) -> std::io::Result<()> {
    fs::read_dir(directory)?.try_for_each(|entry| give(&entry?.path()))
}
