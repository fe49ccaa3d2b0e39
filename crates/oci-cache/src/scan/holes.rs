//! Holes: what a layout's index leads to, and is not there, or not as it is described.
//!
//! Guarantees: pure. An absent index or manifest is no hole, unless it is an entry of the layout's index: platforms that
//! were never pulled are usual. A manifest of which nothing is there is none either. Neither is a blob that its
//! descriptor says is elsewhere, or embeds. Of images without a name, only such blobs are missed as the layout has of
//! most images: ORAS's cache keeps no configs, and ko's no layers. What a link stands for is not missed.

use serde::Serialize;

use crate::cache::digest::Digest;
use crate::cache::inventory::Inventory;
use crate::escape::escape_path;

/// A hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Hole {
    /// An entry of the index whose manifest is not there.
    AbsentManifest {
        /// The name in the entry, if it has one.
        name: Option<String>,
        /// The digest in the entry.
        #[serde(serialize_with = "crate::cache::digest::serialize")]
        digest: Digest,
    },
    /// A manifest is there, and some of what it needs, but not this blob.
    AbsentBlob {
        /// The manifest.
        #[serde(serialize_with = "crate::cache::digest::serialize")]
        manifest: Digest,
        /// The blob.
        #[serde(serialize_with = "crate::cache::digest::serialize")]
        digest: Digest,
    },
    /// A blob has another size than its descriptor says.
    OtherSize {
        /// Where it is, escaped.
        path: String,
        /// Its size, in bytes.
        bytes: u64,
        /// What the descriptor says, in bytes.
        expected_bytes: u64,
    },
}

/// The holes of a layout, once its references are [read](crate::read_references()).
///
/// A blob of another size that is known to be corrupt is left out.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, Hole, holes, read_references, scan};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # let digest = "6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770";
/// # std::fs::create_dir_all(path.join("blobs/sha256"))?;
/// # std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
/// # let entry = format!(
/// #     r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{digest}","size":31,
/// #         "annotations":{{"org.opencontainers.image.ref.name":"app:1"}}}}"#
/// # );
/// # std::fs::write(path.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#))?;
/// let mut inventory = scan(&CacheDir::open(path, &[])?)?;
/// read_references(&mut inventory);
/// // The index has an entry, and its manifest is not there.
/// assert!(matches!(&holes(&inventory)[..], [Hole::AbsentManifest { .. }]));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn holes(inventory: &Inventory) -> Vec<Hole> {
    let references = inventory.references();
    let dangling = references.images.iter().filter(|image| image.is_dangling());
    let mut holes: Vec<Hole> = dangling
        .map(|image| Hole::AbsentManifest { name: image.name.clone(), digest: image.digest.clone() })
        .collect();
    for (manifest, absent) in &references.absent {
        let hole = |digest: &Digest| Hole::AbsentBlob { manifest: manifest.clone(), digest: digest.clone() };
        holes.extend(absent.iter().map(hole));
    }
    let is_found = |index: &usize| inventory.findings.as_ref().is_some_and(|found| found.contains_key(index));
    for (&index, &expected_bytes) in references.other_sizes.iter().filter(|(index, _)| !is_found(index)) {
        let blob = &inventory.tree.blobs[index];
        let path = escape_path(&inventory.path_of(blob));
        holes.push(Hole::OtherSize { path, bytes: blob.size_bytes, expected_bytes });
    }
    holes
}
