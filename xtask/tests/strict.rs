//! Where leases, inotify or Landlock are missing: one line says so, and with `--strict` what cannot be checked stays.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::thread;
use std::time::Duration;

use landlock::{AccessFs, Ruleset, RulesetAttr as _};
use serde_json::Value;
use support::{Cache, KIB, Ran, flat, gone, needs, nested, set_age};

/// A user whose files only `CAP_LEASE` can lease.
const OTHER: u32 = 4711;

/// Gives an entry of the cache to another user.
fn give(cache: &Cache, name: &str) {
    chown(cache.path().join(name), Some(OTHER), Some(OTHER)).unwrap();
}

/// Runs programs where Landlock is out of reach: the kernel allows sixteen domains within each other
/// (`LANDLOCK_MAX_NUM_LAYERS`).
fn without_landlock<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        let rules = Ruleset::default().handle_access(AccessFs::MakeSock).unwrap().create().unwrap();
        rules.restrict_self()
    };
    let work = || {
        assert!((0..64).any(|_| enter().is_err()), "there is no end of domains");
        act()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Prunes where the kernel gives out no inotify instance.
fn prune_without_inotify(cache: &Cache, arguments: &[&str]) -> Ran {
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_xtask")]);
    command.args(["cache-prune", "--cache-dir"]).arg(cache.path()).args(arguments);
    Ran::of(&mut command, cache.base.path())
}

/// How many blobs a report says were freed, and kept for a reason.
fn counts(report: &Value, reason: &str) -> (Option<u64>, Option<u64>) {
    (report["blobs_freed"].as_u64(), report["kept"][reason]["blobs"].as_u64())
}

#[test]
fn one_line_says_that_there_was_no_landlock() {
    let cache = Cache::flat(2, KIB);
    for arguments in [&["-q"][..], &[], &["-v"]] {
        cache.write(flat(1), KIB);
        let ran = without_landlock(|| cache.prune(arguments));
        let notes = ran.stderr.lines().filter(|line| line.contains("Landlock"));
        assert_eq!(notes.collect::<Vec<_>>(), ["note: went without Landlock"], "{}", ran.block());
        assert_eq!(ran.exit, 0, "{}", ran.block());
    }
    let ran = without_landlock(|| cache.run("cache-verify", &["-q", "--prune"]));
    assert_eq!(ran.stderr, "note: went without Landlock\n", "{}", ran.block());
}

#[test]
fn a_strict_prune_does_not_begin_without_landlock() {
    let cache = Cache::flat(2, KIB);
    let before = cache.tree();
    for (command, arguments) in [
        ("cache-prune", &["--strict"][..]),
        ("cache-prune", &["--strict", "-n"]),
        ("cache-prune", &["--strict", "--corrupt"]),
        ("cache-verify", &["--strict", "--prune"]),
    ] {
        let ran = without_landlock(|| cache.run(command, arguments));
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains("Landlock is unavailable"), "{}", ran.block());
    }
    assert_eq!(cache.tree(), before);
    let ran = cache.prune(&["--strict"]);
    assert_eq!((ran.exit, gone(&before, &cache.tree()).len()), (0, 2), "{}", ran.block());
}

#[test]
fn what_cannot_be_leased_stays_in_a_strict_prune() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(3, KIB);
    cache.write("oci-put-blob1", KIB);
    cache.write("oci-put-blob2", KIB);
    let companion = format!("{}.json", flat(2));
    cache.write(&companion, KIB);
    [&flat(1), &companion, "oci-put-blob1"].into_iter().for_each(|name| give(&cache, name));
    let before = cache.tree();
    let foreseen = cache.prune_unprivileged(&["--strict", "--format", "json", "-n"]).json();
    let ran = cache.prune_unprivileged(&["--strict", "--format", "json"]);
    let report = ran.json();
    // The companion keeps its blob.
    assert_eq!(counts(&report, "unprobed"), (Some(2), Some(4)), "{}", ran.block());
    assert_eq!(counts(&foreseen, "unprobed"), (Some(2), Some(4)), "{foreseen}");
    assert_eq!(foreseen["used_bytes"], report["used_bytes"]);
    assert!(ran.stderr.contains("note: kept 4 blobs, 4.0 KiB: who has it open cannot be told\n"));
    assert!(!ran.stderr.contains("went without"), "{}", ran.block());
    let went = ["oci/oci-put-blob2".to_owned(), format!("oci/{}", flat(3))];
    assert_eq!(gone(&before, &cache.tree()), went);

    let ran = cache.prune_unprivileged(&["-q"]);
    assert_eq!(ran.stderr, "note: went without leases for 3 blobs\n", "{}", ran.block());
    assert_eq!(ran.stdout, "freed 4.0 KiB across 4 blob(s) in [TMP]/oci\n");
}

