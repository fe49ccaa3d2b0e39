//! The road from a path to a report, as those who embed the library go it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use oci_cache::{
    Advance, Amount, CacheDir, Check, Error, Policy, Progress, Space, Timestamp, apply, apply_aside,
    apply_to_goal, preview, prune, scan, select, verify,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn older_than(age: Duration) -> Policy {
    let mut policy = Policy::default();
    policy.older_than = Some(age);
    policy
}

/// An OCI image layout.
struct Layout(TempDir);

impl Layout {
    /// Two images on one base layer, last used 60 days ago like a layer of no image; all else a day ago.
    fn of_two_images() -> Self {
        let layout = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
        layout.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, DAY);
        let base = layout.blob(b"base", 60 * DAY);
        layout.blob(b"of no image", 60 * DAY);
        let images: Vec<String> = ["one", "two"].map(|name| layout.image(name, &base)).into();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, images.join(","));
        layout.file("index.json", index.as_bytes(), DAY);
        layout
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: &[u8], age: Duration) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        let used = now() - age;
        let times = FileTimes::new().set_accessed(used).set_modified(used);
        File::open(&path).unwrap().set_times(times).unwrap();
        path
    }

    /// Writes a blob; returns its descriptor.
    fn blob(&self, content: &[u8], age: Duration) -> String {
        let hex = hex::encode(Sha256::digest(content));
        self.file(&format!("blobs/sha256/{hex}"), content, age);
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{hex}","size":{}}}"#,
            content.len()
        )
    }

    /// Writes an image with a layer of its own; returns the descriptor of its manifest.
    fn image(&self, name: &str, base: &str) -> String {
        let (config, layer) =
            (self.blob(format!("{name} config").as_bytes(), DAY), self.blob(name.as_bytes(), DAY));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{base},{layer}]}}"#);
        self.blob(manifest.as_bytes(), DAY).replace("layer.v1.tar", "manifest.v1+json")
    }

    /// What is there, by relative path.
    fn tree(&self) -> BTreeSet<PathBuf> {
        let blobs = fs::read_dir(self.path().join("blobs/sha256")).unwrap();
        let files = fs::read_dir(self.path()).unwrap().chain(blobs);
        files.map(|entry| entry.unwrap().path().strip_prefix(self.path()).unwrap().to_owned()).collect()
    }

    fn path_of(content: &[u8]) -> PathBuf {
        Path::new("blobs/sha256").join(hex::encode(Sha256::digest(content)))
    }
}

#[test]
fn a_base_layer_that_an_image_needs_stays_however_old_it_is() {
    for by_stages in [false, true] {
        let layout = Layout::of_two_images();
        let before = layout.tree();
        let policy = older_than(7 * DAY);
        let report = if by_stages {
            let mut cache = CacheDir::open(layout.path(), &[]).unwrap();
            let lock = cache.try_lock().unwrap().unwrap();
            let space = cache.space().unwrap();
            let plan = select(scan(&cache).unwrap(), &policy, now().into(), space).unwrap();
            apply(&plan, &lock, &Progress::default()).unwrap()
        } else {
            prune(layout.path(), &[], &policy, now().into(), &Progress::default()).unwrap()
        };
        assert_eq!((report.blobs_freed, report.failures.total()), (1, 0), "by stages: {by_stages}");
        let gone: Vec<PathBuf> = before.difference(&layout.tree()).cloned().collect();
        assert_eq!(gone, [Layout::path_of(b"of no image")]);
        assert_eq!(report.kept.recent.blobs + report.kept.referenced.blobs, 7);
    }
}

#[test]
fn a_preview_changes_nothing_and_foretells_the_prune() {
    let layout = Layout::of_two_images();
    let before = layout.tree();
    let act = |act: fn(&Path, &[PathBuf], &Policy, Timestamp, &Progress) -> _| -> oci_cache::PruneReport {
        let result: Result<_, Error> =
            act(layout.path(), &[], &older_than(7 * DAY), now().into(), &Progress::default());
        result.unwrap()
    };
    let shown = act(preview);
    assert_eq!((shown.dry_run, layout.tree()), (true, before));
    let done = act(prune);
    assert_eq!((shown.blobs_freed, shown.bytes_freed), (done.blobs_freed, done.bytes_freed));
    assert_eq!(shown.kept, done.kept);
}

