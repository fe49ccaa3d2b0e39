//! Caches to measure on: recipes, and the caches made from them.
//!
//! Guarantees: a recipe always gives the same names, sizes, contents and order of creation. Contents are
//! noise, so nothing is sparse or compressible. The order of creation is unrelated to the names' hashes, as
//! in a cache that pulls filled, so neither directory order nor inode order has an advantage. Every file
//! seems at least an hour old. Everything is on the disk before `make` returns.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use banger_fmt::format_bytes;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use crate::bench::numbers::grouped;
use crate::kit::random::Random;

/// The recipe of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) blobs: usize,
    pub(crate) sizes: Sizes,
    pub(crate) layout: Layout,
    pub(crate) naming: Naming,
    /// Whether the last blob was written just now. All others look an hour old.
    pub(crate) last_is_fresh: bool,
}

/// The sizes of the blobs, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    /// All blobs have this size.
    Each(u64),
    /// Evenly distributed from 0 to this.
    UpTo(u64),
    /// The total of all blobs. Each is a fifth larger than the one before.
    Together(u64),
}

/// The place of the blobs in the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// `sha256:<hex>`
    Flat,
    /// `blobs/sha256/<hex>`
    Nested,
}

/// The names of the blobs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Naming {
    /// Random digests, for tools that do not read blobs.
    Random,
    /// The digests of the contents.
    Content,
}

/// A cache. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Cache {
    home: TempDir,
    blobs: Vec<PathBuf>,
}

const AGE: Duration = Duration::from_secs(3600);
const NOISE_BYTES: usize = 1 << 20;

impl Recipe {
    /// The same recipe with fewer or smaller blobs.
    pub(crate) fn quick(self) -> Self {
        let large = |bytes: u64| if bytes >= 1 << 20 { bytes / 64 } else { bytes };
        let sizes = match self.sizes {
            Sizes::Each(bytes) => Sizes::Each(large(bytes)),
            Sizes::UpTo(bytes) => Sizes::UpTo(large(bytes)),
            Sizes::Together(bytes) => Sizes::Together(large(bytes)),
        };
        let blobs = if self.blobs > 1000 { (self.blobs / 50).max(500) } else { self.blobs };
        Self { blobs, sizes, ..self }
    }

    /// The recipe in words.
    pub(crate) fn description(&self) -> String {
        let sizes = match self.sizes {
            Sizes::Each(bytes) => format!("of {}", format_bytes(bytes)),
            Sizes::UpTo(bytes) => format!("of 0 to {}", format_bytes(bytes)),
            Sizes::Together(bytes) => format!("of {} together", format_bytes(bytes)),
        };
        let layout = match self.layout {
            Layout::Flat => "flat",
            Layout::Nested => "nested",
        };
        let fresh = if self.last_is_fresh { ", one of them fresh" } else { "" };
        format!("{} blobs {sizes}, {layout}{fresh}", grouped(self.blobs))
    }

    /// The size of each blob.
    pub(crate) fn blob_sizes(&self) -> Vec<u64> {
        match self.sizes {
            Sizes::Each(bytes) => vec![bytes; self.blobs],
            Sizes::UpTo(bytes) => {
                let mut random = Random::seed_from_u64(2);
                (0..self.blobs).map(|_| random.random_range(0..=bytes)).collect()
            }
            Sizes::Together(bytes) => shares(bytes, self.blobs),
        }
    }

    /// Makes a cache in a new directory below `parent`, then waits for `rest`. The journal writes and
    /// discards of one contender must not slow down the next.
    pub(crate) fn make(&self, parent: &Path, rest: Duration) -> anyhow::Result<Cache> {
        let home = tempfile::Builder::new().prefix("copy-").tempdir_in(parent);
        let home = home.with_context(|| format!("create a directory in `{}`", parent.display()))?;
        let mut cache = Cache { home, blobs: Vec::with_capacity(self.blobs) };
        let directory = match self.layout {
            Layout::Flat => cache.path(),
            Layout::Nested => cache.path().join("blobs/sha256"),
        };
        fs::create_dir_all(&directory).with_context(|| format!("create `{}`", directory.display()))?;
        self.fill(&directory, &mut cache.blobs)?;
        if matches!(self.naming, Naming::Content) {
            self.name_by_content(&directory, &mut cache.blobs)?;
        }
        cache.sync()?;
        thread::sleep(rest);
        Ok(cache)
    }

