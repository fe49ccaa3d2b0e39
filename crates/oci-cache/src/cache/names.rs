//! Classifies names: the only module that knows the cache layouts and the temporary files of
//! downloaders.
//!
//! Guarantees: classification is pure. A name that is not listed here is foreign.
//!
//! Sources: flat caches, go-containerregistry `pkg/v1/cache/fs.go`; nested caches and layouts, OCI image
//! specification `image-layout.md`; `oci-put-blob*`, containers/image `oci/layout`; `.umoci-*`, umoci
//! `oci/cas/dir`; `ingest/`, containerd `plugins/content/local` and oras-go `content/oci`.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rand::TryRng as _;
use rand::rngs::SysRng;
use rustix::io::Errno;

use crate::cache::digest::{Algorithm, Digest, Spelling};

/// The directory of a nested cache that contains one directory per algorithm.
pub(crate) const BLOBS: &[u8] = b"blobs";
/// The directory beside `blobs` in which containerd and ORAS write incoming content.
pub(crate) const INGEST: &[u8] = b"ingest";
/// The file that marks an OCI image layout.
pub(crate) const OCI_LAYOUT: &CStr = c"oci-layout";
/// The file that references a layout's blobs, directly or through manifests.
pub(crate) const INDEX: &CStr = c"index.json";
/// The files in a cache's root on which pullers hold locks while they work: BuildKit's local cache
/// (`cache/remotecache/local`, `flock(2)`), linuxkit (`pkg/.../cache`, `flock(2)`), podman's artifacts
/// (`pkg/libartifact/store`, `fcntl(2)`).
pub(crate) const PULLERS_LOCKS: [&CStr; 3] = [c"index.json.lock", c".lock", c"index.lock"];
/// What follows the name in that of an aside directory, a new index, or a blob that is about to go; a suffix follows.
const PRUNING: &[u8] = b".pruning-";
/// The number of hex digits in a random suffix.
const SUFFIX_DIGITS: usize = 16;

/// The kind of directory that contains a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The cache directory itself.
    Root,
    /// `blobs/`.
    Blobs,
    /// `blobs/<algorithm>/`.
    Algorithm(Algorithm),
    /// `ingest/`.
    Ingest,
}

/// The path of a layout's index, for messages.
pub(crate) fn index_path(root: &Path) -> PathBuf {
    root.join(OsStr::from_bytes(INDEX.to_bytes()))
}

/// The algorithm that a directory below `blobs/` is named after.
pub(crate) fn algorithm_directory(name: &[u8]) -> Option<Algorithm> {
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.name().as_bytes() == name)
}

/// The digest that a blob's file name spells; `None` if the name is not a blob's.
pub(crate) fn blob(place: Place, name: &[u8]) -> Option<(Digest, Spelling)> {
    match place {
        Place::Root => Digest::from_flat_name(name),
        Place::Algorithm(algorithm) => {
            Digest::from_hex(algorithm, name).map(|digest| (digest, Spelling::Nested))
        }
        Place::Blobs | Place::Ingest => None,
    }
}

/// Whether the name is that of a temporary file, or a directory of temporary files, of a known
/// downloader.
pub(crate) fn is_partial(place: Place, name: &[u8]) -> bool {
    let is_temporary =
        |prefix: &[u8], is_random: fn(&[u8]) -> bool| name.strip_prefix(prefix).is_some_and(is_random);
    match place {
        Place::Ingest => true,
        Place::Root => {
            is_temporary(b"oci-put-blob", is_decimal)
                || is_temporary(b".umoci-", is_decimal)
                || is_new_index(name)
                || is_hidden(place, name)
        }
        Place::Algorithm(_) => is_hidden(place, name),
        Place::Blobs => false,
    }
}

/// Whether a prune gives, or gave, this name to a file of the cache.
pub(crate) fn is_own_temporary(name: &[u8]) -> bool {
    let places = Algorithm::ALL.into_iter().map(Place::Algorithm).chain([Place::Root]);
    is_new_index(name) || own_temporary_of(name).is_some() && { places }.any(|place| is_hidden(place, name))
}

/// Whether a prune writes, or wrote, a new index under this name.
fn is_new_index(name: &[u8]) -> bool {
    own_temporary_of(name) == Some(INDEX.to_bytes())
}

/// Whether a prune renames, or renamed, a blob to this name before it removes it.
fn is_hidden(place: Place, name: &[u8]) -> bool {
    own_temporary_of(name).is_some_and(|of| blob(place, of).is_some())
}

/// The name of the file that this name is a temporary one of.
fn own_temporary_of(name: &[u8]) -> Option<&[u8]> {
    let (start, suffix) = name.split_at_checked(name.len().checked_sub(SUFFIX_DIGITS)?)?;
    is_random_suffix(suffix).then(|| start.strip_suffix(PRUNING)).flatten()
}

/// The name of a blob's file right before it is removed.
pub(crate) fn hidden(name: &CStr, inode: u64) -> CString {
    own_temporary(name, &format!("{inode:0SUFFIX_DIGITS$x}"))
}

