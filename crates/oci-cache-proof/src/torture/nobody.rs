//! The user `nobody`.
//!
//! Guarantees: a command run as `nobody` has none of root's rights or groups, and no home directory.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::kit::process::wrapped;

/// The user ID of `nobody`, and its group ID.
pub(crate) const NOBODY: u32 = 65534;

/// The command, run as `nobody`.
pub(crate) fn as_nobody(command: &Command) -> Command {
    let user = NOBODY.to_string();
    let words = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"];
    let mut wrapper = wrapped(&words, command);
    wrapper.env("HOME", "/nonexistent");
    wrapper
}

/// Makes `nobody` the owner of a file or directory.
///
/// # Errors
///
/// If the owner cannot be changed.
pub(crate) fn give(path: &Path) -> std::io::Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))
}

/// Makes `nobody` the owner of a directory's entries.
///
/// # Errors
///
/// If an owner cannot be changed.
pub(crate) fn give_entries(directory: &Path) -> std::io::Result<()> {
    fs::read_dir(directory)?.try_for_each(|entry| give(&entry?.path()))
}
