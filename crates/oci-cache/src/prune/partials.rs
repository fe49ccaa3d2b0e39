//! Removes partials: temporary files of known downloaders, and directories of such files.
//!
//! Guarantees: if users are spared, each file is compared with the scanned one under the lease that is held until its
//! name is gone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::cache::partial::{Partial, PartialFile};
use crate::os::lease::{Probe, probe_patiently};
use crate::os::status::Status;
use crate::plan::fate::Keep;
use crate::prune::beside::OpenFiles;
use crate::prune::look::is_same;
use crate::prune::report::{Outcome, PruneReport};

impl Partial {
    /// Removes the partial, after [`Partial::look`] found it idle or if users are disregarded. Stops at a file that
    /// was opened or changed in the meantime: that file and the rest stay.
    pub(crate) fn remove(
        &self,
        directory: BorrowedFd<'_>,
        opened: Option<&OwnedFd>,
        open_files: OpenFiles<'_>,
        report: &mut PruneReport,
    ) -> Result<Outcome, Errno> {
        let holder = opened.map_or(directory, OwnedFd::as_fd);
        for file in &self.files {
            if let Some(reason) = remove_file(holder, file, open_files, report)? {
                return Ok(Outcome::Kept(reason));
            }
        }
        if opened.is_some() {
            unlinkat(directory, &self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(Outcome::Removed)
    }
}

/// Removes a file under a lease, and counts it. Returns why it stays, if users are to be spared and it is in use or
/// changed.
fn remove_file(
    directory: BorrowedFd<'_>,
    file: &PartialFile,
    open_files: OpenFiles<'_>,
    report: &mut PruneReport,
) -> Result<Option<Keep>, Errno> {
    let spares = matches!(open_files, OpenFiles::Spare(_));
    // Held until the name is gone.
    let probed = probe_patiently(directory, &file.name, None);
    let is_in_use = matches!(probed, Probe::InUse(_) | Probe::Leased);
    if is_in_use && spares {
        return Ok(Some(Keep::InUse));
    }
    if matches!(probed, Probe::Unknown) && open_files.keep_unprobed() {
        return Ok(Some(Keep::Unprobed));
    }
    let status = match Status::of_entry(directory, &file.name) {
        Err(Errno::NOENT) => return Ok(None),
        status => status?,
    };
    if spares && !is_same(&status, &file.status) {
        return Ok(Some(Keep::Changed));
    }
    match unlinkat(directory, &file.name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        unlinked => unlinked?,
    }
    report.blobs_freed += 1;
    report.partials_freed += 1;
    report.bytes_freed = report.bytes_freed.saturating_add(status.size_bytes);
    let disk_bytes = if status.links == 1 && !is_in_use { status.disk_bytes } else { 0 };
    report.disk_bytes_freed = report.disk_bytes_freed.saturating_add(disk_bytes);
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    use crate::{CacheDir, scan};

    #[test]
    fn a_file_that_changes_after_the_look_stays_with_those_behind_it() {
        let remove_after = |change: fn(&Path)| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(".umoci-1");
            fs::create_dir(&path).unwrap();
            for name in ["blob-1", "blob-2"] {
                fs::write(path.join(name), "content").unwrap();
            }
            let inventory = scan(&CacheDir::open(directory.path(), &[]).unwrap()).unwrap();
            let [partial] = inventory.partials() else { panic!("one partial") };
            let first = path.join(partial.files[0].name.to_str().unwrap());
            change(&first);
            let (root, opened) =
                (File::open(directory.path()).unwrap(), OwnedFd::from(File::open(&path).unwrap()));
            let mut report = PruneReport::default();
            let outcome =
                partial.remove(root.as_fd(), Some(&opened), OpenFiles::Spare(None), &mut report).unwrap();
            let left = fs::read_dir(path).map_or(0, Iterator::count);
            (outcome, left, report.partials_freed)
        };
        assert_eq!(remove_after(|_| ()), (Outcome::Removed, 0, 2));
        let changes: [fn(&Path); 3] = [
            |path| fs::write(path, "more content").unwrap(),
            |path| {
                let written = fs::metadata(path).unwrap().modified().unwrap();
                let new = path.with_extension("new");
                fs::write(&new, "CONTENT").unwrap();
                File::options().append(true).open(&new).unwrap().set_modified(written).unwrap();
                fs::rename(new, path).unwrap();
            },
            |path| {
                let file = File::options().append(true).open(path).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(remove_after(change), (Outcome::Kept(Keep::Changed), 2, 0), "change {number}");
        }
    }
}
