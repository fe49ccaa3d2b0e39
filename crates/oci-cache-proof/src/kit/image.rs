//! Mounted file systems in files.
//!
//! Guarantees: the file is sparse and lies beside the mount point.
//!
//! What it does not guarantee: that the file system is unmounted. The caller calls `unmount`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::kit::process;

/// The time limit for making a file system, and for mounting it.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes a file system of `bytes` bytes and mounts it at `point`. Returns the path of its file.
///
/// # Errors
///
/// If it cannot be made or mounted.
pub(crate) fn mount(
    make: &str,
    flags: &[&str],
    point: &Path,
    bytes: u64,
    options: &str,
) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(point).with_context(|| format!("create {}", point.display()))?;
    let image = point.with_extension("image");
    let file = File::create(&image).with_context(|| format!("create {}", image.display()))?;
    file.set_len(bytes).with_context(|| format!("extend {}", image.display()))?;
    process::must(Command::new(make).args(flags).arg(&image), LIMIT)?;
    let options = format!("loop,{options}");
    process::must(Command::new("mount").args(["-o", &options]).arg(&image).arg(point), LIMIT)?;
    Ok(image)
}

/// Unmounts a file system.
///
/// # Errors
///
/// If it is in use, or nothing is mounted there.
pub(crate) fn unmount(point: &Path) -> anyhow::Result<()> {
    process::must(Command::new("umount").arg(point), LIMIT).map(drop)
}