#[test]
fn a_lock_is_good_for_its_own_cache_only() {
    let (here, there) = (Layout::of_two_images(), Layout::of_two_images());
    let mut cache_there = CacheDir::open(there.path(), &[]).unwrap();
    let lock_there = cache_there.try_lock().unwrap().unwrap();
    let cache = CacheDir::open(here.path(), &[]).unwrap();
    let everything = Policy::default();
    let plan = select(scan(&cache).unwrap(), &everything, now().into(), Space::default()).unwrap();
    let before = here.tree();
    let refused = apply(&plan, &lock_there, &Progress::default());
    assert!(matches!(refused, Err(Error::OtherLock { .. })), "{refused:?}");
    assert_eq!(here.tree(), before);
    assert_eq!(
        apply(&plan, &{ cache }.try_lock().unwrap().unwrap(), &Progress::default()).unwrap().blobs_freed,
        8
    );
}

#[test]
fn without_an_index_nothing_counts_as_unreferenced() {
    let layout = Layout::of_two_images();
    fs::rename(layout.path().join("index.json"), layout.path().join("index.json.old")).unwrap();
    let before = layout.tree();
    let mut policy = Policy::default();
    policy.unreferenced = true;
    let refused = prune(layout.path(), &[], &policy, now().into(), &Progress::default());
    assert!(matches!(refused, Err(Error::NoIndex { .. })), "{refused:?}");
    assert_eq!(layout.tree(), before);
}

#[test]
fn only_what_was_verified_can_be_corrupt() {
    let layout = Layout::of_two_images();
    layout.file(Layout::path_of(b"one").to_str().unwrap(), b"cut off", DAY);
    let mut policy = Policy::default();
    policy.corrupt = true;
    let plan = |verified: bool| {
        let mut inventory = scan(&CacheDir::open(layout.path(), &[]).unwrap()).unwrap();
        if verified {
            assert_eq!(verify(&mut inventory, Check::Full, &Progress::default()).checked.blobs, 8);
        }
        select(inventory, &policy, now().into(), Space::default()).unwrap()
    };
    assert_eq!((plan(false).total().blobs, plan(true).total().blobs), (0, 1));
    let report = prune(layout.path(), &[], &policy, now().into(), &Progress::default()).unwrap();
    assert_eq!((report.blobs_freed, report.kept.intact.blobs), (1, 7));
    assert!(!layout.path().join(Layout::path_of(b"one")).exists());
}

#[test]
fn a_goal_is_made_up_for_and_the_callback_is_told() {
    let layout = Layout::of_two_images();
    let open = File::open(layout.path().join(Layout::path_of(b"of no image"))).unwrap();
    let seen: Arc<Mutex<Vec<Advance>>> = Arc::default();
    let progress = {
        let seen = Arc::clone(&seen);
        Progress::with_callback(move |progress| seen.lock().unwrap().push(progress.advance()))
    };
    let mut policy = Policy::default();
    // All but one byte must go, so the images go for what is open.
    policy.max_used = Some(Amount::Bytes(11));
    let report = prune(layout.path(), &[], &policy, now().into(), &progress).unwrap();
    assert_eq!((report.kept.in_use.blobs, report.blobs_freed), (1, 7));
    drop(open);
    let seen = seen.lock().unwrap();
    assert!(
        seen.iter().any(|advance| advance.blobs == advance.total_blobs && advance.total_blobs > 0),
        "{seen:?}"
    );

    // A goal that is met frees nothing.
    policy.max_used = None;
    policy.min_free = Some(Amount::Bytes(1));
    assert_eq!(
        prune(layout.path(), &[], &policy, now().into(), &Progress::default()).unwrap().blobs_freed,
        0
    );
}

