//! Arming: after which prunes the next read of a blob that stays leaves a trace.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Cache, KIB, Ran, flat, needs};

/// When the inode last changed, and when the file was last read.
fn times(path: &Path) -> [(i64, i64); 2] {
    let data = fs::metadata(path).unwrap();
    [(data.ctime(), data.ctime_nsec()), (data.atime(), data.atime_nsec())]
}

/// A blob that was read since it was written and since its inode changed, so that under `relatime` the next read would
/// leave no trace.
fn with_a_blob_just_read(cache: &Cache) -> PathBuf {
    let path = cache.write(flat(1), KIB);
    read_until_recorded(&path);
    path
}

/// Reads a file until its last read is later than its last change.
fn read_until_recorded(path: &Path) {
    let started = Instant::now();
    while let [changed, read] = times(path)
        && read <= changed
    {
        assert!(started.elapsed() < Duration::from_secs(10), "reads are not recorded here");
        sleep(Duration::from_millis(1));
        fs::read(path).unwrap();
    }
    // The kernel's clock for inodes moves in steps of milliseconds; a change within a step may not seem later.
    sleep(Duration::from_millis(20));
}

/// Whether the prune armed the blob, which stays, and told so.
fn armed(path: &Path, prune: impl FnOnce() -> Ran) -> bool {
    let before = times(path);
    let ran = prune();
    let after = times(path);
    assert_eq!((ran.exit, before[1]), (0, after[1]), "{}", ran.block());
    let is_told = ran.stderr.contains("note: armed 1 file: the next read of each will be recorded\n");
    assert_eq!(is_told, before[0] != after[0], "{}", ran.block());
    is_told
}

#[test]
fn what_an_age_or_a_goal_keeps_is_armed() {
    if !needs::recorded_reads() {
        return;
    }
    for arguments in [["--older-than", "1d"], ["--max-used-space", "1GiB"], ["--min-free-space", "1B"]] {
        let cache = Cache::new();
        let blob = with_a_blob_just_read(&cache);
        let prune = || cache.prune(&[&arguments[..], &["-v"]].concat());
        assert!(armed(&blob, prune), "{arguments:?}");
        assert!(!armed(&blob, prune), "{arguments:?}: it was not read since");
    }
}

#[test]
fn an_index_that_stays_is_armed_by_every_prune() {
    if !needs::recorded_reads() {
        return;
    }
    let cache = Cache::typical_layout();
    let index = cache.path().join("index.json");
    read_until_recorded(&index);
    let [changed, read] = times(&index);
    assert_eq!(cache.prune(&["--older-than", "1d"]).exit, 0);
    assert!(times(&index)[0] > read && times(&index)[1] == read && read > changed);
}

#[test]
fn what_stays_only_for_a_pull_is_armed() {
    if !needs::recorded_reads() {
        return;
    }
    let cache = Cache::new();
    let blob = with_a_blob_just_read(&cache);
    let _open = File::open(cache.write(flat(2), KIB)).unwrap();
    assert!(armed(&blob, || {
        let ran = cache.prune(&["--older-than", "0s", "-v"]);
        for note in
            ["note: kept 1 blob, 1.0 KiB: in use\n", "note: kept 1 blob, 1.0 KiB: a pull may need it\n"]
        {
            assert!(ran.stderr.contains(note), "{}", ran.block());
        }
        ran
    }));
}

#[test]
fn a_prune_without_age_and_goal_arms_nothing() {
    if !needs::recorded_reads() {
        return;
    }
    let cache = Cache::new();
    let blob = with_a_blob_just_read(&cache);
    let kept = flat(1);
    assert!(!armed(&blob, || cache.prune(&["--keep", &kept, "-v"])));
    assert!(!armed(&blob, || cache.prune(&["--dry-run", "--older-than", "1d", "-v"])));
}

#[test]
fn a_saved_plan_arms_nothing() {
    if !needs::recorded_reads() {
        return;
    }
    let cache = Cache::new();
    let blob = with_a_blob_just_read(&cache);
    let plan = cache.base.path().join("plan");
    let plan = plan.to_str().unwrap();
    assert!(!armed(&blob, || cache.prune(&["--dry-run", "--older-than", "1d", "--save-plan", plan, "-v"])));
    assert!(!armed(&blob, || cache.prune(&["--from-plan", plan, "-v"])));
    // Not even what it lists, and what stays because it is open.
    cache.prune(&["--dry-run", "--older-than", "0s", "--save-plan", plan]);
    let _open = File::open(&blob).unwrap();
    assert!(!armed(&blob, || cache.prune(&["--from-plan", plan, "-v"])));
}
