//! The lock of a cache that a process holds who cannot write to it: no puller, so a prune in place goes on.
//!
//! Only root can hold a lock as another user, and see who does. Without root, a prune waits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Cache, KIB, Ran, flat, needs, spawn};

/// A process that holds the shared lock of a cache, until this is dropped.
struct Holder(Child);

impl Holder {
    /// A process of the test's own user, or of the user `nobody`.
    fn of(cache: &Cache, is_nobody: bool) -> Self {
        Self::running(cache, is_nobody, &["flock", "--no-fork", "--shared"], &["sleep", "60"])
    }

    fn running(cache: &Cache, is_nobody: bool, before: &[&str], after: &[&str]) -> Self {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let words = if is_nobody { [&nobody[..], before].concat() } else { before.to_vec() };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(cache.path()).args(after);
        let holder = Self(spawn(&mut command));
        cache.wait_until_locked();
        // It has called `execve` by now.
        std::thread::sleep(Duration::from_millis(100));
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A flat cache that everybody can read.
fn open_to_readers(blobs: u8) -> Cache {
    let cache = Cache::flat(blobs, KIB);
    for path in [cache.base.path(), &cache.path()] {
        set_mode(path, 0o755);
    }
    cache
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn prune(cache: &Cache, arguments: &[&str]) -> Ran {
    cache.prune(&[&["--wait-timeout", "100ms", "--watch-first"], arguments].concat())
}

#[test]
fn a_reader_who_holds_the_lock_does_not_hold_a_prune_off() {
    if !needs::root() {
        return;
    }
    let cache = open_to_readers(2);
    let holder = Holder::of(&cache, true);
    let preview = prune(&cache, &["--dry-run"]);
    assert_eq!(preview.exit, 0);
    let before = cache.tree();
    // It may hold the lock for a daemon that pulls, which only a watch would show.
    for flags in [&["--wait-timeout", "100ms", "--aside"][..], &["--wait-timeout", "100ms"]] {
        let waited = cache.prune(flags);
        assert_eq!((waited.exit, cache.tree()), (1, before.clone()), "{}", waited.block());
    }
    let ran = prune(&cache, &[]);
    let pid = holder.0.id();
    let note = format!(
        "note: sleep (pid {pid}) of user 65534 holds the cache's lock, but cannot write to the cache: goes on beside it, \
         after the watch\n"
    );
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, note.as_str()), "{}", ran.block());
    assert_eq!(ran.stdout, "freed 2.0 KiB across 2 blob(s) in [TMP]/oci\n");
}

#[test]
fn a_lock_that_its_taker_left_to_another_process_is_judged_by_that_one() {
    if !needs::root() {
        return;
    }
    let script = ["sh", "-c", "exec 9<\"$0\"; flock --shared 9; exec sleep 60"];
    for (is_nobody, exit) in [(true, 0), (false, 1)] {
        let cache = open_to_readers(1);
        let _holder = Holder::running(&cache, is_nobody, &script, &[]);
        let ran = prune(&cache, &[]);
        assert_eq!((ran.exit, cache.path().join(flat(1)).exists()), (exit, exit == 1), "{}", ran.block());
    }
}

#[test]
fn who_may_write_to_the_cache_holds_prunes_off() {
    if !needs::root() || !needs::setfacl() {
        return;
    }
    type Change = fn(&Cache);
    let changes: [(&str, Change); 6] = [
        ("its owner", |cache| {
            let chown = Command::new("chown").arg("65534").arg(cache.path()).status();
            assert!(chown.unwrap().success());
        }),
        ("its group", |cache| {
            let chown = Command::new("chown").arg(":65534").arg(cache.path()).status();
            assert!(chown.unwrap().success());
            set_mode(&cache.path(), 0o775);
        }),
        ("everybody", |cache| set_mode(&cache.path(), 0o757)),
        ("an access control list", |cache| {
            let set = Command::new("setfacl").args(["-m", "u:65534:rwx"]).arg(cache.path()).status();
            assert!(set.unwrap().success());
        }),
        ("the directory above those of blobs", |cache| {
            cache.write(support::nested(3), KIB);
            set_mode(&cache.path().join("blobs"), 0o777);
        }),
        ("a directory of blobs", |cache| {
            cache.write(support::nested(3), KIB);
            set_mode(&cache.path().join("blobs/sha256"), 0o777);
        }),
    ];
    for (who, change) in changes {
        let cache = open_to_readers(1);
        change(&cache);
        let _holder = Holder::of(&cache, true);
        let before = cache.tree();
        let ran = prune(&cache, &[]);
        assert_eq!((ran.exit, cache.tree()), (1, before), "{who}: {}", ran.block());
        assert!(ran.stderr.contains("of user 65534 has the directory open"), "{who}: {}", ran.block());
    }
}

#[test]
fn one_puller_among_the_readers_holds_prunes_off() {
    if !needs::root() {
        return;
    }
    let cache = open_to_readers(1);
    let _reader = Holder::of(&cache, true);
    let puller = Holder::of(&cache, false);
    let before = cache.tree();
    assert_eq!((prune(&cache, &[]).exit, cache.tree()), (1, before));
    drop(puller);
    assert_eq!(prune(&cache, &[]).exit, 0);
    assert!(!cache.path().join(flat(1)).exists());
}

#[test]
fn who_cannot_see_all_holders_waits() {
    let cache = open_to_readers(1);
    let _holder = Holder::of(&cache, needs::is_root());
    let before = cache.tree();
    let ran = cache.prune_unprivileged(&["--wait-timeout", "100ms"]);
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
}

#[test]
fn in_a_process_namespace_it_waits_because_it_cannot_see_all_locks() {
    if !needs::root() {
        return;
    }
    let cache = open_to_readers(1);
    let _puller = Holder::of(&cache, false);
    let before = cache.tree();
    // What it can see there is a reader.
    let script = "setpriv --reuid=65534 --regid=65534 --clear-groups -- flock --shared --no-fork \"$0\" sleep 60 & \
                  sleep 0.3; exec \"$1\" cache-prune --watch-first --wait-timeout 100ms --cache-dir \"$0\"";
    let mut program = Command::new("unshare");
    program.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]).arg(cache.path());
    let ran = Ran::of(program.arg(support::xtask().get_program()), cache.base.path());
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
}

