//! Failures that strike many entries, and what a dry run says of them beforehand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use insta::assert_snapshot;
use serde_json::json;
use support::{Cache, KIB, Ran, flat, needs, nested, set_age};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a dry run and then a prune say, both without root's capabilities.
fn told(cache: &Cache, arguments: &[&str]) -> [Ran; 2] {
    let dry_run = cache.prune_unprivileged(&[arguments, &["--dry-run"]].concat());
    [dry_run, cache.prune_unprivileged(arguments)]
}

#[test]
fn one_line_for_each_cause() {
    let cache = Cache::flat(12, KIB);
    set_mode(&cache.path(), 0o555);
    let before = cache.tree();
    let [dry_run, ran] = told(&cache, &[]);
    assert_eq!(
        (dry_run.exit, &dry_run.stderr, cache.tree()),
        (1, &ran.stderr, before),
        "{}",
        dry_run.block()
    );
    assert_eq!(dry_run.stdout, "would free 0 B across 0 blob(s) in [TMP]/oci\n");
    assert_snapshot!(ran.block(), @"
    exit: 1
    --- stdout
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    error: remove: Permission denied (os error 13): 12 entries: `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000005`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000006`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000007`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000008`, `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000009`, `[TMP]/oci/sha256:000000000000000000000000000000000000000000000000000000000000000a` and 2 more
    [EOF]
    ");
}

#[test]
fn in_json_a_cause_has_its_count_and_ten_examples() {
    let cache = Cache::flat(200, 1);
    set_mode(&cache.path(), 0o555);
    for ran in told(&cache, &["--format", "json"]) {
        let object = ran.json();
        let examples: Vec<String> = (1..=10).map(|number| format!("[TMP]/oci/{}", flat(number))).collect();
        let cause = json!({
            "path": examples[0],
            "error": "remove: Permission denied (os error 13)",
            "count": 200,
            "examples": examples,
        });
        assert_eq!((&object["failures"], &object["failures_total"]), (&json!([cause]), &json!(200)));
        assert_eq!((ran.exit, &object["blobs_freed"], &object["blobs_planned"]), (1, &json!(0), &json!(200)));
        assert_eq!((&object["used_bytes"], &object["disk_bytes_freed"]), (&json!(200), &json!(0)));
    }
}

#[test]
fn foreign_entries_in_leftovers_make_one_note() {
    let cache = Cache::flat(1, KIB);
    let leftover = ".pruning-0123456789abcdef";
    cache.write(format!("{leftover}/notes01.txt"), 1);
    let ran = cache.prune(&["--dry-run"]);
    let one = format!(
        "note: a leftover stays because of the foreign entry `[TMP]/oci/{leftover}/notes01.txt` in it\n"
    );
    assert!(ran.stderr.contains(&one), "{}", ran.block());
    for number in 2..=12 {
        cache.write(format!("{leftover}/notes{number:02}.txt"), 1);
    }
    let ran = cache.prune(&[]);
    let notes: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("stay because")).collect();
    assert_eq!(notes.len(), 1, "{}", ran.block());
    assert!(
        notes[0].starts_with("note: leftovers stay because of 12 foreign entries in them: `"),
        "{}",
        notes[0]
    );
    assert!(notes[0].ends_with("` and 2 more"), "{}", notes[0]);
}

#[test]
fn metrics_and_summary_count_every_failure() {
    let cache = Cache::flat(12, KIB);
    set_mode(&cache.path(), 0o555);
    let metrics = cache.base.path().join("metrics");
    cache.prune_unprivileged(&["-q", "--metrics-file", metrics.to_str().unwrap()]);
    let metrics = fs::read_to_string(metrics).unwrap();
    assert!(
        metrics.lines().any(|line| line.starts_with("oci_cache_prune_failures") && line.ends_with(" 12"))
    );
}

#[test]
fn what_can_go_is_promised_and_goes() {
    let cache = Cache::flat(2, KIB);
    cache.write("oci-put-blob1", KIB);
    cache.write(nested(3), KIB);
    cache.write("ingest/0000000000000000000000000000000000000000000000000000000000000005/data", KIB);
    cache.write("ingest/0000000000000000000000000000000000000000000000000000000000000005/ref", KIB);
    let ingest = cache.path().join("ingest/0000000000000000000000000000000000000000000000000000000000000005");
    for stuck in [&cache.path().join("blobs/sha256"), &ingest] {
        set_mode(stuck, 0o555);
    }
    let [dry_run, ran] = told(&cache, &["--format", "json"]).map(|ran| {
        let object = ran.json();
        let fields =
            ["bytes_freed", "blobs_freed", "partials_freed", "disk_bytes_freed", "failures", "used_bytes"];
        (ran.exit, ran.stderr, fields.map(|field| object[field].clone()))
    });
    assert_eq!(dry_run, ran);
    assert_eq!((ran.0, &ran.2[1]), (1, &json!(3)), "{ran:?}");
}

