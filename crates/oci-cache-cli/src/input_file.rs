//! Opens files that the user names for input: plans and lists.
//!
//! Guarantees: only a regular file is opened, and opening waits for nobody. The access time does not change, where that
//! is allowed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::anyhow;
use rustix::fs::OFlags;

/// Opens a regular file for reading. `instead` says what to do about one that is not regular.
///
/// # Errors
///
/// If it is no regular file, or cannot be opened.
pub(crate) fn open(path: &Path, instead: &str) -> anyhow::Result<File> {
    let irregular = || anyhow!("it is not a regular file: {instead}");
    // To open a device may have an effect.
    if !fs::metadata(path)?.is_file() {
        return Err(irregular());
    }
    let file = open_quietly(path)?;
    // By now it may be another one.
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

fn open_quietly(path: &Path) -> io::Result<File> {
    // Whoever opens a FIFO otherwise waits for its writer.
    let without_waiting = OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        File::options().read(true).custom_flags(flags).open(path)
    };
    match open(without_waiting | OFlags::NOATIME) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(without_waiting),
        opened => opened,
    }
}
