//! Writes files that the user names for output: plans and metrics.
//!
//! Guarantees: a regular file is replaced as a whole or not at all; the new file keeps the mode and, for
//! root, the owner. Symbolic links are followed. A device or a FIFO is written to, never replaced. Nothing is
//! written into the cache. Only a small regular file is read again.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use oci_cache::escape_path;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use tempfile::NamedTempFile;

use crate::exit::UsageError;

/// The mode of a new file: readable by all, because another user collects the metrics.
const MODE: u32 = 0o644;
/// The maximum size of a file to read again, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Refuses a file inside the cache, where it could replace a blob.
///
/// # Errors
///
/// A [`UsageError`] if the file is inside the cache.
pub(crate) fn check_outside(path: &Path, cache: &Path) -> anyhow::Result<()> {
    let id = |path: &Path| fs::metadata(path).map(|status| (status.dev(), status.ino())).ok();
    let (Some(cache_id), Ok(directory)) = (id(cache), fs::canonicalize(directory_of(&target_of(path)?)))
    else {
        return Ok(());
    };
    if directory.ancestors().any(|ancestor| id(ancestor) == Some(cache_id)) {
        let why = format!("`{}` is inside the cache: choose a file outside it", escape_path(path));
        return Err(anyhow!(UsageError(why)));
    }
    Ok(())
}

/// Writes a file.
///
/// # Errors
///
/// Errors of the file system. A regular file is then unchanged.
pub(crate) fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    check_owner(path)?;
    let target = target_of(path)?;
    let found = fs::metadata(&target).ok();
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        let mut writer = BufWriter::new(fs::File::options().write(true).open(&target)?);
        content(&mut writer)?;
        return writer.flush();
    }
    let mut file = NamedTempFile::new_in(directory_of(&target))?;
    let mode = found.as_ref().map_or(MODE, |found| found.mode() & 0o7777);
    if let Some(found) = found {
        // Only root can give files away. For other users the file already is theirs, or becomes theirs.
        let _ = fchown(file.as_file(), Some(found.uid()), Some(found.gid()));
    }
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    let mut writer = BufWriter::new(&mut file);
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.persist(target)?;
    Ok(())
}

/// Reads what an earlier run wrote into the file; `None` if that is not a small regular file of text.
pub(crate) fn read_again(path: &Path) -> Option<String> {
    check_owner(path).ok()?;
    // Whoever opens a FIFO otherwise waits for a writer.
    let at_once = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let file = fs::File::options().read(true).custom_flags(at_once).open(path).ok()?;
    let status = file.metadata().ok()?;
    let mut text = String::new();
    (status.is_file() && status.len() <= MAX_BYTES).then_some(())?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Refuses an entry that another user created in a sticky, world-writable directory: it could lead to a third
/// user's file. See `protected_symlinks` and `protected_regular` in `proc_sys_fs(5)`.
fn check_owner(path: &Path) -> io::Result<()> {
    const STICKY_AND_WRITABLE_BY_ALL: u32 = 0o1002;
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let directory = fs::metadata(directory_of(path))?;
    let is_open_to_all = directory.mode() & STICKY_AND_WRITABLE_BY_ALL == STICKY_AND_WRITABLE_BY_ALL;
    let is_trusted = [geteuid().as_raw(), directory.uid()].contains(&found.uid());
    if is_open_to_all && !is_trusted {
        let why = "it belongs to another user, in a world-writable directory";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// The target of symbolic links, or the path itself if nothing exists there.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        found => found,
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