#[test]
fn an_image_stays_as_a_whole_if_a_blob_of_it_cannot_be_leased() {
    if !needs::root() {
        return;
    }
    let cache = Cache::typical_layout();
    give(&cache, &nested(11));
    let images = cache.image_names();
    let foreseen = cache.prune_unprivileged(&["--strict", "--format", "json", "-n"]).json();
    let report = cache.prune_unprivileged(&["--strict", "--format", "json"]).json();
    assert_eq!((&foreseen["blobs_freed"], &foreseen["kept"]), (&report["blobs_freed"], &report["kept"]));
    let left = cache.image_names();
    assert!(!left.is_empty() && left.len() < images.len(), "{left:?} of {images:?}");
    assert!(cache.nested_blobs().contains(&11));
    let holes = cache.run("cache-verify", &["--format", "json"]).json()["holes"].clone();
    assert_eq!(holes, Value::Array(Vec::new()), "what stays is whole");
}

#[test]
fn a_goal_is_reached_with_what_can_be_leased() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(3, KIB);
    for number in 1..=3 {
        set_age(&cache.path().join(flat(number)), Duration::from_secs(3600 * u64::from(20 - number)));
    }
    give(&cache, &flat(1));
    let ran = cache.prune_unprivileged(&["--strict", "--format", "json", "--max-used-space", "1KiB"]);
    let report = ran.json();
    assert_eq!(counts(&report, "unprobed"), (Some(2), Some(1)), "{}", ran.block());
    assert!(cache.path().join(flat(1)).exists() && ran.exit == 0, "{}", ran.block());
}

#[test]
fn without_inotify_a_pull_counts_as_under_way() {
    if !needs::namespace_without_inotify() {
        return;
    }
    let cache = Cache::flat(2, KIB);
    (1..=2).for_each(|number| set_age(&cache.path().join(flat(number)), Duration::from_secs(600)));
    let before = cache.tree();
    for arguments in [&["--strict", "-n"][..], &["--strict"], &[]] {
        let ran = prune_without_inotify(&cache, &[arguments, &["-q", "--format", "json"]].concat());
        let report = ran.json();
        assert_eq!(counts(&report, "spared"), (Some(0), Some(2)), "{arguments:?} {}", ran.block());
        assert_eq!(report["pull"]["sign"], "unwatched", "{}", ran.block());
        let note = if arguments.contains(&"-n") { "" } else { "note: went without inotify\n" };
        assert_eq!(ran.stderr, note, "{arguments:?} {}", ran.block());
    }
    assert_eq!(cache.tree(), before);
}

#[test]
fn without_inotify_nothing_counts_as_watched() {
    if !needs::namespace_without_inotify() {
        return;
    }
    let cache = Cache::flat(2, KIB);
    for number in 1..=2 {
        // Under relatime, no read since would have been recorded.
        let file = fs::File::open(cache.path().join(flat(number))).unwrap();
        let read = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(1800);
        file.set_times(fs::FileTimes::new().set_accessed(read)).unwrap();
    }
    let before = cache.tree();
    let arguments = ["--watch-first", "--grace", "1s", "--format", "json"];
    let ran = prune_without_inotify(&cache, &arguments);
    assert_eq!(counts(&ran.json(), "spared"), (Some(0), Some(2)), "{}", ran.block());
    assert_eq!(cache.tree(), before);
}

#[test]
fn what_may_not_be_opened_stays_in_a_strict_prune() {
    let cache = Cache::flat(2, KIB);
    fs::set_permissions(cache.path().join(flat(1)), fs::Permissions::from_mode(0o000)).unwrap();
    let ran = cache.prune_unprivileged(&["--strict", "--format", "json"]);
    assert_eq!(counts(&ran.json(), "unprobed"), (Some(1), Some(1)), "{}", ran.block());
    assert!(cache.path().join(flat(1)).exists());
    let ran = cache.prune_unprivileged(&["--format", "json"]);
    assert_eq!(counts(&ran.json(), "unprobed"), (Some(1), Some(0)), "{}", ran.block());
}

#[test]
fn a_prune_that_disregards_users_cannot_be_strict() {
    let cache = Cache::flat(1, KIB);
    let before = cache.tree();
    let ran = cache.prune(&["--aside", "--strict"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
    assert!(ran.stderr.contains("'--aside' cannot be used with '--strict'"), "{}", ran.block());
    assert_eq!(cache.tree(), before);
}
