//! An OCI image layout's `index.json`, changed without a moment in which it is wrong.
//!
//! Guarantees: the index is replaced by a rename, so a reader sees the old one or the new one, whole.
//! It keeps its mode and, where that is allowed, its owner, and every field but its manifests. On a full
//! disk, where no new file can be written, an index of which nothing would be left is removed rather than
//! left naming blobs that are about to go: the next pull writes it anew. One that keeps images stays.
//!
//! Source: OCI image specification, `image-layout.md` ("index.json file") and `image-index.md`.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cache::names::{INDEX, OWN_TEMPORARY, random_suffix};
use crate::os::errno_of;
use crate::os::status::Status;
use crate::plan::IndexChange;
use crate::scan::index::{index_status, read_index};

/// What became of a change.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The index is now as wanted; it has this status, or none if it had to be removed.
    To(Option<Status>),
    /// It was not the index that had been seen, and was left alone.
    NotTheOneSeen,
}

/// Takes entries from the index, which had the status `seen`.
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
                // Nothing it says is worth keeping: to remove it needs no space.
                Err(Errno::NOSPC | Errno::DQUOT) if change.leaves_nothing(&content) => {
                    unlinkat(root, INDEX, AtFlags::empty())?;
                }
                replaced => replaced?,
            }
            Ok(Changed::To(index_status(root)?))
        }
    }
}

/// The index after the change; `None` if that makes no difference. Where everything goes, what is no index
/// becomes an empty one.
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

/// The index without the entries at the positions.
fn without(mut index: Value, positions: &[usize]) -> Option<Vec<u8>> {
    let entries = index.get_mut("manifests")?.as_array_mut()?;
    if positions.is_empty() {
        return None;
    }
    let mut position = 0..;
    entries.retain(|_| position.next().is_none_or(|position| positions.binary_search(&position).is_err()));
    Some(index.to_string().into_bytes())
}

/// Puts a new index in the place of the old.
pub(crate) fn replace_index(root: BorrowedFd<'_>, content: &[u8], old: &Status) -> Result<(), Errno> {
    // Should the prune be killed here, the next one knows this name as that of a partial.
    let Ok(temporary) = CString::new(format!("{}{}", OWN_TEMPORARY, random_suffix()?)) else {
        return Err(Errno::INVAL);
    };
    let written = write_temporary(root, &temporary, content, old)
        .and_then(|()| renameat(root, &temporary, root, INDEX));
    let Err(errno) = written else { return Ok(()) };
    // It may never have come to be.
    let _ = unlinkat(root, &temporary, AtFlags::empty());
    Err(errno)
}

impl IndexChange {
    /// Whether the index, as it would be after the change, names no image.
    fn leaves_nothing(&self, content: &[u8]) -> bool {
        let index: Value = serde_json::from_slice(content).unwrap_or_default();
        *self == Self::Empty || index.get("manifests").and_then(Value::as_array).is_some_and(Vec::is_empty)
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
