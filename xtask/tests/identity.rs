//! A plan made days ago means the files that it was made for, and no others in their place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use support::{Cache, KIB, flat, gone, needs};

/// A plan to remove everything, as a file beside the cache, and its content.
fn saved(cache: &Cache) -> (PathBuf, Value) {
    let path = cache.base.path().join("plan");
    let ran = cache.prune(&["-n", "-q", "--save-plan", path.to_str().unwrap()]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    let plan = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (path, plan)
}

/// Replaces the files of these names by new ones of the same size and times, and makes the plan list their inode
/// numbers: some file systems give new files the numbers of old ones.
fn make_anew(cache: &Cache, names: &[&str], plan: &mut Value) {
    // The kernel's clock ticks up to every ten milliseconds.
    thread::sleep(Duration::from_millis(20));
    for name in names {
        let path = cache.path().join(name);
        let old = fs::metadata(&path).unwrap();
        fs::rename(&path, cache.base.path().join("aside")).unwrap();
        cache.write(name, KIB);
        let times =
            fs::FileTimes::new().set_accessed(old.accessed().unwrap()).set_modified(old.modified().unwrap());
        fs::File::open(&path).unwrap().set_times(times).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let entries = plan["entries"].as_array_mut().unwrap();
        let entry = entries.iter_mut().find(|entry| entry["path"] == **name).unwrap();
        entry["inode"] = inode.into();
    }
}

fn write(path: &Path, plan: &Value) {
    fs::write(path, plan.to_string()).unwrap();
}

#[test]
fn a_file_made_anew_in_the_place_of_a_listed_one_stays() {
    let cache = Cache::flat(2, KIB);
    cache.write("oci-put-blob1", KIB);
    let (path, mut plan) = saved(&cache);
    let is_told = !plan["entries"][0]["born"].is_null();
    if !needs::unless(is_told, "a file system that keeps times of birth") {
        return;
    }
    make_anew(&cache, &[&flat(1), "oci-put-blob1"], &mut plan);
    write(&path, &plan);
    let before = cache.tree();
    let report = cache.prune(&["--format", "json", "--from-plan", path.to_str().unwrap()]).json();
    let counts = [&report["blobs_freed"], &report["kept"]["changed"]["blobs"]].map(Value::as_u64);
    assert_eq!(counts, [Some(1), Some(2)], "{report}");
    assert_eq!(gone(&before, &cache.tree()), [format!("oci/{}", flat(2))]);
}

#[test]
fn a_plan_holds_although_change_times_move() {
    let cache = Cache::flat(3, KIB);
    let (path, _) = saved(&cache);
    thread::sleep(Duration::from_millis(20));
    let blob = |number| cache.path().join(flat(number));
    fs::set_permissions(blob(1), Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(blob(2), cache.base.path().join("other")).unwrap();
    let ran = cache.prune(&["-q", "--from-plan", path.to_str().unwrap()]);
    assert_eq!(ran.stdout, "freed 3.0 KiB across 3 blob(s) in [TMP]/oci\n", "{}", ran.block());
}

#[test]
fn a_plan_of_the_first_version_has_no_birth_times_and_holds() {
    let cache = Cache::flat(1, KIB);
    let (path, mut plan) = saved(&cache);
    assert_eq!(plan["version"], 2);
    let born = plan["entries"][0].as_object_mut().unwrap().remove("born");
    let now = fs::metadata(&path).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
    assert!(born.is_none_or(|born| u128::from(born.as_u64().unwrap()) <= now.as_nanos()));
    plan["version"] = 1.into();
    write(&path, &plan);
    let ran = cache.prune(&["-q", "--from-plan", path.to_str().unwrap()]);
    assert_eq!(ran.stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n", "{}", ran.block());
}
