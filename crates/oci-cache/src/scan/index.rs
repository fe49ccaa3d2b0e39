//! Reads an OCI image layout's `index.json`.
//!
//! Guarantees: only a regular file is read, and only up to a size limit. No access time changes where
//! `O_NOATIME` is allowed.
//!
//! Source: OCI image specification, `image-layout.md` ("index.json file") and `image-index.md`.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::cache::names::INDEX;
use crate::os::errno_of;
use crate::os::quiet_read::{open_quietly, read_limited};
use crate::os::status::Status;
use crate::scan::document::starts_as_object;

/// Maximum size of an index: far above what registries accept (4 MiB), far below what could exhaust
/// memory.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

/// An index that is open, and was read.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) file: File,
    /// Its status before it was read.
    pub(crate) status: Status,
    pub(crate) content: Vec<u8>,
}

impl Index {
    /// Whether the file still has the content that was read.
    pub(crate) fn is_as_read(&self) -> bool {
        let is_same = || {
            Status::of_descriptor(self.file.as_fd()).is_ok_and(|status| status.is_same_content(&self.status))
        };
        let mut content = vec![0; self.content.len()];
        is_same() && self.file.read_exact_at(&mut content, 0).is_ok() && content == self.content && is_same()
    }
}

/// The status of the index; `None` if there is none.
pub(crate) fn index_status(root: BorrowedFd<'_>) -> Result<Option<Status>, Errno> {
    match Status::of_entry(root, INDEX) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Reads the index; `None` if there is none or it is not a regular file.
pub(crate) fn read_index(root: BorrowedFd<'_>) -> Result<Option<Index>, Errno> {
    let file = match open_quietly(root, INDEX) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let status = Status::of_descriptor(file.as_fd())?;
    if !status.is_regular_file() {
        return Ok(None);
    }
    if status.size_bytes > MAX_DOCUMENT_BYTES {
        return Err(Errno::FBIG);
    }
    let content = read_limited(&file, status.size_bytes).map_err(|error| errno_of(&error))?;
    Ok(Some(Index { file, status, content }))
}

/// Whether the file is an image index: an object with a list of manifests. Other tools use this file
/// name too. Nothing else in it needs to be well-formed.
pub(crate) fn is_index(root: BorrowedFd<'_>) -> bool {
    #[derive(Deserialize)]
    struct Listing {
        #[serde(rename = "manifests")]
        _manifests: Vec<IgnoredAny>,
    }
    let index = read_index(root).ok().flatten();
    index.is_some_and(|index| {
        starts_as_object(&index.content) && serde_json::from_slice::<Listing>(&index.content).is_ok()
    })
}