    fn fill(&self, directory: &Path, blobs: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let created = directory.metadata().and_then(|metadata| metadata.modified());
        let created = created.with_context(|| format!("read the time of `{}`", directory.display()))?;
        let used = created - AGE;
        let times = FileTimes::new().set_modified(used).set_accessed(used);
        let mut random = Random::seed_from_u64(1);
        let mut noise = vec![0; NOISE_BYTES];
        random.fill_bytes(&mut noise);
        let mut digest = [0; 32];
        for (index, size) in self.blob_sizes().into_iter().enumerate() {
            random.fill_bytes(&mut digest);
            let path = directory.join(self.spell(&hexadecimal(&digest)));
            write_blob(&path, size, &noise, index, times)
                .with_context(|| format!("write `{}`", path.display()))?;
            blobs.push(path);
        }
        if let Some(last) = blobs.last().filter(|_| self.last_is_fresh) {
            let times = FileTimes::new().set_modified(created).set_accessed(created);
            let set = File::open(last).and_then(|file| file.set_times(times));
            set.with_context(|| format!("set the times of `{}`", last.display()))?;
        }
        Ok(())
    }

    fn name_by_content(&self, directory: &Path, blobs: &mut [PathBuf]) -> anyhow::Result<()> {
        let output = Command::new("sha256sum").args(&*blobs).output().context("run sha256sum")?;
        ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim());
        let lines = String::from_utf8(output.stdout).context("read what sha256sum printed")?;
        let digests: Vec<&str> = lines.lines().filter_map(|line| line.get(..64)).collect();
        ensure!(digests.len() == blobs.len(), "sha256sum printed {} lines", digests.len());
        for (blob, digest) in blobs.iter_mut().zip(digests) {
            let name = directory.join(self.spell(digest));
            fs::rename(&*blob, &name).with_context(|| format!("rename `{}`", blob.display()))?;
            *blob = name;
        }
        Ok(())
    }

    fn spell(&self, hexadecimal: &str) -> String {
        match self.layout {
            Layout::Flat => format!("sha256:{hexadecimal}"),
            Layout::Nested => hexadecimal.to_owned(),
        }
    }
}

impl Cache {
    /// The cache's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// Every blob, in the order of creation.
    pub(crate) fn blobs(&self) -> &[PathBuf] {
        &self.blobs
    }

    /// Writes a file with the paths of all blobs, each followed by a NUL. Returns its path.
    pub(crate) fn list(&self) -> anyhow::Result<PathBuf> {
        let path = self.home.path().join("list");
        let mut names = OsString::new();
        for blob in &self.blobs {
            names.push(blob);
            names.push("\0");
        }
        fs::write(&path, names.as_encoded_bytes()).with_context(|| format!("write `{}`", path.display()))?;
        Ok(path)
    }

    /// The number of blobs that still have their names.
    pub(crate) fn blobs_left(&self) -> usize {
        self.blobs.iter().filter(|blob| blob.symlink_metadata().is_ok()).count()
    }

    /// Reads every blob into the page cache.
    pub(crate) fn read_through(&self) -> anyhow::Result<()> {
        let mut buffer = vec![0; NOISE_BYTES];
        for blob in &self.blobs {
            let context = || format!("read `{}`", blob.display());
            let mut file = File::open(blob).with_context(context)?;
            while file.read(&mut buffer).with_context(context)? > 0 {}
        }
        Ok(())
    }

    /// Writes everything to the disk.
    fn sync(&self) -> anyhow::Result<()> {
        let context = || format!("sync `{}`", self.home.path().display());
        let directory = File::open(self.home.path()).with_context(context)?;
        rustix::fs::syncfs(&directory).with_context(context)
    }
}