#[test]
fn a_puller_that_takes_the_lock_meanwhile_ends_the_removal() {
    if !needs::root() {
        return;
    }
    // However long they have been idle.
    let (cache, layout) = (open_to_readers(3), Cache::typical_layout());
    layout.age(&layout.nested_blobs(), Duration::from_secs(48 * 3600));
    for path in [layout.base.path(), &layout.path()] {
        set_mode(path, 0o755);
    }
    for cache in [cache, layout] {
        let _reader = Holder::of(&cache, true);
        let before = cache.tree();
        let mut program = support::xtask();
        program.args(["cache-prune", "--watch-first", "--format", "json", "--cache-dir"]).arg(cache.path());
        let prune = spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
        // It looks for pulls for half a second.
        std::thread::sleep(Duration::from_millis(250));
        let _puller = Holder::of(&cache, false);
        let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
        assert_eq!((ran.exit, cache.tree()), (0, before), "{}", ran.block());
        let report = ran.json();
        assert_eq!(
            (&report["pull"]["sign"], &report["pull"]["path"]),
            (&"locked".into(), &"[TMP]/oci".into())
        );
        assert!(report["held_off_since"].is_string(), "{}", ran.block());
    }
}

#[test]
fn beside_a_reader_prunes_still_take_turns() {
    if !needs::root() {
        return;
    }
    let cache = open_to_readers(1);
    let _reader = Holder::of(&cache, true);
    let used = cache.path().join(flat(1));
    let file = fs::File::open(&used).unwrap();
    let read = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(1800);
    file.set_times(fs::FileTimes::new().set_accessed(read)).unwrap();
    drop(file);
    let mut program = support::xtask();
    program.args(["cache-prune", "--watch-first", "--grace", "3s", "--cache-dir"]).arg(cache.path());
    let first = spawn(program.stdout(Stdio::piped()).stderr(Stdio::piped()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(prune(&cache, &[]).exit, 1);
    let first = Ran::from(&first.wait_with_output().unwrap(), cache.base.path());
    assert_eq!((first.exit, used.exists()), (0, false), "{}", first.block());
    assert_eq!(prune(&cache, &[]).exit, 0);
}
