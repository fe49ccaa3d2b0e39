//! Locks: who holds one, for how long, and what it is good for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::sync::atomic::Ordering;

use oci_cache::{CacheDir, Error, Policy, Progress, apply_aside, prune};
use support::{DAY, flat, locked, now, plan, prune_unreferenced};

#[test]
fn dropping_the_guard_unlocks_though_the_cache_stays_open() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, lock) = locked(directory.path());
    let mut other = CacheDir::open(directory.path(), &[]).unwrap();
    assert!(other.try_lock().unwrap().is_none());
    drop(lock);
    assert!(other.try_lock().unwrap().is_some(), "{cache:?} is still open");
}

#[test]
fn an_aside_needs_the_lock_of_its_cache() {
    let parent = tempfile::tempdir().unwrap();
    let (here, there) = (parent.path().join("here"), parent.path().join("there"));
    let blobs = [flat(&here, 1, b"x", DAY), flat(&there, 2, b"y", DAY)];
    let cache = CacheDir::open(&here, &[]).unwrap();
    let (_there, lock) = locked(&there);
    let refused = apply_aside(&cache, &lock, &plan(&cache, &Policy::default()), &Progress::default());
    assert!(matches!(refused, Err(Error::OtherLock { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
    assert!(blobs.iter().all(|blob| blob.exists()));
}

#[test]
fn a_cache_that_does_not_exist_has_no_unreferenced_blobs() {
    let parent = tempfile::tempdir().unwrap();
    let report = prune_unreferenced(&parent.path().join("none"));
    assert_eq!((report.blobs_freed, report.is_complete()), (0, true));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn one_call_keeps_to_the_lock_the_stop_and_the_protected_directories() {
    let directory = tempfile::tempdir().unwrap();
    let blob = flat(directory.path(), 1, b"x", DAY);
    let run = |protected: &[_], progress: &Progress| {
        prune(directory.path(), protected, &Policy::default(), now().into(), progress)
    };
    let (_cache, lock) = locked(directory.path());
    assert!(matches!(run(&[], &Progress::default()), Err(Error::Locked { .. })));
    drop(lock);
    let stopped = Progress::default();
    stopped.stop.store(true, Ordering::Relaxed);
    let report = run(&[], &stopped).unwrap();
    assert_eq!((report.interrupted, report.blobs_freed), (true, 0));
    let refused = run(&[directory.path().join(".")], &Progress::default());
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(blob.exists());
}
