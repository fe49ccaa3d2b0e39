//! BuildKit's local cache: exports over one directory, and what is left of the last.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use support::Cache;
use support::image::{named, path_of, with};
use support::layout::{INDEX, MANIFEST};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The two forms of an export. Source: BuildKit's `cache/remotecache/export.go`.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A manifest, with `image-manifest=true`: the default since version 0.21.
    Manifest,
    /// An index that lists layers and the configuration.
    List,
}

/// Exports the cache of a build as BuildKit does: blobs that are not there are added, and the tag's entry in the index
/// is replaced (`client/ociindex`). Returns the descriptors.
fn export(cache: &Cache, form: Form, build: u8) -> Vec<Value> {
    let layer = |content: &[u8]| {
        let annotations = json!({"buildkit/createdat": "2026-01-01T00:00:00Z"});
        with(cache.add(LAYER, content), "annotations", annotations)
    };
    let layers = [layer(b"base"), layer(&[build; 100])];
    let blobs: Vec<Value> = layers.iter().map(|layer| json!({"blob": layer["digest"]})).collect();
    let config = cache.add(CACHE_CONFIG, json!({"layers": blobs, "build": build}).to_string().as_bytes());
    let document = match form {
        Form::Manifest => {
            let manifest =
                json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
            cache.add(MANIFEST, manifest.to_string().as_bytes())
        }
        Form::List => {
            let listed = [&layers[0], &layers[1], &config];
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
            cache.add(INDEX, index.to_string().as_bytes())
        }
    };
    cache.write_index(&[named(document.clone(), "latest")]);
    cache.write("index.json.lock", 0);
    layers.into_iter().chain([config, document]).collect()
}

fn blobs(cache: &Cache) -> BTreeSet<String> {
    let names = fs::read_dir(cache.path().join("blobs/sha256")).unwrap();
    names.map(|name| format!("blobs/sha256/{}", name.unwrap().file_name().to_str().unwrap())).collect()
}

#[test]
fn of_ten_exports_exactly_the_last_is_left() {
    for form in [Form::Manifest, Form::List] {
        let cache = Cache::layout();
        let mut last = Vec::new();
        for build in 1..=10 {
            last = export(&cache, form, build);
        }
        // An export that was broken off.
        let ingest = format!("ingest/{:064x}", 7);
        for file in ["data", "ref", "startedat", "updatedat", "total"] {
            cache.write(format!("{ingest}/{file}"), 10);
        }
        let index = fs::read(cache.path().join("index.json")).unwrap();
        assert_eq!(blobs(&cache).len(), 31, "{form:?}");
        let ran = cache.prune(&["--unreferenced"]);
        assert_eq!(ran.exit, 0, "{}", ran.block());
        let expected: BTreeSet<String> = last.iter().map(path_of).collect();
        assert_eq!(blobs(&cache), expected, "{form:?}");
        assert!(!cache.path().join(&ingest).exists(), "{}", ran.block());
        assert_eq!(fs::read(cache.path().join("index.json")).unwrap(), index);
        assert_eq!(cache.run("cache-verify", &[]).exit, 0);
        assert_eq!(cache.prune(&["--unreferenced"]).stdout, "freed 0 B across 0 blob(s) in [TMP]/oci\n");
    }
}
