//! The blobs of an image.
//!
//! Guarantees: this code is independent of the tested code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The digests that `keep` must protect: itself and, if the index names it, all that can be reached from it
/// through readable documents.
pub(crate) fn image_of(cache: &Path, keep: &str) -> BTreeSet<String> {
    let digest = |descriptor: &Value| descriptor["digest"].as_str().map(str::to_owned);
    let listed = |document: &Value, field: &str| -> Vec<String> {
        document[field].as_array().into_iter().flatten().filter_map(digest).collect()
    };
    let index = read_json(&cache.join("index.json"));
    let mut image = BTreeSet::from([keep.to_owned()]);
    let mut ahead: Vec<String> = listed(&index, "manifests").into_iter().filter(|one| one == keep).collect();
    ahead.truncate(1);
    while let Some(name) = ahead.pop() {
        let Some(hex) = name.strip_prefix("sha256:").filter(|hex| !hex.contains('/')) else { continue };
        let document = read_json(&cache.join("blobs/sha256").join(hex));
        let leaves = [listed(&document, "layers"), listed(&document, "blobs")].concat();
        image.extend(leaves.into_iter().chain(digest(&document["config"])));
        let documents = listed(&document, "manifests").into_iter().chain(digest(&document["subject"]));
        ahead.extend(documents.filter(|one| image.insert(one.clone())));
    }
    image
}

/// Reads a small JSON file. Returns null for anything else.
fn read_json(path: &Path) -> Value {
    let is_small = path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() < 4 << 20);
    let content = if is_small { fs::read(path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&content).unwrap_or_default()
}
