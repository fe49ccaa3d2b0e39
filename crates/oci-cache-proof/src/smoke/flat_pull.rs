//! A pull as go-containerregistry does it with its file system cache.
//!
//! Guarantees: the same calls on the cache in the same order. A blob that is there is opened by its path
//! and read to compute its digest, closed, and twice more opened by its path, read and closed. One that is
//! not is written under its final name: the directory is made if need be, the file created, written in
//! parts and closed, and opened again by its path. Each content follows from the blob's seed, so every read
//! is checked.
//!
//! What it does not guarantee: two pullers must not share a blob. They would find each other's
//! unfinished ones, as those of go-containerregistry do, with no prune about.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::smoke::tally::{Failure, Tally};
use crate::smoke::tree::Total;

/// A blob that a registry would have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteBlob {
    /// What its name and content follow from.
    pub(crate) seed: u64,
}

/// A step that failed, and why.
#[derive(Debug)]
struct FailedStep {
    step: &'static str,
    cause: io::Error,
}

impl Tally {
    /// Pulls a blob and counts the pull. What it writes it adds to `written`.
    pub(crate) fn pull_blob(&mut self, blob: RemoteBlob, cache: &Path, written: &mut Total) {
        self.pulls += 1;
        if let Err(FailedStep { step, cause }) = blob.pull(cache, written) {
            self.fail(Failure::Pull(step), &format!("{}: {cause}", blob.path_in(cache).display()));
        }
    }
}

impl RemoteBlob {
    const MIN_BYTES: usize = 4 << 10;
    const MAX_BYTES: usize = 64 << 10;
    const PARTS: usize = 5;
    /// How often a hit is opened again.
    const REOPENS: usize = 2;

    fn size_bytes(self) -> u64 {
        self.content().len() as u64
    }

    /// Pulls it: from the cache if it is there, else into it. What it writes it adds to `written`.
    fn pull(self, cache: &Path, written: &mut Total) -> Result<(), FailedStep> {
        let path = self.path_in(cache);
        match File::open(&path) {
            Ok(file) => {
                self.check(file).map_err(failed("content of a hit"))?;
                for _ in 0..Self::REOPENS {
                    think();
                    let again = File::open(&path).map_err(failed("reopen of a hit"))?;
                    self.check(again).map_err(failed("content of a hit"))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.write(cache, &path)?;
                *written += Total { blobs: 1, bytes: self.size_bytes() };
                think();
                let again = File::open(&path).map_err(failed("reopen"))?;
                self.check(again).map_err(failed("content"))
            }
            Err(cause) => Err(FailedStep { step: "open", cause }),
        }
    }

    fn write(self, cache: &Path, path: &Path) -> Result<(), FailedStep> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache).map_err(failed("mkdir"))?;
        let mut file = File::create(path).map_err(failed("create"))?;
        let content = self.content();
        for part in content.chunks(content.len().div_ceil(Self::PARTS)) {
            file.write_all(part).map_err(failed("write"))?;
            think();
        }
        Ok(())
    }

    fn check(self, mut file: File) -> io::Result<()> {
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let right = self.content();
        if content == right {
            return Ok(());
        }
        Err(io::Error::other(format!("{} bytes are not the {} that it has", content.len(), right.len())))
    }

    pub(crate) fn path_in(self, cache: &Path) -> PathBuf {
        let mut random = StdRng::seed_from_u64(self.seed);
        let digits: String = (0..4).map(|_| format!("{:016x}", random.next_u64())).collect();
        cache.join(format!("sha256:{digits}"))
    }

    fn content(self) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(!self.seed);
        let mut content = vec![0; random.random_range(Self::MIN_BYTES..=Self::MAX_BYTES)];
        random.fill_bytes(&mut content);
        content
    }
}

/// Does now and then what a pull does between two calls: computes a digest, waits for the network.
fn think() {
    let mut random = rand::rng();
    if random.random_ratio(1, 4) {
        thread::sleep(Duration::from_micros(random.random_range(0..4000)));
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> FailedStep {
    move |cause| FailedStep { step, cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_pull_fills_the_cache_and_a_second_one_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("a/cache");
        let blob = RemoteBlob { seed: 7 };
        let mut written = Total::default();
        blob.pull(&cache, &mut written).unwrap();
        assert_eq!(written, Total { blobs: 1, bytes: blob.size_bytes() });
        assert_eq!(cache.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(blob.path_in(&cache).metadata().unwrap().len(), blob.size_bytes());
        blob.pull(&cache, &mut written).unwrap();
        assert_eq!(written.blobs, 1);
        RemoteBlob { seed: 8 }.pull(&cache, &mut written).unwrap();
        assert_eq!(written.blobs, 2);

        fs::write(blob.path_in(&cache), "truncated").unwrap();
        assert_eq!(blob.pull(&cache, &mut written).unwrap_err().step, "content of a hit");
    }

    #[test]
    fn the_step_that_fails_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let below_a_file = directory.path().join("file/cache");
        for (cache, step) in [(below_a_file, "open"), ("/proc/cache".into(), "mkdir")] {
            let failed = RemoteBlob { seed: 1 }.pull(&cache, &mut Total::default()).unwrap_err();
            assert_eq!(failed.step, step);
        }
    }
}
