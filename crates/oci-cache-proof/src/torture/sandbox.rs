//! A small cache with everything that a prune meets, and canaries around it.
//!
//! Guarantees: blobs and directories have times of two days ago, or blobs of ten minutes ago. `canary`, beside the
//! cache, holds names that a prune would remove if it got there. Links in the cache lead there. `out` is for files
//! that runs write, and is not compared.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;

use crate::kit::process::while_none_starts;
use crate::kit::tree::Tree;

const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 60 * 60);
const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);

/// The shape of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Flat, with foreign entries, partials and leftovers.
    Flat,
    /// Flat, with nothing that does not belong to the cache.
    Pure,
    /// As [`Shape::Pure`], but used ten minutes ago: a pull may have looked the blobs up.
    Fresh,
    /// An OCI image layout with two images.
    Layout,
}

/// A temporary directory with a cache.
#[derive(Debug)]
pub(crate) struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    /// Makes a sandbox in `scratch`.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn new(scratch: &Path, shape: Shape) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix_in("sandbox-", scratch).context("make a sandbox")?;
        let sandbox = Self { directory };
        sandbox.fill(shape).with_context(|| format!("fill {}", sandbox.path().display()))?;
        Ok(sandbox)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// A path in `out`.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.path().join("out").join(name)
    }

    /// What a killed prune left beside the cache.
    pub(crate) fn leftover(&self) -> PathBuf {
        self.path().join(format!("cache.pruning-{:016x}", 1))
    }

    /// Moves a file or directory to `out`, for a sandbox without it.
    pub(crate) fn move_out(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::rename(path, self.out(&name)).with_context(|| format!("move {}", path.display()))
    }

    /// A snapshot of everything but `out`.
    pub(crate) fn tree(&self) -> anyhow::Result<Tree> {
        let mut tree = Tree::of(self.path())?;
        tree.entries.retain(|path, _| !path.starts_with("out"));
        Ok(tree)
    }

    fn fill(&self, shape: Shape) -> anyhow::Result<()> {
        let (root, cache) = (self.path(), self.cache());
        fs::DirBuilder::new().mode(0o700).create(&cache)?;
        fs::create_dir(self.path().join("out"))?;
        for number in 1..=4 {
            write(&root.join("canary").join(flat_name(number)), "canary")?;
            write(&root.join("canary/blobs/sha256").join(hex_name(number)), "canary")?;
        }
        write(&self.leftover().join(flat_name(90)), "left beside")?;
        match shape {
            Shape::Layout => self.fill_layout()?,
            Shape::Flat | Shape::Pure | Shape::Fresh => self.fill_flat(shape)?,
        }
        for directory in [&cache, &cache.join("blobs"), &cache.join("blobs/sha256")] {
            if directory.exists() {
                age(directory)?;
            }
        }
        Ok(())
    }

    fn fill_flat(&self, shape: Shape) -> anyhow::Result<()> {
        let cache = self.cache();
        for number in 1..=4 {
            let path = cache.join(flat_name(number));
            write(&path, &"b".repeat(number))?;
            if shape == Shape::Fresh {
                set_times(&path, TEN_MINUTES)?;
            }
        }
        write(&cache.join("oci-put-blob1234"), "partial")?;
        write(&cache.join(format!(".pruning-{:016x}", 2)).join(flat_name(91)), "left within")?;
        if shape == Shape::Flat {
            // This marks a cache even after a prune. Otherwise the next prune would refuse the directory.
            fs::create_dir_all(cache.join("blobs/sha256"))?;
            write(&cache.join("README"), "foreign")?;
            write(&cache.join("notes").join(flat_name(5)), "foreign")?;
            symlink("../canary/README", cache.join(flat_name(6)))?;
            symlink("../canary", cache.join(format!(".pruning-{:016x}", 3)))?;
        }
        Ok(())
    }

    fn fill_layout(&self) -> anyhow::Result<()> {
        let cache = self.cache();
        let blob =
            |number: usize, content: &str| write(&cache.join("blobs/sha256").join(hex_name(number)), content);
        let descriptor = |number: usize, size: usize| json!({"mediaType": "application/octet-stream", "digest": digest(number), "size": size});
        let mut manifests = Vec::new();
        for (image, name) in [(1, "first"), (2, "second")] {
            let (manifest, config, layer) = (image * 10, image * 10 + 1, image * 10 + 2);
            blob(config, "{}")?;
            blob(layer, "layer")?;
            let layers = [descriptor(layer, 5), descriptor(3, 6)];
            let text =
                json!({"schemaVersion": 2, "config": descriptor(config, 2), "layers": layers}).to_string();
            blob(manifest, &text)?;
            let mut entry = descriptor(manifest, text.len());
            entry["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            manifests.push(entry);
        }
        blob(3, "shared")?;
        blob(40, "nobody's")?;
        write(&cache.join("blobs/sha256/notes"), "foreign")?;
        symlink("../../../canary/README", cache.join("blobs/sha256").join(hex_name(6)))?;
        symlink("../../canary/blobs/sha256", cache.join("blobs/sha512"))?;
        write(&cache.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(&cache.join("index.json"), &json!({"schemaVersion": 2, "manifests": manifests}).to_string())?;
        write(&cache.join("oci-put-blob1234"), "partial")?;
        write(&cache.join("README"), "foreign")
    }
}

/// Whether a prune may remove the file. The path is relative to the sandbox.
pub(crate) fn is_the_caches(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_foreign = path.starts_with("canary") || path.starts_with("cache/notes");
    let is_link = name == flat_name(6) || name == hex_name(6);
    let has_name = name.starts_with("sha256:") || name.len() == 64 || name.starts_with("oci-put-blob");
    has_name && !is_foreign && !is_link
}

/// Whether the entry must never change.
pub(crate) fn is_protected(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.starts_with("canary")
        || path.starts_with("cache/notes")
        || name == "README"
        || name == "notes"
        || name == flat_name(6)
        || name == hex_name(6)
        || name == "sha512"
        || name == "oci-layout"
        || name == format!(".pruning-{:016x}", 3)
}

/// Writes a file that seems two days old, and creates its directories.
pub(crate) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    while_none_starts(|| fs::write(path, content)).with_context(|| format!("write {}", path.display()))?;
    age(path)
}

