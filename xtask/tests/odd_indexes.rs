//! An `index.json` with something in it that is not read, and that is not well-formed; and one that is a manifest.
//!
//! What is outside the list of manifests stays as it is, whatever it is. An entry that cannot be read stays, and so do the
//! blobs that it leads to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::time::Duration;

use support::{Cache, nested};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What may be in a field that is not read: no text, a number without bounds, lists in lists.
fn odd_values() -> [Vec<u8>; 3] {
    let deep = ["[".repeat(300), "]".repeat(300)].concat();
    [b"\"\xff\"".to_vec(), b"1e999".to_vec(), deep.into_bytes()]
}

/// A layout whose index has a field of this value.
fn layout(value: &[u8]) -> Cache {
    let cache = Cache::typical_layout();
    let index = fs::read(cache.path().join("index.json")).unwrap();
    let (last, start) = index.split_last().unwrap();
    cache.write_content("index.json", &[start, b",\"x\":", value, &[*last]].concat());
    cache.age(&cache.nested_blobs(), 30 * DAY);
    cache
}

#[test]
fn what_is_not_read_stays_as_it_is() {
    for value in odd_values() {
        let cache = layout(&value);
        let ran = cache.prune(&["--image", "app:1"]);
        assert_eq!(
            (ran.exit, cache.nested_blobs()),
            (0, vec![2, 3, 4, 20, 21, 30, 40, 41, 99]),
            "{}",
            ran.block()
        );
        let index = fs::read(cache.path().join("index.json")).unwrap();
        assert!(index.ends_with(&[b",\"x\":", &value[..], b"}"].concat()));
        assert!(!index.windows(5).any(|bytes| bytes == b"app:1"));
    }
}

#[test]
fn it_is_an_index_without_a_mark_of_a_layout_too() {
    for value in odd_values() {
        let cache = layout(&value);
        fs::rename(cache.path().join("oci-layout"), cache.base.path().join("elsewhere")).unwrap();
        let ran = cache.prune(&["--older-than", "1d"]);
        assert_eq!((ran.exit, cache.nested_blobs().len()), (0, 0), "{}", ran.block());
        let index = fs::read(cache.path().join("index.json")).unwrap();
        assert!(index.windows(14).any(|bytes| bytes == b"\"manifests\":[]"));
    }
}

#[test]
fn no_blob_goes_that_an_index_goes_on_to_name() {
    let cache = Cache::typical_layout();
    let index = fs::read_to_string(cache.path().join("index.json")).unwrap();
    let odd = index.replacen("\"annotations\":{", "\"annotations\":{\"x\":\"@\",", 1);
    let odd: Vec<u8> =
        odd.into_bytes().into_iter().map(|byte| if byte == b'@' { 0xff } else { byte }).collect();
    cache.write_content("index.json", &odd);
    cache.age(&cache.nested_blobs(), 30 * DAY);
    let ran = cache.prune(&["--image", "app:1"]);
    assert_eq!((ran.exit, fs::read(cache.path().join("index.json")).unwrap()), (1, odd), "{}", ran.block());
    assert_eq!(cache.nested_blobs().len(), 12, "{}", ran.block());
}

#[test]
fn a_manifest_in_its_place_is_no_empty_index() {
    let cache = Cache::typical_layout();
    fs::copy(cache.path().join(nested(10)), cache.path().join("index.json")).unwrap();
    cache.age(&cache.nested_blobs(), 30 * DAY);
    let before = cache.tree();
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
    assert!(ran.stderr.contains("it is not an index"), "{}", ran.stderr);
}
