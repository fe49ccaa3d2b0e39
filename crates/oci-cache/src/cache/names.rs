//! Classifies names: the only module that knows the cache layouts and the temporary files of
//! downloaders.
//!
//! Guarantees: classification is pure. A name that is not listed here is foreign.
//!
//! Sources: flat caches, go-containerregistry `pkg/v1/cache/fs.go`; nested caches and layouts, OCI image
//! specification `image-layout.md`; temporary files, the table in [`is_partial`].

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rand::TryRng as _;
use rand::rngs::SysRng;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::cache::digest::{Algorithm, Digest, Spelling};
use crate::os::status::Timestamp;

/// The directory of a nested cache that contains one directory per algorithm.
pub(crate) const BLOBS: &[u8] = b"blobs";
/// The directory beside `blobs` in which containerd and ORAS write incoming content.
pub(crate) const INGEST: &[u8] = b"ingest";
/// What precedes the random part of the name of umoci's directory of temporary files.
pub(crate) const UMOCI: &[u8] = b".umoci-";
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

/// Whether the name is that of a temporary file, or a directory of temporary files, of a known writer: a digest, or the
/// writer's random digits, beside fixed text.
///
/// | name | in | writer, source |
/// |---|---|---|
/// | `oci-put-blob<decimal>` | root | containers/image `oci/layout/oci_dest.go` |
/// | `.umoci-<decimal>` | root | umoci `oci/cas/dir/dir.go` |
/// | `sha256:<hex><decimal>` | root | buildah: containers/image `pkg/blobcache/dest.go` |
/// | `warmingImage.<decimal>`, `warmingManifest.<decimal>` | root | kaniko `pkg/cache/warm.go` |
/// | `index.json.<decimal>.tmp` | root | regclient `scheme/ocidir` |
/// | `<decimal>.tmp` | algorithm | regclient `scheme/ocidir` |
/// | `<hex><decimal>`, `<decimal>` | algorithm | go-containerregistry `pkg/v1/layout/write.go` |
/// | `<hex>.incomplete` | algorithm | Docker's model runner `pkg/distribution/internal/store` |
/// | `<hex>.tmp`, `sha256:<hex>.tmp` | algorithm, root | downloaders that add an ending |
/// | `<hex>/` with `data` and `ref` | `ingest` | containerd `plugins/content/local` |
/// | `<hex>_<decimal>` | `ingest` | oras-go `content/oci/storage.go` |
pub(crate) fn is_partial(place: Place, name: &[u8]) -> bool {
    let after_digest = after_digest(place, name);
    let is_digest_and_decimal = after_digest.is_some_and(is_decimal);
    let before = |ending: &[u8]| name.strip_suffix(ending);
    match place {
        Place::Root => {
            let follows = |prefix: &[u8]| name.strip_prefix(prefix).is_some_and(is_decimal);
            [&b"oci-put-blob"[..], UMOCI, b"warmingImage.", b"warmingManifest."].into_iter().any(follows)
                || before(b".tmp").and_then(|name| name.strip_prefix(b"index.json.")).is_some_and(is_decimal)
                || is_digest_and_decimal
                || after_digest == Some(b".tmp")
                || is_new_index(name)
                || is_hidden(place, name)
        }
        Place::Algorithm(_) => {
            is_decimal(name)
                || is_hidden(place, name)
                || before(b".tmp").is_some_and(is_decimal)
                || is_digest_and_decimal
                || matches!(after_digest, Some(b".tmp" | b".incomplete"))
        }
        Place::Ingest => {
            let random = after_digest.and_then(|rest| rest.strip_prefix(b"_"));
            after_digest == Some(b"") || random.is_some_and(is_decimal)
        }
        Place::Blobs => false,
    }
}

/// What follows the digest at the start of a name.
fn after_digest(place: Place, name: &[u8]) -> Option<&[u8]> {
    match place {
        Place::Root => Algorithm::ALL.into_iter().find_map(|algorithm| {
            let (digest, rest) =
                name.split_at_checked(algorithm.name().len() + 1 + algorithm.hex_digits())?;
            let (_, spelling) = Digest::from_flat_name(digest)?;
            (spelling == Spelling::Colon).then_some(rest)
        }),
        Place::Algorithm(algorithm) => after_hex(algorithm, name),
        Place::Ingest => after_hex(Algorithm::Sha256, name),
        Place::Blobs => None,
    }
}

