//! What filters, goals and saved plans remove, and the exact output.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Value, json};
use support::layout::{INDEX, MANIFEST, descriptor, entry};
use support::{Cache, KIB, Ran, flat, hex, needs, nested, set_age, xtask};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Four blobs of 1 KiB, last used 40 days, 20 days, 2 days and an hour ago.
fn aged() -> Cache {
    let cache = Cache::flat(4, KIB);
    for (number, days) in [(1, 40), (2, 20), (3, 2)] {
        set_age(&cache.path().join(flat(number)), days * DAY);
    }
    cache
}

/// The numbers of the flat blobs that still exist.
fn left(cache: &Cache) -> Vec<u8> {
    (0..=u8::MAX).filter(|number| cache.path().join(flat(*number)).exists()).collect()
}

fn digest(number: u8) -> String {
    format!("sha256:{}", hex(number))
}

#[test]
fn older_than() {
    let cache = aged();
    assert_snapshot!(cache.prune(&["--older-than", "7d", "--dry-run", "-v"]).block(), @"
    exit: 0
    --- stdout
    would free 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): idle for long enough
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): idle for long enough
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): not idle for long enough
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): not idle for long enough
    note: last use is [MOUNT]
    note: kept 2 blobs, 2.0 KiB: not idle for long enough
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--older-than", "7d"]).block(), @"
    exit: 0
    --- stdout
    freed 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    note: kept 2 blobs, 2.0 KiB: not idle for long enough
    [EOF]
    ");
    assert_eq!(left(&cache), [3, 4]);
    assert_snapshot!(cache.prune(&["--older-than", "1d", "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":1024,"blobs_freed":1,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":1,"bytes":1024},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":1,"used_bytes":1024,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 1 blob, 1.0 KiB: not idle for long enough
    [EOF]
    "#);
    assert_eq!(left(&cache), [4]);
}

#[test]
fn max_used_space() {
    let cache = aged();
    assert_snapshot!(cache.prune(&["--max-used-space", "2KiB", "-v"]).block(), @"
    exit: 0
    --- stdout
    freed 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): over budget
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): over budget
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): goal met
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): goal met
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 2 blobs, 2.0 KiB: goal met
    [EOF]
    ");
    assert_eq!(left(&cache), [3, 4]);
    assert_snapshot!(cache.prune(&["--max-used-space", "2KiB", "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":2,"bytes":2048},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":0,"used_bytes":2048,"available_bytes":[ROOM],"goals":[{"goal":"max_used_space","wanted":2048,"reached":2048,"met":true}],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 2 blobs, 2.0 KiB: goal met
    [EOF]
    "#);
}

#[test]
fn min_free_space() {
    let cache = aged();
    assert_snapshot!(cache.prune(&["--min-free-space", "0%", "-v"]).block(), @"
    exit: 0
    --- stdout
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): goal met
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): goal met
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): goal met
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): goal met
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 4 blobs, 4.0 KiB: goal met
    [EOF]
    ");
    assert_eq!(left(&cache), [1, 2, 3, 4]);
    assert_snapshot!(cache.prune(&["--min-free-space", "16000000TB", "-v", "-n"]).block(), @"
    exit: 3
    --- stdout
    would free 4.0 KiB across 4 blob(s) in [TMP]/oci
    --- stderr
    note: goal not met: [ROOM]
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): low on space
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): low on space
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): low on space
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): low on space
    note: last use is [MOUNT]
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--min-free-space", "16000000TB", "--format", "json"]).block(), @r#"
    exit: 3
    --- stdout
    {"bytes_freed":4096,"blobs_freed":4,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":4,"used_bytes":0,"available_bytes":[ROOM],"goals":[{"goal":"min_free_space","wanted":16000000000000000000,"reached":[ROOM],"met":false}],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: goal not met: [ROOM]
    [EOF]
    "#);
    assert_eq!(left(&cache), [0; 0]);
}