/// Fills a flat cache with old blobs.
pub(crate) fn fill(cache: &Path, blobs: usize) -> anyhow::Result<()> {
    fs::create_dir_all(cache)?;
    for number in 0..blobs {
        write(&cache.join(flat_name(number)), "blob")?;
    }
    age(cache)
}

/// The times of a file that was last used two days ago.
pub(crate) fn old() -> FileTimes {
    times_before(TWO_DAYS)
}

fn times_before(age: Duration) -> FileTimes {
    let now = u64::try_from(oci_cache_cli::clock::now().0).unwrap_or_default();
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(now).saturating_sub(age);
    FileTimes::new().set_modified(then).set_accessed(then)
}

/// Makes a file or directory seem two days old.
pub(crate) fn age(path: &Path) -> anyhow::Result<()> {
    set_times(path, TWO_DAYS)
}

/// Makes a file or directory seem this old.
pub(crate) fn set_times(path: &Path, age: Duration) -> anyhow::Result<()> {
    while_none_starts(|| File::open(path)?.set_times(times_before(age)))
        .with_context(|| format!("set the times of {}", path.display()))
}

/// The name of a blob in a nested cache.
pub(crate) fn hex_name(number: usize) -> String {
    format!("{number:064x}")
}

/// The name of a blob in a flat cache.
pub(crate) fn flat_name(number: usize) -> String {
    format!("sha256:{}", hex_name(number))
}

/// The digest of a blob.
pub(crate) fn digest(number: usize) -> String {
    flat_name(number)
}
