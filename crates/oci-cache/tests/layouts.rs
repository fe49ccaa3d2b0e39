//! Layouts: what an index leads to, and what to do if that is unknown.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use oci_cache::{CacheDir, Check, Policy, Progress, SavedPlan, apply, save_plan, scan, verify};
use sha2::{Digest as _, Sha256};
use support::{DAY, blob, index, layout, locked, manifest, now, path_of, plan, prune_unreferenced, put};

/// A digest in the spelling of another tool: no digest by the specification.
const MALFORMED: &str =
    r#"{"digest":"sha256-00000000000000000000000000000000000000000000000000000000000000aa"}"#;

#[test]
fn a_manifest_of_unknown_references_keeps_everything() {
    for fields in [
        format!(r#""manifests":[{MALFORMED}]"#),
        format!(r#""layers":[{MALFORMED}]"#),
        format!(r#""blobs":[{MALFORMED}]"#),
        format!(r#""config":{MALFORMED}"#),
        format!(r#""layers":[],"subject":{MALFORMED}"#),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let unknown = manifest(cache.path(), &fields);
        index(cache.path(), &unknown);
        blob(cache.path(), b"stray", DAY);
        let report = prune_unreferenced(cache.path());
        let kept = report.kept.referenced.blobs;
        assert_eq!((report.blobs_freed, report.failures.total(), kept), (0, 1, 2), "{fields}");
    }
}

#[test]
fn a_leaf_of_an_unknown_algorithm_changes_nothing() {
    let foreign = r#"{"digest":"blake3:00"}"#;
    for fields in [
        format!(r#""layers":[LAYER,{foreign}]"#),
        format!(r#""layers":[LAYER],"config":{foreign}"#),
        format!(r#""layers":[LAYER],"subject":{foreign}"#),
        format!(r#""layers":[LAYER],"manifests":[{foreign}]"#),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let layer = blob(cache.path(), b"layer", DAY);
        let image = manifest(cache.path(), &fields.replace("LAYER", &layer));
        index(cache.path(), &image);
        blob(cache.path(), b"stray", DAY);
        let report = prune_unreferenced(cache.path());
        let kept = report.kept.referenced.blobs;
        assert_eq!((report.blobs_freed, report.failures.total(), kept), (1, 0, 2), "{fields}");
    }
}

#[test]
fn a_descriptor_without_a_size_says_nothing_about_it() {
    let cache = tempfile::tempdir().unwrap();
    let large = vec![b'x'; 8192];
    blob(cache.path(), &large, DAY);
    // Its content is wrong, so hashing it would tell; a quick check must not hash it.
    put(&path_of(cache.path(), &large), &vec![b'y'; 8192], DAY);
    let layer = format!(r#"{{"digest":"sha256:{}"}}"#, hex::encode(Sha256::digest(&large)));
    let image = manifest(cache.path(), &format!(r#""layers":[{layer}]"#));
    index(cache.path(), &image);
    let mut inventory = scan(&CacheDir::open(cache.path(), &[]).unwrap()).unwrap();
    let _ = verify(&mut inventory, Check::Quick, &Progress::default());
    assert_eq!(inventory.findings().count(), 0);
}

#[test]
fn a_saved_plan_names_the_images_that_go_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    layout(directory.path());
    let cache = CacheDir::open(directory.path(), &[]).unwrap();
    let images = |policy: &Policy| {
        let mut saved = Vec::new();
        save_plan(&mut plan(&cache, policy), &cache, &mut saved).unwrap();
        let text = String::from_utf8(saved).unwrap();
        let images = text.split(r#""images":["#).nth(1).unwrap().split(']').next().unwrap();
        images.matches("sha256:").count()
    };
    let mut old = Policy::default();
    old.older_than = Some(4 * DAY);
    assert_eq!((images(&old), images(&Policy::default())), (1, 2));
}

#[test]
fn a_saved_plan_spares_a_layout_whose_references_are_unknown() {
    let directory = tempfile::tempdir().unwrap();
    layout(directory.path());
    let (cache, lock) = locked(directory.path());
    let mut policy = Policy::default();
    policy.unreferenced = true;
    policy.grace = Duration::ZERO;
    let mut saved = Vec::new();
    save_plan(&mut plan(&cache, &policy), &cache, &mut saved).unwrap();
    index(directory.path(), &blob(directory.path(), br#"{"layers":["#, DAY));
    let saved = SavedPlan::from_json(&saved).unwrap();
    let plan = saved.select(scan(&cache).unwrap(), now().into(), &policy);
    let report = apply(&plan, &lock, &Progress::default()).unwrap();
    assert_eq!((report.blobs_freed, report.kept.referenced.blobs), (0, 1));
    assert!(path_of(directory.path(), b"stray").exists());
}