fn after_hex(algorithm: Algorithm, name: &[u8]) -> Option<&[u8]> {
    let (hex, rest) = name.split_at_checked(algorithm.hex_digits())?;
    Digest::from_hex(algorithm, hex).map(|_| rest)
}

/// Whether the name in `ingest` is a digest alone, as containerd's directories have it.
pub(crate) fn is_digest(name: &[u8]) -> bool {
    after_digest(Place::Ingest, name) == Some(b"")
}

/// Whether a directory in `ingest` that is named by a digest is one of containerd's, by its entries.
pub(crate) fn is_ingest<'a>(entries: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
    let has = |name: &[u8]| entries.clone().any(|entry| entry == name);
    let is_known = |entry: &[u8]| matches!(entry, b"data" | b"ref" | b"startedat" | b"updatedat" | b"total");
    has(b"data") && has(b"ref") && entries.clone().all(is_known)
}

/// Whether a foreign entry of this name says nothing about what its directory is: a hidden file, a description, what a
/// file system or a backup needs, or the notes of wasm-pkg (`<package>-<version>.json`).
pub(crate) fn is_neutral(name: &[u8]) -> bool {
    name.starts_with(b".")
        || name.starts_with(b"README")
        || matches!(name, b"CACHEDIR.TAG" | b"lost+found")
        || is_note(name)
}

/// Whether the name is that of a blob, or of a directory of blobs.
pub(crate) fn is_of_a_cache(name: &[u8]) -> bool {
    let is_hex = |algorithm| Digest::from_hex(algorithm, name).is_some();
    blob(Place::Root, name).is_some()
        || algorithm_directory(name).is_some()
        || Algorithm::ALL.into_iter().any(is_hex)
}

/// Source: wasm-pkg-tools `crates/wasm-pkg-client/src/caching/file.rs`.
fn is_note(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".json").unwrap_or_default();
    let version = name.iter().position(|&byte| byte == b'-').map(|dash| &name[dash + 1..]);
    version.is_some_and(|rest| {
        rest.split(|&byte| byte == b'-').any(|part| {
            let mut numbers = part.splitn(3, |&byte| byte == b'.');
            let is_number = |number: &[u8]| number.first().is_some_and(u8::is_ascii_digit);
            (0..3).all(|_| numbers.next().is_some_and(is_number))
        })
    })
}

/// Whether umoci makes files of this name in its directory of temporary files.
pub(crate) fn is_umocis(name: &[u8]) -> bool {
    [&b"blob-"[..], b"index-"].into_iter().any(|prefix| name.strip_prefix(prefix).is_some_and(is_decimal))
}

