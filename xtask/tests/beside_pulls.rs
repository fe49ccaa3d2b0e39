//! The rule for pulls under way: what shows that one is, and what a prune then keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use support::{Cache, KIB, Ran, flat, nested, set_age, spawn};

const MINUTES: Duration = Duration::from_secs(600);

/// A flat cache: the blob 1 idle for an hour, the blob 2 written ten minutes ago.
fn young_and_old() -> Cache {
    let cache = Cache::flat(1, KIB);
    set_age(&cache.write(flat(2), KIB), MINUTES);
    cache
}

/// Another process, which ends when this is dropped.
struct Other(Child);

impl Other {
    /// A process that has the file open.
    fn with(file: &Path) -> Self {
        Self(spawn(Command::new("sleep").arg("60").stdin(Stdio::from(File::open(file).unwrap()))))
    }

    /// A process that holds the file's lock (`flock(2)`).
    fn holding(file: &Path) -> Self {
        let other = Self(spawn(Command::new("flock").arg("--no-fork").arg(file).args(["sleep", "60"])));
        let is_free =
            || Command::new("flock").arg("--nonblock").arg(file).arg("true").status().unwrap().success();
        (0..1000).find(|_| !is_free()).expect("the lock is taken");
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// How many blobs went, and how many stayed because they are in use or a pull may need them.
fn blobs(ran: &Ran) -> (u64, u64) {
    let report = ran.json();
    let kept = |reason: &str| report["kept"][reason]["blobs"].as_u64().unwrap();
    (report["blobs_freed"].as_u64().unwrap(), kept("in_use") + kept("spared"))
}

/// Runs a prune, and does something while it looks for pulls.
fn prune_while(cache: &Cache, act: impl FnOnce()) -> Ran {
    prune_with_while(cache, &[], act)
}

fn prune_with_while(cache: &Cache, arguments: &[&str], act: impl FnOnce()) -> Ran {
    let prune = cache.start_prune(arguments);
    act();
    Ran::from(&prune.wait_with_output().unwrap(), cache.base.path())
}

#[test]
fn an_open_file_keeps_what_may_be_counted_on() {
    let cache = young_and_old();
    let third = cache.write(flat(3), KIB);
    let other = Other::with(&third);
    let before = cache.tree();
    let ran = cache.prune(&[]);
    let block = ran.block().replace(&format!("(pid {})", other.0.id()), "(pid [PID])");
    insta::assert_snapshot!(block, @"
    exit: 0
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    note: kept 1 blob, 1.0 KiB: in use
    note: kept 1 blob, 1.0 KiB: a pull may need it
    note: a pull may be under way: sleep (pid [PID]) has `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000003` open. Kept what it may count on; --grace 0s frees all but files in use, --aside frees everything
    [EOF]
    ");
    assert_eq!(support::gone(&before, &cache.tree()), [format!("oci/{}", flat(1))]);

    // With a grace of zero, only the open file stays.
    let ran = cache.prune(&["--grace", "0s"]);
    assert_eq!(ran.stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
    assert!(third.exists());
    drop(other);
    assert_eq!(cache.prune(&[]).stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
}

#[test]
fn a_longer_grace_keeps_what_is_older() {
    let cache = young_and_old();
    let _other = Other::with(&cache.write(flat(3), KIB));
    assert_eq!(blobs(&cache.prune(&["--format", "json", "--grace", "2h"])), (0, 3));
    assert_eq!(blobs(&cache.prune(&["--format", "json", "--grace", "5m"])), (2, 1));
}

#[test]
fn every_policy_keeps_to_the_rule() {
    for arguments in [
        &["--older-than", "1m"][..],
        &["--max-used-space", "0"],
        &["--min-free-space", "100%"],
        &["--keep", &format!("sha256:{:064x}", 99)],
    ] {
        let cache = young_and_old();
        let _other = Other::with(&cache.write(flat(3), KIB));
        let ran = cache.prune(&[arguments, &["--format", "json"]].concat());
        assert_eq!(blobs(&ran), (1, 2), "{arguments:?} {}", ran.block());
        assert!(ran.stderr.contains("note: a pull may be under way: "), "{arguments:?} {}", ran.block());
    }
    // So do a saved plan and a verification.
    let cache = young_and_old();
    let plan = cache.base.path().join("plan");
    let plan = plan.to_str().unwrap();
    cache.prune(&["--dry-run", "--save-plan", plan]);
    let _other = Other::with(&cache.write(flat(3), KIB));
    assert_eq!(blobs(&cache.prune(&["--from-plan", plan, "--format", "json", "--grace", "2h"])), (0, 2));
    assert_eq!(blobs(&cache.prune(&["--from-plan", plan, "--format", "json"])), (1, 1));
    assert_eq!(blobs(&cache.prune(&["--from-plan", plan, "--format", "json", "--grace", "5m"])), (1, 0));
    let cache = young_and_old();
    let _other = Other::with(&cache.write(flat(3), KIB));
    let ran = cache.run("cache-verify", &["--prune", "--format", "json"]);
    let kept = &ran.json()["pruned"]["kept"];
    assert_eq!(
        (&kept["in_use"]["blobs"], &kept["spared"]["blobs"]),
        (&json!(1), &json!(1)),
        "{}",
        ran.block()
    );
}

#[test]
fn a_hit_that_leaves_no_trace_is_seen() {
    let cache = young_and_old();
    let hit = cache.path().join(flat(2));
    // The blob was read since it was written. Under relatime, another read does not move the access time.
    let written = fs::metadata(&hit).unwrap().modified().unwrap();
    File::open(&hit).unwrap().set_times(fs::FileTimes::new().set_accessed(written + MINUTES / 2)).unwrap();
    let ran = prune_while(&cache, || drop(fs::read(&hit).unwrap()));
    assert_eq!(blobs(&ran), (1, 1), "{}", ran.block());
    assert!(hit.exists());
}

#[test]
fn a_new_file_and_a_rename_are_seen() {
    let cache = young_and_old();
    let ran = prune_while(&cache, || fs::write(cache.path().join(flat(3)), "new").unwrap());
    assert_eq!(blobs(&ran), (1, 1), "{}", ran.block());
    let outside = cache.base.path().join("outside");
    fs::write(&outside, "new").unwrap();
    set_age(&cache.path().join(flat(3)), 6 * MINUTES);
    let ran = prune_while(&cache, || fs::rename(&outside, cache.path().join(flat(4))).unwrap());
    assert_eq!(blobs(&ran), (1, 1), "{}", ran.block());
    assert!(cache.path().join(flat(2)).exists() && cache.path().join(flat(4)).exists());
}

#[test]
fn the_locks_of_pullers_are_respected() {
    for lock in ["index.json.lock", ".lock"] {
        let cache = young_and_old();
        let path = cache.write(lock, 0);
        let holder = Other::holding(&path);
        let ran = cache.prune(&[]);
        assert_eq!(ran.stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
        let note = ran.stderr.lines().find(|line| line.contains("a pull may be under way")).unwrap();
        assert!(note.contains(&format!("`[TMP]/oci/{lock}` is locked")), "{note}");
        drop(holder);
        assert_eq!(cache.prune(&[]).stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
    }
}

#[test]
fn a_new_blob_that_the_index_does_not_lead_to_keeps_what_is_young() {
    let cache = Cache::typical_layout();
    set_age(&cache.write(nested(98), KIB), Duration::from_secs(30));
    cache.age(&[10], MINUTES);
    let ran = cache.prune(&[]);
    insta::assert_snapshot!(ran.block(), @"
    exit: 0
    --- stdout
    freed 5.9 KiB across 8 blob(s) in [TMP]/oci
    --- stderr
    note: kept 5 blobs, 4.4 KiB: a pull may need it
    note: a pull may be under way: `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000062` is new, and not in the index yet. Kept what it may count on; --grace 0s frees all but files in use, --aside frees everything
    note: removed 2 images from `[TMP]/oci/index.json`
    [EOF]
    ");
    // Image 10 stays as a whole, with the blobs that it shares. The other images leave the index and go.
    assert_eq!(cache.nested_blobs(), [1, 2, 10, 11, 98]);
    assert_eq!(cache.image_names(), ["app:1"]);
    set_age(&cache.path().join(nested(98)), 2 * MINUTES);
    assert_eq!(cache.prune(&[]).exit, 0);
    assert_eq!(cache.nested_blobs(), [0; 0]);
}

#[test]
fn caches_whose_pulls_have_just_ended_are_freed_whole() {
    let cache = Cache::flat(3, KIB);
    (1..=3).for_each(|number| set_age(&cache.path().join(flat(number)), Duration::from_secs(1)));
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (3, 0));
    let cache = Cache::typical_layout();
    cache.prune(&["--unreferenced"]);
    let all = cache.nested_blobs();
    cache.age(&all, Duration::from_secs(1));
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (all.len() as u64, 0));
}

#[test]
fn what_is_unreferenced_is_spared_for_an_hour() {
    let cache = Cache::typical_layout();
    set_age(&cache.write(nested(98), KIB), MINUTES);
    let ran = cache.prune(&["--unreferenced", "--format", "json"]);
    assert_eq!(ran.json()["kept"]["recent"], json!({"blobs": 1, "bytes": KIB}));
    assert!(cache.path().join(nested(98)).exists() && !cache.path().join(nested(99)).exists());
    // If an age is given, it decides.
    cache.prune(&["--unreferenced", "--older-than", "5m"]);
    assert!(!cache.path().join(nested(98)).exists());
}

#[test]
fn an_image_is_as_old_as_what_is_its_own() {
    let cache = Cache::typical_layout();
    let all = cache.nested_blobs();
    cache.age(&all, Duration::from_secs(60 * 24 * 3600));
    // Layer 2, which two images share, was just read.
    cache.age(&[2], MINUTES);
    cache.prune(&["--older-than", "7d"]);
    assert_eq!((cache.nested_blobs(), cache.image_names().len()), (vec![2], 0));

    let cache = Cache::typical_layout();
    cache.age(&all, Duration::from_secs(60 * 24 * 3600));
    // Image 20 is in use: its manifest, its own layer and the shared layer were just read.
    cache.age(&[2, 3, 20], MINUTES);
    let used: u64 = cache.run("cache-usage", &["--format", "json"]).json()["used_bytes"].as_u64().unwrap();
    cache.prune(&["--max-used-space", &format!("{}B", used - 4 * KIB as u64)]);
    assert!(cache.image_names().contains(&"app:2".to_owned()), "{:?}", cache.image_names());
    assert!(!cache.image_names().contains(&"app:1".to_owned()), "{:?}", cache.image_names());
}

#[test]
fn many_old_blobs_do_not_make_a_young_one_look_used() {
    let cache = Cache::new();
    // More than the kernel's queue of events holds (`/proc/sys/fs/inotify/max_queued_events`).
    for number in 0..17_000 {
        fs::write(cache.path().join(format!("sha256:{number:064x}")), "").unwrap();
        set_age(&cache.path().join(format!("sha256:{number:064x}")), 3 * 24 * 6 * MINUTES);
    }
    set_age(&cache.write(format!("sha256:{:064x}", 99_999), KIB), MINUTES);
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (17_001, 0));
}

#[test]
fn the_first_pull_into_a_layout_is_seen_by_what_it_has_written() {
    // Some pullers write `oci-layout` first, others last.
    for begins_with_a_file in [true, false] {
        let cache = Cache::new();
        if begins_with_a_file {
            cache.write_content("oci-layout", b"{}");
        }
        cache.write(nested(1), KIB);
        set_age(&cache.write(nested(2), KIB), MINUTES);
        set_age(&cache.write(nested(3), KIB), Duration::ZERO);
        assert_eq!(blobs(&cache.prune(&["--format", "json"])), (1, 2));
        assert_eq!(cache.nested_blobs(), [2, 3]);
        cache.age(&[3], MINUTES / 5);
        assert_eq!(blobs(&cache.prune(&["--format", "json"])), (2, 0));
    }
}

#[test]
fn what_a_pull_writes_while_the_prune_waits_for_its_turn_is_new() {
    let cache = Cache::typical_layout();
    cache.age(&cache.nested_blobs(), MINUTES);
    let holder = Other::holding(&cache.path());
    let mut program = support::xtask();
    program.args(["cache-prune", "--format", "json", "--cache-dir"]).arg(cache.path());
    let prune = spawn(program.stdout(Stdio::piped()));
    std::thread::sleep(Duration::from_millis(300));
    set_age(&cache.write(nested(98), KIB), Duration::ZERO);
    drop(holder);
    let ran = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path());
    assert_eq!(blobs(&ran).0, 0, "{}", ran.block());
    assert!(cache.path().join(nested(98)).exists());
}

#[test]
fn what_the_rule_keeps_goes_once_it_is_idle_for_the_grace() {
    let cache = Cache::typical_layout();
    let flat_blob = cache.write(flat(1), KIB);
    let _other = Other::with(&flat_blob);
    // The image 10 has been idle for ten minutes: with a grace of five, it goes whole.
    cache.age(&[1, 2, 10, 11], MINUTES);
    let ran = cache.prune(&["--format", "json", "--grace", "5m"]);
    assert_eq!(cache.nested_blobs(), [0; 0], "{}", ran.block());
    assert_eq!(blobs(&ran).1, 1, "{}", ran.block());
}

#[test]
fn an_image_stays_whole_if_a_layer_of_it_is_open_however_idle() {
    let cache = Cache::typical_layout();
    cache.age(&cache.nested_blobs(), 3 * MINUTES * 60);
    // A flat blob is open too, and is found first.
    let _first = Other::with(&cache.write(flat(1), KIB));
    let _other = Other::with(&cache.path().join(nested(1)));
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!(cache.nested_blobs(), [1, 2, 10, 11], "{}", ran.block());
    let index = std::fs::read_to_string(cache.path().join("index.json")).unwrap();
    assert!(index.contains("app:1") && !index.contains("app:2"), "{index}");
}

#[test]
fn an_image_of_which_a_layer_is_open_stays_whole_though_something_else_shows_a_pull() {
    let cache = Cache::typical_layout();
    cache.age(&cache.nested_blobs(), 3 * MINUTES * 60);
    let _pull = Other::holding(&cache.write(".lock", 0));
    let _other = Other::with(&cache.path().join(nested(1)));
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!(ran.json()["pull"]["sign"], "locked", "{}", ran.block());
    assert_eq!(cache.nested_blobs(), [1, 2, 10, 11], "{}", ran.block());
}

#[test]
fn what_to_do_about_a_pull_depends_on_the_prune() {
    for (arguments, advice) in [
        (&[][..], "--aside frees everything"),
        (&["--grace", "0s"], "--aside frees everything"),
        // Only the open file stays for the pull.
        (&["--older-than", "1m"], "run it again once the pull has ended"),
        (&["--older-than", "1m", "--grace", "0s"], "run it again once the pull has ended"),
    ] {
        let cache = young_and_old();
        let open = cache.path().join(flat(2));
        let _other = Other::with(&open);
        let ran = cache.prune(arguments);
        let ending = format!("Kept what it may count on; {advice}\n");
        assert!(ran.stderr.contains(&ending), "{arguments:?} {}", ran.block());
    }
}

#[test]
fn a_use_in_a_directory_of_blobs_is_seen() {
    let cache = Cache::layout();
    for number in [1, 2] {
        set_age(&cache.write(nested(number), KIB), MINUTES);
    }
    let hit = cache.path().join(nested(1));
    let ran = prune_while(&cache, || drop(fs::read(&hit).unwrap()));
    assert_eq!(blobs(&ran), (0, 2), "{}", ran.block());
}

#[test]
fn an_index_that_changes_keeps_the_whole_layout() {
    let cache = Cache::layout();
    cache.write(nested(1), KIB);
    let written = cache.write("../index.json", 0);
    fs::write(&written, r#"{"schemaVersion":2,"manifests":[],"annotations":{}}"#).unwrap();
    let ran = prune_while(&cache, || fs::rename(&written, cache.path().join("index.json")).unwrap());
    assert_eq!(blobs(&ran), (0, 1), "{}", ran.block());
}

#[test]
fn a_pull_that_has_read_the_index_and_is_silent_is_waited_for() {
    let cache = Cache::typical_layout();
    let (index, blobs) = (cache.path().join("index.json"), cache.nested_blobs());
    cache.age(&blobs, MINUTES);
    set_age(&index, MINUTES);
    // As skopeo does: it reads the index first, asks the registry, and writes the index last, with all it has read.
    let read = fs::read(&index).unwrap();
    let ran = prune_while(&cache, || {
        sleep(Duration::from_secs(2));
        fs::write(&index, read).unwrap();
    });
    assert_eq!((ran.exit, cache.nested_blobs()), (0, blobs), "{}", ran.block());
    let sign = json!({"sign": "used", "path": "[TMP]/oci/index.json", "process": null});
    assert_eq!(ran.json()["pull"], sign, "{}", ran.block());
}

#[test]
fn with_no_grace_what_was_used_since_the_look_began_stays() {
    let cache = young_and_old();
    let other = Other::with(&cache.write(flat(3), KIB));
    // Even in later rounds to a goal, and after the first sign.
    for arguments in [&["--grace", "0s"][..], &["--grace", "0s", "--max-used-space", "1KiB"]] {
        let hit = cache.path().join(flat(2));
        let ran = prune_with_while(&cache, arguments, || {
            std::thread::sleep(Duration::from_millis(150));
            drop(fs::read(&hit).unwrap());
        });
        assert!(hit.exists() && !cache.path().join(flat(1)).exists(), "{}", ran.block());
    }
    drop(other);
}

#[test]
fn later_rounds_to_a_goal_keep_what_is_new() {
    let cache = young_and_old();
    let _other = Other::with(&cache.write(flat(3), KIB));
    let new = cache.base.path().join("new");
    fs::write(&new, "new").unwrap();
    let ran = prune_with_while(&cache, &["--max-used-space", "0"], || {
        fs::rename(&new, cache.path().join(flat(4))).unwrap();
    });
    assert_eq!(blobs(&ran).0, 1, "{}", ran.block());
    assert!(cache.path().join(flat(2)).exists() && cache.path().join(flat(4)).exists());
}

#[test]
fn a_directory_that_changes_shows_a_pull() {
    let cache = young_and_old();
    let foreign = cache.write(".notes", 0);
    let ran = prune_while(&cache, || fs::rename(&foreign, cache.base.path().join("away")).unwrap());
    assert_eq!(blobs(&ran), (1, 1), "{}", ran.block());
}

#[test]
fn a_lock_for_writing_shows_a_pull() {
    let cache = young_and_old();
    let path = cache.write("index.lock", 0);
    let script = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); \
                  print('locked', flush=True); time.sleep(60)";
    let mut holder = Command::new("python3");
    let mut holder = spawn(holder.args(["-c", script]).arg(&path).stdout(Stdio::piped()));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut line)
        .unwrap();
    let _holder = Other(holder);
    assert_eq!(line, "locked\n");
    let ran = cache.prune(&[]);
    assert!(ran.stderr.contains("`[TMP]/oci/index.lock` is locked"), "{}", ran.block());
    assert_eq!(ran.stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
}

#[test]
fn a_lock_is_no_fifo() {
    let cache = young_and_old();
    assert!(Command::new("mkfifo").arg(cache.path().join(".lock")).status().unwrap().success());
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (2, 0));
}

#[test]
fn a_partial_that_is_being_written_shows_a_pull() {
    let cache = young_and_old();
    let path = cache.write(".umoci-42/blob-1", KIB);
    let ran = prune_while(&cache, || {
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
    });
    assert_eq!(blobs(&ran), (1, 2), "{}", ran.block());
    assert!(path.exists() && cache.path().join(flat(2)).exists());
}

#[test]
fn a_time_in_the_future_shows_no_pull() {
    let cache = Cache::layout();
    cache.write(nested(1), KIB);
    set_age(&cache.write(nested(3), KIB), MINUTES);
    let file = File::open(cache.write(nested(2), KIB)).unwrap();
    let future = file.metadata().unwrap().modified().unwrap() + 100 * MINUTES;
    file.set_times(fs::FileTimes::new().set_modified(future).set_accessed(future)).unwrap();
    drop(file);
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (3, 0));
}

#[test]
fn the_default_grace_is_an_hour() {
    let cache = Cache::flat(1, KIB);
    set_age(&cache.write(flat(2), KIB), 5 * MINUTES);
    let _other = Other::with(&cache.write(flat(3), KIB));
    assert_eq!(blobs(&cache.prune(&["--format", "json"])), (1, 2));
}

#[test]
fn a_verification_that_prunes_takes_its_own_grace() {
    let cache = young_and_old();
    let _other = Other::with(&cache.write(flat(3), KIB));
    let verify = |grace| cache.run("cache-verify", &["--prune", "--format", "json", "--grace", grace]);
    let ran = verify("2h");
    let kept = &ran.json()["pruned"]["kept"];
    assert_eq!(
        (&kept["in_use"]["blobs"], &kept["spared"]["blobs"]),
        (&json!(1), &json!(2)),
        "{}",
        ran.block()
    );
    assert_eq!(ran.exit, 3, "{}", ran.block());
    let ran = verify("5m");
    let pruned = &ran.json()["pruned"];
    assert_eq!((&pruned["blobs_freed"], &pruned["kept"]["in_use"]["blobs"]), (&json!(2), &json!(1)));
    let left = [1, 2, 3].map(|number| cache.path().join(flat(number)).exists());
    assert_eq!(left, [false, false, true], "{}", ran.block());
}
