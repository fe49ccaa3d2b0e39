//! What `cache-usage` shows.

mod support;

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;
use support::{Cache, KIB, Ran, flat, set_age};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The block, without what depends on the file system: free space and disk usage.
fn stable(ran: &Ran) -> String {
    let mut lines: Vec<String> = ran.block().lines().map(str::to_owned).collect();
    if let Some(first) = lines.iter_mut().find(|line| line.contains(" on disk; ")) {
        let (used, _) = first.split_once(", ").unwrap_or((first, ""));
        *first = format!("{used}, [DISK]; [ROOM]");
    }
    lines.join("\n")
}

#[test]
fn a_flat_cache() {
    let cache = Cache::flat(3, 10 * KIB);
    cache.write(flat(4), 1000 * KIB);
    cache.write(flat(5), 300 * KIB);
    cache.write("oci-put-blob1", 4 * KIB);
    cache.write("notes.txt", 1);
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(9)), KIB);
    for (number, age) in [(1, DAY * 3), (2, DAY * 20), (4, DAY * 100), (5, Duration::from_secs(60))] {
        set_age(&cache.path().join(flat(number)), age);
    }
    let before = cache.tree();
    assert_snapshot!(stable(&cache.run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    1.3 MiB in [TMP]/oci, [DISK]; [ROOM]

    kind           blobs        size
    blobs              5     1.3 MiB  ##############################
    partials           1     4.0 KiB  #
    leftovers          1     1.0 KiB  #

    last used            blobs        size
    within the hour          2   304.0 KiB  ##########
    within a day             1    10.0 KiB  #
    within a week            1    10.0 KiB  #
    within 30 days           1    10.0 KiB  #
    older                    1  1000.0 KiB  ##############################

    a prune would free            blobs        size
    (everything)                      7     1.3 MiB  ##############################
    --older-than 7d                   3  1011.0 KiB  #######################
    --older-than 30d                  2  1001.0 KiB  #######################
    --max-used-space 683008B          2  1001.0 KiB  #######################

          size    idle for  largest blobs
    1000.0 KiB        100d  sha256:0000000000000000000000000000000000000000000000000000000000000004
     300.0 KiB          1m  sha256:0000000000000000000000000000000000000000000000000000000000000005
      10.0 KiB          3d  sha256:0000000000000000000000000000000000000000000000000000000000000001
      10.0 KiB         20d  sha256:0000000000000000000000000000000000000000000000000000000000000002
      10.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000003

    foreign entries, left alone: 1
    --- stderr
    [EOF]
    ");
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    assert_eq!(json["blobs"], json!({"blobs": 5, "bytes": 1330 * KIB}));
    assert_eq!(json["partials"], json!({"blobs": 1, "bytes": 4 * KIB}));
    assert_eq!(json["leftovers"], json!({"blobs": 1, "bytes": KIB}));
    assert_eq!(json["used_bytes"], 1334 * KIB);
    assert_eq!(json["largest"][0]["bytes"], 1000 * KIB);
    assert_eq!(json["would_free"][1], json!({"flags": "--older-than 7d", "blobs": 3, "bytes": 1011 * KIB}));
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_layout() {
    let cache = Cache::typical_layout();
    assert_snapshot!(stable(&cache.run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    9.3 KiB in [TMP]/oci, [DISK]; [ROOM]

    kind              blobs        size
    blobs                12     9.3 KiB  ##############################
    partials              0         0 B
    leftovers             0         0 B
    unreferenced          1     1.0 KiB  ####

    last used            blobs        size
    within the hour          0         0 B
    within a day            12     9.3 KiB  ##############################
    within a week            0         0 B
    within 30 days           0         0 B
    older                    0         0 B

    a prune would free          blobs        size
    (everything)                   12     9.3 KiB  ##############################
    --older-than 7d                 0         0 B
    --older-than 30d                0         0 B
    --max-used-space 4744B          7     5.8 KiB  ###################
    --unreferenced                  1     1.0 KiB  ####

    image      blobs        size
    app:1          4     3.4 KiB  ##############################
    app:2          4     3.4 KiB  ##############################
    multi          4     2.5 KiB  #######################

          size    idle for  largest blobs
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000001
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000002
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000003
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000004
       1.0 KiB          1h  sha256:000000000000000000000000000000000000000000000000000000000000000b
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000015
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000029
       1.0 KiB          1h  sha256:0000000000000000000000000000000000000000000000000000000000000063
         391 B          1h  sha256:000000000000000000000000000000000000000000000000000000000000000a
         391 B          1h  sha256:0000000000000000000000000000000000000000000000000000000000000014
    --- stderr
    [EOF]
    ");
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    assert_eq!(json["images"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["unreferenced"], json!({"blobs": 1, "bytes": KIB}));
}

#[test]
fn an_empty_and_a_missing_cache() {
    assert_snapshot!(stable(&Cache::new().run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    0 B in [TMP]/oci, [DISK]; [ROOM]

    kind           blobs        size
    blobs              0         0 B
    partials           0         0 B
    leftovers          0         0 B

    last used            blobs        size
    within the hour          0         0 B
    within a day             0         0 B
    within a week            0         0 B
    within 30 days           0         0 B
    older                    0         0 B

    a prune would free       blobs        size
    (everything)                 0         0 B
    --older-than 7d              0         0 B
    --older-than 30d             0         0 B
    --max-used-space 0B          0         0 B
    --- stderr
    [EOF]
    ");
    assert_eq!(Cache::missing().run("cache-usage", &[]).exit, 0);
}

#[test]
fn a_check_of_the_budget() {
    let cache = Cache::flat(3, KIB);
    assert_eq!(cache.run("cache-usage", &["--check", "--max-used-space", "3KiB"]).exit, 0);
    let over = cache.run("cache-usage", &["--check", "--max-used-space", "3071B"]);
    assert_eq!(over.exit, 3);
    assert_eq!(over.stderr, "over budget by 1 B: 3.0 KiB used, 3071B allowed\n");
    // A share of the file system.
    for (share, exit) in [("0%", 3), ("100%", 0)] {
        let ran = cache.run("cache-usage", &["--check", "--max-used-space", share]);
        assert_eq!(ran.exit, exit, "{}", ran.block());
    }
    let over = cache.run("cache-usage", &["--check", "--max-used-space", "0%"]);
    assert_eq!(over.stderr, "over budget by 3.0 KiB: 3.0 KiB used, 0% (0 B) allowed\n");
    assert_eq!(cache.run("cache-usage", &["--check"]).exit, 2);
    assert_eq!(cache.run("cache-usage", &["--check", "--max-used-space", "50"]).exit, 2);
    assert_eq!(cache.run("cache-usage", &["--max-used-space", "1B"]).exit, 2);
}

#[test]
fn what_policies_would_free_is_what_they_free() {
    let cache = Cache::flat(4, KIB);
    set_age(&cache.path().join(flat(1)), DAY * 40);
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    for policy in json["would_free"].as_array().cloned().unwrap_or_default() {
        let flags = policy["flags"].as_str().unwrap_or_default().split_whitespace();
        let arguments: Vec<&str> = flags.chain(["--dry-run", "--format", "json"]).collect();
        assert_eq!(cache.prune(&arguments).json()["bytes_freed"], policy["bytes"], "{policy}");
    }
}
