//! Pulls into a nested cache, as skopeo does them and as a plain downloader does.
//!
//! Guarantees: the same calls in the same order. skopeo (containers/image, `oci/layout`) looks whether the
//! blob is there; if not, it writes a temporary file in the cache's root, makes sure of its content and
//! mode, closes it, makes the directory, and renames the file into it; then the blob is opened by its
//! path. The plain downloader makes the directory and creates the file in it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt as _;

use super::puller::{OVERSLEPT, is_older_than, now, think};

/// The step at which a pull broke, and why.
pub(super) type Broken = (&'static str, io::Error);

/// A blob that is told by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct NestedBlob {
    pub(super) number: u64,
}

impl NestedBlob {
    /// Pulls as skopeo does. A temporary file that lay closed for `idle` may go.
    pub(super) fn pull(self, cache: &Path, idle: Duration) -> Result<(), Broken> {
        let path = self.path_in(cache);
        match fs::metadata(&path) {
            Ok(_) => {
                think();
                return self.check(&path, "reopen of a hit");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(("stat", error)),
        }
        DirBuilder::new().recursive(true).create(cache).map_err(|error| ("mkdir", error))?;
        let temporary = cache.join(format!("oci-put-blob{}", rand::rng().random_range(0..u64::MAX)));
        let mut file = File::create_new(&temporary).map_err(|error| ("create", error))?;
        self.write(&mut file).map_err(|error| ("write", error))?;
        if rand::rng().random_ratio(1, 64) {
            file.sync_all().map_err(|error| ("write", error))?;
        }
        file.set_permissions(Permissions::from_mode(0o644)).map_err(|error| ("write", error))?;
        let closed = now();
        drop(file);
        think();
        let directory = cache.join("blobs/sha256");
        DirBuilder::new().recursive(true).create(directory).map_err(|error| ("mkdir", error))?;
        let step = |is_old| if is_old { OVERSLEPT } else { "rename" };
        fs::rename(&temporary, &path).map_err(|error| (step(is_older_than(closed, idle)), error))?;
        think();
        self.check(&path, "reopen")
    }

    /// Makes the directory, then the file.
    pub(super) fn write_in_place(self, cache: &Path) -> Result<(), Broken> {
        let directory = cache.join("blobs/sha256");
        DirBuilder::new().recursive(true).create(directory).map_err(|error| ("mkdir", error))?;
        think();
        let mut file = File::create(self.path_in(cache)).map_err(|error| ("create", error))?;
        self.write(&mut file).map_err(|error| ("write", error))
    }

    fn write(self, file: &mut File) -> io::Result<()> {
        let content = self.content();
        for part in content.chunks(content.len() / 3) {
            file.write_all(part)?;
            think();
        }
        Ok(())
    }

    fn check(self, path: &Path, step: &'static str) -> Result<(), Broken> {
        let mut content = Vec::new();
        let mut file = File::open(path).map_err(|error| (step, error))?;
        file.read_to_end(&mut content).map_err(|error| (step, error))?;
        let is_right = content == self.content();
        if is_right { Ok(()) } else { Err(("content", io::Error::other(format!("{} bytes", content.len())))) }
    }

    fn path_in(self, cache: &Path) -> PathBuf {
        cache.join("blobs/sha256").join(format!("{:064x}", self.number))
    }

    fn content(self) -> Vec<u8> {
        format!("blob {:016x} ", self.number)
            .repeat(150 + usize::from(self.number.to_le_bytes()[0]))
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_fills_and_finds() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let blob = NestedBlob { number: 7 };
        blob.pull(&cache, Duration::MAX).unwrap();
        blob.pull(&cache, Duration::MAX).unwrap();
        NestedBlob { number: 8 }.write_in_place(&cache).unwrap();
        assert_eq!(fs::read_dir(cache.join("blobs/sha256")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
        fs::write(blob.path_in(&cache), "cut").unwrap();
        assert_eq!(blob.pull(&cache, Duration::MAX).unwrap_err().0, "content");
    }
}
