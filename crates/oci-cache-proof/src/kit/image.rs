//! File systems in files, mounted.
//!
//! Guarantees: the file is beside the mount point and sparse. Who mounts takes the mount down.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::kit::process;

/// The longest that making or mounting one may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes a file system of so many bytes and mounts it. Returns where the file is.
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

/// Takes a mount down.
///
/// # Errors
///
/// If it is in use, or none is there.
pub(crate) fn unmount(point: &Path) -> anyhow::Result<()> {
    process::must(Command::new("umount").arg(point), LIMIT).map(drop)
}