#[test]
fn keep() {
    let cache = aged();
    assert_snapshot!(cache.prune(&["--keep", &digest(1), "--keep", &digest(3), "-v"]).block(), @"
    exit: 0
    --- stdout
    freed 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): pinned
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): nothing keeps it
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): pinned
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): nothing keeps it
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 2 blobs, 2.0 KiB: pinned
    [EOF]
    ");
    assert_eq!(left(&cache), [1, 3]);
    assert_snapshot!(cache.prune(&["--keep", &digest(1), "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":1024,"blobs_freed":1,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":1,"bytes":1024},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":1,"used_bytes":1024,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 1 blob, 1.0 KiB: pinned
    [EOF]
    "#);
}

#[test]
fn keep_from_a_list_a_manifest_and_standard_input() {
    let list = |cache: &Cache| {
        let path = cache.write_content("../keep", format!("# pinned\n{}\n", digest(2)).as_bytes());
        path.to_str().unwrap().to_owned()
    };
    let cache = aged();
    assert_snapshot!(cache.prune(&["--keep-from", &list(&cache)]).block(), @"
    exit: 0
    --- stdout
    freed 3.0 KiB across 3 blob(s) in [TMP]/oci
    --- stderr
    note: kept 1 blob, 1.0 KiB: pinned
    [EOF]
    ");
    assert_eq!(left(&cache), [2]);

    let cache = aged();
    let manifest = json!({"config": descriptor(1, "c"), "layers": [descriptor(4, "l")]}).to_string();
    let path = cache.write_content("../manifest.json", manifest.as_bytes());
    assert_eq!(cache.prune(&["--keep-from", path.to_str().unwrap()]).exit, 0);
    assert_eq!(left(&cache), [1, 4]);

    let cache = aged();
    let mut program = xtask();
    program.args(["cache-prune", "--keep-from", "-", "--cache-dir"]).arg(cache.path());
    let mut child =
        program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(digest(3).as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(left(&cache), [3]);
}

#[test]
fn unreferenced() {
    let cache = Cache::typical_layout();
    assert_snapshot!(cache.prune(&["--unreferenced", "--dry-run", "-v"]).block(), @"
    exit: 0
    --- stdout
    would free 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/000000000000000000000000000000000000000000000000000000000000000a` (391 B): referenced
    keep `[TMP]/oci/blobs/sha256/000000000000000000000000000000000000000000000000000000000000000b` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000014` (391 B): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000015` (1.0 KiB): referenced
    keep `[TMP]/oci/blobs/sha256/000000000000000000000000000000000000000000000000000000000000001e` (241 B): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000028` (274 B): referenced
    keep `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000029` (1.0 KiB): referenced
    would remove `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000063` (1.0 KiB): unreferenced
    note: last use is [MOUNT]
    note: kept 11 blobs, 8.3 KiB: referenced
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--unreferenced"]).block(), @"
    exit: 0
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    note: kept 11 blobs, 8.3 KiB: referenced
    [EOF]
    ");
    assert_eq!(cache.nested_blobs(), [1, 2, 3, 4, 10, 11, 20, 21, 30, 40, 41]);
    assert_eq!(cache.image_names(), ["app:1", "app:2", "multi"]);
    assert_snapshot!(cache.prune(&["--unreferenced", "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":11,"bytes":8465},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":0,"used_bytes":8465,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 11 blobs, 8.3 KiB: referenced
    [EOF]
    "#);
    assert_snapshot!(aged().prune(&["--unreferenced"]).block(), @"
    exit: 2
    --- stdout
    --- stderr
    error: --unreferenced needs the index.json of an OCI image layout: this cache has none
    [EOF]
    ");
}

#[test]
fn an_image_goes_as_a_whole() {
    let cache = Cache::typical_layout();
    cache.age(&[1, 2, 10, 11, 99], 30 * DAY);
    assert_snapshot!(cache.prune(&["--older-than", "7d"]).block(), @"
    exit: 0
    --- stdout
    freed 3.4 KiB across 4 blob(s) in [TMP]/oci
    --- stderr
    note: kept 8 blobs, 5.9 KiB: not idle for long enough
    note: removed 1 image from `[TMP]/oci/index.json`
    [EOF]
    ");
    // The shared layer stays with the remaining image.
    assert_eq!(cache.nested_blobs(), [2, 3, 4, 20, 21, 30, 40, 41]);
    assert_eq!(cache.image_names(), ["app:2", "multi"]);
}

#[test]
fn an_image_of_which_anything_was_used_stays() {
    let cache = Cache::typical_layout();
    cache.age(&[1, 2, 3, 4, 10, 11, 20, 21, 30, 40, 41, 99], 30 * DAY);
    cache.age(&[41], DAY);
    assert_eq!(cache.prune(&["--older-than", "7d"]).exit, 0);
    assert_eq!(cache.nested_blobs(), [4, 30, 40, 41]);
    assert_eq!(cache.image_names(), ["multi"]);
}

#[test]
fn a_budget_takes_whole_images_in_the_order_of_their_use() {
    let cache = Cache::typical_layout();
    cache.age(&[1, 2, 10, 11], 30 * DAY);
    cache.age(&[3, 20, 21], 20 * DAY);
    cache.age(&[99], 25 * DAY);
    cache.age(&[4, 30, 40, 41], DAY);
    let used = cache.run("cache-usage", &["--format", "json"]).json()["used_bytes"].as_u64().unwrap();
    // The first image frees its layer, config and manifest. The unreferenced blob is next.
    let budget = format!("{}B", used - 3 * KIB as u64);
    assert_eq!(cache.prune(&["--max-used-space", &budget]).exit, 0);
    assert_eq!(cache.nested_blobs(), [2, 3, 4, 20, 21, 30, 40, 41]);
    assert_eq!(cache.image_names(), ["app:2", "multi"]);
}

#[test]
fn a_pinned_manifest_keeps_its_image() {
    let cache = Cache::typical_layout();
    assert_eq!(cache.prune(&["--keep", &digest(20)]).exit, 0);
    assert_eq!(cache.nested_blobs(), [2, 3, 20, 21]);
    assert_eq!(cache.image_names(), ["app:2"]);
    // A manifest below a nested index keeps the image too.
    let cache = Cache::typical_layout();
    assert_eq!(cache.prune(&["--keep", &digest(40)]).exit, 0);
    assert_eq!((cache.nested_blobs(), cache.image_names()), (vec![4, 30, 40, 41], vec!["multi".to_owned()]));
    let cache = Cache::typical_layout();
    // So does a layer of it. One that no image needs is kept alone.
    assert_eq!(cache.prune(&["--keep", &digest(3), "--keep", &digest(99)]).exit, 0);
    assert_eq!(
        (cache.nested_blobs(), cache.image_names()),
        (vec![2, 3, 20, 21, 99], vec!["app:2".to_owned()])
    );
}

#[test]
fn what_cannot_be_read_keeps_everything_it_may_lead_to() {
    type Damage = fn(&Cache);
    let damage: [(&str, Damage); 5] = [
        ("empty", |cache| drop(cache.write_content(nested(20), b""))),
        ("cut off", |cache| drop(cache.write_content(nested(20), b"{\"layers\":[{\"dig"))),
        ("no manifest", |cache| drop(cache.write_content(nested(20), b"{\"x\":[]}"))),
        ("no index", |cache| drop(cache.write_content("index.json", b"{"))),
        ("no index", |cache| drop(cache.write_content("index.json", b"{\"x\":1}"))),
    ];
    for (what, damage) in damage {
        for filter in [&["--unreferenced"][..], &["--older-than", "1s"], &["--max-used-space", "0"]] {
            let cache = Cache::typical_layout();
            damage(&cache);
            let before = cache.tree();
            let ran = cache.prune(filter);
            assert_eq!(ran.exit, 1, "{what}: {}", ran.block());
            assert!(ran.stderr.contains("error: read "), "{what}: {}", ran.stderr);
            if what == "no index" || filter == ["--unreferenced"] {
                assert_eq!(cache.tree(), before, "{what}: {}", ran.block());
            } else {
                // The other images go as a whole, with the layer 2: it is known to be theirs.
                assert_eq!(cache.nested_blobs(), [3, 20, 21, 99], "{what}: {}", ran.block());
                assert_eq!(cache.image_names(), ["app:2"]);
            }
            assert_eq!(cache.prune(&[]).exit, 0, "a prune of everything needs no manifests");
            assert_eq!(cache.nested_blobs(), [0; 0]);
        }
    }
}

#[test]
fn docker_manifests_subjects_and_cycles() {
    let cache = Cache::layout();
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let v2 = "application/vnd.docker.distribution.manifest.v2+json";
    // 30 lists 10 and, in a cycle, itself; the signature 50 has the subject 60.
    cache.write_manifest(10, 11, &[1]);
    let index = json!({"schemaVersion": 2, "mediaType": list, "manifests": [descriptor(10, v2), descriptor(30, list)]});
    cache.write_content(nested(30), index.to_string().as_bytes());
    let mut signature =
        json!({"schemaVersion": 2, "config": descriptor(51, "c"), "layers": [descriptor(5, "l")]});
    signature["subject"] = descriptor(60, v2);
    cache.write_content(nested(50), signature.to_string().as_bytes());
    cache.write_manifest(60, 61, &[6]);
    for blob in [1, 5, 6, 11, 51, 61, 99] {
        cache.write(nested(blob), KIB);
    }
    cache.write_index(&[entry(30, list, "docker"), entry(50, v2, "signature")]);
    assert_eq!(cache.prune(&["--unreferenced"]).exit, 0);
    assert_eq!(cache.nested_blobs(), [1, 5, 6, 10, 11, 30, 50, 51, 60, 61]);
}

/// Every filter and goal, alone and in pairs: which of four blobs of different ages stay.
#[test]
fn every_combination_of_two() {
    let flags: [(&str, &[u8]); 5] = [
        ("--older-than 7d", &[3, 4]),
        ("--older-than 30d", &[2, 3, 4]),
        ("--keep 1", &[1]),
        ("--max-used-space 1KiB", &[4]),
        ("--min-free-space 16000000TB", &[]),
    ];
    let pairs: [(usize, usize, &[u8]); 10] = [
        (0, 1, &[2, 3, 4]),
        (0, 2, &[1, 3, 4]),
        (0, 3, &[3, 4]),
        (0, 4, &[3, 4]),
        (1, 2, &[1, 2, 3, 4]),
        (1, 3, &[2, 3, 4]),
        (1, 4, &[2, 3, 4]),
        (2, 3, &[1]),
        (2, 4, &[1]),
        (3, 4, &[]),
    ];
    let words = |flag: usize| flags[flag].0.replace("--keep 1", &format!("--keep {}", digest(1)));
    let check = |flags: &str, expected: &[u8]| {
        let cache = aged();
        let arguments: Vec<&str> = flags.split(' ').chain(["--format", "json"]).collect();
        let mut dry_run = arguments.clone();
        dry_run.push("-n");
        let dry_run = cache.prune(&dry_run);
        let is_met = dry_run.json()["goals"].as_array().unwrap().iter().all(|goal| goal["met"] == true);
        assert_eq!(dry_run.exit, if is_met { 0 } else { 3 }, "{}", dry_run.block());
        let ran = cache.prune(&arguments);
        assert_eq!(ran.exit, dry_run.exit, "{}", ran.block());
        let report = ran.json();
        assert_eq!(left(&cache), expected, "{flags}");
        assert_eq!(report["bytes_freed"], dry_run.json()["bytes_freed"], "{flags}");
    };
    for (index, (_, expected)) in flags.iter().enumerate() {
        check(&words(index), expected);
    }
    for (one, other, expected) in pairs {
        // Both are the same flag, and clap refuses to take it twice.
        if (one, other) == (0, 1) {
            let both = format!("{} {}", words(one), words(other));
            assert_eq!(aged().prune(&both.split(' ').collect::<Vec<_>>()).exit, 2);
            continue;
        }
        check(&format!("{} {}", words(one), words(other)), expected);
        check(&format!("{} {}", words(other), words(one)), expected);
    }
}

#[test]
fn unreferenced_with_every_other() {
    let cases: [(&str, &[u8]); 4] = [
        ("--older-than 7d", &[98]),
        ("--keep 99", &[98, 99]),
        ("--max-used-space 0", &[]),
        ("--min-free-space 0%", &[98, 99]),
    ];
    for (flag, stays) in cases {
        let cache = Cache::typical_layout();
        cache.write(nested(98), KIB);
        cache.age(&[99], 30 * DAY);
        let flag = flag.replace("--keep 99", &format!("--keep {} --keep {}", digest(99), digest(98)));
        let arguments: Vec<&str> = flag.split(' ').chain(["--unreferenced"]).collect();
        let is_goal_missed = flag.starts_with("--max-used-space");
        assert_eq!(cache.prune(&arguments).exit, if is_goal_missed { 3 } else { 0 }, "{flag}");
        let unreferenced: Vec<u8> = cache.nested_blobs().into_iter().filter(|number| *number > 90).collect();
        assert_eq!(unreferenced, stays, "{flag}");
        assert_eq!(cache.image_names().len(), 3, "{flag}");
    }
}

#[test]
fn flags_that_do_not_go_together_and_bad_values_touch_nothing() {
    let cache = aged();
    let before = cache.tree();
    let empty = cache.base.path().join("../empty");
    for arguments in [
        "--aside --older-than 7d",
        "--aside --max-used-space 1B",
        "--save-plan plan",
        "--from-plan plan --older-than 7d",
        "--from-plan plan --aside",
        "--from-plan /nonexistent/plan",
        "--keep-from /dev/null",
        "--keep-from /nonexistent/list",
        "--keep sha256:1",
        "--older-than soon",
        "--max-used-space 5GX",
        "--max-used-space 50",
        "--max-used-space 1m",
        "--max-used-space 101%",
        "--min-free-space 50",
        "--min-free-space 101%",
        "--older-than 1M",
        "--grace 1M",
        "--wait-timeout 5",
        "--github-summary",
    ] {
        let ran = cache.prune(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(
            (ran.exit, ran.stdout.as_str(), cache.tree()),
            (2, "", before.clone()),
            "{arguments}: {}",
            ran.block()
        );
    }
    assert!(!empty.exists());
    assert_snapshot!(cache.prune(&["--older-than", "soon"]).stderr, @"
    error: invalid value 'soon' for '--older-than <AGE>': expected number at 0; expected an age such as 90m, 12h, 7d or 2w, or a sum such as 1d 12h

    For more information, try '--help'.
    ");
    assert_snapshot!(cache.prune(&["--max-used-space", "5GX"]).stderr, @"
    error: invalid value '5GX' for '--max-used-space <SIZE|PERCENT%>': invalid digit found in string; expected a size such as 5GiB, 500MB, 1.5TiB, 5G (which is 5GB) or 100B, or a percentage such as 10%

    For more information, try '--help'.
    ");
    assert_snapshot!(cache.prune(&["--keep-from", "/dev/null"]).stderr, @"error: read what to keep from `/dev/null`: it is not a regular file: pipe the list to `--keep-from -`, or name a file");
    assert_snapshot!(cache.prune(&["--keep", "sha256:1"]).stderr, @"
    error: invalid value 'sha256:1' for '--keep <NAME|DIGEST>': `sha256:1` is not a digest: expected sha256:<64 hex digits> or sha512:<128 hex digits>, in lower case

    For more information, try '--help'.
    ");
}

#[test]
fn times_in_the_future_count_as_just_used() {
    let cache = aged();
    let path = cache.path().join(flat(1));
    let future = fs::metadata(&path).unwrap().modified().unwrap() + 80 * DAY;
    fs::File::open(&path).unwrap().set_times(fs::FileTimes::new().set_modified(future)).unwrap();
    assert_snapshot!(cache.prune(&["--older-than", "1d"]).block(), @"
    exit: 0
    --- stdout
    freed 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    note: 1 blob has a timestamp in the future, treated as just used
    note: kept 2 blobs, 2.0 KiB: not idle for long enough
    [EOF]
    ");
    assert_eq!(left(&cache), [1, 4]);
}

#[test]
fn no_access_time_moves() {
    let cache = Cache::typical_layout();
    let times = || {
        let paths = (1..100).map(|number| cache.path().join(nested(number))).filter(|path| path.exists());
        let mut paths: Vec<_> = paths.collect();
        paths.push(cache.path().join("index.json"));
        paths.iter().map(|path| fs::metadata(path).unwrap().accessed().unwrap()).collect::<Vec<_>>()
    };
    let before = times();
    assert_eq!(cache.prune(&["--unreferenced", "-n"]).exit, 0);
    assert_eq!(cache.prune(&["--older-than", "1d"]).exit, 0);
    assert_eq!(cache.run("cache-usage", &[]).exit, 0);
    let manifest = cache.path().join(nested(10));
    assert_eq!(cache.prune(&["-n", "--keep-from", manifest.to_str().unwrap()]).exit, 0);
    assert_eq!(times(), before);
}

/// Saves a plan made with the arguments. Returns its path.
fn save(cache: &Cache, arguments: &[&str]) -> String {
    let path = cache.base.path().join("plan.json").to_str().unwrap().to_owned();
    let mut all = vec!["--dry-run", "--save-plan", &path];
    all.extend(arguments);
    let ran = cache.prune(&all);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    path
}

#[test]
fn a_saved_plan_is_carried_out_exactly() {
    let cache = aged();
    cache.write("oci-put-blob1", KIB);
    let plan = save(&cache, &["--older-than", "7d"]);
    // After the plan: blob 1 is replaced, blob 9 is new.
    cache.write(flat(1), 2 * KIB);
    cache.write(flat(9), KIB);
    assert_snapshot!(cache.prune(&["--from-plan", &plan, "--dry-run"]).block(), @"
    exit: 0
    --- stdout
    would free 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    note: kept 1 blob, 2.0 KiB: changed meanwhile
    note: kept 4 blobs, 4.0 KiB: not in the plan
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--from-plan", &plan, "-v"]).block(), @"
    exit: 0
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/oci-put-blob1` (1.0 KiB): not in the plan
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (2.0 KiB): changed meanwhile
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): listed in the plan
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): not in the plan
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): not in the plan
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000009` (1.0 KiB): not in the plan
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 1 blob, 2.0 KiB: changed meanwhile
    note: kept 4 blobs, 4.0 KiB: not in the plan
    [EOF]
    ");
    assert_eq!(left(&cache), [1, 3, 4, 9]);
    assert_snapshot!(cache.prune(&["--from-plan", &plan, "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":2,"bytes":2048},"unlisted":{"blobs":4,"bytes":4096},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":0,"used_bytes":6144,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 2 blobs, 2.0 KiB: changed meanwhile
    note: kept 4 blobs, 4.0 KiB: not in the plan
    [EOF]
    "#);
}

#[test]
fn a_saved_plan_names_partials_and_leftovers_too() {
    let cache = Cache::flat(1, KIB);
    cache.write("oci-put-blob1", KIB);
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(2)), KIB);
    let plan = save(&cache, &[]);
    cache.write(format!("../oci.pruning-00000000000000ff/{}", flat(3)), KIB);
    cache.write("oci-put-blob2", KIB);
    let report = cache.prune(&["--from-plan", &plan, "--format", "json"]).json();
    assert_eq!((&report["blobs_freed"], &report["leftovers_freed"]), (&json!(3), &json!(1)));
    assert_eq!(report["kept"]["unlisted"]["blobs"], 1);
    assert!(cache.path().join("oci-put-blob2").exists());
    assert!(cache.base.path().join("oci.pruning-00000000000000ff").exists());
}

#[test]
fn a_saved_plan_spares_what_a_new_image_leads_to() {
    let cache = Cache::typical_layout();
    let plan = save(&cache, &["--unreferenced"]);
    cache.write_manifest(60, 61, &[99]);
    cache.write(nested(61), KIB);
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    cache.write_index(&[entry(60, manifest, "new")]);
    let report = cache.prune(&["--from-plan", &plan, "--format", "json"]).json();
    assert_eq!((&report["blobs_freed"], &report["kept"]["referenced"]["blobs"]), (&json!(0), &json!(1)));
    assert!(cache.nested_blobs().contains(&99));
}

#[test]
fn a_saved_plan_of_images_takes_them_out_of_the_index() {
    let cache = Cache::typical_layout();
    cache.age(&[1, 2, 10, 11], 30 * DAY);
    let plan = save(&cache, &["--older-than", "7d"]);
    assert_eq!(cache.prune(&["--from-plan", &plan]).exit, 0);
    assert_eq!(cache.image_names(), ["app:2", "multi"]);
    assert_eq!(cache.nested_blobs(), [2, 3, 4, 20, 21, 30, 40, 41, 99]);
}

#[test]
fn bad_plans_are_refused() {
    let cache = aged();
    let plan = save(&cache, &[]);
    let good: Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
    let before =
        cache.tree().lines().filter(|line| !line.ends_with("plan.json")).collect::<Vec<_>>().join("\n");
    let change = |field: &str, value: Value| {
        let mut plan = good.clone();
        plan[field] = value;
        plan.to_string()
    };
    let change_entry = |edit: &dyn Fn(&mut Value)| {
        let mut plan = good.clone();
        edit(&mut plan["entries"][0]);
        plan.to_string()
    };
    let cases = [
        (String::new(), "it is not a saved plan, or it is damaged: EOF"),
        (good.to_string()[..200].to_owned(), "it is not a saved plan, or it is damaged: EOF"),
        ("[]".to_owned(), "it is not a saved plan"),
        (change("format", json!("something else")), "it is not a saved plan"),
        (change("version", json!(3)), "it has version 3, but this program reads only versions up to 2"),
        (
            change("inode", json!(1)),
            "it was made for `[TMP]/oci`, but this is another directory, or a new one at that path",
        ),
        (
            change("entries", json!([{"path": "../../etc/passwd"}])),
            "it is not a saved plan, or it is damaged",
        ),
        (change("version", json!(0)), "it is not a saved plan, or it is damaged"),
        (
            change_entry(&|entry| entry["digest"] = json!(digest(77))),
            "it is not a saved plan, or it is damaged",
        ),
        (change_entry(&|entry| entry["digest"] = Value::Null), "it is not a saved plan, or it is damaged"),
        (change_entry(&|entry| entry["path"] = json!(format!("../{}", flat(1)))), "it is not a saved plan"),
        (change_entry(&|entry| entry["path"] = json!(format!("/{}", flat(1)))), "it is not a saved plan"),
        (
            change("entries", json!([good["entries"][0], good["entries"][0]])),
            "it is not a saved plan, or it is damaged",
        ),
        (change("more", json!(1)), "it is not a saved plan, or it is damaged: unknown field `more`"),
    ];
    for (content, why) in cases {
        fs::write(&plan, content).unwrap();
        let ran = cache.prune(&["--from-plan", &plan]);
        let after =
            cache.tree().lines().filter(|line| !line.ends_with("plan.json")).collect::<Vec<_>>().join("\n");
        assert_eq!((ran.exit, ran.stdout.as_str(), after), (2, "", before.clone()), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
}

#[test]
fn what_is_in_use_is_made_up_for() {
    let cache = aged();
    let _reader = fs::File::open(cache.path().join(flat(1))).unwrap();
    assert_snapshot!(cache.prune(&["--max-used-space", "3KiB", "-v"]).block(), @"
    exit: 0
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): in use
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): over budget
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` (1.0 KiB): goal met
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000004` (1.0 KiB): goal met
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 1 blob, 1.0 KiB: in use
    note: kept 2 blobs, 2.0 KiB: goal met
    note: a pull may be under way: [TEST] (pid [PID]) has `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` open. Kept what it may count on; run it again once the pull has ended
    [EOF]
    ");
    assert_eq!(left(&cache), [1, 3, 4], "the oldest is in use, so the next goes");
    // Many blobs and a download are in use: other blobs make up for exactly these.
    let cache = Cache::flat(60, KIB);
    let partial = cache.write("oci-put-blob1", 4 * KIB);
    set_age(&partial, 90 * DAY);
    let hold = |number: u8| {
        set_age(&cache.path().join(flat(number)), 50 * DAY);
        fs::File::open(cache.path().join(flat(number))).unwrap()
    };
    let _readers: Vec<fs::File> = (1..=40).map(hold).chain([fs::File::open(&partial).unwrap()]).collect();
    let ran = cache.prune(&["--max-used-space", "60KiB"]);
    assert_eq!(ran.stdout, "freed 4.0 KiB across 4 blob(s) in [TMP]/oci\n", "{}", ran.block());
    assert!(!ran.stderr.contains("not met"), "{}", ran.stderr);
    assert!((1..=40).all(|number| cache.path().join(flat(number)).exists()));
}

#[test]
fn an_entry_of_an_unknown_algorithm_leads_to_nothing() {
    let cache = Cache::typical_layout();
    let digest = format!("sha384:{}", "0".repeat(96));
    cache.write_index(&[
        json!({"mediaType": MANIFEST, "digest": digest, "size": 7}),
        entry(10, MANIFEST, "app:1"),
    ]);
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.nested_blobs()), (0, vec![1, 2, 10, 11]), "{}", ran.block());
    let note = format!("note: the index has 1 entry whose digest has an unknown algorithm: `{digest}`");
    assert!(ran.stderr.contains(&note), "{}", ran.stderr);
}

#[test]
fn a_document_that_is_absent_leads_to_nothing_that_is_here() {
    let cache = Cache::typical_layout();
    let away =
        |number| fs::rename(cache.path().join(nested(number)), cache.base.path().join(number.to_string()));
    // The manifest of an entry, and one below a nested index: a platform that was never pulled.
    away(20).unwrap();
    away(40).unwrap();
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.nested_blobs()), (0, vec![1, 2, 10, 11, 30]), "{}", ran.block());
    assert!(
        ran.stderr.contains("note: the index has 1 entry whose manifest is not there: `app:2`"),
        "{}",
        ran.stderr
    );
    assert_eq!(cache.image_names(), ["app:1", "app:2", "multi"]);
}

#[test]
fn what_an_index_lists_that_is_no_manifest_leads_to_nothing() {
    // BuildKit's local cache lists layers and its own config; the specification's example lists XML.
    let cache = Cache::layout();
    cache.write_content(nested(1), b"layer");
    cache.write_content(nested(2), br#"{"layers":[{"blob":"sha256:aa","parent":-1}]}"#);
    cache.write_content(nested(3), b"<html/>");
    cache.write_content(nested(4), br#"{"config":{"Cmd":["sh"]},"rootfs":{}}"#);
    cache.write_content(nested(6), &vec![b'<'; 5 << 20]);
    cache.write(nested(9), KIB);
    let mut unstated = [3, 4, 6].map(|number| descriptor(number, ""));
    unstated[1]["mediaType"] = json!(null);
    let index = json!({"schemaVersion": 2, "manifests": [
        descriptor(1, "application/vnd.oci.image.layer.v1.tar+gzip"),
        descriptor(2, "application/vnd.buildkit.cacheconfig.v0"),
        descriptor(3, "application/xml"),
        unstated[0], unstated[1], unstated[2],
    ]});
    cache.write_content(nested(5), index.to_string().as_bytes());
    cache.write_index(&[entry(5, INDEX, "latest")]);
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.nested_blobs()), (0, vec![1, 2, 3, 4, 5, 6]), "{}", ran.block());
}

#[test]
fn documents_without_a_media_type_are_told_by_their_content() {
    for (field, list) in
        [("layers", json!([descriptor(1, "")])), ("fsLayers", json!([{"blobSum": digest(1)}]))]
    {
        for says in [
            json!(""),
            json!(null),
            json!(MANIFEST),
            json!("application/vnd.docker.distribution.manifest.v1+json"),
        ] {
            let cache = Cache::layout();
            cache.write(nested(1), KIB);
            cache.write(nested(9), KIB);
            let manifest = json!({"mediaType": says, field: list, "annotations": null, "subject": null});
            cache.write_content(nested(2), manifest.to_string().as_bytes());
            cache.write_index(&[json!({"digest": digest(2), "annotations": null, "platform": null})]);
            let ran = cache.prune(&["--unreferenced"]);
            assert_eq!((ran.exit, cache.nested_blobs()), (0, vec![1, 2]), "{manifest}: {}", ran.block());
        }
    }
}

#[test]
fn a_manifest_with_a_malformed_digest_keeps_what_it_may_lead_to() {
    let hex = format!("{:064x}", 0xabc);
    for digest in [format!("sha256:{}", hex.to_uppercase()), format!("sha256-{hex}"), hex, String::new()] {
        let broken = json!({"mediaType": "x/y", "digest": digest, "size": 7});
        let manifests = [
            json!({"schemaVersion": 2, "layers": [broken]}),
            json!({"schemaVersion": 2, "layers": [], "config": broken}),
            json!({"schemaVersion": 2, "layers": [], "subject": broken}),
            json!({"schemaVersion": 2, "manifests": [broken]}),
        ];
        for manifest in manifests {
            let cache = Cache::typical_layout();
            // In the index it stands beside a whole image.
            cache.write_content(nested(50), manifest.to_string().as_bytes());
            cache.write_index(&[descriptor(10, MANIFEST), descriptor(50, MANIFEST)]);
            let before = cache.tree();
            let ran = cache.prune(&["--unreferenced"]);
            assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
            assert!(ran.stderr.contains("its digest is malformed"), "{}", ran.stderr);
        }
    }
}

#[test]
fn output_files_are_replaced_with_care() {
    let cache = aged();
    let before = cache.tree();
    let inside = cache.path().join(flat(1));
    for option in ["--save-plan", "--metrics-file"] {
        for path in [&inside, &cache.path().join("new"), &cache.path().join("../oci/new")] {
            let ran = cache.prune(&["-n", option, path.to_str().unwrap()]);
            assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
            assert!(ran.stderr.contains("is inside the cache"), "{}", ran.stderr);
        }
    }
    assert_eq!(cache.tree(), before);
    // A link is followed, and the mode stays.
    let (target, link) = (cache.base.path().join("target"), cache.base.path().join("link"));
    fs::write(&target, "before").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    save_as(&cache, &link);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let plan: Value = serde_json::from_slice(&fs::read(&target).unwrap()).unwrap();
    assert_eq!(plan["entries"].as_array().unwrap().len(), 4);
    // A file that is not regular is not written to.
    let fifo = cache.base.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = cache.tree();
    let ran = cache.prune(&["-n", "--save-plan", fifo.to_str().unwrap()]);
    assert_eq!((ran.exit, ran.stdout.as_str(), cache.tree()), (2, "", before), "{}", ran.block());
    assert!(ran.stderr.contains("`[TMP]/fifo` is not a regular file"), "{}", ran.stderr);
}

#[test]
fn another_users_file_in_a_directory_open_to_all_is_not_replaced() {
    if !needs::root() {
        return;
    }
    let cache = aged();
    let open_to_all = cache.base.path().join("tmp");
    let (victim, link) = (cache.base.path().join("victim"), open_to_all.join("plan.json"));
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(1234), None).unwrap();
    let ran = cache.prune(&["-n", "--save-plan", link.to_str().unwrap()]);
    assert_eq!(ran.exit, 2, "{}", ran.block());
    assert!(ran.stderr.contains("is a symbolic link of user 1234, and only links of root"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn metrics_tell_of_a_prune_that_left_only_what_is_foreign() {
    let cache = Cache::flat(1, KIB);
    cache.write("README", KIB);
    let metrics = cache.base.path().join("oci.prom");
    let ran = cache.prune(&["--metrics-file", metrics.to_str().unwrap()]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    let metrics = fs::read_to_string(metrics).unwrap();
    let label = format!("cache_dir=\"{}\"", cache.path().display());
    for line in [
        format!("oci_cache_prune_freed_bytes{{{label}}} 1024\n"),
        format!("oci_cache_used_bytes{{{label},command=\"prune\"}} 0\n"),
        format!("oci_cache_prune_exit_status{{{label}}} 0\n"),
    ] {
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// Saves a plan of everything at the path.
fn save_as(cache: &Cache, path: &Path) {
    let ran = cache.prune(&["-n", "--save-plan", path.to_str().unwrap()]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
}

#[test]
fn a_signal_ends_the_wait_for_a_list() {
    let cache = aged();
    let mut program = xtask();
    program.args(["cache-prune", "--keep-from", "-", "--cache-dir"]).arg(cache.path());
    let mut prune = support::spawn(program.stdin(Stdio::piped()));
    std::thread::sleep(Duration::from_millis(300));
    // Not SIGINT: shells ignore it for background processes.
    let killed = Command::new("kill").args(["-TERM", &prune.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(prune.wait().unwrap().signal(), Some(15));
    assert_eq!(left(&cache), [1, 2, 3, 4]);
}

#[test]
fn the_summary_and_the_metrics() {
    let cache = aged();
    let _reader = fs::File::open(cache.path().join(flat(1))).unwrap();
    let summary = cache.write_content("../summary.md", b"before\n");
    let metrics = cache.base.path().join("oci.prom");
    let mut program = xtask();
    program.args(["cache-prune", "--github-summary", "--older-than", "7d", "--metrics-file"]).arg(&metrics);
    program.arg("--cache-dir").arg(cache.path()).env("GITHUB_STEP_SUMMARY", &summary);
    let ran = Ran::of(&mut program, cache.base.path());
    assert_eq!(ran.exit, 0, "{}", ran.block());
    let summary = fs::read_to_string(summary).unwrap().replace(cache.base.path().to_str().unwrap(), "[TMP]");
    assert_snapshot!(summary, @"
    before
    ### OCI blob cache

    | `[TMP]/oci` | blobs | size |
    |---|--:|--:|
    | freed | 1 | 1.0 KiB |
    | kept: in use | 1 | 1.0 KiB |
    | kept: not idle for long enough | 2 | 2.0 KiB |
    ");
    let metrics_text = fs::read_to_string(&metrics).unwrap();
    let stable = |line: &&str| line.starts_with('#') || !line.contains("seconds{");
    let lines: Vec<&str> = metrics_text.lines().filter(stable).collect();
    let label = format!("cache_dir=\"{}\"", cache.path().display());
    let lines = lines.join("\n").replace(&label, "…").replace("_disk_bytes{…} 4096", "_disk_bytes{…} [DISK]");
    let is_room = |line: &&str| line.starts_with("oci_cache_available_bytes{");
    let room = lines.lines().find(is_room).unwrap_or_default().to_owned();
    assert_snapshot!(lines.replace(&room, "[ROOM]"), @r#"
    # HELP oci_cache_prune_freed_bytes Logical size of the files removed.
    # TYPE oci_cache_prune_freed_bytes gauge
    oci_cache_prune_freed_bytes{…} 1024
    # HELP oci_cache_prune_freed_disk_bytes Disk space of the removed files that have no other links.
    # TYPE oci_cache_prune_freed_disk_bytes gauge
    oci_cache_prune_freed_disk_bytes{…} [DISK]
    # HELP oci_cache_prune_freed_blobs Files removed.
    # TYPE oci_cache_prune_freed_blobs gauge
    oci_cache_prune_freed_blobs{…} 1
    # HELP oci_cache_prune_kept_blobs Blobs kept, by reason.
    # TYPE oci_cache_prune_kept_blobs gauge
    oci_cache_prune_kept_blobs{…,reason="in_use"} 1
    oci_cache_prune_kept_blobs{…,reason="spared"} 0
    oci_cache_prune_kept_blobs{…,reason="unprobed"} 0
    oci_cache_prune_kept_blobs{…,reason="recent"} 2
    oci_cache_prune_kept_blobs{…,reason="referenced"} 0
    oci_cache_prune_kept_blobs{…,reason="pinned"} 0
    oci_cache_prune_kept_blobs{…,reason="goal_met"} 0
    oci_cache_prune_kept_blobs{…,reason="frees_nothing"} 0
    oci_cache_prune_kept_blobs{…,reason="changed"} 0
    oci_cache_prune_kept_blobs{…,reason="unlisted"} 0
    oci_cache_prune_kept_blobs{…,reason="intact"} 0
    oci_cache_prune_kept_blobs{…,reason="unread"} 0
    oci_cache_prune_kept_blobs{…,reason="unselected"} 0
    # HELP oci_cache_prune_kept_bytes Logical size of the blobs kept, by reason.
    # TYPE oci_cache_prune_kept_bytes gauge
    oci_cache_prune_kept_bytes{…,reason="in_use"} 1024
    oci_cache_prune_kept_bytes{…,reason="spared"} 0
    oci_cache_prune_kept_bytes{…,reason="unprobed"} 0
    oci_cache_prune_kept_bytes{…,reason="recent"} 2048
    oci_cache_prune_kept_bytes{…,reason="referenced"} 0
    oci_cache_prune_kept_bytes{…,reason="pinned"} 0
    oci_cache_prune_kept_bytes{…,reason="goal_met"} 0
    oci_cache_prune_kept_bytes{…,reason="frees_nothing"} 0
    oci_cache_prune_kept_bytes{…,reason="changed"} 0
    oci_cache_prune_kept_bytes{…,reason="unlisted"} 0
    oci_cache_prune_kept_bytes{…,reason="intact"} 0
    oci_cache_prune_kept_bytes{…,reason="unread"} 0
    oci_cache_prune_kept_bytes{…,reason="unselected"} 0
    # HELP oci_cache_prune_failures Entries that could not be inspected or removed.
    # TYPE oci_cache_prune_failures gauge
    oci_cache_prune_failures{…} 0
    # HELP oci_cache_prune_dry_run 1 for a dry run, else 0.
    # TYPE oci_cache_prune_dry_run gauge
    oci_cache_prune_dry_run{…} 0
    # HELP oci_cache_exists 1 if the cache's directory exists after the run, else 0.
    # TYPE oci_cache_exists gauge
    oci_cache_exists{…,command="prune"} 1
    # HELP oci_cache_used_bytes What the cache's files use after the run.
    # TYPE oci_cache_used_bytes gauge
    oci_cache_used_bytes{…,command="prune"} 3072
    # HELP oci_cache_available_bytes Free space of the cache's file system after the run, for unprivileged processes.
    # TYPE oci_cache_available_bytes gauge
    [ROOM]
    # HELP oci_cache_prune_duration_seconds How long the run took.
    # TYPE oci_cache_prune_duration_seconds gauge
    # HELP oci_cache_prune_exit_status Exit status of the run.
    # TYPE oci_cache_prune_exit_status gauge
    oci_cache_prune_exit_status{…} 0
    # HELP oci_cache_prune_last_run_timestamp_seconds Start of the run, in Unix time.
    # TYPE oci_cache_prune_last_run_timestamp_seconds gauge
    # HELP oci_cache_prune_last_success_timestamp_seconds End of the last run that was done, in Unix time; 0 if none was.
    # TYPE oci_cache_prune_last_success_timestamp_seconds gauge
    # HELP oci_cache_prune_held_off_since_timestamp_seconds Start of the first of the runs in a row that were held off, in Unix time; 0 if the last one was not.
    # TYPE oci_cache_prune_held_off_since_timestamp_seconds gauge
    # HELP oci_cache_prune_held_off_runs Runs in a row that were held off: by the cache's lock, or by what may be a pull.
    # TYPE oci_cache_prune_held_off_runs gauge
    oci_cache_prune_held_off_runs{…} 0
    "#);
    // A refused run is recorded too.
    let ran = cache.prune(&["--unreferenced", "--metrics-file", metrics.to_str().unwrap()]);
    assert_eq!(ran.exit, 2);
    let label = format!("{{cache_dir=\"{}\"}}", cache.path().display());
    let line = format!("\noci_cache_prune_exit_status{label} 2\n");
    assert!(fs::read_to_string(metrics).unwrap().contains(&line));
}

#[test]
fn a_summary_that_cannot_be_written_is_told_before_anything_goes() {
    let cache = aged();
    let before = cache.tree();
    let prune = |summary: &std::path::Path| {
        let mut program = xtask();
        program.args(["cache-prune", "--github-summary", "--cache-dir"]).arg(cache.path());
        Ran::of(program.env("GITHUB_STEP_SUMMARY", summary), cache.base.path())
    };
    assert_snapshot!(prune(cache.base.path()).block(), @"
    exit: 2
    --- stdout
    --- stderr
    error: open the summary file `[TMP]`: `[TMP]` is a directory: name a file
    [EOF]
    ");
    assert_snapshot!(prune(&cache.path().join("summary.md")).block(), @"
    exit: 2
    --- stdout
    --- stderr
    error: `[TMP]/oci/summary.md` is inside the cache: choose a file outside it
    [EOF]
    ");
    assert_eq!(cache.tree(), before);
}

/// As root, the blobs are another user's, and this prune may not read them without a trace.
#[test]
fn what_the_prune_itself_reads_is_not_in_use() {
    let cache = Cache::typical_layout();
    for blob in fs::read_dir(cache.path().join("blobs/sha256")).unwrap() {
        // Fails for any user but root, whose blobs they then are.
        let _ = std::os::unix::fs::chown(blob.unwrap().path(), Some(65534), None);
    }
    let ran = cache.prune_unprivileged(&["--older-than", "30m"]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count(), 0, "{}", ran.block());
}

/// A layout whose index leads to blob 2 of this content and media type; blob 1 is there for it to lead to, and blob 9 is
/// not. Which blobs a prune of the unreferenced ones leaves, and its exit code.
fn left_by(media_type: &str, content: &[u8]) -> (i32, Vec<u8>) {
    let cache = Cache::layout();
    cache.write(nested(1), KIB);
    cache.write(nested(9), KIB);
    cache.write_content(nested(2), content);
    cache.write_index(&[json!({"digest": digest(2), "mediaType": media_type})]);
    let ran = cache.prune(&["--unreferenced"]);
    (ran.exit, cache.nested_blobs())
}

#[test]
fn a_descriptor_and_then_the_content_say_what_is_a_document() {
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let blob = descriptor(1, "x/y");
    for (media_type, leads_to_it) in [
        ("", json!({"schemaVersion": 2, "config": blob})),
        (MANIFEST, json!({"config": blob})),
        (artifact, json!({"mediaType": artifact, "blobs": [blob]})),
    ] {
        let left = left_by(media_type, leads_to_it.to_string().as_bytes());
        assert_eq!(left, (0, vec![1, 2]), "{media_type}: {leads_to_it}");
    }
    for leaf in [
        json!({"mediaType": "x/y", "schemaVersion": 2, "layers": [blob]}),
        json!({"layers": [{"blob": "sha256:aa", "parent": -1}]}),
        json!({"config": blob}),
    ] {
        assert_eq!(left_by("", leaf.to_string().as_bytes()), (0, vec![2]), "{leaf}");
    }
    for unknown in [&b""[..], b" \n{\"layers\":["] {
        assert_eq!(left_by("", unknown), (1, vec![1, 2, 9]), "{}", unknown.escape_ascii());
    }
}

#[test]
fn a_manifest_of_four_mebibytes_is_read_and_a_larger_one_is_an_error() {
    let most = 4 << 20;
    let mut content = json!({"schemaVersion": 2, "layers": [descriptor(1, "x/y")]}).to_string().into_bytes();
    content.resize(most, b' ');
    assert_eq!(left_by(MANIFEST, &content), (0, vec![1, 2]));
    content.push(b' ');
    for media_type in [MANIFEST, ""] {
        assert_eq!(left_by(media_type, &content), (1, vec![1, 2, 9]));
    }
    assert_eq!(left_by(MANIFEST, &vec![b'<'; most + 1]), (1, vec![1, 2, 9]));
}

#[test]
fn a_layer_is_read_only_if_it_is_said_to_be_a_document_and_a_subject_always() {
    for (media_type, field, exit, left) in [
        (MANIFEST, "layers", 0, &[1, 2, 3][..]),
        ("", "layers", 0, &[2, 3]),
        ("", "subject", 0, &[1, 2, 3]),
        ("x/y", "subject", 0, &[2, 3]),
    ] {
        let cache = Cache::layout();
        let manifest = json!({"schemaVersion": 2, "layers": [descriptor(1, "x/y")]});
        cache.write_content(nested(3), manifest.to_string().as_bytes());
        let one = descriptor(3, media_type);
        let manifest = json!({"schemaVersion": 2, field: if field == "layers" { json!([one]) } else { one }});
        cache.write_content(nested(2), manifest.to_string().as_bytes());
        cache.write(nested(1), KIB);
        cache.write(nested(9), KIB);
        cache.write_index(&[descriptor(2, MANIFEST)]);
        let ran = cache.prune(&["--unreferenced"]);
        assert_eq!((ran.exit, cache.nested_blobs()), (exit, left.to_vec()), "{manifest}: {}", ran.block());
        // What is no document at all is an error, unless it is a leaf.
        cache.write_content(nested(3), b"<html/>");
        let ran = cache.prune(&["--unreferenced"]);
        let is_read = left.contains(&1);
        assert_eq!(ran.exit, i32::from(is_read), "{manifest}: {}", ran.block());
    }
}

#[test]
fn one_entry_that_calls_a_blob_a_manifest_is_enough_for_an_error() {
    let cache = Cache::typical_layout();
    cache.write_content(nested(50), b"{\"x\":[]}");
    cache.write_index(&[descriptor(50, ""), descriptor(50, MANIFEST)]);
    let before = cache.tree();
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
}
