//! What a prune of an idle cache may change, and what is damage.
//!
//! Guarantees: blobs may go, and the index may be another. Directories stay, but for their times and sizes. Nothing is
//! new, and all else stays untouched.

use std::path::Path;

use crate::kit::total::Total;
use crate::kit::tree::Tree;

/// The blobs of a cache.
pub(crate) fn blobs(tree: &Tree) -> Total {
    tree.total_of(is_blob)
}

/// The first entry that differs at all.
pub(crate) fn first_difference(before: &Tree, later: &Tree) -> Option<String> {
    before.first_difference(later, |_, entry, after| after != Some(entry))
}

/// The first entry that a prune must not have made what it is.
pub(crate) fn first_damage(before: &Tree, later: &Tree) -> Option<String> {
    before.first_difference(later, |path, entry, after| match after {
        None => !is_blob(path),
        Some(after) if entry.is_directory => !(entry.is_same_place(after) && entry.links == after.links),
        Some(_) if path == Path::new("index.json") => false,
        Some(after) => entry != after,
    })
}

/// Whether this is a blob of a flat cache or of an OCI image layout.
fn is_blob(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("blobs/sha256/"));
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_prune_may_change_and_what_it_may_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let blob = root.join("blobs/sha256").join("0".repeat(64));
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        fs::write(&blob, "12345").unwrap();
        fs::write(root.join("index.json"), "{}").unwrap();
        fs::write(root.join("README"), "foreign").unwrap();
        let before = Tree::of(root).unwrap();
        assert_eq!(blobs(&before), Total { blobs: 1, bytes: 5 });
        assert_eq!(first_difference(&before, &Tree::of(root).unwrap()), None);

        fs::rename(&blob, root.join("elsewhere")).unwrap();
        let later = Tree::of(root).unwrap();
        assert!(first_difference(&before, &later).is_some());
        assert!(first_damage(&before, &later).unwrap().contains("elsewhere"));

        let outside = tempfile::tempdir().unwrap();
        fs::rename(root.join("elsewhere"), outside.path().join("blob")).unwrap();
        fs::write(root.join("index.json"), "{\"manifests\":[]}").unwrap();
        let later = Tree::of(root).unwrap();
        assert_eq!(first_damage(&before, &later), None);
        assert_eq!(before.names_gone_from(&later), Total { blobs: 1, bytes: 5 });
        assert_eq!(blobs(&later), Total::default());

        fs::write(root.join("README"), "touched").unwrap();
        assert!(first_damage(&before, &Tree::of(root).unwrap()).unwrap().contains("README"));
    }
}
