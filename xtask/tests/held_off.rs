//! Prunes that readers hold off: how that is told, and how to go on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use support::{Cache, KIB, Ran, flat, spawn};

const MINUTE: Duration = Duration::from_secs(60);

/// Sets the times of a file as if it was written ten minutes ago and read five minutes ago: no mount but `strictatime`
/// would have recorded another read since.
#[expect(clippy::disallowed_methods, reason = "a test's files need an age")]
fn make_uncertain(path: &Path) {
    let now = SystemTime::now();
    let times = fs::FileTimes::new().set_accessed(now - 5 * MINUTE).set_modified(now - 10 * MINUTE);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// A flat cache of blobs that have not certainly been idle.
fn uncertain(blobs: u8) -> Cache {
    let cache = Cache::flat(blobs, KIB);
    (1..=blobs).for_each(|number| make_uncertain(&cache.path().join(flat(number))));
    cache
}

/// A layout of such blobs, with images.
fn uncertain_layout() -> Cache {
    let cache = Cache::typical_layout();
    let nested: Vec<PathBuf> =
        cache.nested_blobs().into_iter().map(|blob| cache.path().join(support::nested(blob))).collect();
    nested.iter().for_each(|path| make_uncertain(path));
    cache
}

/// Does something while somebody reads the file all the time.
fn beside_a_reader<T>(file: &Path, act: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(File::open(file).unwrap());
                thread::sleep(Duration::from_millis(50));
            }
        });
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}

/// A process that holds the lock of a directory, until this is dropped.
struct Holder(Child);

