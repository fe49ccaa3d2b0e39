//! Goals: what counts as used, what brings a goal nearer, and what a prune says of a goal that it misses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::time::Duration;

use serde_json::{Value, json};
use support::image::named;
use support::{Cache, KIB, flat, hex, nested, set_age};

const DAY: Duration = Duration::from_secs(24 * 3600);
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Makes the blobs older the smaller their number is.
fn age_by_number(cache: &Cache, numbers: std::ops::RangeInclusive<u8>) {
    for number in numbers {
        set_age(&cache.path().join(flat(number)), DAY * (200 - u32::from(number)));
    }
}

fn goal(ran: &support::Ran) -> Value {
    ran.json()["goals"][0].clone()
}

#[test]
fn a_file_with_two_names_counts_once_and_goes_with_both() {
    let cache = Cache::new();
    for number in 1..=4 {
        let path = cache.write(flat(number), 100 * KIB);
        let other = cache.path().join(nested(number));
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::hard_link(path, other).unwrap();
    }
    age_by_number(&cache, 1..=4);
    let json = |arguments: &[&str]| cache.prune(&[arguments, &["--format", "json"]].concat());
    let ran = json(&["--max-used-space", "400KiB"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(0)), "{}", ran.block());
    assert_eq!(ran.json()["used_bytes"], 400 * KIB);
    let ran = json(&["--max-used-space", "399KiB"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(2)), "{}", ran.block());
    assert_eq!(
        goal(&ran),
        json!({"goal": "max_used_space", "wanted": 399 * KIB, "reached": 300 * KIB, "met": true})
    );
    assert!(!cache.path().join(flat(1)).exists() && !cache.path().join(nested(1)).exists());
}

#[test]
fn a_name_whose_file_stays_is_not_taken() {
    let cache = Cache::flat(3, 100 * KIB);
    age_by_number(&cache, 1..=3);
    // The other name is pinned, so the file would stay.
    let pinned = cache.path().join(nested(9));
    fs::create_dir_all(pinned.parent().unwrap()).unwrap();
    fs::hard_link(cache.path().join(flat(1)), &pinned).unwrap();
    let ran = cache.prune(&["--max-used-space", "200KiB", "--keep", &hex(9)]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (0, "freed 100.0 KiB across 1 blob(s) in [TMP]/oci\n"),
        "{}",
        ran.block()
    );
    assert!(ran.stderr.contains("note: kept 1 blob, 100.0 KiB: would free nothing\n"), "{}", ran.stderr);
    assert!(cache.path().join(flat(1)).exists() && !cache.path().join(flat(2)).exists());
}

