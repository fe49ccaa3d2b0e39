//! Verifying many blobs at once gives each its own result.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use oci_cache::{CacheDir, Check, Finding, Progress, scan, verify};
use sha2::{Digest as _, Sha256, Sha512};

/// Contents of many lengths: around a block, around a read, and some larger.
fn contents() -> Vec<Vec<u8>> {
    const READ: usize = 128 << 10;
    let around = |length: usize| [length - 1, length, length + 1];
    let lengths = [1, 55, 56, 64, 4096, READ, READ + 64, 2 * READ, 7 * READ].into_iter().flat_map(around);
    let lengths: BTreeSet<usize> = lengths.chain((1..40).map(|step| step * 9973)).collect();
    let noise = |length: usize| (0..length).map(|at| (at * at * 31 + length).to_le_bytes()[1]).collect();
    lengths.into_iter().map(noise).collect()
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn sha512(content: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(content)))
}

fn corrupt(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut inventory = scan(&CacheDir::open(root, &[]).unwrap()).unwrap();
    let verification = verify(&mut inventory, Check::Full, &Progress::default());
    assert!(verification.failures.is_empty() && !verification.interrupted, "{verification:?}");
    let blobs = fs::read_dir(root).unwrap().count();
    assert_eq!(verification.checked.blobs, blobs as u64);
    let found = inventory.findings().map(|(blob, finding)| match finding {
        Finding::Corrupt { actual } => (inventory.path_of(blob), actual.to_string()),
        other => panic!("{other:?}"),
    });
    found.collect()
}

#[test]
fn each_blob_is_judged_by_its_own_content() {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    for (number, content) in contents().into_iter().enumerate() {
        // Every fifth has the other algorithm, every third another content than its name says.
        let digest = if number % 5 == 0 { sha512 } else { sha256 };
        let path = directory.path().join(digest(&content));
        let mut written = content;
        if number % 3 == 0 {
            let middle = written.len() / 2;
            match written.get_mut(middle) {
                Some(byte) => *byte ^= 1,
                None => written.push(0),
            }
            expected.insert(path.clone(), digest(&written));
        }
        support::put(&path, &written, support::DAY);
    }
    assert!(expected.len() > 20);
    assert_eq!(corrupt(directory.path()), expected);
}

#[test]
fn a_blob_has_its_own_digest_with_any_number_beside_it() {
    for count in 1..7 {
        let directory = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for number in 0..count {
            let content = vec![u8::try_from(number).unwrap(); 300_000 + number * 200_000];
            let path = support::flat(directory.path(), number as u64, &content, support::DAY);
            expected.insert(path, sha256(&content));
        }
        assert_eq!(corrupt(directory.path()), expected, "{count} blobs");
    }
}

#[test]
fn progress_counts_what_was_checked_and_nothing_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let contents = contents();
    for content in &contents {
        support::put(&directory.path().join(sha256(content)), content, support::DAY);
    }
    let bytes: u64 = contents.iter().map(|content| content.len() as u64).sum();
    let mut inventory = scan(&CacheDir::open(directory.path(), &[]).unwrap()).unwrap();
    for is_stopped in [false, true] {
        let progress = Progress::default();
        progress.stop.store(is_stopped, Ordering::Relaxed);
        let verification = verify(&mut inventory, Check::Full, &progress);
        let advance = progress.advance();
        let expected = if is_stopped { (0, 0) } else { (contents.len() as u64, bytes) };
        assert_eq!((advance.blobs, advance.bytes), expected);
        assert_eq!((verification.checked.blobs, verification.checked.bytes), expected);
        assert_eq!(verification.interrupted, is_stopped);
        let unread = inventory.findings().filter(|(_, finding)| **finding == Finding::Unread).count();
        assert_eq!(unread, if is_stopped { contents.len() } else { 0 });
    }
}
