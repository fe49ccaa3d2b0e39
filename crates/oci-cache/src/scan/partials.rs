//! Reads partials: temporary files of downloads, and directories of such files.
//!
//! Guarantees: no symbolic link is followed. A directory that contains anything but regular files is not
//! a partial.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cache::partial::{Partial, PartialFile};
use crate::os::directory::{list, open_directory};
use crate::os::status::Status;

/// Reads the partial `name` of `directory`; `None` if the entry is not a partial after all.
pub(crate) fn read(
    directory: BorrowedFd<'_>,
    index: u16,
    name: CString,
    path: PathBuf,
    status: &Status,
) -> Result<Option<Partial>, Errno> {
    let partial = |name, files| Some(Partial { path, directory: index, name, status: *status, files });
    if status.is_regular_file() {
        let files = vec![PartialFile { name: name.clone(), status: *status }];
        return Ok(partial(name, files));
    }
    if !status.is_directory() {
        return Ok(None);
    }
    let (descriptor, _) = open_directory(directory, &name)?;
    let mut names = Vec::new();
    list(descriptor.as_fd(), |name| names.push(name.to_owned()))?;
    let mut files = Vec::new();
    for name in names {
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