#[test]
fn a_last_round_with_nothing_left_to_remove_is_no_sign_of_missing_landlock() {
    let cache = Cache::flat(3, 100 * KIB);
    age_by_number(&cache, 1..=3);
    let _open = File::open(cache.path().join(flat(2))).unwrap();
    let ran = cache.prune(&["-v", "--max-used-space", "0"]);
    assert_eq!(ran.exit, 3, "{}", ran.block());
    assert!(
        ran.stderr.contains("note: confined by Landlock to removals beneath the cache\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_sparse_download_uses_nothing() {
    let cache = Cache::flat(4, KIB);
    let download = File::create(cache.path().join("oci-put-blob1")).unwrap();
    download.set_len(60 << 30).unwrap();
    let ran = cache.prune(&["--older-than", "0s", "--max-used-space", "50GiB"]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (0, "freed 0 B across 0 blob(s) in [TMP]/oci\n"),
        "{}",
        ran.block()
    );
    drop(download);
}

#[test]
fn sums_of_huge_sparse_files_saturate() {
    // Not every file system has files of this size.
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = base.path().join("oci");
    fs::create_dir(&path).unwrap();
    for number in 1..=3 {
        let file = File::create(path.join(flat(number))).unwrap();
        file.set_len(i64::MAX.unsigned_abs()).unwrap();
        set_age(&path.join(flat(number)), DAY);
    }
    let mut program = support::xtask();
    program.args(["cache-prune", "--format", "json", "--cache-dir"]).arg(&path);
    let ran = support::Ran::of(&mut program, base.path());
    assert_eq!((ran.exit, &ran.json()["bytes_freed"]), (0, &json!(u64::MAX)), "{}", ran.block());
    assert_eq!(ran.json()["disk_bytes_freed"], 0);
}

#[test]
fn those_in_use_are_passed_over() {
    let cache = Cache::flat(100, KIB);
    age_by_number(&cache, 1..=100);
    let open: Vec<File> =
        (1..=40).map(|number| File::open(cache.path().join(flat(number))).unwrap()).collect();
    let ran = cache.prune(&["--max-used-space", "99KiB", "--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(1)), "{}", ran.block());
    assert!(!cache.path().join(flat(41)).exists() && cache.path().join(flat(42)).exists());
    let kept = &ran.json()["kept"];
    assert_eq!((&kept["in_use"]["blobs"], &kept["goal_met"]["blobs"]), (&json!(40), &json!(59)));
    // If nothing more may go, all the rest goes, and the goal is said to be missed.
    let ran = cache.prune(&["--max-used-space", "39KiB", "--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (3, &json!(59)), "{}", ran.block());
    assert_eq!(
        goal(&ran),
        json!({"goal": "max_used_space", "wanted": 39 * KIB, "reached": 40 * KIB, "met": false})
    );
    assert!(ran.stderr.contains("note: goal not met: 40.0 KiB used, 39KiB wanted\n"), "{}", ran.stderr);
    drop(open);
}

#[test]
fn a_dry_run_tells_a_goal_that_would_be_missed() {
    let cache = Cache::flat(2, KIB);
    let ran = cache.prune(&["-n", "--max-used-space", "1KiB", "--keep", &hex(1), "--keep", &hex(2)]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (3, "would free 0 B across 0 blob(s) in [TMP]/oci\n"),
        "{}",
        ran.block()
    );
    assert!(ran.stderr.contains("goal not met: 2.0 KiB used, 1KiB wanted"), "{}", ran.stderr);
    let ran = cache.prune(&["-n", "--max-used-space", "1KiB", "--format", "json"]);
    assert_eq!((ran.exit, goal(&ran)["reached"].clone()), (0, json!(KIB)), "{}", ran.block());
}

/// What has other names elsewhere frees nothing, so others go for a goal of free space.
#[test]
fn for_free_space_links_outside_are_passed_over() {
    // On a file system that gives room back at once.
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = base.path().join("oci");
    fs::create_dir(&path).unwrap();
    for number in 1..=4 {
        fs::write(path.join(flat(number)), vec![1; 16 << 20]).unwrap();
        set_age(&path.join(flat(number)), DAY * (9 - u32::from(number)));
    }
    fs::hard_link(path.join(flat(1)), base.path().join("elsewhere")).unwrap();
    let free = |more: &str| {
        let stat =
            support::xtask().args(["cache-usage", "--format", "json", "--cache-dir"]).arg(&path).output();
        let usage: Value = serde_json::from_slice(&stat.unwrap().stdout).unwrap();
        let wanted = usage["available_bytes"].as_u64().unwrap() + (24 << 20);
        let mut program = support::xtask();
        program.args([
            "cache-prune",
            "--format",
            "json",
            "--min-free-space",
            &format!("{wanted}B"),
            "--cache-dir",
        ]);
        program.arg(&path).args(more.split_whitespace());
        support::Ran::of(&mut program, base.path())
    };
    let ran = free("--dry-run");
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(2)), "{}", ran.block());
    assert_eq!(ran.json()["kept"]["frees_nothing"]["blobs"], 1);
    let ran = free("");
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(2)), "{}", ran.block());
    let left = [1, 2, 3, 4].map(|number| path.join(flat(number)).exists());
    assert_eq!(left, [true, false, false, true]);
}

/// In a layout, further rounds know what the first one took out of the index.
#[test]
fn images_in_use_are_passed_over() {
    let cache = Cache::layout();
    let shared = cache.add(LAYER, &[9; 100 * KIB]);
    let mut layers = Vec::new();
    let mut entries = Vec::new();
    for number in 1..=6u8 {
        let config = cache.add(CONFIG, format!(r#"{{"number":{number}}}"#).as_bytes());
        let own = cache.add(LAYER, &[number; 100 * KIB]);
        let manifest = cache.add_manifest(&config, &[shared.clone(), own.clone()]);
        for blob in [&config, &own, &manifest] {
            set_age(&cache.path().join(support::image::path_of(blob)), DAY * (90 - u32::from(number)));
        }
        layers.push(cache.path().join(support::image::path_of(&own)));
        entries.push(named(manifest, &format!("app:{number}")));
    }
    set_age(&cache.path().join(support::image::path_of(&shared)), 99 * DAY);
    cache.write_index(&entries);
    let _open = [File::open(&layers[0]).unwrap(), File::open(&layers[2]).unwrap()];
    let ran = cache.prune(&["--max-used-space", "510KiB", "--format", "json"]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(cache.image_names(), ["app:1", "app:3", "app:5", "app:6"]);
    let exist: Vec<bool> = layers.iter().map(|path| path.exists()).collect();
    assert_eq!(exist, [true, false, true, false, true, true]);
    // The open ones stay, whatever the goal.
    let ran = cache.prune(&["--max-used-space", "0", "--format", "json"]);
    assert_eq!(
        (ran.exit, cache.image_names()),
        (3, vec!["app:1".to_owned(), "app:3".to_owned()]),
        "{}",
        ran.block()
    );
    let exist: Vec<bool> = layers.iter().map(|path| path.exists()).collect();
    assert_eq!(exist, [true, false, true, false, false, false]);
}