#[test]
fn a_verbose_dry_run_names_what_would_fail() {
    let cache = Cache::flat(1, KIB);
    cache.write(nested(2), KIB);
    set_mode(&cache.path().join("blobs/sha256"), 0o555);
    assert_snapshot!(cache.prune_unprivileged(&["--dry-run", "-v"]).block(), @"
    exit: 1
    --- stdout
    would free 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    failed `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): see the error
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): nothing keeps it
    note: last use is [MOUNT]
    error: remove `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002`: Permission denied (os error 13)
    [EOF]
    ");
}

#[test]
fn a_layout_whose_index_cannot_be_replaced_is_not_promised() {
    let cache = Cache::typical_layout();
    set_mode(&cache.path(), 0o555);
    // What no image needs goes all the same.
    let unreferenced = support::hex(99);
    let left: String =
        cache.tree().split_inclusive('\n').filter(|line| !line.contains(&unreferenced)).collect();
    let [dry_run, ran] = told(&cache, &[]);
    assert_eq!((dry_run.exit, &dry_run.stderr, cache.tree()), (1, &ran.stderr, left), "{}", dry_run.block());
    assert_eq!(dry_run.stdout, "would free 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
    assert_snapshot!(ran.block(), @"
    exit: 1
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    error: rewrite the index `[TMP]/oci/index.json`: Permission denied (os error 13)
    [EOF]
    ");
}

#[test]
fn in_a_sticky_directory_only_own_files_go() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(3, KIB);
    chown(cache.path().join(flat(2)), Some(1234), None).unwrap();
    chown(cache.path(), Some(1234), None).unwrap();
    set_mode(&cache.path(), 0o1777);
    let [dry_run, ran] = told(&cache, &[]);
    assert_eq!((dry_run.exit, ran.exit), (1, 1), "{}", dry_run.block());
    assert_eq!(dry_run.stdout, "would free 2.0 KiB across 2 blob(s) in [TMP]/oci\n");
    let error = format!("error: remove `[TMP]/oci/{}`: Operation not permitted (os error 1)\n", flat(2));
    assert!(
        dry_run.stderr.contains(&error) && ran.stderr.contains(&error),
        "{}{}",
        dry_run.block(),
        ran.block()
    );
}

#[test]
fn an_immutable_directory_promises_nothing() {
    if !needs::chattr() {
        return;
    }
    let cache = Cache::flat(2, KIB);
    for attribute in ["i", "a"] {
        let change = |sign: &str| {
            let mut chattr = std::process::Command::new("chattr");
            chattr.arg(format!("{sign}{attribute}")).arg(cache.path());
            chattr.stderr(std::process::Stdio::null()).status().unwrap().success()
        };
        assert!(change("+"));
        let (dry_run, ran) = (cache.prune(&["--dry-run"]), cache.prune(&[]));
        assert!(change("-"));
        assert_eq!((dry_run.exit, &dry_run.stderr), (1, &ran.stderr), "{}", dry_run.block());
        assert!(ran.stderr.contains("Operation not permitted (os error 1): 2 entries: "), "{}", ran.block());
    }
}

#[test]
fn aside_is_refused_beforehand_where_its_parent_cannot_be_written() {
    let cache = Cache::flat(1, KIB);
    set_mode(cache.base.path(), 0o555);
    let [dry_run, ran] = told(&cache, &["--aside"]);
    set_mode(cache.base.path(), 0o755);
    assert_eq!((dry_run.exit, &dry_run.stderr, &dry_run.stdout), (2, &ran.stderr, &ran.stdout));
    assert!(ran.stderr.contains("no directory can be created beside the cache"), "{}", ran.block());
}

#[test]
fn usage_shows_what_policies_would_free_whoever_asks() {
    let cache = Cache::flat(12, KIB);
    set_mode(&cache.path(), 0o555);
    set_age(&cache.path().join(flat(1)), std::time::Duration::ZERO);
    let usage = cache.run_unprivileged("cache-usage", &["--format", "json"]).json();
    assert_eq!(usage["would_free"][0], json!({"flags": "", "blobs": 12, "bytes": 12 * KIB}));
}

#[test]
fn verification_groups_its_failures_too() {
    let cache = Cache::flat(12, KIB);
    for number in 1..=12 {
        set_mode(&cache.path().join(flat(number)), 0o000);
    }
    let ran = cache.run_unprivileged("cache-verify", &["--format", "json"]);
    let object = ran.json();
    assert_eq!((ran.exit, &object["failures_total"]), (1, &json!(12)), "{}", ran.block());
    assert_eq!(object["failures"][0]["count"], 12);
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", ran.stderr);
}
