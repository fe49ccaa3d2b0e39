//! `cache-verify`: what it finds, what it removes, and what it prints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha512};
use support::{Cache, KIB, Ran, hex, needs, nested, set_age};

fn sha256(content: &[u8]) -> String {
    hex_of(&Sha256::digest(content))
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a blob: a repeated number.
fn content(number: u8, size: usize) -> Vec<u8> {
    vec![number; size]
}

/// Writes an intact flat blob.
fn write_intact(cache: &Cache, number: u8, size: usize) -> PathBuf {
    let content = content(number, size);
    cache.write_content(format!("sha256:{}", sha256(&content)), &content)
}

/// Writes a truncated flat blob.
fn write_truncated(cache: &Cache, number: u8, size: usize) -> PathBuf {
    let content = content(number, size);
    cache.write_content(format!("sha256:{}", sha256(&content)), &content[..size / 2])
}

/// Two intact blobs and a truncated one; an intact sha512 blob and an intact nested one.
fn typical() -> (Cache, PathBuf) {
    let cache = Cache::new();
    write_intact(&cache, 1, 100 * KIB);
    write_intact(&cache, 2, 0);
    let long = content(3, 300 * KIB);
    cache.write_content(format!("sha512:{}", hex_of(&Sha512::digest(&long))), &long);
    let deep = content(4, KIB);
    cache.write_content(format!("blobs/sha256/{}", sha256(&deep)), &deep);
    let truncated = write_truncated(&cache, 5, 200 * KIB);
    (cache, truncated)
}

#[test]
fn nothing_is_wrong() {
    let cache = Cache::new();
    write_intact(&cache, 1, 100 * KIB);
    write_intact(&cache, 2, KIB);
    let before = cache.tree();
    assert_snapshot!(cache.run("cache-verify", &[]).block(), @"
    exit: 0
    --- stdout
    verified 101.0 KiB across 2 blob(s) in [TMP]/oci: 0 corrupt
    --- stderr
    [EOF]
    ");
    assert_snapshot!(cache.run("cache-verify", &["--prune"]).block(), @"
    exit: 0
    --- stdout
    verified 101.0 KiB across 2 blob(s) in [TMP]/oci: 0 corrupt
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    note: kept 2 blobs, 101.0 KiB: not corrupt
    [EOF]
    ");
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_truncated_blob_is_found_and_removed() {
    let (cache, truncated) = typical();
    let before = cache.tree();
    assert_snapshot!(cache.run("cache-verify", &[]).block(), @"
    exit: 3
    --- stdout
    verified 501.0 KiB across 5 blob(s) in [TMP]/oci: 1 corrupt
    --- stderr
    corrupt `[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca` (100.0 KiB): expected sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca, found sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1
    [EOF]
    ");
    assert_snapshot!(cache.run("cache-verify", &["--format", "json"]).block(), @r#"
    exit: 3
    --- stdout
    {"cache_dir":"[TMP]/oci","exists":true,"quick":false,"blobs_verified":5,"bytes_verified":513024,"corrupt":[{"path":"[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca","bytes":102400,"expected":"sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca","actual":"sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1"}],"holes":[],"in_use":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"failures":[],"failures_total":0,"interrupted":false,"pruned":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    corrupt `[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca` (100.0 KiB): expected sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca, found sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1
    [EOF]
    "#);
    assert_eq!(cache.tree(), before, "without --prune nothing changes");
    assert_snapshot!(cache.run("cache-verify", &["--prune"]).block(), @"
    exit: 0
    --- stdout
    verified 501.0 KiB across 5 blob(s) in [TMP]/oci: 1 corrupt
    freed 100.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    corrupt `[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca` (100.0 KiB): expected sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca, found sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1
    note: kept 4 blobs, 401.0 KiB: not corrupt
    [EOF]
    ");
    assert_eq!(support::gone(&before, &cache.tree()), [format!("oci/{}", name(&truncated))]);
    assert_eq!(cache.run("cache-verify", &[]).exit, 0);
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_filter_of_cache_prune_is_the_same() {
    let (cache, truncated) = typical();
    cache.write("oci-put-blob1", KIB);
    cache.write(format!("../oci.pruning-0123456789abcdef/sha256:{}", hex(9)), KIB);
    let before = cache.tree();
    assert_snapshot!(cache.prune(&["--corrupt", "--dry-run"]).block(), @"
    exit: 0
    --- stdout
    would free 100.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    note: kept 5 blobs, 402.0 KiB: not corrupt
    [EOF]
    ");
    assert_eq!(cache.tree(), before);
    assert_snapshot!(cache.prune(&["--corrupt", "--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":102400,"blobs_freed":1,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":5,"bytes":411648},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":1,"used_bytes":411648,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 5 blobs, 402.0 KiB: not corrupt
    [EOF]
    "#);
    assert_eq!(support::gone(&before, &cache.tree()), [format!("oci/{}", name(&truncated))]);
}

#[test]
fn filters_narrow_what_is_corrupt() {
    let (cache, truncated) = typical();
    assert_eq!(cache.prune(&["--corrupt", "--older-than", "1d"]).exit, 0);
    let digest = name(&truncated);
    assert_eq!(cache.prune(&["--corrupt", "--keep", &digest]).exit, 0);
    assert!(truncated.exists());
    set_age(&truncated, Duration::from_secs(48 * 3600));
    assert_eq!(cache.prune(&["--corrupt", "--older-than", "1d"]).exit, 0);
    assert!(!truncated.exists());
}

#[test]
fn a_blob_that_is_being_written_is_not_called_corrupt() {
    let (cache, truncated) = typical();
    let writer = File::options().append(true).open(&truncated).unwrap();
    assert_snapshot!(cache.run("cache-verify", &["--prune"]).block(), @"
    exit: 0
    --- stdout
    verified 401.0 KiB across 4 blob(s) in [TMP]/oci: 0 corrupt
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    note: did not check 1 blob, 100.0 KiB: being written; verify again later
    note: kept 1 blob, 100.0 KiB: in use
    note: kept 4 blobs, 401.0 KiB: not corrupt
    [EOF]
    ");
    assert!(truncated.exists());
    drop(writer);
    assert_eq!(cache.run("cache-verify", &[]).exit, 3);
}

/// Extends a file faster than it can be read, until told to stop. The file is sparse, so this needs no room.
fn extend(path: &Path, is_over: &AtomicBool, opens_anew: bool) {
    const STEP: u64 = 1 << 20;
    let open = || File::options().append(true).open(path).unwrap();
    let (mut writer, mut length) = (open(), fs::metadata(path).unwrap().len());
    while !is_over.load(Ordering::Relaxed) {
        if opens_anew {
            writer = open();
        }
        length += STEP;
        writer.set_len(length).unwrap();
        sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_blob_that_grows_all_the_time_ends_and_is_told() {
    for opens_anew in [false, true] {
        let (cache, growing) = typical();
        let is_over = AtomicBool::new(false);
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| extend(&growing, &is_over, opens_anew));
            let mut verify = Command::new("timeout");
            verify.args([
                "--signal=INT",
                "60",
                env!("CARGO_BIN_EXE_xtask"),
                "cache-verify",
                "--format",
                "json",
            ]);
            let ran = Ran::of(verify.arg("--cache-dir").arg(cache.path()), cache.base.path());
            is_over.store(true, Ordering::Relaxed);
            ran
        });
        assert_eq!(ran.exit, 0, "{}", ran.block());
        let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let busy = ["in_use", "changed"].map(|reason| told[reason]["blobs"].as_u64().unwrap());
        let found = (told["blobs_verified"].clone(), told["corrupt"].clone(), busy.iter().sum());
        assert_eq!(found, (json!(4), json!([]), 1), "{}", ran.block());
    }
}

#[test]
fn a_corrupt_blob_that_is_read_stays_and_is_told() {
    let (cache, truncated) = typical();
    let _reader = File::open(&truncated).unwrap();
    assert_snapshot!(cache.run("cache-verify", &["--prune", "--format", "json"]).block(), @r#"
    exit: 3
    --- stdout
    {"cache_dir":"[TMP]/oci","exists":true,"quick":false,"blobs_verified":5,"bytes_verified":513024,"corrupt":[{"path":"[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca","bytes":102400,"expected":"sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca","actual":"sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1"}],"holes":[],"in_use":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"failures":[],"failures_total":0,"interrupted":false,"pruned":{"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":1,"bytes":102400},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":4,"bytes":410624},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":1,"used_bytes":513024,"available_bytes":[ROOM],"goals":[],"pull":{"sign":"open","path":"[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca","process":{"name":"[TEST]","pid":[PID]}}},"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    corrupt `[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca` (100.0 KiB): expected sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca, found sha256:d123558be5d70d30d768475373216ffcdca9031af8c6e783f659d6dd94a09aa1
    note: kept 1 blob, 100.0 KiB: in use
    note: kept 4 blobs, 401.0 KiB: not corrupt
    note: a pull may be under way: [TEST] (pid [PID]) has `[TMP]/oci/sha256:e889e1b35636f1b0ff42b9bf063ac2afe68a3178747e81510153254b2492ecca` open. Kept what it may count on; run it again once the pull has ended
    [EOF]
    "#);
    assert!(truncated.exists());
}

#[test]
fn one_blob_that_cannot_be_read_does_not_stop_the_rest() {
    let (cache, truncated) = typical();
    let closed = write_intact(&cache, 7, KIB);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let ran = cache.run_unprivileged("cache-verify", &["--prune"]);
    assert_eq!(ran.exit, 1, "{}", ran.block());
    assert!(
        ran.stderr.contains(&format!("error: read `[TMP]/oci/{}`: Permission denied", name(&closed))),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("note: did not check 1 blob, 1.0 KiB: could not be read"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: kept 4 blobs, 401.0 KiB: not corrupt"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: kept 1 blob, 1.0 KiB: not read,"), "{}", ran.stderr);
    assert!(closed.exists() && !truncated.exists());
}

#[test]
fn a_stop_says_what_was_not_checked() {
    let cache = Cache::new();
    for number in 0..4 {
        File::create(cache.path().join(support::flat(number))).unwrap().set_len(16 << 30).unwrap();
    }
    let mut program = support::xtask();
    program.args(["cache-verify", "--prune", "--cache-dir"]).arg(cache.path());
    let verify = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
    cache.wait_until_locked();
    sleep(Duration::from_millis(100));
    let pid = verify.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ran = support::Ran::from(&verify.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(ran.exit, 130, "{}", ran.block());
    for note in [
        "note: did not check 4 blobs, 64.0 GiB: stopped early; verify again later\n",
        "note: kept 4 blobs, 64.0 GiB: not read, so not known to be corrupt\n",
    ] {
        assert!(ran.stderr.contains(note), "{}", ran.block());
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 4);
}

#[test]
fn where_writers_cannot_be_seen_it_says_so() {
    if !needs::root() {
        return;
    }
    let (cache, truncated) = typical();
    std::os::unix::fs::chown(&truncated, Some(1234), None).unwrap();
    let ran = cache.run_unprivileged("cache-verify", &[]);
    assert_eq!(ran.exit, 3, "{}", ran.block());
    assert!(ran.stderr.contains("note: could not check 1 corrupt blob for writers"), "{}", ran.stderr);
}

#[test]
fn a_stop_before_a_blob_was_seen_at_rest_calls_nothing_corrupt() {
    if !needs::root() {
        return;
    }
    let cache = Cache::new();
    let truncated = write_truncated(&cache, 1, KIB);
    std::os::unix::fs::chown(&truncated, Some(1234), None).unwrap();
    let stopped_in_time = || {
        let mut program = cache.unprivileged("cache-verify");
        let verify = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::null()));
        while !support::has_open(&verify, &truncated) {
            sleep(Duration::from_millis(1));
        }
        // It has hashed the blob, and waits for half a second.
        sleep(Duration::from_millis(100));
        assert!(Command::new("kill").args(["-TERM", &verify.id().to_string()]).status().unwrap().success());
        let output = verify.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains(": 0 corrupt (interrupted")
    };
    // On a busy machine, a stop may come too late.
    assert!((0..10).any(|_| stopped_in_time()));
}

#[test]
fn a_layout_loses_the_blob_and_the_entry_that_leads_to_it() {
    let cache = Cache::layout();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let layer = content(1, 10 * KIB);
    let named = |content: &[u8]| json!({"mediaType": "x/y", "digest": format!("sha256:{}", sha256(content)), "size": content.len()});
    let config = b"{}".to_vec();
    let good = json!({"schemaVersion": 2, "config": named(&config), "layers": []}).to_string();
    let bad = json!({"schemaVersion": 2, "config": named(&config), "layers": [named(&layer)]}).to_string();
    for blob in [&config[..], good.as_bytes(), bad.as_bytes()] {
        cache.write_content(format!("blobs/sha256/{}", sha256(blob)), blob);
    }
    let truncated = cache.write_content(format!("blobs/sha256/{}", sha256(&layer)), &layer[..KIB]);
    let entry = |manifest: &str, name: &str| {
        let mut entry = named(manifest.as_bytes());
        entry["mediaType"] = json!(manifest_type);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entry
    };
    cache.write_index(&[entry(&good, "good"), entry(&bad, "bad")]);
    let quick = cache.run("cache-verify", &["--quick"]);
    assert_eq!(quick.exit, 3, "the size in the manifest tells: {}", quick.block());
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert!(ran.stderr.contains("note: removed 1 image from `[TMP]/oci/index.json`"), "{}", ran.stderr);
    assert!(!truncated.exists());
    assert_eq!(cache.image_names(), ["good"]);
    assert_eq!(fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count(), 3);
}

#[test]
fn an_entry_without_a_manifest_goes_and_sizes_in_the_index_are_compared() {
    let cache = Cache::layout();
    let manifest = b"{\"schemaVersion\":2,\"manifests\":[]}".repeat(200);
    let digest = sha256(&manifest);
    let path = cache.write_content(format!("blobs/sha256/{digest}"), &manifest);
    let entry = |digest: &str, size: usize| json!({"mediaType": "x/y", "digest": format!("sha256:{digest}"), "size": size});
    cache.write_index(&[entry(&"0".repeat(64), 7), entry(&digest, manifest.len())]);
    for (command, arguments) in [("cache-verify", &["--prune"][..]), ("cache-prune", &["--corrupt"])] {
        let ran = cache.run(command, arguments);
        assert_eq!(ran.exit, 0, "nothing is corrupt: {}", ran.block());
    }
    // A quick check also compares the size in the index itself.
    fs::write(&path, &manifest[..5000]).unwrap();
    cache.write_index(&[entry(&digest, manifest.len())]);
    let quick = cache.run("cache-verify", &["--quick"]);
    assert_eq!(quick.exit, 3, "{}", quick.block());
    let healed = cache.run("cache-verify", &["--prune"]);
    assert_eq!(healed.exit, 0, "{}", healed.block());
}

#[test]
fn a_quick_check_says_that_it_is_one() {
    let cache = Cache::new();
    write_intact(&cache, 1, 10 * KIB);
    // Compressed content without its end, so without its trailer.
    let whole = compressed(5_000_000);
    cache.write_content(format!("sha256:{}", sha256(&whole)), &whole[..whole.len() - 1000]);
    let other = compressed(4_000_000);
    cache.write_content(format!("sha256:{}", sha256(&other)), &other);
    cache.write(nested(9), 0);
    assert_snapshot!(cache.run("cache-verify", &["--quick"]).block(), @"
    exit: 3
    --- stdout
    quickly checked 17.6 KiB across 4 blob(s) in [TMP]/oci: 2 corrupt
    --- stderr
    corrupt `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000009` (0 B): expected sha256:0000000000000000000000000000000000000000000000000000000000000009, found sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    corrupt `[TMP]/oci/sha256:62d4fd268d49a5337659a2637b542a73b0bc2b7e7c09e6982af304352a6caee2` (3.8 KiB): expected sha256:62d4fd268d49a5337659a2637b542a73b0bc2b7e7c09e6982af304352a6caee2, found sha256:ab6810779a234439acb7dfe4857ca768a50e6a72f4f53f5e1f2900c723fa39b2
    note: quick check: hashed only small blobs and those that look truncated
    [EOF]
    ");
    assert_eq!(cache.run("cache-verify", &["--quick", "--prune"]).exit, 0);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 3);
}

/// A gzip file of zeros. No part of its content can be mistaken for its trailer.
fn compressed(size: usize) -> Vec<u8> {
    let script = format!("head -c {size} /dev/zero | gzip -n");
    Command::new("sh").args(["-c", &script]).output().unwrap().stdout
}

#[test]
fn reading_leaves_access_times_and_the_page_cache_alone() {
    // Not in /tmp, which may be a tmpfs: nothing can be dropped from its page cache.
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let cache = Cache { base };
    fs::create_dir(cache.path()).unwrap();
    let cold = write_intact(&cache, 1, 8 << 20);
    let warm = write_intact(&cache, 2, 8 << 20);
    let run = |program: &str, arguments: &[&str], path: &Path| {
        let output = Command::new(program).args(arguments).arg(path).output().unwrap();
        assert!(output.status.success(), "{program} failed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let cached = |path: &Path| run("fincore", &["--bytes", "--noheadings", "--output", "RES"], path);
    run("sync", &[], &cold);
    run(
        "dd",
        &["of=/dev/null", "iflag=nocache", "count=0", "status=none"],
        Path::new(&format!("if={}", cold.display())),
    );
    let _ = fs::read(&warm).unwrap();
    let accessed = || [&cold, &warm].map(|path| fs::metadata(path).unwrap().accessed().unwrap());
    // `fincore` changes the access times, so the page cache is checked first.
    let residence = [cached(&cold), cached(&warm)];
    let times = accessed();
    assert_eq!(cache.run("cache-verify", &["--io-idle"]).exit, 0);
    assert_eq!(accessed(), times);
    assert_eq!([cached(&cold), cached(&warm)], residence);
    if needs::unless(residence[0] != residence[1], "a disk under /var/tmp") {
        assert_eq!(residence, ["0".to_owned(), (8usize << 20).to_string()]);
    }
}

#[test]
fn an_empty_and_a_missing_cache_are_fine() {
    assert_eq!(Cache::new().run("cache-verify", &["--prune"]).exit, 0);
    assert_eq!(
        Cache::missing().run("cache-verify", &[]).stdout,
        "verified 0 B across 0 blob(s) in [TMP]/oci: 0 corrupt\n"
    );
}

#[test]
fn the_idle_priority_ends_before_anything_is_removed() {
    let cache = Cache::new();
    set_age(&write_truncated(&cache, 1, KIB), Duration::ZERO);
    let mut program = Command::new("ionice");
    program.args(["-c", "2", "-n", "7"]).arg(env!("CARGO_BIN_EXE_xtask"));
    program.args(["cache-verify", "--prune", "--io-idle", "--cache-dir"]).arg(cache.path());
    let mut verify = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::null()));
    // Before it removes a young blob, it watches the cache, for at least half a second.
    while !support::has_open(&verify, Path::new("anon_inode:inotify")) {
        assert_eq!(verify.try_wait().unwrap(), None, "it ended without a watch");
        sleep(Duration::from_millis(1));
    }
    let priority = Command::new("ionice").args(["-p", &verify.id().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8(priority.stdout).unwrap(), "best-effort: prio 7\n");
    let ran = Ran::from(&verify.wait_with_output().unwrap(), cache.base.path());
    assert_eq!((ran.exit, fs::read_dir(cache.path()).unwrap().count()), (0, 0), "{}", ran.block());
}