/// A random name under which to write a new index.
pub(crate) fn random_index() -> Result<CString, Errno> {
    Ok(own_temporary(INDEX, &random_suffix()?))
}

fn own_temporary(name: &CStr, suffix: &str) -> CString {
    // Neither part contains a null byte.
    CString::new([name.to_bytes(), PRUNING, suffix.as_bytes()].concat()).unwrap_or_default()
}

/// What Go's `os.CreateTemp` and `os.MkdirTemp` put behind a prefix.
fn is_decimal(random: &[u8]) -> bool {
    !random.is_empty() && random.iter().all(u8::is_ascii_digit)
}

/// Whether this is a random suffix as added by this crate.
fn is_random_suffix(random: &[u8]) -> bool {
    random.len() == SUFFIX_DIGITS && random.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file of this name is temporary if there are blobs in the same directory.
pub(crate) fn is_partial_beside_blobs(place: Place, name: &[u8]) -> bool {
    matches!(place, Place::Root | Place::Algorithm(_)) && name.ends_with(b".tmp")
}

/// Whether a directory of this name, in the cache or beside it, is one that a killed prune left behind.
pub(crate) fn is_leftover(name: &[u8], cache_name: &[u8]) -> bool {
    let suffix = name.strip_prefix(cache_name).unwrap_or(name).strip_prefix(PRUNING);
    suffix.is_some_and(is_random_suffix)
}

/// A new random name for an aside of the cache `cache_name`.
pub(crate) fn random_aside(cache_name: &[u8]) -> Result<Vec<u8>, Errno> {
    Ok([cache_name, PRUNING, random_suffix()?.as_bytes()].concat())
}

/// Returns 16 random hex digits.
fn random_suffix() -> Result<String, Errno> {
    let mut random = [0; SUFFIX_DIGITS / 2];
    // Read from the kernel: this returns an error if no randomness is available, where the thread's
    // generator would panic.
    SysRng.try_fill_bytes(&mut random).map_err(|_| Errno::NOSYS)?;
    Ok(hex::encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_named_exactly() {
        for name in ["oci.pruning-0123456789abcdef", ".pruning-0123456789abcdef"] {
            assert!(is_leftover(name.as_bytes(), b"oci"), "{name}");
        }
        for name in [
            "oci.pruning-0123456789abcde",
            "oci.pruning-0123456789abcdef0",
            "oci.pruning-0123456789ABCDEF",
            "oci.pruning-0123456789abcdeg",
            "other.pruning-0123456789abcdef",
            "oci-pruning-0123456789abcdef",
            "oci",
        ] {
            assert!(!is_leftover(name.as_bytes(), b"oci"), "{name}");
        }
        assert!(is_leftover(&random_aside(b"oci").unwrap(), b"oci"));
        assert_ne!(random_aside(b"oci"), random_aside(b"oci"));
    }

    #[test]
    fn temporary_files_are_those_of_known_tools() {
        let nested = Place::Algorithm(Algorithm::Sha256);
        assert!(is_partial(Place::Root, b"oci-put-blob123") && is_partial(Place::Root, b".umoci-42"));
        assert!(is_partial(Place::Root, b"index.json.pruning-0123456789abcdef"));
        for other in
            ["oci-put-blob", "oci-put-blob.go", ".umoci-notes", "index.json.pruning-notes", "oci-put-blob1x"]
        {
            assert!(!is_partial(Place::Root, other.as_bytes()), "{other}");
        }
        let hex = "ab".repeat(32);
        let hidden = |name: &str| hidden(&CString::new(name).unwrap(), 7);
        let (flat, nested_blob) = (hidden(&format!("sha256:{hex}")), hidden(&hex));
        assert!(is_partial(Place::Root, flat.to_bytes()) && is_partial(nested, nested_blob.to_bytes()));
        assert!(!is_partial(nested, flat.to_bytes()) && !is_partial(Place::Root, nested_blob.to_bytes()));
        for own in [flat, nested_blob, random_index().unwrap()] {
            assert!(is_own_temporary(own.to_bytes()), "{own:?}");
        }
        let others =
            [hidden("notes"), hidden("sha256:ab"), CString::new(format!("{hex}.pruning-7")).unwrap()];
        for other in others {
            assert!(
                !is_own_temporary(other.to_bytes()) && !is_partial(nested, other.to_bytes()),
                "{other:?}"
            );
        }
        assert!(!is_partial(nested, b"oci-put-blob123"));
        assert!(is_partial(Place::Ingest, b"anything"));
        assert!(!is_partial(Place::Root, b"download.part") && !is_partial(Place::Root, b"a.tmp"));
        assert!(is_partial_beside_blobs(nested, b"a.tmp") && is_partial_beside_blobs(Place::Root, b"a.tmp"));
        assert!(
            !is_partial_beside_blobs(Place::Blobs, b"a.tmp") && !is_partial_beside_blobs(nested, b"a.tmp~")
        );
    }
}