impl Holder {
    fn of(cache: &Cache) -> Self {
        let mut flock = Command::new("flock");
        let holder = spawn(flock.args(["--no-fork", "--shared"]).arg(cache.path()).args(["sleep", "60"]));
        cache.wait_until_locked();
        Self(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The value of a metric of the cache.
fn metric(file: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("oci_cache_{name}{{"))).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_prune_that_watches_first_goes_on_beside_an_endless_reader() {
    let cache = uncertain_layout();
    let index = cache.path().join("index.json");
    let goal = ["--max-used-space", "0", "--format", "json", "--grace", "1s"];
    beside_a_reader(&index, || {
        let before = cache.tree();
        let held = cache.prune(&goal);
        assert_eq!((held.exit, cache.tree()), (3, before), "{}", held.block());
        assert!(held.json()["held_off_since"].is_string(), "{}", held.block());
        let went = cache.prune(&[&goal[..], &["--watch-first"]].concat());
        assert_eq!((went.exit, cache.nested_blobs().len()), (0, 0), "{}", went.block());
        assert!(went.json()["held_off_since"].is_null(), "{}", went.block());
        assert!(went.stderr.starts_with("watching for 1s what of the cache is used"), "{}", went.stderr);
    });
    assert_eq!(cache.image_names(), [""; 0]);
}

#[test]
fn what_is_open_or_used_while_a_prune_watches_stays() {
    let cache = uncertain(3);
    let blob = |number| cache.path().join(flat(number));
    let open =
        Holder(spawn(Command::new("sleep").arg("60").stdin(Stdio::from(File::open(blob(1)).unwrap()))));
    let prune = cache.start_prune(&["--watch-first", "--grace", "2s"]);
    thread::sleep(Duration::from_millis(500));
    // A use that no access time shows.
    drop(fs::read(blob(2)).unwrap());
    make_uncertain(&blob(2));
    let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
    assert_eq!([1, 2, 3].map(|number| blob(number).exists()), [true, true, false], "{}", ran.block());
    drop(open);
}

#[test]
fn an_image_of_which_a_blob_is_used_while_a_prune_watches_stays_whole() {
    let cache = uncertain_layout();
    let prune = cache.start_prune(&["--watch-first", "--grace", "2s"]);
    thread::sleep(Duration::from_millis(500));
    drop(fs::read(cache.path().join(support::nested(1))).unwrap());
    let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(
        (cache.nested_blobs(), cache.image_names()),
        (vec![1, 2, 10, 11], vec!["app:1".to_owned()]),
        "{}",
        ran.block()
    );
}

#[test]
fn a_signal_ends_the_watch_at_once() {
    let cache = uncertain(2);
    let before = cache.tree();
    let prune = cache.start_prune(&["--watch-first"]);
    let pid = prune.id().to_string();
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!((ran.exit, cache.tree()), (143, before), "{}", ran.block());
}

#[test]
fn a_script_can_take_the_lock_while_a_prune_watches() {
    for is_over in [true, false] {
        let cache = uncertain(1);
        let prune = cache.start_prune(&["--watch-first", "--grace", "2s"]);
        let holder = Holder::of(&cache);
        let _holder = if is_over {
            drop(holder);
            None
        } else {
            Some(holder)
        };
        let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
        assert_eq!((ran.exit, cache.path().join(flat(1)).exists()), (0, !is_over), "{}", ran.block());
        assert_eq!(ran.json()["held_off_since"].is_string(), !is_over, "{}", ran.block());
    }
}

#[test]
fn a_prune_watches_only_if_something_is_not_certainly_idle() {
    // The blobs were not read since they were written, an hour ago.
    let cache = Cache::flat(2, KIB);
    let began = Instant::now();
    let ran = cache.prune(&["--watch-first", "--grace", "30m"]);
    assert!(began.elapsed() < MINUTE, "{}", ran.block());
    assert_eq!(ran.stdout, "freed 2.0 KiB across 2 blob(s) in [TMP]/oci\n");
    // It would wait for nothing.
    let refused = cache.prune(&["--watch-first", "--aside"]);
    assert_eq!(refused.exit, 2, "{}", refused.block());
}

#[test]
fn runs_that_are_held_off_are_counted_and_told() {
    let cache = uncertain(1);
    let other = cache.write("../other", KIB);
    let used = cache.path().join(flat(1));
    let metrics = cache.base.path().join("metrics");
    let prune = |arguments: &[&str]| {
        let file = ["--metrics-file", metrics.to_str().unwrap()];
        cache.prune(&[&file, arguments].concat())
    };
    let told = || {
        (metric(&metrics, "prune_held_off_runs"), metric(&metrics, "prune_held_off_since_timestamp_seconds"))
    };
    // The lock of a puller.
    let lock = cache.write(".lock", 0);
    let mut flock = Command::new("flock");
    let holder = Holder(spawn(flock.arg("--no-fork").arg(&lock).args(["sleep", "60"])));
    while Command::new("flock").arg("--nonblock").arg(&lock).arg("true").status().unwrap().success() {}

    let first = prune(&[]);
    let (runs, since) = told();
    assert_eq!(runs, 1.0, "{}", first.block());
    assert!(since > 1e9 && used.exists());
    let note = "note: held off: nothing could be freed; --watch-first frees what nobody uses for the length of --grace meanwhile\n";
    assert!(first.stderr.ends_with(note), "{}", first.block());
    // The lock of the whole cache holds it off too.
    let whole = Holder::of(&cache);
    let locked = prune(&["--wait-timeout", "10ms", "--format", "json"]);
    assert_eq!((locked.exit, told()), (1, (2.0, since)), "{}", locked.block());
    let since_in_words = locked.json()["held_off_since"].as_str().unwrap().to_owned();
    assert!(locked.json()["error"].as_str().unwrap().contains("; held off since "), "{}", locked.block());
    drop(whole);
    // A preview does not count, nor does a run that fails for another reason.
    prune(&["--dry-run"]);
    assert_eq!((prune(&["--unreferenced"]).exit, told()), (2, (2.0, since)));
    let third = prune(&["--format", "json"]);
    assert_eq!((told(), &third.json()["held_off_since"]), ((3.0, since), &since_in_words.as_str().into()));
    assert!(third.stderr.contains(" UTC (3 runs): nothing could be freed; "), "{}", third.block());
    assert!(third.json()["pull"]["sign"] == "locked", "{}", third.block());

    drop(holder);
    let freed = prune(&["--format", "json"]);
    assert_eq!((told(), used.exists()), ((0.0, 0.0), false), "{}", freed.block());
    assert!(freed.json()["held_off_since"].is_null() && other.exists());
}

#[test]
fn a_prune_that_frees_something_is_not_held_off() {
    let cache = uncertain(1);
    cache.write(flat(2), KIB);
    let _open = Holder(spawn(
        Command::new("sleep").arg("60").stdin(Stdio::from(File::open(cache.path().join(flat(1))).unwrap())),
    ));
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!(
        (&ran.json()["blobs_freed"], &ran.json()["held_off_since"]),
        (&1.into(), &serde_json::Value::Null)
    );
    assert!(!ran.stderr.contains("held off"), "{}", ran.stderr);
}
