//! The old way to change an index: compare, write a temporary file, sync it, rename it over whatever is there by then. It
//! is a role of this program, and the negative control.
//!
//! Guarantees: it prunes only layouts of this part. It removes images that were written more than an hour ago.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use oci_cache::Timestamp;
use rand::RngExt as _;
use rustix::fs::{AtFlags, CWD, renameat, unlinkat};
use serde_json::Value;

use crate::kit::random::random;
use crate::torture::age::is_older_than;

const HOUR: Duration = Duration::from_secs(3600);

/// Prunes. The argument is the layout.
pub(crate) fn prune(words: &[&str]) -> anyhow::Result<()> {
    let [layout] = words else { bail!("the old way takes one word: {words:?}") };
    let layout = Path::new(layout);
    let home = layout.parent().and_then(Path::file_name).unwrap_or_default();
    ensure!(home.as_bytes().starts_with(b"index-"), "{} is no layout of this part", layout.display());
    let index = layout.join("index.json");
    let seen = status(&index)?;
    let mut value: Value = serde_json::from_slice(&fs::read(&index)?).context("parse the index")?;
    let manifests = value["manifests"].as_array_mut().context("no manifests")?;
    let gone: Vec<Value> = manifests.extract_if(.., |entry| is_old(layout, entry)).collect();
    if gone.is_empty() || status(&index)? != seen {
        return Ok(());
    }
    let temporary = layout.join(format!("index.json.pruning-{:016x}", random().random_range(0..u64::MAX)));
    let mut file = File::create_new(&temporary)?;
    file.set_permissions(fs::metadata(&index)?.permissions())?;
    file.write_all(value.to_string().as_bytes())?;
    file.sync_data()?;
    renameat(CWD, &temporary, CWD, &index).context("rename the new index")?;
    gone.iter().filter_map(|entry| path_of(layout, entry)).for_each(|manifest| remove(layout, &manifest));
    Ok(())
}

fn is_old(layout: &Path, entry: &Value) -> bool {
    let written = path_of(layout, entry).and_then(|path| path.metadata().ok()?.modified().ok());
    written.is_none_or(|written| is_older_than(Timestamp::from(written), HOUR))
}

fn path_of(layout: &Path, entry: &Value) -> Option<PathBuf> {
    Some(layout.join("blobs/sha256").join(entry["digest"].as_str()?.strip_prefix("sha256:")?))
}

fn remove(layout: &Path, manifest: &Path) {
    let read: Option<Value> = fs::read(manifest).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let read = read.unwrap_or_default();
    let needed = [&read["config"], &read["layers"][0]].into_iter().filter_map(|entry| path_of(layout, entry));
    for path in needed.chain([manifest.to_owned()]) {
        let _ = unlinkat(CWD, path, AtFlags::empty());
    }
}

fn status(index: &Path) -> anyhow::Result<(u64, u64, i64, i64)> {
    let status = fs::metadata(index).context("inspect the index")?;
    Ok((status.ino(), status.len(), status.mtime(), status.mtime_nsec()))
}
