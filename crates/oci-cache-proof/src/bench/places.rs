//! The places for caches: the disk, a tmpfs, or an ext4 image in a tmpfs.
//!
//! Guarantees: dropping a place unmounts it. A place that is not available is no error: the document gives
//! the reason.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use banger_fmt::format_bytes;
use tempfile::TempDir;

use crate::bench::caches::Recipe;
use crate::bench::environment::Mount;
use crate::kit::image;
use oci_cache_cli::output;

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// The disk that the directory for caches is on.
    Disk,
    /// An ext4 image in a tmpfs: a journal without a disk.
    Image,
    /// A tmpfs.
    Tmpfs,
}

/// A directory to make caches in.
#[derive(Debug)]
pub(crate) struct Place {
    /// Fields are dropped in this order: the image is unmounted before its directory is removed.
    _image: Option<MountedImage>,
    _home: Option<TempDir>,
    pub(crate) directory: PathBuf,
    /// The file system, in words.
    pub(crate) description: String,
}

/// A mounted image.
#[derive(Debug)]
struct MountedImage {
    mount_point: PathBuf,
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        if let Err(error) = image::unmount(&self.mount_point) {
            output::complain(&format!("error: {error:#}"));
        }
    }
}

const SHARED_MEMORY: &str = "/dev/shm";

/// Opens a place with room for one cache, or returns why there is none.
pub(crate) fn open(
    file_system: FileSystem,
    home: &Path,
    recipe: &Recipe,
) -> anyhow::Result<Result<Place, String>> {
    let needed_bytes = room_for(recipe);
    if file_system == FileSystem::Disk {
        let description = Mount::of(home)?.file_system;
        let directory = home.to_owned();
        let place = Place { _image: None, _home: None, directory, description };
        return Ok(lack_of_space(home, needed_bytes)?.map_or(Ok(place), Err));
    }
    let memory = Path::new(SHARED_MEMORY);
    if !memory.is_dir() || Mount::of(memory)?.file_system != "tmpfs" {
        return Ok(Err(format!("no tmpfs is mounted at {SHARED_MEMORY}")));
    }
    // An image also needs room for the file system's own tables.
    if let Some(reason) = lack_of_space(memory, needed_bytes * 2)? {
        return Ok(Err(reason));
    }
    let home = tempfile::Builder::new().prefix("bench-").tempdir_in(memory);
    let home = home.with_context(|| format!("create a directory in {SHARED_MEMORY}"))?;
    if file_system == FileSystem::Tmpfs {
        let (directory, description) = (home.path().to_owned(), "tmpfs".to_owned());
        return Ok(Ok(Place { _image: None, _home: Some(home), directory, description }));
    }
    match mount_image(home.path(), needed_bytes * 2, recipe.blobs) {
        Ok(image) => {
            let directory = image.mount_point.clone();
            let description = "an ext4 image in a tmpfs".to_owned();
            Ok(Ok(Place { _image: Some(image), _home: Some(home), directory, description }))
        }
        Err(error) => {
            output::complain(&format!("note: {error:#}"));
            Ok(Err("an ext4 image cannot be mounted here, which needs root and loop devices".to_owned()))
        }
    }
}

/// Makes and mounts an ext4 file system. All its tables are written at once.
fn mount_image(home: &Path, bytes: u64, blobs: usize) -> anyhow::Result<MountedImage> {
    let mount_point = home.join("mount");
    let inodes = (blobs + 1000).to_string();
    let tables = "lazy_itable_init=0,lazy_journal_init=0";
    image::mount("mkfs.ext4", &["-q", "-F", "-N", &inodes, "-E", tables], &mount_point, bytes, "defaults")?;
    Ok(MountedImage { mount_point })
}

/// The room that a cache needs at most, with its directory and inodes.
fn room_for(recipe: &Recipe) -> u64 {
    const LEAST: u64 = 256 << 20;
    const BLOCK: u64 = 4096;
    const PER_BLOB: u64 = 512;
    let blobs = recipe.blob_sizes().into_iter();
    blobs.map(|size| size.next_multiple_of(BLOCK) + PER_BLOB).sum::<u64>() + LEAST
}

/// Describes a lack of space.
fn lack_of_space(directory: &Path, needed_bytes: u64) -> anyhow::Result<Option<String>> {
    let space = rustix::fs::statvfs(directory);
    let space = space.with_context(|| format!("read the free space of `{}`", directory.display()))?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let (needed, free) = (format_bytes(needed_bytes), format_bytes(free_bytes));
    Ok((free_bytes < needed_bytes).then(|| format!("it needs {needed} of free space, there are {free}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::caches::{Layout, Naming, Sizes};

    #[test]
    fn room_is_counted_in_blocks() {
        let recipe = |blobs, sizes| {
            room_for(&Recipe {
                blobs,
                sizes,
                layout: Layout::Flat,
                naming: Naming::Random,
                last_is_fresh: false,
            })
        };
        assert_eq!(recipe(2, Sizes::Each(1)) - recipe(1, Sizes::Each(1)), 4096 + 512);
        assert_eq!(recipe(2, Sizes::Each(4097)) - recipe(1, Sizes::Each(4097)), 8192 + 512);
    }

    #[test]
    fn a_lack_of_space_is_said() {
        let home = TempDir::new().unwrap();
        assert_eq!(lack_of_space(home.path(), 0).unwrap(), None);
        assert!(lack_of_space(home.path(), u64::MAX).unwrap().unwrap().contains("16.0 EiB"));
    }
}
