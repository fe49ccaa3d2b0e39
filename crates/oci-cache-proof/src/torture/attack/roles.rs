//! The roles in an attack: the swapper, and a pruner that works by path.
//!
//! Guarantees: the pruner by path removes only within the directory of an attack, and files only.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rand::RngExt as _;
use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with, unlinkat};

use crate::kit::random::random;

/// Swaps two names. The arguments are the names, milliseconds, and whether to pause. Prints the number of
/// swaps.
pub(crate) fn swap(words: &[&str]) -> anyhow::Result<()> {
    let [own, link, milliseconds, manner] = words else { bail!("a swapper takes four words: {words:?}") };
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let mut swaps = 0_u64;
    while Instant::now() < end {
        let burst_end = match *manner {
            "pauses" => end.min(Instant::now() + Duration::from_millis(random().random_range(1..40))),
            _ => end,
        };
        while Instant::now() < burst_end {
            for _ in 0..64 {
                swaps += u64::from(renameat_with(CWD, *own, CWD, *link, RenameFlags::EXCHANGE).is_ok());
            }
        }
        // A prune of a layout waits for half a second, and continues if nothing moved.
        let rest = end.saturating_duration_since(Instant::now());
        thread::sleep(rest.min(Duration::from_millis(random().random_range(0..700))));
    }
    std::io::stdout().lock().write_all(swaps.to_string().as_bytes()).context("write to stdout")
}

/// Removes the cache of an attack by path, as a prune must not.
pub(crate) fn remove(words: &[&str]) -> anyhow::Result<()> {
    let [directory] = words else { bail!("the pruner by path takes one word: {words:?}") };
    let directory = Path::new(directory);
    let name = directory.file_name().unwrap_or_default();
    let is_arena = name.as_bytes().starts_with(b"attack-") && directory.join("canary").is_dir();
    ensure!(is_arena, "{} is not the directory of an attack", directory.display());
    remove_by_path(&directory.join("cache"));
    Ok(())
}

fn remove_by_path(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => remove_by_path(&path),
            Ok(metadata) if metadata.is_file() => drop(unlinkat(CWD, &path, AtFlags::empty())),
            _ => {}
        }
    }
}
