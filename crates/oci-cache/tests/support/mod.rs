//! Caches for tests, and the steps from a cache to a plan.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci_cache::{CacheDir, Lock, Policy, Progress, PrunePlan, PruneReport, prune, scan, select};
use sha2::{Digest as _, Sha256};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The time of planning.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// The path of an example, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "`{}` is not built: run `cargo build --examples` first", path.display());
    path
}

/// Writes a file that was last used and changed `age` ago.
pub(crate) fn put(path: &Path, content: &[u8], age: Duration) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let used = now() - age;
    File::open(path).unwrap().set_times(FileTimes::new().set_accessed(used).set_modified(used)).unwrap();
}

/// Writes a blob of a flat cache, named by a number.
pub(crate) fn flat(root: &Path, number: u64, content: &[u8], age: Duration) -> PathBuf {
    let path = root.join(format!("sha256:{number:064x}"));
    put(&path, content, age);
    path
}

/// Where a layout keeps this content.
pub(crate) fn path_of(root: &Path, content: &[u8]) -> PathBuf {
    root.join("blobs/sha256").join(hex::encode(Sha256::digest(content)))
}

/// Writes a blob of a layout; returns its descriptor.
pub(crate) fn blob(root: &Path, content: &[u8], age: Duration) -> String {
    put(&path_of(root, content), content, age);
    format!(r#"{{"digest":"sha256:{}","size":{}}}"#, hex::encode(Sha256::digest(content)), content.len())
}

/// Writes a manifest; returns its descriptor.
pub(crate) fn manifest(root: &Path, fields: &str) -> String {
    blob(root, format!(r#"{{"schemaVersion":2,{fields}}}"#).as_bytes(), DAY)
}

/// Makes a layout of these entries.
pub(crate) fn index(root: &Path, entries: &str) {
    put(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, DAY);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    put(&root.join("index.json"), index.as_bytes(), DAY);
}

/// A layout of image `a`, used 5 days ago, and image `b`, used 2 days ago, both on an older `base`; and a
/// `stray` blob.
pub(crate) fn layout(root: &Path) {
    let base = blob(root, b"base", 60 * DAY);
    let image = |name: &str, age: Duration| {
        let layer = blob(root, name.as_bytes(), age);
        let manifest = format!(r#"{{"schemaVersion":2,"layers":[{base},{layer}]}}"#);
        blob(root, manifest.as_bytes(), age)
    };
    let images = [image("a", 5 * DAY), image("b", 2 * DAY)];
    blob(root, b"stray", 70 * DAY);
    index(root, &images.join(","));
}

/// Opens and locks a cache.
pub(crate) fn locked(path: &Path) -> (CacheDir, Lock) {
    let mut cache = CacheDir::open(path, &[]).unwrap();
    let lock = cache.try_lock().unwrap().unwrap();
    (cache, lock)
}

pub(crate) fn plan(cache: &CacheDir, policy: &Policy) -> PrunePlan {
    select(scan(cache).unwrap(), policy, now().into(), cache.space().unwrap()).unwrap()
}

/// Prunes what no image leads to.
pub(crate) fn prune_unreferenced(root: &Path) -> PruneReport {
    let mut policy = Policy::default();
    policy.unreferenced = true;
    prune(root, &[], &policy, now().into(), &Progress::default()).unwrap()
}
