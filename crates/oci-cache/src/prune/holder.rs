//! Who has a file open, and whether it is still the file that was scanned.

use crate::cache::inventory::Tree;
use crate::os::lease::Opened;
use crate::os::status::Status;
use crate::plan::fate::Keep;
use crate::prune::report::Outcome;

/// What a probe came to.
#[derive(Debug)]
pub(crate) enum Probed<'a> {
    Holder(Holder<'a>),
    /// What becomes of the name.
    Settled(Outcome),
    /// Somebody has the file open, perhaps only for a moment.
    InUse(Opened<'a>),
}

/// Who has the file open, as far as is known.
#[derive(Debug)]
pub(crate) enum Holder<'a> {
    NotProbed,
    /// Nobody, while the lease is held.
    Nobody(Opened<'a>),
    /// Some process, which is ignored.
    Somebody,
    /// Leases do not work for this file.
    Unknown,
}

/// Why a name is not removed, or not yet.
pub(crate) enum Reason {
    Settled(Outcome),
    /// It leads to another file than was probed: overlay layers number their inodes independently.
    OtherFile,
}

/// Why the blob of this index must be kept: the file or its inode changed, or it was used, since the scan.
pub(crate) fn difference(tree: &Tree, index: usize, status: &Status) -> Option<Keep> {
    let blob = &tree.blobs[index];
    if (status.id.inode, status.size_bytes, status.modified) != (blob.inode, blob.size_bytes, blob.modified) {
        Some(Keep::Changed)
    } else if status.accessed != blob.accessed && !tree.own_reads.explain(index, status.accessed) {
        Some(Keep::Recent)
    } else if status.changed != blob.changed && !tree.own_changes.explain(blob.inode, status.changed) {
        // A file made anew can have the same inode number, and any size and times, but not an earlier change time.
        Some(Keep::Changed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use crate::{CacheDir, Policy, Progress, PruneReport, Space, apply, scan, select};

    /// Since when the blobs have been idle: no prune waits for them.
    fn used() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn put(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        let times = FileTimes::new().set_accessed(used()).set_modified(used());
        File::open(path).unwrap().set_times(times).unwrap();
    }

    /// Scans, lets `meanwhile` act, and removes everything. Each blob that is left seems to have kept its inode number:
    /// on some file systems, new files get those of old ones.
    fn prune(root: &Path, meanwhile: impl FnOnce()) -> PruneReport {
        let mut cache = CacheDir::open(root, &[]).unwrap();
        let lock = cache.try_lock().unwrap().unwrap();
        let now = (used() + Duration::from_secs(100 * 3600)).into();
        let mut plan = select(scan(&cache).unwrap(), &Policy::default(), now, Space::default()).unwrap();
        meanwhile();
        let tree = &mut plan.inventory.tree;
        for index in 0..tree.blobs.len() {
            let path = tree.path_of(&tree.blobs[index]);
            tree.blobs[index].inode = fs::metadata(path).unwrap().ino();
        }
        apply(&plan, &lock, &Progress::default()).unwrap()
    }

    #[test]
    fn a_file_made_anew_stays_whatever_its_inode_size_and_times() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number| directory.path().join(format!("sha256:{number:064x}"));
        put(&path(1), "old");
        put(&path(2), "old");
        let report = prune(directory.path(), || {
            fs::rename(path(1), directory.path().join("aside")).unwrap();
            // The kernel's clock ticks up to every ten milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            put(&path(1), "new");
        });
        assert_eq!((report.blobs_freed, report.kept.changed.blobs), (1, 1), "{report:?}");
        assert_eq!((fs::read_to_string(path(1)).unwrap(), path(2).exists()), ("new".to_owned(), false));
    }

    #[test]
    fn the_prunes_own_removals_do_not_make_other_names_of_a_file_look_new() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let flat = |number| root.join(format!("sha256:{number:064x}"));
        let nested = |number| root.join(format!("blobs/sha256/{number:064x}"));
        put(&root.join("oci-layout"), "{}");
        put(&root.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#);
        put(&flat(1), "blob");
        // Flat names go before nested ones, and companions after all others.
        let companion = root.join(format!("sha256:{:064x}.json", 1));
        for name in [flat(2), nested(3), nested(4), companion] {
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            fs::hard_link(flat(1), name).unwrap();
        }
        let report = prune(root, || ());
        assert_eq!((report.blobs_freed, report.kept.changed.blobs), (5, 0), "{report:?}");
        assert!(report.is_complete() && report.disk_bytes_freed > 0, "{report:?}");
    }
}
