//! Reads partials: temporary files of downloads, and directories of such files.
//!
//! Guarantees: no symbolic link is followed. A directory that contains anything but regular files is not
//! a partial. In `ingest`, a directory has containerd's files. Elsewhere, it has umoci's.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::inventory::Directory;
use crate::cache::names::{self, Place};
use crate::cache::partial::{Partial, PartialFile};
use crate::os::directory::{list, open_directory};
use crate::os::status::Status;

/// Reads the partial `name` of `directory`; `None` if the entry is not a partial after all.
pub(crate) fn read(
    directory: &Directory,
    index: u16,
    name: CString,
    path: PathBuf,
    status: &Status,
) -> Result<Option<Partial>, Errno> {
    let partial = |name, files| Some(Partial { path, directory: index, name, status: *status, files });
    let is_umocis = name.to_bytes().starts_with(names::UMOCI);
    let is_containerds = directory.place == Place::Ingest && names::is_digest(name.to_bytes());
    if status.is_regular_file() && !is_umocis && !is_containerds {
        let files = vec![PartialFile { name: name.clone(), status: *status }];
        return Ok(partial(name, files));
    }
    if !status.is_directory() || directory.place != Place::Ingest && !is_umocis {
        return Ok(None);
    }
    let (descriptor, _) = open_directory(directory.descriptor.as_fd(), &name)?;
    let mut entries = Vec::new();
    list(descriptor.as_fd(), |name| entries.push(name.to_owned()))?;
    let entries_of_writer = match directory.place {
        Place::Ingest => names::is_ingest(entries.iter().map(|name| name.to_bytes())),
        _ => entries.iter().all(|name| names::is_umocis(name.to_bytes())),
    };
    if !entries_of_writer {
        return Ok(None);
    }
    let mut files = Vec::new();
    for name in entries {
        match Status::of_entry(descriptor.as_fd(), &name) {
            Ok(file) if file.is_regular_file() && !file.is_mount_root => {
                files.push(PartialFile { name, status: file });
            }
            Ok(_) => return Ok(None),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(partial(name, files))
}
