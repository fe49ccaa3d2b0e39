//! Stage: the archive `oci-cache-<version>-<target>.tar.gz`.
//!
//! It is a tar archive compressed by gzip: every system and every container builder unpacks that, and `xz` would save no
//! more than a fifth, 0.3 MB.
//!
//! Guarantees: its entries are in the order of their paths, belong to root, and have the time of the release. It has
//! files only: unpacked over `/usr/local`, it leaves the modes and owners of the directories there as they are.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::release::{NAME, Release};
use crate::tree::Tree;

/// Writes the archive into `out`. Returns its path.
///
/// # Errors
///
/// If it cannot be written.
pub(crate) fn write(tree: &Tree, release: &Release, out: &Path) -> anyhow::Result<PathBuf> {
    let name = format!("{NAME}-{}-{}", release.version, release.target);
    let path = out.join(format!("{name}.tar.gz"));
    let archive = compressed(tree, Path::new(&name), release.epoch).context("pack the archive")?;
    let mut file = File::create(&path).with_context(|| format!("create `{}`", path.display()))?;
    file.write_all(&archive).with_context(|| format!("write `{}`", path.display()))?;
    Ok(path)
}

/// The archive, with everything in the directory `top`.
fn compressed(tree: &Tree, top: &Path, epoch: u64) -> std::io::Result<Vec<u8>> {
    // Without a time and a file name in gzip's own header.
    let mut archive = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    for (path, file) in &tree.files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(epoch);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        archive.append_data(&mut header, top.join(path), file.content.as_slice())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn entries_are_sorted_and_belong_to_root() {
        let mut tree = Tree::default();
        tree.add("share/b", "two");
        tree.add_program("bin/a", b"one".to_vec());
        let archive = compressed(&tree, Path::new("top"), 86_400).unwrap();
        // Neither flags nor a time.
        assert_eq!(archive[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        let mut archive = tar::Archive::new(GzDecoder::new(archive.as_slice()));
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            assert_eq!((header.username(), header.groupname()), (Ok(Some("root")), Ok(Some("root"))));
            let path = entry.path().unwrap().display().to_string();
            (path, header.mode().unwrap(), header.mtime().unwrap(), owner)
        });
        let expected = [
            ("top/bin/a".to_owned(), 0o755, 86_400, (0, 0)),
            ("top/share/b".to_owned(), 0o644, 86_400, (0, 0)),
        ];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
