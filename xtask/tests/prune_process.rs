//! `cache-prune` and its environment: locks, signals, closed and full outputs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::{Cache, KIB, Ran, flat, set_age, xtask};

/// Starts a prune that runs for at least half a second, because one blob is fresh.
fn start_slow(cache: &Cache) -> Child {
    let fresh = cache.write(flat(200), KIB);
    set_age(&fresh, Duration::ZERO);
    let mut program = xtask();
    program
        .args(["cache-prune", "--cache-dir"])
        .arg(cache.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    support::spawn(&mut program)
}

#[test]
fn prunes_of_one_cache_take_turns() {
    let cache = Cache::flat(2, KIB);
    let first = start_slow(&cache);
    cache.wait_until_locked();
    let second = cache.prune(&[]);
    let first = Ran::from(&first.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(first.stdout, "freed 3.0 KiB across 3 blob(s) in [TMP]/oci\n");
    assert_eq!(second.stdout, "freed 0 B across 0 blob(s) in [TMP]/oci\n");
    assert_eq!(second.stderr, "waiting up to 5m: another prune or a puller holds the lock of `[TMP]/oci`\n");
}

#[test]
fn a_prune_that_waits_out_an_aside_prune_finds_the_new_cache() {
    let cache = Cache::flat(1, KIB);
    let lock =
        Command::new("flock").arg("--no-fork").arg(cache.path()).args(["sleep", "60"]).spawn().unwrap();
    cache.wait_until_locked();
    let mut waiting = xtask();
    waiting.args(["cache-prune", "-q", "--cache-dir"]).arg(cache.path()).stdout(Stdio::piped());
    let waiting = support::spawn(&mut waiting);
    sleep(Duration::from_millis(200));
    fs::rename(cache.path(), cache.base.path().join("old")).unwrap();
    cache.write(flat(2), 2 * KIB);
    end(lock);
    let output = Ran::from(&waiting.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(output.stdout, "freed 2.0 KiB across 1 blob(s) in [TMP]/oci\n");
    assert!(cache.base.path().join("old").join(flat(1)).exists());
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_lock_that_is_never_freed_ends_the_wait() {
    let cache = Cache::flat(1, KIB);
    let lock = Command::new("flock")
        .args(["--no-fork", "--shared"])
        .arg(cache.path())
        .args(["sleep", "60"])
        .spawn()
        .unwrap();
    cache.wait_until_locked();
    let before = cache.tree();
    let ran = cache.prune(&["--wait-timeout", "100ms"]);
    let dry_run = cache.prune(&["--dry-run"]);
    let pid = format!("(pid {})", lock.id());
    end(lock);
    let user =
        format!(" of user {}", std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()));
    insta::assert_snapshot!(ran.block().replace(&pid, "(pid [PID])").replace(&user, " of user [USER]"), @"
    exit: 1
    --- stdout
    --- stderr
    waiting up to 100ms: another prune or a puller holds the lock of `[TMP]/oci`
    error: lock oci cache `[TMP]/oci`: another process still holds the lock after 100ms; sleep (pid [PID]) of user [USER] has the directory open: run the prune again once it has ended
    [EOF]
    ");
    assert_eq!((cache.tree(), dry_run.exit), (before, 0), "a dry run waits for nobody");
}

#[test]
fn signals_end_the_prune_with_its_totals() {
    support::let_children_heed_hangups();
    for (signal, exit) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129), ("-XCPU", 152)] {
        let cache = Cache::flat(3, KIB);
        (1..=3).for_each(|number| set_age(&cache.path().join(flat(number)), Duration::ZERO));
        let prune = start_slow(&cache);
        cache.wait_until_locked();
        sleep(Duration::from_millis(50));
        let pid = prune.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
        let line = "freed 0 B across 0 blob(s) in [TMP]/oci (interrupted: 0 of 4 blob(s))\n";
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, line), "{}", ran.block());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 4);
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let cache = Cache::flat(3, KIB);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = xtask();
    program.args(["cache-prune", "-v", "--cache-dir"]).arg(cache.path());
    let stderr = writer.try_clone().unwrap();
    let status = support::spawn(program.stdout(writer).stderr(stderr)).wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn a_full_output_is_told_and_the_prune_is_done() {
    let cache = Cache::flat(3, KIB);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut program = xtask();
    program.args(["cache-prune", "--cache-dir"]).arg(cache.path()).stdout(full()).stderr(Stdio::piped());
    let mut child = support::spawn(&mut program);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stderr, "error: write the result to stdout: No space left on device (os error 28)\n");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn closed_outputs_do_not_stop_the_prune() {
    let cache = Cache::flat(3, KIB);
    let script = "exec \"$0\" cache-prune -v --cache-dir \"$1\" >&- 2>&- <&-";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_xtask")).arg(cache.path());
    assert_eq!(support::spawn(&mut shell).wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn eight_prunes_at_once_free_each_blob_once() {
    let cache = Cache::flat(100, KIB);
    let prunes: Vec<Child> = (0..8)
        .map(|_| {
            let mut program = xtask();
            program.args(["cache-prune", "-q", "--format", "json", "--cache-dir"]).arg(cache.path());
            support::spawn(program.stdout(Stdio::piped()))
        })
        .collect();
    let mut freed = 0;
    for prune in prunes {
        let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
        assert_eq!(ran.exit, 0, "{}", ran.block());
        freed += ran.json()["blobs_freed"].as_u64().unwrap();
    }
    assert_eq!(freed, 100);
}

#[test]
fn cache_dir_prints_the_directory() {
    let print = |arguments: &[&str], variable: &str| {
        let mut program = xtask();
        program.arg("cache-dir").args(arguments).env("BANGER_OCI_CACHE_DIR", variable);
        Ran::of(&mut program, std::path::Path::new("/nowhere")).stdout
    };
    assert_eq!(print(&["--cache-dir", "/a"], "/b"), "/a\n");
    assert_eq!(print(&[], "/b"), "/b\n");
}

#[test]
fn a_signal_during_the_wait_leaves_a_layout_as_it_is() {
    let cache = Cache::typical_layout();
    let before = cache.tree();
    let prune = cache.start_prune(&[]);
    let pid = prune.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
    assert_eq!((ran.exit, cache.tree()), (130, before));
}

#[test]
fn few_open_files_are_enough() {
    let cache = Cache::flat(200, 1100 * KIB);
    let script = "ulimit -n 20; exec \"$0\" cache-prune -q --cache-dir \"$1\"";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_xtask")).arg(cache.path());
    let ran = Ran::of(&mut shell, cache.base.path());
    assert_eq!((ran.exit, fs::read_dir(cache.path()).unwrap().count()), (0, 0), "{}", ran.block());
}

#[test]
fn where_no_index_can_be_written_only_what_needs_none_goes() {
    let cache = Cache::typical_layout();
    let unreferenced = support::hex(99);
    let expected: String =
        cache.tree().split_inclusive('\n').filter(|line| !line.contains(&unreferenced)).collect();
    let kept = format!("sha256:{}", support::hex(10));
    let script = "ulimit -f 0; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_xtask"));
    shell.args(["cache-prune", "-q", "--keep", &kept, "--cache-dir"]).arg(cache.path());
    let ran = Ran::of(&mut shell, cache.base.path());
    insta::assert_snapshot!(ran.block(), @"
    exit: 1
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    error: rewrite the index `[TMP]/oci/index.json`: File too large (os error 27)
    [EOF]
    ");
    assert_eq!(cache.tree(), expected, "no image goes, and no temporary file stays");
    let again = cache.prune(&["-q", "--keep", &kept]);
    assert_eq!((again.exit, cache.image_names()), (0, vec!["app:1".to_owned()]));
}
