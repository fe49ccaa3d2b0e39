//! The protocol that this project began with: tally by a walk, rename aside, recreate, remove.
//!
//! Guarantees: all four steps are timed. It runs in the benchmark's own process, so no start of a process is in its time.
//!
//! What it does not guarantee: anything to a pull. A pull that has a blob open, or is about to, loses it.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use walkdir::WalkDir;

/// Removes everything in a directory, and leaves an empty one.
pub(crate) fn run(directory: &Path) -> anyhow::Result<Duration> {
    let context = || format!("remove `{}`", directory.display());
    let started = Instant::now();
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for entry in WalkDir::new(directory) {
        let metadata = entry.and_then(|entry| entry.metadata()).with_context(context)?;
        if metadata.is_file() {
            files += 1;
            bytes += metadata.len();
        }
    }
    let aside = directory.with_extension("aside");
    fs::rename(directory, &aside).with_context(context)?;
    fs::create_dir(directory).with_context(context)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this is what the original does, and the directory is the benchmark's own"
    )]
    fs::remove_dir_all(&aside).with_context(context)?;
    let elapsed = started.elapsed();
    // The tally is not printed, but it is part of the work.
    black_box((files, bytes));
    Ok(elapsed)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn everything_goes_and_the_directory_is_there_again() {
        let home = TempDir::new().unwrap();
        let directory = home.path().join("cache");
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        fs::write(directory.join("blobs/sha256/a"), "a").unwrap();
        fs::write(home.path().join("outside"), "").unwrap();
        run(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }
}
