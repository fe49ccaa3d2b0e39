//! What a prune may change in an idle cache. All other changes are damage.
//!
//! Guarantees: a prune may remove blobs and rewrite the index. Directories stay, but their times and sizes
//! may change. No entry is added, and all others stay as they are.

use std::path::Path;

use crate::kit::total::Total;
use crate::kit::tree::Tree;

/// Totals the blobs of a cache.
pub(crate) fn blobs(tree: &Tree) -> Total {
    tree.total_of(is_blob)
}

/// Describes the first entry that differs in any way.
pub(crate) fn first_difference(before: &Tree, later: &Tree) -> Option<String> {
    before.first_difference(later, |_, entry, after| after != Some(entry))
}

/// Describes the first entry that a prune must not have changed.
pub(crate) fn first_damage(before: &Tree, later: &Tree) -> Option<String> {
    before.first_difference(later, |path, entry, after| match after {
        None => !is_blob(path),
        Some(after) if entry.is_directory => !(entry.is_same_place(after) && entry.links == after.links),
        Some(_) if path == Path::new("index.json") => false,
        Some(after) => entry != after,
    })
}

/// Whether the path is that of a blob, in a flat cache or in an OCI image layout.
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
