//! Pulls as go-containerregistry does with its file system cache.
//!
//! Guarantees: the calls on the cache are the same, in the same order. A hit is opened by path, read to
//! compute its digest, and closed; then it is opened, read and closed twice more. A miss is written under the
//! final name: the directory is created if needed, the file is created, written in parts, closed, and opened
//! again by path. A blob's content follows from its seed, so every read is checked.
//!
//! What it does not guarantee: that two pulls can share a blob. They would read each other's unfinished files
//! even without a prune, as those of go-containerregistry do.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::kit::pulls::broken::{self, Broken, at};
use crate::kit::random::Random;
use crate::kit::total::Total;

/// A blob in a registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteBlob {
    /// Determines the name and the content.
    pub(crate) seed: u64,
}

impl RemoteBlob {
    const MIN_BYTES: usize = 4 << 10;
    const MAX_BYTES: usize = 64 << 10;
    const PARTS: usize = 5;
    /// How many more times a hit is opened.
    const REOPENS: usize = 2;

    fn size_bytes(self) -> u64 {
        self.content().len() as u64
    }

    /// Reads the blob from the cache, or writes it there. Adds what it writes to `written`.
    pub(crate) fn pull(self, cache: &Path, written: &mut Total) -> Result<(), Broken> {
        let path = self.path_in(cache);
        match File::open(&path) {
            Ok(file) => {
                self.check(file).map_err(at("content of a hit"))?;
                for _ in 0..Self::REOPENS {
                    think();
                    let again = File::open(&path).map_err(at("reopen of a hit"))?;
                    self.check(again).map_err(at("content of a hit"))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.write(cache, &path)?;
                *written += Total { blobs: 1, bytes: self.size_bytes() };
                think();
                let again = File::open(&path).map_err(at("reopen"))?;
                self.check(again).map_err(at("content"))
            }
            Err(cause) => Err(Broken { step: "open", cause }),
        }
    }

    fn write(self, cache: &Path, path: &Path) -> Result<(), Broken> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache).map_err(at("mkdir"))?;
        let mut file = File::create(path).map_err(at("create"))?;
        let content = self.content();
        for part in content.chunks(content.len().div_ceil(Self::PARTS)) {
            file.write_all(part).map_err(at("write"))?;
            think();
        }
        Ok(())
    }

    fn check(self, mut file: File) -> io::Result<()> {
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        broken::check(&content, &self.content())
    }

    /// The path of the blob in a flat cache.
    pub(crate) fn path_in(self, cache: &Path) -> PathBuf {
        let mut random = Random::seed_from_u64(self.seed);
        let digits: String = (0..4).map(|_| format!("{:016x}", random.next_u64())).collect();
        cache.join(format!("sha256:{digits}"))
    }

    fn content(self) -> Vec<u8> {
        let mut random = Random::seed_from_u64(!self.seed);
        let mut content = vec![0; random.random_range(Self::MIN_BYTES..=Self::MAX_BYTES)];
        random.fill_bytes(&mut content);
        content
    }
}

/// Pauses between two steps.
fn think() {
    broken::think(4, 4000);
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