fn write_blob(path: &Path, size: u64, noise: &[u8], index: usize, times: FileTimes) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    // Each blob begins at another point of the noise, so all differ.
    let mut rest = noise.get(index * 64 % noise.len()..).unwrap_or(noise);
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        file.write_all(&rest[..length])?;
        left -= length as u64;
        rest = noise;
    }
    file.set_times(times)
}

/// Splits a total into parts, each a fifth larger than the one before.
fn shares(total: u64, parts: usize) -> Vec<u64> {
    let weights: Vec<u128> =
        std::iter::successors(Some(1000), |weight| Some(weight * 6 / 5)).take(parts).collect();
    let sum: u128 = weights.iter().sum();
    let share = |weight| u64::try_from(u128::from(total) * weight / sum).unwrap_or(u64::MAX);
    let mut shares: Vec<u64> = weights.into_iter().map(share).collect();
    let rest = total - shares.iter().sum::<u64>();
    if let Some(last) = shares.last_mut() {
        *last += rest;
    }
    shares
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shares_add_up() {
        let sizes = shares(1_288_490_189, 47);
        assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (47, 1_288_490_189));
        assert!(sizes.is_sorted());
    }

    #[test]
    fn digits_are_lower_case_and_keep_their_zeros() {
        assert_eq!(hexadecimal(&[0x0f, 0xa0]), "0fa0");
    }

    fn make(recipe: Recipe) -> (TempDir, Cache) {
        let parent = TempDir::new().unwrap();
        let cache = recipe.make(parent.path(), Duration::ZERO).unwrap();
        (parent, cache)
    }

    #[test]
    fn a_recipe_gives_the_same_cache_twice() {
        let recipe = Recipe {
            blobs: 5,
            sizes: Sizes::UpTo(9000),
            layout: Layout::Flat,
            naming: Naming::Random,
            last_is_fresh: false,
        };
        let listing = |cache: &Cache| {
            let file = |blob: &PathBuf| (blob.file_name().unwrap().to_owned(), fs::read(blob).unwrap());
            cache.blobs().iter().map(file).collect::<Vec<_>>()
        };
        let ((_one, first), (_other, second)) = (make(recipe), make(recipe));
        assert_eq!(listing(&first), listing(&second));
        assert_eq!(first.blobs_left(), 5);
    }

    #[test]
    fn blobs_are_an_hour_old_and_as_large_as_they_should_be() {
        let recipe = Recipe {
            blobs: 2,
            sizes: Sizes::Each(1 << 21),
            layout: Layout::Nested,
            naming: Naming::Random,
            last_is_fresh: false,
        };
        let (_parent, cache) = make(recipe);
        for blob in cache.blobs() {
            assert_eq!(blob.parent().unwrap(), cache.path().join("blobs/sha256"));
            let metadata = blob.metadata().unwrap();
            assert_eq!(metadata.len(), 1 << 21);
            assert!(metadata.modified().unwrap().elapsed().unwrap() >= AGE);
        }
    }

    #[test]
    fn one_blob_can_be_fresh() {
        let recipe = Recipe {
            blobs: 3,
            sizes: Sizes::Each(1),
            layout: Layout::Flat,
            naming: Naming::Random,
            last_is_fresh: true,
        };
        let (_parent, cache) = make(recipe);
        let is_fresh = |blob: &PathBuf| blob.metadata().unwrap().modified().unwrap().elapsed().unwrap() < AGE;
        assert_eq!(cache.blobs().iter().map(is_fresh).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(recipe.description(), "3 blobs of 1 B, flat, one of them fresh");
    }

    #[test]
    fn names_by_content_are_true_and_unique() {
        let recipe = Recipe {
            blobs: 3,
            sizes: Sizes::Each(100),
            layout: Layout::Flat,
            naming: Naming::Content,
            last_is_fresh: false,
        };
        let (_parent, cache) = make(recipe);
        let names: BTreeSet<_> = cache.blobs().iter().map(|blob| blob.file_name().unwrap()).collect();
        assert_eq!((names.len(), cache.blobs_left()), (3, 3));
        let list = fs::read(cache.list().unwrap()).unwrap();
        assert_eq!(list.iter().filter(|byte| **byte == 0).count(), 3);
    }
}
