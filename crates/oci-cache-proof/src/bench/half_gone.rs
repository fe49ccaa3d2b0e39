//! How long a cache is visibly half-gone: some names are removed, and others still exist.
//!
//! Guarantees: names are looked up by path, as a pull does. So a cache that leaves in one step is gone in one
//! step. The first and last names by inode number are always watched.
//!
//! What it does not guarantee: exact times. A sample of names, evenly spaced by inode number, is checked
//! about once a millisecond.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::kit::process::{complaint, quiet};

const SAMPLES: usize = 64;
const PAUSE: Duration = Duration::from_micros(500);

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// From the start to the end of the command.
    pub(crate) wall: Duration,
    /// From the first to the last removed name.
    pub(crate) half_gone: Duration,
}

/// Runs the command and watches the blobs.
pub(crate) fn watch(mut command: Command, blobs: &[PathBuf]) -> anyhow::Result<Span> {
    let mut watched = sample(blobs)?;
    let count = watched.len();
    let mut first_gone = None;
    let mut last_gone = None;
    let started = Instant::now();
    let mut child = quiet(&mut command).spawn().with_context(|| format!("start {command:?}"))?;
    let wall = loop {
        let ended = child.try_wait().with_context(|| format!("wait for {command:?}"))?;
        let wall = started.elapsed();
        watched.retain(|path| is_there(path));
        if watched.len() < count {
            first_gone.get_or_insert_with(Instant::now);
        }
        if watched.is_empty() {
            last_gone.get_or_insert_with(Instant::now);
        }
        if ended.is_some() {
            break wall;
        }
        thread::sleep(PAUSE);
    };
    let output = child.wait_with_output().with_context(|| format!("wait for {command:?}"))?;
    ensure!(output.status.success(), "{}", complaint(&command, &output));
    let span = first_gone.zip(last_gone).context("the cache is not gone")?;
    Ok(Span { wall, half_gone: span.1 - span.0 })
}

/// Selects the first and the last blob by inode number, and others evenly between them.
fn sample(blobs: &[PathBuf]) -> anyhow::Result<Vec<&Path>> {
    let mut all = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let metadata = blob.symlink_metadata().with_context(|| format!("inspect `{}`", blob.display()))?;
        all.push((metadata.ino(), blob.as_path()));
    }
    all.sort_unstable();
    Ok(spread(all.len(), SAMPLES).filter_map(|index| all.get(index).map(|(_, path)| *path)).collect())
}

/// At most `count` indices, from the first to the last of `length`.
fn spread(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(1);
    let steps = count.min(length).saturating_sub(1).max(1);
    (0..count.min(length)).map(move |step| step * last / steps)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_sample_has_both_ends() {
        assert_eq!(spread(100, 3).collect::<Vec<_>>(), [0, 49, 99]);
        assert_eq!(spread(2, 64).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(spread(1, 64).collect::<Vec<_>>(), [0]);
        assert_eq!(spread(0, 64).count(), 0);
    }

    #[test]
    fn the_span_lies_within_the_run() {
        let home = TempDir::new().unwrap();
        let blobs = ["a", "b"].map(|name| home.path().join(name));
        blobs.iter().for_each(|blob| std::fs::write(blob, "").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", "rm \"$0\"; sleep 0.05; rm \"$1\""]).args(&blobs);
        let span = watch(command, &blobs).unwrap();
        assert!(span.half_gone >= Duration::from_millis(40) && span.half_gone < span.wall, "{span:?}");
    }

    #[test]
    fn a_cache_that_stays_is_an_error() {
        let home = TempDir::new().unwrap();
        let blob = home.path().join("a");
        std::fs::write(&blob, "").unwrap();
        assert!(watch(Command::new("true"), &[blob]).is_err());
    }
}
