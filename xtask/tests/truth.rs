//! Runs that say what is so, and reach the goals that they can reach, in caches that make it hard.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::image::{named, path_of};
use support::{Cache, KIB, Ran, flat, needs, set_age};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A flat cache in which a blob is the older the smaller its number is.
fn aged(blobs: u8) -> Cache {
    let cache = Cache::flat(blobs, 10 * KIB);
    for number in 1..=blobs {
        set_age(&cache.path().join(flat(number)), DAY * (200 - u32::from(number)));
    }
    cache
}

/// Gives files to another user, in a directory where each user removes only its own.
fn give_away(directory: &Path, files: &[String]) {
    let another = Some(1);
    fs::set_permissions(directory, Permissions::from_mode(0o1777)).unwrap();
    chown(directory, another, another).unwrap();
    for file in files {
        chown(directory.join(file), another, another).unwrap();
    }
}

/// Free space that is so much more than there is.
fn more_room(cache: &Path, bytes: u64) -> String {
    let usage = support::xtask()
        .args(["cache-usage", "--format", "json", "--cache-dir"])
        .arg(cache)
        .output()
        .unwrap();
    let usage: Value = serde_json::from_slice(&usage.stdout).unwrap();
    format!("{}B", usage["available_bytes"].as_u64().unwrap() + bytes)
}

fn same(dry: &Ran, real: &Ran) {
    let (dry_exit, real_exit) = (dry.exit, real.exit);
    for field in ["bytes_freed", "blobs_freed", "used_bytes", "goals", "failures_total"] {
        let (dry, real) = (dry.json()[field].clone(), real.json()[field].clone());
        assert_eq!((field, dry), (field, real));
    }
    assert_eq!(dry_exit, real_exit);
}

/// 40 blobs cannot go, 20 at a time.
#[test]
fn what_failed_in_several_rounds_is_added_up() {
    if !needs::root() {
        return;
    }
    let cache = aged(60);
    give_away(&cache.path(), &(1..=40).map(flat).collect::<Vec<_>>());
    let ran = cache.prune_unprivileged(&["--max-used-space", "400KiB", "--format", "json"]);
    let json = ran.json();
    assert_eq!((ran.exit, &json["blobs_freed"], &json["failures_total"]), (1, &json!(20), &json!(40)));
    assert_eq!(json["blobs_planned"], 60);
}

#[test]
fn a_dry_run_goes_on_past_what_it_knows_to_stay() {
    if !needs::root() {
        return;
    }
    let cache = aged(6);
    give_away(&cache.path(), &(1..=3).map(flat).collect::<Vec<_>>());
    let prune = |more: &[&str]| {
        let arguments = ["--max-used-space", "40KiB", "--format", "json"];
        cache.prune_unprivileged(&[&arguments, more].concat())
    };
    same(&prune(&["--dry-run"]), &prune(&[]));
}

