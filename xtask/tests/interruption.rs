//! What a run says that a signal stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use support::{Cache, KIB, Ran, flat, set_age};

/// Starts a command, and interrupts it once `is_ready` and a moment have passed.
fn interrupted(cache: &Cache, command: &str, arguments: &[&str], is_ready: impl Fn(&Cache)) -> Ran {
    let mut program = support::xtask();
    program.args([command, "--cache-dir"]).arg(cache.path()).args(arguments);
    let child = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
    is_ready(cache);
    sleep(Duration::from_millis(100));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    Ran::from(&child.wait_with_output().unwrap(), cache.base.path())
}

/// A cache whose verification takes minutes.
fn large() -> Cache {
    let cache = Cache::new();
    for number in 0..4 {
        File::create(cache.path().join(flat(number))).unwrap().set_len(64 << 30).unwrap();
    }
    cache
}

/// Another process that holds the cache's lock.
fn lock(cache: &Cache) -> Child {
    let lock =
        Command::new("flock").arg("--no-fork").arg(cache.path()).args(["sleep", "60"]).spawn().unwrap();
    cache.wait_until_locked();
    lock
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_prune_says_how_far_it_came() {
    // It waits for half a second, because the blobs are fresh.
    let cache = Cache::flat(3, KIB);
    (1..=3).for_each(|number| set_age(&cache.path().join(flat(number)), Duration::ZERO));
    let ran = interrupted(&cache, "cache-prune", &["--format", "json"], Cache::wait_until_locked);
    let object = ran.json();
    assert_eq!((ran.exit, &object["interrupted"]), (130, &json!(true)), "{}", ran.block());
    assert_eq!((&object["blobs_freed"], &object["blobs_planned"]), (&json!(0), &json!(3)));
    let ran = interrupted(&cache, "cache-prune", &[], Cache::wait_until_locked);
    assert_eq!(ran.stdout, "freed 0 B across 0 blob(s) in [TMP]/oci (interrupted: 0 of 3 blob(s))\n");
    assert_eq!(cache.prune(&[]).stdout, "freed 3.0 KiB across 3 blob(s) in [TMP]/oci\n");
}

#[test]
fn a_terminal_that_hangs_up_twice_stops_a_prune_once() {
    support::let_children_heed_hangups();
    // So does processor time that is used up, with every further second of it.
    for (signal, exit) in [("-HUP", 129), ("-XCPU", 152)] {
        let cache = large();
        let mut program = support::xtask();
        program.args(["cache-verify", "--cache-dir"]).arg(cache.path());
        let child = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
        sleep(Duration::from_millis(200));
        let pid = child.id().to_string();
        for _ in 0..2 {
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        }
        let ran = Ran::from(&child.wait_with_output().unwrap(), cache.base.path());
        assert_eq!(ran.exit, exit, "{}", ran.block());
        assert!(ran.stdout.ends_with(" (interrupted: 0 of 4 blob(s))\n"), "{}", ran.block());
    }
}

#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    // It waits for half a second, because one blob is fresh.
    let cache = Cache::flat(3, KIB);
    set_age(&cache.path().join(flat(1)), Duration::ZERO);
    let mut program = Command::new("nohup");
    program.arg(support::xtask().get_program()).args(["cache-prune", "-q", "--cache-dir"]).arg(cache.path());
    let child = support::spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
    cache.wait_until_locked();
    sleep(Duration::from_millis(50));
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::from(&child.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(ran.stdout, "freed 3.0 KiB across 3 blob(s) in [TMP]/oci\n");
}

#[test]
fn a_verification_says_how_far_it_came() {
    let moment = |_: &Cache| sleep(Duration::from_millis(100));
    let ran = interrupted(&large(), "cache-verify", &[], moment);
    let line = "verified 0 B across 0 blob(s) in [TMP]/oci: 0 corrupt (interrupted: 0 of 4 blob(s))\n";
    assert_eq!((ran.exit, ran.stdout.as_str()), (130, line), "{}", ran.block());
    let ran = interrupted(&large(), "cache-verify", &["--format", "json"], moment);
    assert_eq!((ran.exit, &ran.json()["interrupted"]), (130, &json!(true)), "{}", ran.block());
}

#[test]
fn a_dry_run_that_looks_for_corrupt_blobs_says_that_it_was_stopped() {
    let moment = |_: &Cache| sleep(Duration::from_millis(100));
    let ran = interrupted(&large(), "cache-prune", &["--corrupt", "--dry-run"], moment);
    let line = "would free 0 B across 0 blob(s) in [TMP]/oci (interrupted)\n";
    assert_eq!((ran.exit, ran.stdout.as_str()), (130, line), "{}", ran.block());
}

#[test]
fn who_waits_for_the_lock_in_vain_says_so_too() {
    let cache = Cache::flat(2, KIB);
    let lock = lock(&cache);
    let before = cache.tree();
    let moment = |_: &Cache| sleep(Duration::from_millis(200));
    for (command, arguments) in [("cache-prune", &[][..]), ("cache-verify", &["--prune"])] {
        let ran = interrupted(&cache, command, arguments, moment);
        assert_eq!((ran.exit, ran.stdout.ends_with(" (interrupted)\n")), (130, true), "{}", ran.block());
        let ran = interrupted(&cache, command, &[arguments, &["--format", "json"]].concat(), moment);
        assert_eq!((ran.exit, &ran.json()["interrupted"]), (130, &json!(true)), "{}", ran.block());
    }
    end(lock);
    assert_eq!(cache.tree(), before);
}