/// Whether a prune gives, or gave, this name to a file of the cache.
pub(crate) fn is_own_temporary(name: &[u8]) -> bool {
    let places = Algorithm::ALL.into_iter().map(Place::Algorithm).chain([Place::Root]);
    is_new_index(name) || { places }.any(|place| is_hidden(place, name))
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

/// The name that a new index has before it takes the old one's place, and that the old one has after that: it tells that
/// the file with this inode number and birth time is the new one.
pub(crate) fn index_draft(inode: u64, born: Option<Timestamp>) -> CString {
    let born = born.map_or(0, |born| born.0);
    let identity = Sha256::digest([inode.to_le_bytes(), born.to_le_bytes()].concat());
    own_temporary(INDEX, &hex::encode(&identity[..SUFFIX_DIGITS / 2]))
}

fn own_temporary(name: &CStr, suffix: &str) -> CString {
    // Neither part contains a null byte.
    CString::new([name.to_bytes(), PRUNING, suffix.as_bytes()].concat()).unwrap_or_default()
}

/// Whether this is what Go's `os.CreateTemp` and `os.MkdirTemp` put behind a prefix: a 32-bit number.
fn is_decimal(random: &[u8]) -> bool {
    (1..=10).contains(&random.len()) && random.iter().all(u8::is_ascii_digit)
}

/// Whether this is a random suffix as added by this crate.
fn is_random_suffix(random: &[u8]) -> bool {
    random.len() == SUFFIX_DIGITS && random.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
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
        let (hex, long) = ("0a".repeat(32), "0a".repeat(64));
        let (sha256, sha512) = (Place::Algorithm(Algorithm::Sha256), Place::Algorithm(Algorithm::Sha512));
        let cases: [(Place, &[String], &[String]); 5] = [
            (
                Place::Root,
                &[
                    "oci-put-blob123".into(),
                    ".umoci-42".into(),
                    "warmingImage.1".into(),
                    "warmingManifest.1234567890".into(),
                    "index.json.7.tmp".into(),
                    "index.json.pruning-0123456789abcdef".into(),
                    format!("sha256:{hex}1234567890"),
                    format!("sha256:{hex}.tmp"),
                ],
                &[
                    "oci-put-blob".into(),
                    "oci-put-blob.go".into(),
                    "oci-put-blob12345678901".into(),
                    ".umoci-notes".into(),
                    "index.json.tmp".into(),
                    "index.json.pruning-notes".into(),
                    "thesis.tmp".into(),
                    "42".into(),
                    "42.tmp".into(),
                    format!("{hex}42"),
                    format!("sha256:{hex}"),
                    format!("sha256:{hex}x"),
                    format!("sha256:{hex}12345678901"),
                ],
            ),
            (
                sha256,
                &[
                    "42".into(),
                    "42.tmp".into(),
                    format!("{hex}42"),
                    format!("{hex}.tmp"),
                    format!("{hex}.incomplete"),
                ],
                &[
                    "oci-put-blob123".into(),
                    "database.tmp".into(),
                    "2024.csv".into(),
                    format!("{hex}.json"),
                    hex.clone(),
                ],
            ),
            (sha512, &[format!("{long}7")], &[format!("{hex}7"), format!("{}7", long.to_uppercase())]),
            (
                Place::Ingest,
                &[hex.clone(), format!("{hex}_123456")],
                &["2024".into(), format!("{hex}_"), format!("{hex}_x"), format!("{hex}-1")],
            ),
            (Place::Blobs, &[], &["42".into(), "a.tmp".into()]),
        ];
        for (place, partials, others) in cases {
            for name in partials {
                assert!(is_partial(place, name.as_bytes()), "{name} in {place:?}");
            }
            for name in others {
                assert!(!is_partial(place, name.as_bytes()), "{name} in {place:?}");
            }
        }
    }

    #[test]
    fn notes_and_descriptions_say_nothing_about_a_directory() {
        for name in [
            ".x",
            "README",
            "README.md",
            "CACHEDIR.TAG",
            "a-0.2.3.json",
            "a-b-10.0.0.json",
            "a-0.2.3-rc.1.json",
        ] {
            assert!(is_neutral(name.as_bytes()), "{name}");
        }
        for name in ["readme", "CACHEDIR", "a-0.2.json", "a-0.2.x.json", "0.2.3.json", "a-0.2.3", "a.json"] {
            assert!(!is_neutral(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_ingest_directory_has_what_containerd_writes() {
        let is = |names: &[&str]| is_ingest(names.iter().map(|name| name.as_bytes()));
        assert!(is(&["data", "ref"]) && is(&["ref", "data", "startedat", "updatedat", "total"]));
        for others in [&["data"][..], &["ref"], &[], &["data", "ref", "june.csv"]] {
            assert!(!is(others), "{others:?}");
        }
    }

    #[test]
    fn own_names_are_told_apart() {
        let hex = "ab".repeat(32);
        let hidden = |name: &str| hidden(&CString::new(name).unwrap(), 7);
        let (nested, flat_name, nested_name) =
            (Place::Algorithm(Algorithm::Sha256), hidden(&format!("sha256:{hex}")), hidden(&hex));
        assert!(is_partial(Place::Root, flat_name.to_bytes()) && is_partial(nested, nested_name.to_bytes()));
        assert!(
            !is_partial(nested, flat_name.to_bytes()) && !is_partial(Place::Root, nested_name.to_bytes())
        );
        let companion = hidden(&format!("sha256:{hex}.decompressed"));
        assert!(is_partial(Place::Root, companion.to_bytes()));
        for own in [flat_name, nested_name, companion, random_index().unwrap()] {
            assert!(is_own_temporary(own.to_bytes()), "{own:?}");
        }
        let short = CString::new(format!("{hex}.pruning-7")).unwrap();
        for other in [hidden("notes"), hidden("sha256:ab"), short] {
            assert!(
                !is_own_temporary(other.to_bytes()) && !is_partial(nested, other.to_bytes()),
                "{other:?}"
            );
        }
    }
}
