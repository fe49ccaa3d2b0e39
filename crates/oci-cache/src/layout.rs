//! An OCI image layout's `index.json`, changed without a moment in which it is wrong.
//!
//! Guarantees: the index is replaced by a rename, so a reader sees the old one or the new one, whole.
//! It keeps its mode and, where that is allowed, its owner, and every field but its manifests. On a full
//! disk, where no new file can be written, the index is removed rather than left naming blobs that are
//! about to go: a layout without an index is one that the next pull writes anew.
//!
//! Source: OCI image specification, `image-layout.md` ("index.json file") and `image-index.md`.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cache_dir::errno_of;
use crate::names;
use crate::status::Status;

const INDEX: &std::ffi::CStr = c"index.json";
/// The most that is read of an index: far above what registries take (4 MiB), far below what hurts.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// Replaces the index, which had the status `seen`, by one without manifests. Returns `false`, with
/// nothing done, if it is not the one that was seen.
pub(crate) fn empty_index(root: BorrowedFd<'_>, seen: &Status) -> Result<bool, Errno> {
    let Some((content, status)) = read_index(root)? else { return Ok(false) };
    if (status.id, status.modified, status.size_bytes) != (seen.id, seen.modified, seen.size_bytes) {
        return Ok(false);
    }
    match emptied(&content) {
        None => Ok(true),
        Some(content) => replace_index(root, &content, &status).map(|()| true),
    }
}

/// Reads the index; `None` if there is none, or it is not a regular file.
pub(crate) fn read_index(root: BorrowedFd<'_>) -> Result<Option<(Vec<u8>, Status)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::io::retry_on_intr(|| openat(root, INDEX, flags, Mode::empty())) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let status = Status::of_descriptor(file.as_fd())?;
    if !status.is_regular_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut content).map_err(|error| errno_of(&error))?;
    Ok(Some((content, status)))
}

/// The index without its manifests; `None` if it has none. What is no index becomes an empty one.
fn emptied(content: &[u8]) -> Option<Vec<u8>> {
    let mut index: Value = serde_json::from_slice(content).unwrap_or_default();
    let Value::Object(fields) = &mut index else {
        return Some(
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
                .to_vec(),
        );
    };
    if fields.get("manifests").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        return None;
    }
    fields.insert("manifests".to_owned(), json!([]));
    fields.entry("schemaVersion").or_insert(json!(2));
    Some(index.to_string().into_bytes())
}

/// Puts a new index in the place of the old.
pub(crate) fn replace_index(root: BorrowedFd<'_>, content: &[u8], old: &Status) -> Result<(), Errno> {
    // Should the prune be killed here, the next one knows this name as that of a partial.
    let Ok(temporary) = CString::new(format!("{}{}", names::OWN_TEMPORARY, names::random_suffix())) else {
        return Err(Errno::INVAL);
    };
    let written = write_temporary(root, &temporary, content, old)
        .and_then(|()| renameat(root, &temporary, root, INDEX));
    let Err(errno) = written else { return Ok(()) };
    // It may never have come to be.
    let _ = unlinkat(root, &temporary, AtFlags::empty());
    match errno {
        Errno::NOSPC | Errno::DQUOT => unlinkat(root, INDEX, AtFlags::empty()),
        errno => Err(errno),
    }
}

fn write_temporary(root: BorrowedFd<'_>, name: &CString, content: &[u8], old: &Status) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = rustix::io::retry_on_intr(|| openat(root, name, flags, Mode::RUSR | Mode::WUSR))?;
    // Only root can give a file away; for others the index becomes theirs, as with any tool's rename.
    let _ = fchown(&descriptor, Some(Uid::from_raw(old.owner)), Some(Gid::from_raw(old.group)));
    fchmod(&descriptor, Mode::from_raw_mode(old.mode))?;
    let mut file = File::from(descriptor);
    file.write_all(content).and_then(|()| file.sync_data()).map_err(|error| errno_of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_index_keeps_its_other_fields() {
        let content = br#"{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[{"digest":"x"}]}"#;
        let index: Value = serde_json::from_slice(&emptied(content).unwrap()).unwrap();
        assert_eq!(index, json!({"schemaVersion": 2, "annotations": {"a": "b"}, "manifests": []}));
        assert_eq!(emptied(br#"{"manifests":[]}"#), None);
        for broken in [&b""[..], b"[]", b"{", b"\xff"] {
            let index: Value = serde_json::from_slice(&emptied(broken).unwrap()).unwrap();
            assert_eq!(index["manifests"], json!([]));
        }
    }
}
