//! Whether what the index of a layout leads to is there.
//!
//! Guarantees: what was missing before does not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::kit::process::while_none_starts;

/// The digests to which the index of `cache` leads and that are not there.
pub(crate) fn dangling(cache: &Path) -> BTreeSet<String> {
    let read = |path: &Path| {
        while_none_starts(|| fs::read(path)).ok().and_then(|content| serde_json::from_slice(&content).ok())
    };
    let index: Option<Value> = read(&cache.join("index.json"));
    let mut dangling = BTreeSet::new();
    let mut ahead: Vec<String> = index.iter().flat_map(digests).collect();
    let mut seen = BTreeSet::new();
    while let Some(digest) = ahead.pop() {
        if !seen.insert(digest.clone()) {
            continue;
        }
        let blob = cache.join("blobs").join(digest.replacen(':', "/", 1));
        if !blob.exists() {
            dangling.insert(digest);
        } else if let Some(document) = read(&blob) {
            ahead.extend(digests(&document));
        }
    }
    dangling
}

/// The digests of the descriptors of a document.
fn digests(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for field in ["manifests", "layers", "config"] {
        let values = match document.get(field) {
            Some(Value::Array(values)) => values.iter().collect(),
            Some(value) => vec![value],
            None => Vec::new(),
        };
        let of = |value: &Value| value.get("digest").and_then(Value::as_str).map(str::to_owned);
        found.extend(values.into_iter().filter_map(of));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_manifests_name_counts_too() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path();
        fs::create_dir_all(cache.join("blobs/sha256")).unwrap();
        fs::write(cache.join("index.json"), r#"{"manifests":[{"digest":"sha256:a"},{"digest":"sha256:b"}]}"#)
            .unwrap();
        fs::write(cache.join("blobs/sha256/a"), r#"{"config":{"digest":"sha256:c"},"layers":[]}"#).unwrap();
        let found: Vec<String> = dangling(cache).into_iter().collect();
        assert_eq!(found, ["sha256:b", "sha256:c"]);
    }
}
