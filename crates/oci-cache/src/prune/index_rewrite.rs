//! Changes an OCI image layout's `index.json` atomically.
//!
//! Guarantees: a rename replaces the index, so a reader sees either the whole old index or the whole new
//! one. The index keeps its mode, all fields but its manifests and, where that is allowed, its owner. If
//! the disk is full and no new file can be written, an index that would become empty is removed, so that
//! it does not reference blobs that will be removed; the next pull writes it again. An index that keeps
//! images stays.
//!
//! Source: OCI image specification, `image-layout.md` ("index.json file") and `image-index.md`.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cache::names::{INDEX, random_index};
use crate::os::errno_of;
use crate::os::status::Status;
use crate::plan::IndexChange;
use crate::scan::index::{index_status, read_index};

/// The result of a change.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The index is as requested, with this status; `None` if it had to be removed.
    To(Option<Status>),
    /// The index had changed since it was seen, and was left alone.
    NotTheOneSeen,
}

/// Removes entries from the index, if its status is still `seen`.
pub(crate) fn change_index(
    root: BorrowedFd<'_>,
    seen: &Status,
    change: &IndexChange,
) -> Result<Changed, Errno> {
    let Some((content, status)) = read_index(root)? else { return Ok(Changed::NotTheOneSeen) };
    if !status.is_same_content(seen) {
        return Ok(Changed::NotTheOneSeen);
    }
    match changed(&content, change) {
        None => Ok(Changed::To(Some(status))),
        Some(content) => {
            match replace_index(root, &content, &status) {
                // The new index would be empty, so remove the file instead: that needs no space.
                Err(Errno::NOSPC | Errno::DQUOT) if change.leaves_nothing(&content) => {
                    unlinkat(root, INDEX, AtFlags::empty())?;
                }
                replaced => replaced?,
            }
            Ok(Changed::To(index_status(root)?))
        }
    }
}

/// Whether the index has anything to change.
pub(crate) fn would_change(root: BorrowedFd<'_>, change: &IndexChange) -> Result<bool, Errno> {
    Ok(read_index(root)?.is_some_and(|(content, _)| changed(&content, change).is_some()))
}

/// The content of the index after the change; `None` if it stays the same. A prune of everything
/// replaces a malformed index by an empty one.
fn changed(content: &[u8], change: &IndexChange) -> Option<Vec<u8>> {
    let mut index: Value = serde_json::from_slice(content).unwrap_or_default();
    let empty =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let (Value::Object(fields), IndexChange::Empty) = (&mut index, change) else {
        let IndexChange::Drop(positions) = change else { return Some(empty.to_vec()) };
        return without(index, positions);
    };
    if fields.get("manifests").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        return None;
    }
    fields.insert("manifests".to_owned(), json!([]));
    fields.entry("schemaVersion").or_insert(json!(2));
    Some(index.to_string().into_bytes())
}

/// The index without the entries at `positions`.
fn without(mut index: Value, positions: &[usize]) -> Option<Vec<u8>> {
    let entries = index.get_mut("manifests")?.as_array_mut()?;
    if positions.is_empty() {
        return None;
    }
    let mut position = 0..;
    entries.retain(|_| position.next().is_none_or(|position| positions.binary_search(&position).is_err()));
    Some(index.to_string().into_bytes())
}

/// Replaces the index.
pub(crate) fn replace_index(root: BorrowedFd<'_>, content: &[u8], old: &Status) -> Result<(), Errno> {
    // If the prune is killed here, the next one recognises this name as that of a partial.
    let temporary = random_index()?;
    let written = write_temporary(root, &temporary, content, old)
        .and_then(|()| renameat(root, &temporary, root, INDEX));
    let Err(errno) = written else { return Ok(()) };
    // The file may not exist: creating it may have failed.
    let _ = unlinkat(root, &temporary, AtFlags::empty());
    Err(errno)
}

impl IndexChange {
    /// Whether the index references no image after the change.
    fn leaves_nothing(&self, content: &[u8]) -> bool {
        let index: Value = serde_json::from_slice(content).unwrap_or_default();
        *self == Self::Empty || index.get("manifests").and_then(Value::as_array).is_some_and(Vec::is_empty)
    }
}

fn write_temporary(root: BorrowedFd<'_>, name: &CString, content: &[u8], old: &Status) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = rustix::io::retry_on_intr(|| openat(root, name, flags, Mode::RUSR | Mode::WUSR))?;
    // Only root can change the owner. Otherwise the index gets the caller as its owner, as with any tool
    // that renames.
    let _ = fchown(&descriptor, Some(Uid::from_raw(old.owner)), Some(Gid::from_raw(old.group)));
    fchmod(&descriptor, Mode::from_raw_mode(old.mode))?;
    let mut file = File::from(descriptor);
    file.write_all(content).and_then(|()| file.sync_data()).map_err(|error| errno_of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_dropped_by_position() {
        let content = br#"{"schemaVersion":2,"manifests":["a","b","c"],"x":1}"#;
        let index: Value =
            serde_json::from_slice(&changed(content, &IndexChange::Drop(vec![0, 2])).unwrap()).unwrap();
        assert_eq!(index, json!({"schemaVersion": 2, "manifests": ["b"], "x": 1}));
        assert_eq!(changed(content, &IndexChange::Drop(vec![])), None);
        assert_eq!(changed(b"{", &IndexChange::Drop(vec![0])), None);
    }

    #[test]
    fn an_emptied_index_keeps_its_other_fields() {
        let content = br#"{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[{"digest":"x"}]}"#;
        let index: Value = serde_json::from_slice(&changed(content, &IndexChange::Empty).unwrap()).unwrap();
        assert_eq!(index, json!({"schemaVersion": 2, "annotations": {"a": "b"}, "manifests": []}));
        assert_eq!(changed(br#"{"manifests":[]}"#, &IndexChange::Empty), None);
        for broken in [&b""[..], b"[]", b"{", b"\xff"] {
            let index: Value =
                serde_json::from_slice(&changed(broken, &IndexChange::Empty).unwrap()).unwrap();
            assert_eq!(index["manifests"], json!([]));
        }
    }
}