#[test]
fn an_aside_takes_only_the_cache_that_is_locked_and_planned() {
    let (here, there) = (Layout::of_two_images(), Layout::of_two_images());
    let (mut cache, other) =
        (CacheDir::open(here.path(), &[]).unwrap(), CacheDir::open(there.path(), &[]).unwrap());
    let lock = cache.try_lock().unwrap().unwrap();
    let plan = select(scan(&cache).unwrap(), &Policy::default(), now().into(), Space::default()).unwrap();
    let before = (here.tree(), there.tree());
    let refused = apply_aside(&other, &lock, &plan, &Progress::default());
    assert!(matches!(refused, Err(Error::OtherLock { .. })), "{refused:?}");
    assert_eq!((here.tree(), there.tree()), before);
    assert_eq!(apply_aside(&cache, &lock, &plan, &Progress::default()).unwrap().blobs_freed, 8);
}

#[test]
fn the_lock_of_a_missing_cache_is_good_for_no_other() {
    let base = tempfile::tempdir().unwrap();
    let cache = |name| CacheDir::open(&base.path().join(name), &[]).unwrap();
    let (mut one, two) = (cache("one"), cache("two"));
    let lock = one.try_lock().unwrap().unwrap();
    let plan =
        |cache| select(scan(cache).unwrap(), &Policy::default(), now().into(), Space::default()).unwrap();
    assert!(apply(&plan(&one), &lock, &Progress::default()).is_ok());
    let refused = apply(&plan(&two), &lock, &Progress::default());
    assert!(matches!(refused, Err(Error::OtherLock { .. })), "{refused:?}");
}

#[test]
fn one_holder_of_the_lock_even_through_the_same_directory() {
    let layout = Layout::of_two_images();
    let mut cache = CacheDir::open(layout.path(), &[]).unwrap();
    let first = cache.try_lock().unwrap().unwrap();
    assert!(cache.try_lock().unwrap().is_none());
    drop(first);
    assert!(cache.try_lock().unwrap().is_some());
    let _held = cache.try_lock().unwrap();
    let busy = prune(layout.path(), &[], &Policy::default(), now().into(), &Progress::default());
    assert!(matches!(busy, Err(Error::Locked { .. })), "{busy:?}");
}

#[test]
fn further_rounds_keep_to_the_plans_own_policy() {
    let layout = Layout::of_two_images();
    let open = File::open(layout.path().join(Layout::path_of(b"of no image"))).unwrap();
    let mut cache = CacheDir::open(layout.path(), &[]).unwrap();
    let lock = cache.try_lock().unwrap().unwrap();
    let mut policy = Policy::default();
    (policy.unreferenced, policy.max_used) = (true, Some(Amount::Bytes(0)));
    layout.blob(b"a second of no image", 60 * DAY);
    let plan = select(scan(&cache).unwrap(), &policy, now().into(), cache.space().unwrap()).unwrap();
    assert_eq!(plan.total().blobs, 2);
    let report = apply_to_goal(&cache, &lock, plan, &Progress::default()).unwrap().report;
    let kept = (report.kept.in_use.blobs, report.kept.referenced.blobs);
    assert_eq!((report.blobs_freed, report.is_complete(), kept.0), (1, true, 1), "{report:?}");
    assert!(kept.1 > 0 && !report.goals[0].met, "{report:?}");
    drop(open);
}

#[test]
fn a_callback_has_the_rights_and_the_open_files_of_its_caller() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..400 {
        fs::write(directory.path().join(format!("sha256:{number:064x}")), "blob").unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let (log, moved) = (elsewhere.path().join("log"), elsewhere.path().join("moved"));
    let written = Arc::new(Mutex::new(0));
    let progress = {
        let written = Arc::clone(&written);
        Progress::with_callback(move |progress| {
            fs::write(&log, format!("{:?}", progress.advance())).unwrap();
            fs::rename(&log, &moved).unwrap();
            *written.lock().unwrap() += 1;
        })
    };
    let report = prune(directory.path(), &[], &Policy::default(), now().into(), &progress).unwrap();
    assert_eq!(report.blobs_freed, 400);
    assert!(*written.lock().unwrap() > 0);

    // A callback may stop the work: then nothing is called done that is not.
    let layout = Layout::of_two_images();
    let mut policy = Policy::default();
    policy.corrupt = true;
    let progress = Progress::with_callback(|_| {});
    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let shown = preview(layout.path(), &[], &policy, now().into(), &progress).unwrap();
    assert!(shown.interrupted && !shown.is_complete(), "{shown:?}");
}