/// An image that cannot go stays in the index, and the search for others does not empty it.
#[test]
fn images_that_cannot_go_stay_in_the_index() {
    if !needs::root() {
        return;
    }
    let cache = Cache::layout();
    let mut files = Vec::new();
    let mut entries = Vec::new();
    for number in 1..=4u8 {
        let config = cache.add(CONFIG, format!(r#"{{"number":{number}}}"#).as_bytes());
        let layer = cache.add(LAYER, &[number; 100 * KIB]);
        let manifest = cache.add_manifest(&config, std::slice::from_ref(&layer));
        for blob in [&config, &layer, &manifest] {
            set_age(&cache.path().join(path_of(blob)), DAY * (90 - u32::from(number)));
            files.push(path_of(blob).rsplit('/').next().unwrap().to_owned());
        }
        entries.push(named(manifest, &format!("app:{number}")));
    }
    cache.write_index(&entries);
    give_away(&cache.path().join("blobs/sha256"), &files);
    let ran = cache.prune_unprivileged(&["--max-used-space", "250KiB", "--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["bytes_freed"]), (1, &json!(0)), "{}", ran.block());
    assert_eq!(cache.image_names().len(), 4);
}

/// The prune's own removals are no sign of a pull.
#[test]
fn a_recent_download_is_no_pull() {
    if !needs::root() {
        return;
    }
    let cache = aged(3);
    set_age(&cache.path().join(flat(3)), 30 * MINUTE);
    set_age(&cache.write("oci-put-blob1", 1), 5 * MINUTE);
    give_away(&cache.path(), &[flat(1)]);
    let ran = cache.prune_unprivileged(&["--older-than", "10m", "--max-used-space", "15KiB"]);
    assert!(!cache.path().join(flat(3)).exists(), "{}", ran.block());
}

#[test]
fn a_recent_download_is_told_as_recent() {
    let cache = aged(2);
    set_age(&cache.write("oci-put-blob1", KIB), 5 * MINUTE);
    let prune = |more: &[&str]| {
        let arguments = ["--older-than", "1h", "--max-used-space", "0", "--format", "json"];
        cache.prune(&[&arguments, more].concat())
    };
    let kept = [prune(&["--dry-run"]), prune(&[])].map(|ran| ran.json()["kept"]["recent"]["blobs"].clone());
    assert_eq!(kept, [json!(1), json!(1)]);
}

#[test]
fn a_blob_and_a_download_of_one_file_go_together() {
    let cache = aged(1);
    fs::hard_link(cache.path().join(flat(1)), cache.path().join("oci-put-blob1")).unwrap();
    let ran = cache.prune(&["--max-used-space", "0"]);
    assert_eq!((ran.exit, cache.path().join(flat(1)).exists()), (0, false), "{}", ran.block());
}

#[test]
fn a_download_goes_though_its_other_name_went_first() {
    let cache = aged(1);
    fs::hard_link(cache.path().join(flat(1)), cache.path().join("oci-put-blob1")).unwrap();
    let dry = cache.prune(&["--dry-run", "--format", "json"]);
    same(&dry, &cache.prune(&["--format", "json"]));
}

/// An image's layer is also a blob of the flat cache, which is older.
#[test]
fn a_name_beside_an_image_goes_with_it() {
    let cache = Cache::layout();
    let config = cache.add(CONFIG, b"{}");
    let layer = cache.add(LAYER, &[1; 100 * KIB]);
    let manifest = cache.add_manifest(&config, std::slice::from_ref(&layer));
    fs::hard_link(cache.path().join(path_of(&layer)), cache.path().join(flat(1))).unwrap();
    set_age(&cache.path().join(flat(1)), 3 * DAY);
    cache.write_index(&[named(manifest, "app:1")]);
    let prune = |more: &[&str]| cache.prune(&[&["--max-used-space", "0", "--format", "json"], more].concat());
    same(&prune(&["--dry-run"]), &prune(&[]));
}

/// The images' own blobs have names elsewhere; the layer that they share has none.
#[test]
fn a_shared_layer_goes_with_the_last_of_its_images() {
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let cache = Cache { base };
    fs::create_dir(cache.path()).unwrap();
    cache.write_content("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let layer = cache.add(LAYER, &[1; 100 * KIB]);
    let mut entries = Vec::new();
    for number in 1..=2 {
        let config = cache.add(CONFIG, format!(r#"{{"number":{number}}}"#).as_bytes());
        let manifest = cache.add_manifest(&config, std::slice::from_ref(&layer));
        for blob in [&config, &manifest] {
            let elsewhere = path_of(blob).replace('/', "-");
            fs::hard_link(cache.path().join(path_of(blob)), cache.base.path().join(elsewhere)).unwrap();
        }
        entries.push(named(manifest, &format!("app:{number}")));
    }
    cache.write_index(&entries);
    let wanted = more_room(&cache.path(), 50 * KIB as u64);
    cache.prune(&["--min-free-space", &wanted]);
    assert!(!cache.path().join(path_of(&layer)).exists());
}

#[test]
fn what_a_leftover_frees_counts_for_free_space() {
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let cache = Cache { base };
    cache.write(flat(1), 100 * KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(2)), 16 << 20);
    let wanted = more_room(&cache.path(), 1 << 20);
    let ran = cache.prune(&["--dry-run", "--min-free-space", &wanted, "--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (0, &json!(1)), "{}", ran.block());
}

#[test]
fn a_goal_is_not_met_and_missed_at_once() {
    if !needs::root() {
        return;
    }
    let cache = aged(3);
    give_away(&cache.path(), &[flat(1)]);
    let ran = cache.prune_unprivileged(&["--corrupt", "--max-used-space", "20KiB"]);
    let (is_missed, is_met) = (ran.stderr.contains("goal not met"), ran.stderr.contains(": goal met"));
    assert!(!(is_missed && is_met), "{}", ran.block());
}

#[test]
fn an_entry_that_stays_aside_is_not_told_as_removed() {
    if !needs::chattr() {
        return;
    }
    let cache = aged(3);
    let chattr = |sign: &str, path: &Path| {
        let mut chattr = Command::new("chattr");
        chattr.arg(format!("{sign}i")).arg(path).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    assert!(chattr("+", &cache.path().join(flat(2))));
    let ran = cache.prune(&["--aside", "--format", "json", "-v"]);
    for entry in walkdir::WalkDir::new(cache.base.path()) {
        chattr("-", entry.unwrap().path());
    }
    let json = ran.json();
    let removed =
        json["entries"].as_array().unwrap().iter().filter(|entry| entry["fate"] == "removed").count();
    assert_eq!((removed, &json["blobs_freed"]), (2, &json!(2)));
}

#[test]
fn a_verification_that_is_stopped_while_it_waits_knows_its_cache() {
    let cache = aged(1);
    let mut held = Command::new("flock");
    let mut held = support::spawn(held.arg(cache.path()).args(["sleep", "5"]));
    cache.wait_until_locked();
    let mut verify = support::xtask();
    verify.args(["cache-verify", "--prune", "--format", "json", "--cache-dir"]).arg(cache.path());
    let verify = support::spawn(verify.stdout(Stdio::piped()));
    std::thread::sleep(Duration::from_millis(300));
    Command::new("kill").arg(verify.id().to_string()).status().unwrap();
    let ran = Ran::from(&verify.wait_with_output().unwrap(), cache.base.path());
    held.kill().unwrap();
    held.wait().unwrap();
    assert_eq!((ran.exit, &ran.json()["exists"]), (143, &json!(true)));
}

/// A saved plan keeps to the same rule: no entry leaves the index whose blobs cannot go.
#[test]
fn a_saved_plan_leaves_images_that_cannot_go_in_the_index() {
    let cache = Cache::typical_layout();
    let plan = cache.base.path().join("plan");
    let saved = cache.prune(&["-n", "--older-than", "0s", "--save-plan", plan.to_str().unwrap()]);
    assert_eq!(saved.exit, 0, "{}", saved.block());
    fs::set_permissions(cache.path().join("blobs/sha256"), Permissions::from_mode(0o555)).unwrap();
    let (before, names) = (cache.tree(), cache.image_names());
    let run =
        |more: &[&str]| cache.prune_unprivileged(&[&["--from-plan", plan.to_str().unwrap()], more].concat());
    let [dry_run, ran] = [run(&["--dry-run"]), run(&[])];
    assert_eq!((dry_run.exit, ran.exit, cache.tree()), (1, 1, before), "{}", ran.block());
    assert_eq!((cache.image_names(), &dry_run.stderr), (names, &ran.stderr));
}

/// The prune opens downloads, and what killed prunes left, before it removes images. That is no sign of a pull.
#[test]
fn what_it_opens_itself_is_no_pull() {
    let cache = Cache::typical_layout();
    cache.age(&[1, 2, 3, 4, 10, 11, 20, 21, 30, 40, 41, 99], 30 * MINUTE);
    set_age(&cache.write("oci-put-blob1", KIB), 30 * MINUTE);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(7)), KIB);
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["kept"]["spared"]["blobs"]), (0, &json!(0)), "{}", ran.block());
    assert!(cache.nested_blobs().is_empty() && ran.json()["pull"].is_null(), "{}", ran.block());
}

/// Neither does a prune of one image take an entry out of the index whose blobs cannot go.
#[test]
fn an_image_that_cannot_go_is_left_in_the_index() {
    let cache = Cache::typical_layout();
    fs::set_permissions(cache.path().join("blobs/sha256"), Permissions::from_mode(0o555)).unwrap();
    let before = cache.tree();
    let run = |more: &[&str]| cache.prune_unprivileged(&[&["--image", "app:1"], more].concat());
    let [dry_run, ran] = [run(&["--dry-run"]), run(&[])];
    assert_eq!((dry_run.exit, ran.exit, cache.tree()), (1, 1, before), "{}", ran.block());
    assert_eq!((cache.image_names().len(), &dry_run.stderr), (3, &ran.stderr), "{}", ran.block());
}
