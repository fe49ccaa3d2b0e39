//! Plans on stdout, and plans that nobody else may have written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::{Cache, KIB, Ran, gone, needs, spawn, xtask};

/// A plan to remove everything, as a file beside the cache.
fn saved(cache: &Cache) -> PathBuf {
    let path = cache.base.path().join("plan");
    let ran = cache.prune(&["-n", "-q", "--save-plan", path.to_str().unwrap()]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    path
}

#[test]
fn a_hyphen_saves_the_plan_to_stdout() {
    let cache = Cache::flat(2, KIB);
    let before = cache.tree();
    let mut program = xtask();
    program.args(["cache-prune", "-n", "--save-plan", "-", "--cache-dir"]).arg(cache.path());
    let ran = Ran::of(program.current_dir(cache.base.path()), cache.base.path());
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(ran.json()["format"], "oci-cache prune plan");
    assert_eq!(ran.stderr, "would free 2.0 KiB across 2 blob(s) in [TMP]/oci\n");
    assert_eq!(cache.tree(), before, "no file has the name `-`");
    // The result as JSON goes to stderr too.
    let ran = cache.prune(&["-n", "-q", "--save-plan", "-", "--format", "json"]);
    assert_eq!(ran.json()["entries"].as_array().map(Vec::len), Some(2));
    let result: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(result["blobs_freed"], 2);
    // The plan can be carried out.
    let plan = cache.base.path().join("plan");
    fs::write(&plan, ran.stdout.replace("[TMP]", cache.base.path().to_str().unwrap())).unwrap();
    fs::set_permissions(&plan, Permissions::from_mode(0o600)).unwrap();
    let ran = cache.prune(&["-q", "--from-plan", plan.to_str().unwrap()]);
    assert_eq!(ran.stdout, "freed 2.0 KiB across 2 blob(s) in [TMP]/oci\n", "{}", ran.block());
}

#[test]
fn a_plan_that_cannot_be_written_to_stdout_is_an_error() {
    let cache = Cache::flat(1, KIB);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut program = xtask();
    program.args(["cache-prune", "-n", "--save-plan", "-", "--cache-dir"]).arg(cache.path());
    let child = spawn(program.stdout(full()).stderr(Stdio::piped()));
    let ran = Ran::from(&child.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(ran.exit, 1, "{}", ran.block());
    assert!(ran.stderr.contains("error: write the plan to stdout: No space left"), "{}", ran.block());
}

#[test]
fn a_plan_that_others_can_write_is_refused() {
    let cache = Cache::flat(1, KIB);
    let plan = saved(&cache);
    let path = plan.to_str().unwrap();
    let before = cache.tree();
    for mode in [0o664, 0o646, 0o620, 0o602] {
        fs::set_permissions(&plan, Permissions::from_mode(mode)).unwrap();
        let ran = cache.prune(&["--from-plan", path]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{mode:o} {}", ran.block());
        assert!(ran.stderr.contains("run `chmod go-w [TMP]/plan`"), "{mode:o} {}", ran.block());
    }
    fs::set_permissions(&plan, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(cache.tree(), before);
    // A link to it is as good as the file: what counts is the file that was opened.
    let link = cache.base.path().join("link");
    symlink(&plan, &link).unwrap();
    let before = cache.tree();
    let ran = cache.prune(&["--from-plan", link.to_str().unwrap()]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(gone(&before, &cache.tree()).len(), 1);
}

#[test]
fn a_plan_of_another_user_is_refused() {
    const OTHER: u32 = 4711;
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(1, KIB);
    let plan = saved(&cache);
    chown(&plan, Some(OTHER), None).unwrap();
    let before = cache.tree();
    let ran = cache.prune(&["--from-plan", plan.to_str().unwrap()]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
    assert!(ran.stderr.contains("it belongs to user 4711, but only a plan of your own"), "{}", ran.block());
    assert_eq!(cache.tree(), before);
    // The other user may carry it out, and also a plan of root.
    for owner in [OTHER, 0] {
        chown(&plan, Some(owner), None).unwrap();
        chown(cache.base.path(), Some(OTHER), None).unwrap();
        chown(cache.path(), Some(OTHER), None).unwrap();
        let mut program = Command::new("setpriv");
        program.args(["--reuid=4711", "--clear-groups", env!("CARGO_BIN_EXE_xtask"), "cache-prune", "-n"]);
        program.arg("--from-plan").arg(&plan).arg("--cache-dir").arg(cache.path());
        let ran = Ran::of(&mut program, cache.base.path());
        if !needs::unless(!matches!(ran.exit, 126 | 127), "a workspace that other users can read") {
            return;
        }
        assert_eq!(ran.exit, 0, "{}", ran.block());
    }
}

#[test]
fn a_plan_is_read_before_the_lock_is_taken() {
    let cache = Cache::flat(1, KIB);
    let plan = saved(&cache);
    let lock = fs::File::open(cache.path()).unwrap();
    lock.lock().unwrap();
    let carry_out = || cache.prune(&["--wait-timeout", "0s", "--from-plan", plan.to_str().unwrap()]);
    let ran = carry_out();
    assert_eq!(ran.exit, 1, "{}", ran.block());
    assert!(ran.stderr.contains("still holds the lock"), "{}", ran.block());
    // What is wrong with the plan is told without the lock.
    let text = fs::read_to_string(&plan).unwrap();
    for (content, mode, why) in [
        (text.clone(), 0o622, "other users can write it"),
        ("{".to_owned(), 0o600, "it is not a saved plan, or it is damaged"),
        (text.replace("\"inode\":", "\"inode\":1"), 0o600, "it was made for `[TMP]/oci`, but"),
    ] {
        fs::write(&plan, content).unwrap();
        fs::set_permissions(&plan, Permissions::from_mode(mode)).unwrap();
        let ran = carry_out();
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{}", ran.block());
    }
}

#[test]
fn only_a_regular_file_is_read_as_a_plan() {
    let cache = Cache::flat(1, KIB);
    let fifo = cache.base.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = cache.tree();
    let base = cache.base.path().to_str().unwrap().to_owned();
    for path in [fifo.to_str().unwrap(), &base, "/dev/null", "/dev/stdin"] {
        let ran = cache.prune(&["--from-plan", path]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{path} {}", ran.block());
        assert!(ran.stderr.contains("it is not a regular file: save the plan as a file"), "{}", ran.block());
    }
    assert_eq!(cache.tree(), before);
}
