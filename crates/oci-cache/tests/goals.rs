//! Goals: what could not be removed is made up for, and the figures say what was freed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File, FileTimes};
use std::sync::{Arc, Mutex};

use oci_cache::{Advance, Amount, Policy, Progress, apply_to_goal, prune, scan};
use sha2::{Digest as _, Sha256};
use support::{DAY, flat, layout, locked, now, path_of, plan, put};

#[test]
fn a_partial_in_use_is_made_up_for() {
    let cache = tempfile::tempdir().unwrap();
    let partial = cache.path().join("oci-put-blob1");
    put(&partial, b"0123456789", 9 * DAY);
    // The change time of a partial counts as use, so the blob must be used later still.
    let blob = flat(cache.path(), 1, b"0123456789", DAY);
    let later = now() + 4000 * DAY;
    File::open(&blob).unwrap().set_times(FileTimes::new().set_accessed(later).set_modified(later)).unwrap();
    let _open = File::options().write(true).open(&partial).unwrap();
    let mut policy = Policy::default();
    policy.max_used = Some(Amount::Bytes(10));
    let report = prune(cache.path(), &[], &policy, (later + DAY).into(), &Progress::default()).unwrap();
    assert_eq!((report.blobs_freed, report.kept.in_use.blobs), (1, 1), "{report:?}");
    assert!(!blob.exists() && partial.exists());
}

#[test]
fn later_rounds_know_the_references() {
    let cache = tempfile::tempdir().unwrap();
    let root = cache.path();
    layout(root);
    let _open = File::open(path_of(root, b"stray")).unwrap();
    let (cache, lock) = locked(root);
    let mut policy = Policy::default();
    policy.max_used = Some(Amount::Bytes(scan(&cache).unwrap().used_bytes() - 5));
    let done = apply_to_goal(&cache, &lock, plan(&cache, &policy), &Progress::default()).unwrap();
    let report = done.report;
    assert_eq!((report.blobs_freed, report.kept.in_use.blobs), (2, 1), "{report:?}");
    let left = [&b"stray"[..], b"a", b"b", b"base"].map(|content| path_of(root, content).exists());
    assert_eq!(left, [true, false, true, true], "image `a` goes, without the base that `b` needs");
}

#[test]
fn corrupt_blobs_are_looked_for_once() {
    let cache = tempfile::tempdir().unwrap();
    let _open = File::open(flat(cache.path(), 1, b"cut off", DAY)).unwrap();
    let whole = format!("sha256:{}", hex::encode(Sha256::digest(b"whole")));
    put(&cache.path().join(whole), b"whole", DAY);
    let mut policy = Policy::default();
    policy.corrupt = true;
    policy.max_used = Some(Amount::Bytes(0));
    let report = prune(cache.path(), &[], &policy, now().into(), &Progress::default()).unwrap();
    let kept = &report.kept;
    assert_eq!((kept.in_use.blobs, kept.intact.blobs, kept.unread.blobs), (1, 1, 0));
}

#[test]
fn what_earlier_rounds_freed_counts() {
    // On a file system that gives room back at once.
    let cache = tempfile::tempdir_in("/dev/shm").unwrap();
    const MIB: u64 = 1 << 20;
    let content = vec![1; 32 << 20];
    let blobs = [9, 8, 7, 6].map(|days| flat(cache.path(), days.into(), &content, days * DAY));
    let _open = File::open(&blobs[0]).unwrap();
    let (cache, lock) = locked(cache.path());
    let mut policy = Policy::default();
    policy.min_free = Some(Amount::Bytes(cache.space().unwrap().available_bytes + 48 * MIB));
    let done = apply_to_goal(&cache, &lock, plan(&cache, &policy), &Progress::default()).unwrap();
    assert_eq!((done.report.blobs_freed, blobs[3].exists()), (2, true));
}

#[test]
fn leftovers_are_not_part_of_what_is_used() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("oci");
    flat(&path, 1, b"12345", DAY);
    flat(&parent.path().join("oci.pruning-0123456789abcdef"), 2, b"1234567", DAY);
    let (cache, lock) = locked(&path);
    let mut policy = Policy::default();
    policy.older_than = Some(7 * DAY);
    let progress = Progress::default();
    let done = apply_to_goal(&cache, &lock, plan(&cache, &policy), &progress).unwrap();
    assert_eq!((done.report.bytes_freed, done.report.used_bytes), (7, 5));
    let all = Advance { blobs: 1, bytes: 7, total_blobs: 1, total_bytes: 7 };
    assert_eq!(progress.advance(), all, "but they are part of the work");
}

