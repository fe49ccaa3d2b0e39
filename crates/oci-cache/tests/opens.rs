//! How often a prune opens a blob: each open costs time, and the kernel tells whoever watches the cache of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, FileTimes};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci_cache::{Policy, Progress, Sign, prune};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

const OLD: Duration = Duration::from_secs(2 * 86400);

fn path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("sha256:{number:064x}"))
}

/// A flat cache of blobs that were last used two days ago, and of one that was written now.
#[expect(clippy::disallowed_methods, reason = "a file's times are the clock's")]
fn old_and_one_fresh(old: usize) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let then = SystemTime::now() - OLD;
    for number in 0..=old {
        fs::write(path(directory.path(), number), "blob").unwrap();
        if number < old {
            let times = FileTimes::new().set_accessed(then).set_modified(then);
            File::open(path(directory.path(), number)).unwrap().set_times(times).unwrap();
        }
    }
    let fresh = path(directory.path(), old);
    (directory, fresh)
}

#[expect(clippy::disallowed_methods, reason = "a prune goes by the clock")]
fn prune_all(directory: &Path) -> oci_cache::PruneReport {
    let now = SystemTime::now().into();
    prune(directory, &[], &Policy::default(), now, &Progress::default()).unwrap()
}

#[test]
fn one_fresh_blob_makes_a_prune_open_no_other_blob_twice() {
    let (directory, fresh) = old_and_one_fresh(300);
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&events, directory.path(), WatchFlags::OPEN).unwrap();
    let report = prune_all(directory.path());
    assert_eq!((report.blobs_freed, report.pull), (301, None));
    let fresh = fresh.file_name().unwrap().to_str().unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&events, &mut buffer);
    let mut opens = 0;
    while let Ok(event) = events.next() {
        let is_file = !event.events().contains(ReadFlags::ISDIR);
        opens += usize::from(is_file && event.file_name().is_some_and(|name| name.to_str() != Ok(fresh)));
    }
    assert_eq!(opens, 300, "each of the old blobs is opened once, to be removed");
}

#[test]
fn an_old_blob_that_is_open_keeps_the_fresh_one() {
    let (directory, fresh) = old_and_one_fresh(300);
    let open = path(directory.path(), 7);
    let reader = File::open(&open).unwrap();
    let report = prune_all(directory.path());
    assert!(matches!(&report.pull, Some(Sign::Open { path, .. }) if *path == open), "{:?}", report.pull);
    assert_eq!((report.blobs_freed, report.kept.in_use.blobs, report.kept.spared.blobs), (299, 1, 1));
    let mut left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort_unstable();
    assert_eq!(left, [open, fresh]);
    drop(reader);
    assert_eq!(prune_all(directory.path()).blobs_freed, 2);
}
