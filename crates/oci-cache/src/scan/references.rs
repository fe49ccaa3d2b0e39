//! Finds the blobs of an OCI image layout that are reachable from its index, and the images that
//! reference them.
//!
//! Guarantees: nothing is guessed. What a descriptor leads to follows from its media type: indexes and manifests are
//! read, everything else leads to nothing. Where the media type is not stated, the content says. A document that is not
//! there leads to nothing that is here: platforms that were never pulled are usual. If a document is there but too large
//! or malformed, or has a malformed digest, its references are unknown. Then the image is incomplete, the problem is
//! reported, and no blob counts as unreferenced. Each document is read once. The number of references is limited, for any
//! cycles and any depth of references. Nothing is changed; access times do not change where `O_NOATIME` is allowed.
//!
//! Sources: see [`crate::scan::descriptor`] and [`crate::scan::document`].

use std::io;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::cache::inventory::{Inventory, Tree};
use crate::cache::names::index_path;
use crate::cache::references::References;
use crate::error::Failure;
use crate::scan::document::{Document, parse};
use crate::scan::document_reader::DocumentReader;
use crate::scan::index::{self, MAX_DOCUMENT_BYTES};
use crate::scan::needs::absent;

/// Reads the layout's index and everything it references, unless already read; the inventory keeps the
/// result.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, read_references, scan};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # let digest = "6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770";
/// # std::fs::create_dir_all(path.join("blobs/sha256"))?;
/// # std::fs::write(path.join("blobs/sha256").join(digest), r#"{"schemaVersion":2,"layers":[]}"#)?;
/// # std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
/// # let entry = format!(
/// #     r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{digest}","size":31,
/// #         "annotations":{{"org.opencontainers.image.ref.name":"app:1"}}}}"#
/// # );
/// # std::fs::write(path.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#))?;
/// let mut inventory = scan(&CacheDir::open(path, &[])?)?;
/// let references = read_references(&mut inventory);
/// assert!(references.is_complete());
/// let image = &references.images[0];
/// assert_eq!((image.name.as_deref(), image.blobs.len()), (Some("app:1"), 1));
/// # Ok(())
/// # }
/// ```
pub fn read_references(inventory: &mut Inventory) -> &References {
    if !inventory.references.is_read {
        inventory.references = References { is_read: true, ..read_tree(&inventory.tree) };
    }
    &inventory.references
}

/// Reads the index of a tree and everything it references.
pub(crate) fn read_tree(tree: &Tree) -> References {
    if let (Some(errno), Some(root)) = (tree.index_unknown, tree.directories.first()) {
        let problem = Failure::new("read the index", index_path(&root.path), errno);
        return References { has_index: true, problems: vec![problem], ..References::default() };
    }
    let (Some(_), Some(root)) = (&tree.index, tree.directories.first()) else { return References::default() };
    let mut reader = DocumentReader::new(tree);
    let mut references = References { has_index: true, ..References::default() };
    let path = index_path(&root.path);
    let index = match index::read_index(root.descriptor.as_fd()) {
        Ok(Some(index)) => parse_index(&index.content),
        Ok(None) => Ok(Document::default()),
        Err(Errno::FBIG) => {
            let error = format!("more than {MAX_DOCUMENT_BYTES} bytes are too many for an index");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, error))
        }
        Err(errno) => Err(errno.into()),
    };
    match index {
        Ok(index) => {
            for (position, entry) in index.entries() {
                references.images.extend(reader.image(position, entry));
            }
        }
        Err(error) => reader.problems.push(Failure::new("read the index", path, error)),
    }
    references.absent = absent(&reader.needs, &references.images);
    references.remarks = reader.remarks;
    references.problems = reader.problems;
    references.sizes = reader.sizes;
    references.other_sizes = reader.other_sizes;
    references.has_unseen = reader.has_unseen;
    references
}

fn parse_index(content: &[u8]) -> io::Result<Document> {
    let index = parse(content)?;
    // A manifest in its place leads to something too, but not by entries.
    if !index.says_it_is_one() || index.leaves().next().is_some() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not an index"));
    }
    Ok(index)
}