#[test]
fn a_leftover_in_use_goes_and_its_space_does_not_count() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("oci");
    fs::create_dir(&path).unwrap();
    let leftover = parent.path().join("oci.pruning-0123456789abcdef");
    let blob = flat(&leftover, 1, &[1; 5000], DAY);
    let partial = leftover.join("oci-put-blob1");
    put(&partial, &[2; 5000], DAY);
    let _open = [File::open(&blob).unwrap(), File::options().write(true).open(&partial).unwrap()];
    let report = prune(&path, &[], &Policy::default(), now().into(), &Progress::default()).unwrap();
    let freed = (report.blobs_freed, report.partials_freed, report.bytes_freed, report.disk_bytes_freed);
    assert_eq!((freed, report.leftovers_freed), ((2, 1, 10_000, 0), 1));
    assert!(report.is_complete() && !leftover.exists());
}

#[test]
fn one_progress_serves_one_operation_after_another() {
    let cache = tempfile::tempdir().unwrap();
    let path = flat(cache.path(), 1, b"cut", DAY);
    let seen: Arc<Mutex<Vec<(bool, Advance)>>> = Arc::default();
    let progress = {
        let (seen, path) = (Arc::clone(&seen), path.clone());
        Progress::with_callback(move |progress| {
            seen.lock().unwrap().push((path.exists(), progress.advance()));
        })
    };
    let mut policy = Policy::default();
    policy.corrupt = true;
    prune(cache.path(), &[], &policy, now().into(), &progress).unwrap();
    let seen = seen.lock().unwrap();
    let all = Advance { blobs: 1, bytes: 3, total_blobs: 1, total_bytes: 3 };
    assert_eq!(seen.first(), Some(&(true, all)), "the corrupt blob was checked: {seen:?}");
    assert_eq!(seen.last(), Some(&(false, all)), "and removed: {seen:?}");
}

#[test]
fn a_partial_that_frees_nothing_stays() {
    let cache = tempfile::tempdir().unwrap();
    let partial = cache.path().join("oci-put-blob1");
    put(&partial, b"", 9 * DAY);
    File::options().write(true).open(&partial).unwrap().set_len(1 << 30).unwrap();
    let blob = flat(cache.path(), 1, &[1; 5000], DAY);
    let mut policy = Policy::default();
    policy.max_used = Some(Amount::Bytes(0));
    let at = now() + 4000 * DAY;
    let report = prune(cache.path(), &[], &policy, at.into(), &Progress::default()).unwrap();
    assert_eq!((report.blobs_freed, report.kept.frees_nothing.blobs), (1, 1), "{report:?}");
    assert!(!blob.exists() && partial.exists());
}

#[test]
fn further_rounds_add_to_what_the_first_one_did() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("oci");
    let blobs = [9, 8, 7, 6].map(|days| flat(&path, days.into(), b"0123456789", days * DAY));
    flat(&parent.path().join("oci.pruning-0123456789abcdef"), 2, b"1234567", DAY);
    let _open = File::open(&blobs[1]).unwrap();
    let (cache, lock) = locked(&path);
    let mut policy = Policy::default();
    policy.max_used = Some(Amount::Bytes(20));
    let report = apply_to_goal(&cache, &lock, plan(&cache, &policy), &Progress::default()).unwrap().report;
    let counts = (report.blobs_freed, report.bytes_freed, report.blobs_planned, report.leftovers_freed);
    assert_eq!(counts, (3, 27, 4, 1), "{report:?}");
    assert_eq!((report.notes.leftovers.len(), report.used_bytes), (1, 20));
    assert_eq!(blobs.map(|path| path.exists()), [false, true, false, true]);
}

#[test]
fn a_stopped_prune_leaves_the_index_alone() {
    let cache = tempfile::tempdir().unwrap();
    let root = cache.path();
    layout(root);
    let before = fs::read(root.join("index.json")).unwrap();
    let (cache, lock) = locked(root);
    let progress = Progress::default();
    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let report = apply_to_goal(&cache, &lock, plan(&cache, &Policy::default()), &progress).unwrap().report;
    assert!(report.interrupted && report.failures.is_empty(), "{report:?}");
    assert_eq!((report.blobs_freed, fs::read(root.join("index.json")).unwrap()), (0, before));
}
