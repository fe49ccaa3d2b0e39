//! Pulls into a nested cache, like skopeo or like a plain downloader.
//!
//! Guarantees: the calls are the same, in the same order. skopeo (containers/image, `oci/layout`) checks
//! whether the blob exists. If not, it writes a temporary file in the cache's root, sets its mode, closes it,
//! creates the directory, and renames the file into it. Then it opens the blob by path. The plain downloader
//! creates the directory, then the file in it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rand::RngExt as _;

use crate::kit::pulls::broken::{self, Broken, at};
use crate::kit::random::random;
use crate::torture::age::is_older_than;
use oci_cache_cli::clock;

/// The step at which a pull loses a blob that it has open.
pub(crate) const LOST_WHILE_OPEN: &str = "lost while open";

/// The step at which a pull breaks because it stalled until its file was old enough to be pruned.
pub(crate) const OVERSLEPT: &str = "overslept";

/// The step at which a pull opens a blob that it has only looked up with `stat(2)`. That leaves no trace.
pub(crate) const OPEN_AFTER_STAT: &str = "open after a stat";

/// How long a pull may be idle between two steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// Within this time, a closed temporary file is safe.
    pub(crate) idle: Duration,
    /// How long the pull waits for the network.
    pub(crate) stall: Duration,
}

/// A blob, identified by a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NestedBlob {
    pub(crate) number: u64,
}

impl NestedBlob {
    /// Pulls like skopeo.
    pub(crate) fn pull(self, cache: &Path, pauses: Pauses) -> Result<(), Broken> {
        let path = self.path_in(cache);
        match fs::metadata(&path) {
            Ok(_) => {
                think();
                thread::sleep(pauses.stall);
                return self.check(&path, OPEN_AFTER_STAT);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(Broken { step: "stat", cause }),
        }
        DirBuilder::new().recursive(true).create(cache).map_err(at("mkdir"))?;
        let temporary = cache.join(format!("oci-put-blob{}", random().random_range(0..u32::MAX)));
        let mut file = File::create_new(&temporary).map_err(at("create"))?;
        self.write(&mut file).map_err(at("write"))?;
        if random().random_ratio(1, 64) {
            file.sync_all().map_err(at("write"))?;
        }
        file.set_permissions(Permissions::from_mode(0o644)).map_err(at("write"))?;
        let closed = clock::now();
        drop(file);
        think();
        thread::sleep(pauses.stall);
        let directory = cache.join("blobs/sha256");
        DirBuilder::new().recursive(true).create(directory).map_err(at("mkdir"))?;
        let step = |is_old| if is_old { OVERSLEPT } else { "rename" };
        fs::rename(&temporary, &path).map_err(|cause| at(step(is_older_than(closed, pauses.idle)))(cause))?;
        think();
        self.check(&path, "reopen")
    }

    /// Creates the directory, then the file.
    pub(crate) fn write_in_place(self, cache: &Path) -> Result<(), Broken> {
        let directory = cache.join("blobs/sha256");
        DirBuilder::new().recursive(true).create(directory).map_err(at("mkdir"))?;
        think();
        let mut file = File::create(self.path_in(cache)).map_err(at("create"))?;
        self.write(&mut file).map_err(at("write"))
    }

    /// Creates the directory, then the file, and opens it for reading.
    pub(crate) fn open_new(self, cache: &Path) -> Result<File, Broken> {
        self.write_in_place(cache)?;
        File::open(self.path_in(cache)).map_err(at("reopen"))
    }

    /// Checks that the name still leads to the open file.
    pub(crate) fn is_still(self, cache: &Path, file: &File) -> Result<(), Broken> {
        let lost = at(LOST_WHILE_OPEN);
        let (open, named) =
            (file.metadata().map_err(&lost)?, fs::metadata(self.path_in(cache)).map_err(&lost)?);
        let is_same = open.ino() == named.ino();
        if is_same { Ok(()) } else { Err(lost(io::Error::other("another file has its name"))) }
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
        let mut file = File::open(path).map_err(at(step))?;
        file.read_to_end(&mut content).map_err(at(step))?;
        broken::check(&content, &self.content()).map_err(at("content"))
    }

    /// The path of the blob in a nested cache.
    pub(crate) fn path_in(self, cache: &Path) -> PathBuf {
        cache.join("blobs/sha256").join(format!("{:064x}", self.number))
    }

    fn content(self) -> Vec<u8> {
        format!("blob {:016x} ", self.number)
            .repeat(150 + usize::from(self.number.to_le_bytes()[0]))
            .into_bytes()
    }
}

/// Pauses between two steps.
fn think() {
    broken::think(8, 3000);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_PAUSES: Pauses = Pauses { idle: Duration::MAX, stall: Duration::ZERO };

    #[test]
    fn a_name_that_went_while_the_file_is_open_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let blob = NestedBlob { number: 7 };
        let file = blob.open_new(directory.path()).unwrap();
        blob.is_still(directory.path(), &file).unwrap();
        fs::rename(blob.path_in(directory.path()), directory.path().join("elsewhere")).unwrap();
        assert_eq!(blob.is_still(directory.path(), &file).unwrap_err().step, LOST_WHILE_OPEN);
        blob.write_in_place(directory.path()).unwrap();
        assert_eq!(blob.is_still(directory.path(), &file).unwrap_err().step, LOST_WHILE_OPEN);
    }

    #[test]
    fn a_pull_fills_and_finds() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache");
        let blob = NestedBlob { number: 7 };
        blob.pull(&cache, NO_PAUSES).unwrap();
        blob.pull(&cache, NO_PAUSES).unwrap();
        NestedBlob { number: 8 }.write_in_place(&cache).unwrap();
        assert_eq!(fs::read_dir(cache.join("blobs/sha256")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
        fs::write(blob.path_in(&cache), "cut").unwrap();
        assert_eq!(blob.pull(&cache, NO_PAUSES).unwrap_err().step, "content");
    }
}
