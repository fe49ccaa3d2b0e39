//! What a layout's index leads to.
//!
//! Zero bytes separate the documents: first `index.json`, then the blobs 1 to 4. Blobs 5 and 6 are layers.

#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oci_cache::{CacheDir, Inventory, Policy, read_references, scan, select};
use oci_cache_fuzz::fixture::{self, NOW, digest};
use oci_cache_fuzz::memory::peak_of;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tempfile::TempDir;

/// The number of blobs that the input writes.
const DOCUMENTS: usize = 4;
/// How much memory reading takes at most: for each byte of the documents, and in any case.
const BYTES_PER_BYTE: usize = 100;
const BYTES: usize = 1 << 20;

/// An index, of which only the number of entries matters.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<IgnoredAny>,
}

fuzz_target!(|data: &[u8]| {
    static LAYOUT: OnceLock<TempDir> = OnceLock::new();
    let layout = LAYOUT.get_or_init(layout).path();
    let documents: Vec<&[u8]> = data.split(|byte| *byte == 0).take(DOCUMENTS + 1).collect();
    fill(layout, &documents);
    let cache = CacheDir::open(layout, &[]).expect("open the layout");
    let Ok(mut inventory) = scan(&cache) else { return };
    let (_, peak) = peak_of(|| _ = read_references(&mut inventory));
    assert!(peak <= BYTES + BYTES_PER_BYTE * data.len(), "{peak} bytes for {}", data.len());
    check_images(&inventory, documents[0]);
    check_prune(inventory, &cache, &documents);
});

fn layout() -> TempDir {
    let home = fixture::directory();
    fs::create_dir_all(home.path().join("blobs/sha256")).expect("make a layout");
    fixture::write(&home.path().join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    for layer in [DOCUMENTS + 1, DOCUMENTS + 2] {
        fixture::write(&path(home.path(), layer), b"layer");
    }
    home
}

fn path(layout: &Path, blob: usize) -> std::path::PathBuf {
    layout.join(format!("blobs/sha256/{blob:064x}"))
}

/// Writes the documents. A blob of which there is none is not there.
fn fill(layout: &Path, documents: &[&[u8]]) {
    fixture::write(&layout.join("index.json"), documents[0]);
    for blob in 1..=DOCUMENTS {
        match documents.get(blob) {
            Some(content) => fixture::write(&path(layout, blob), content),
            None => _ = fs::remove_file(path(layout, blob)),
        }
    }
}

/// Checks that there are no more images than entries, and that each names blobs that are there, once.
fn check_images(inventory: &Inventory, index: &[u8]) {
    // What is not read of an index may be anything, so it need not be a value.
    let entries = serde_json::from_slice::<Index>(index).map_or(0, |index| index.manifests.len());
    let references = inventory.references();
    assert!(references.images.len() <= entries, "{} images, {entries} entries", references.images.len());
    for image in &references.images {
        assert!(image.blobs.is_sorted_by(|one, next| one < next));
        assert!(image.blobs.iter().all(|&blob| blob < inventory.blobs().len()));
        assert!(image.is_complete || !references.is_complete(), "what an image leads to is unknown");
    }
}

/// Checks that no blob goes as unreferenced that the documents plainly reference.
fn check_prune(inventory: Inventory, cache: &CacheDir, documents: &[&[u8]]) {
    let mut policy = Policy::default();
    policy.unreferenced = true;
    let Ok(plan) = select(inventory, &policy, NOW, cache.space().expect("look at the space")) else { return };
    let goes = fixture::what_goes(&plan);
    let references = plan.inventory().references();
    assert!(references.has_index && references.is_complete() || goes.is_empty(), "{goes:?} may be needed");
    let needed = needed(documents);
    assert!(goes.is_disjoint(&needed), "of {needed:?}, {goes:?} go");
}

/// What the index references, and what the manifests and indexes among that reference, read another way.
fn needed(documents: &[&[u8]]) -> BTreeSet<String> {
    let parsed: Vec<Value> =
        documents.iter().map(|document| serde_json::from_slice(document).unwrap_or_default()).collect();
    let mut needed = BTreeSet::new();
    let mut ahead = vec![0];
    while let Some(document) = ahead.pop() {
        let Some(document) = parsed.get(document) else { continue };
        let lists =
            ["manifests", "layers"].into_iter().filter_map(|list| document[list].as_array()).flatten();
        for descriptor in lists.chain([&document["config"]]) {
            let Some(one) = descriptor["digest"].as_str() else { continue };
            let is_new = needed.insert(one.to_owned());
            let kind = descriptor["mediaType"].as_str().unwrap_or_default();
            let is_document = ["index", "manifest"]
                .into_iter()
                .any(|document| kind == format!("application/vnd.oci.image.{document}.v1+json"));
            if is_new && is_document {
                ahead.extend((1..=DOCUMENTS).find(|&blob| digest(blob) == one));
            }
        }
    }
    needed
}
