//! What a prune of a hostile cache may touch.
//!
//! Guarantees: the rule is independent of the tested code. Blobs, partials and leftovers may go, if they have
//! the documented names. Everything else stays as it is, and nothing is added.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::kit::tree::Tree;
use crate::torture::hostile::image::image_of;
use crate::torture::sandbox::Sandbox;

/// What may happen to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    /// It may change or go.
    MayChange,
    /// It may go. `counts` says whether the report counts it.
    MayGo {
        counts: bool,
    },
}

/// A snapshot of a sandbox.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tree: Tree,
}

impl State {
    /// Takes a snapshot.
    ///
    /// # Errors
    ///
    /// If anything cannot be read.
    pub(crate) fn of(sandbox: &Sandbox) -> anyhow::Result<Self> {
        Ok(Self { tree: sandbox.tree()? })
    }

    /// Describes the first entry with a forbidden change. The blobs `kept` must stay.
    pub(crate) fn first_change(
        &self,
        after: &Self,
        is_aside: bool,
        kept: &BTreeSet<PathBuf>,
    ) -> Option<String> {
        let changed = self.tree.entries.iter().find_map(|(path, entry)| {
            let must_stay = entry.is_file && kept.contains(path);
            let fate = if must_stay { Fate::Stays } else { self.fate(path, is_aside) };
            let left = after.tree.entries.get(path);
            // The times of a directory may change.
            let is_same = left.is_some_and(|left| match entry.is_directory {
                true => entry.is_same_place(left),
                false => entry.is_same(left),
            });
            let may_be = match fate {
                Fate::Stays => is_same,
                Fate::MayGo { .. } => left.is_none() || is_same,
                Fate::MayChange => true,
            };
            let how = if left.is_none() { "is gone" } else { "changed" };
            (!may_be).then(|| format!("{path:?} {how}"))
        });
        let new = || self.tree.first_new(&after.tree, |_| true).map(|path| format!("{path:?} is new"));
        changed.or_else(new)
    }

    /// What may happen to an entry.
    pub(crate) fn fate(&self, path: &Path, is_aside: bool) -> Fate {
        let parts: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        let is_leftover = |name: &[u8]| name.strip_prefix(b".pruning-").is_some_and(|hex| is_hex(hex, 16));
        match parts[..] {
            [b"cache"] if is_aside => Fate::MayChange,
            [b"cache", first, ref below @ ..]
                if is_leftover(first.strip_prefix(b"cache").unwrap_or(first)) =>
            {
                self.fate_below(path, below, true)
            }
            [b"cache", _, ..] => self.fate_below(path, &parts[1..], is_aside),
            [first, ref below @ ..] if first.strip_prefix(b"cache").is_some_and(is_leftover) => {
                self.fate_below(path, below, true)
            }
            _ => Fate::Stays,
        }
    }

    /// The fate of an entry of a cache, or of a leftover, which goes as a whole. `below` has the names from
    /// there to the entry.
    fn fate_below(&self, path: &Path, below: &[&[u8]], as_whole: bool) -> Fate {
        let is_directory = self.is_directory(path);
        let is_file = self.is_file(path);
        let base = path.ancestors().nth(below.len()).unwrap_or(path);
        let is_nested = || {
            let is_algorithm = |name: &str| self.is_directory(&base.join("blobs").join(name));
            is_algorithm("sha256") || is_algorithm("sha512") || self.is_file(&base.join("oci-layout"))
        };
        let is_partial = match *below {
            [name] | [name, _] if is_partial_name(name) => true,
            [name] => is_file && is_partial_beside(name.strip_prefix(b"sha256:").unwrap_or_default(), 64),
            [b"ingest", name] | [b"ingest", name, _] => is_nested() && is_ingest_name(name),
            [b"blobs", b"sha256", name] => is_file && is_partial_beside(name, 64),
            [b"blobs", b"sha512", name] => is_file && is_partial_beside(name, 128),
            _ => false,
        };
        let is_blob = match *below {
            [name] => is_flat_digest(name),
            [b"blobs", b"sha256", name] => is_hex(name, 64),
            [b"blobs", b"sha512", name] => is_hex(name, 128),
            _ => false,
        };
        match *below {
            [] if is_directory => Fate::MayGo { counts: false },
            [b"blobs" | b"ingest"] | [b"blobs", b"sha256" | b"sha512"] if is_directory && as_whole => {
                Fate::MayGo { counts: false }
            }
            [b"index.json"] if is_file && !as_whole => Fate::MayChange,
            [b"index.json" | b"oci-layout"] if is_file && is_nested() => {
                if as_whole {
                    Fate::MayGo { counts: false }
                } else {
                    Fate::Stays
                }
            }
            _ if is_blob && is_file => Fate::MayGo { counts: true },
            _ if is_partial && self.is_whole_partial(path, base) => Fate::MayGo { counts: is_file },
            _ => Fate::Stays,
        }
    }

    fn is_file(&self, path: &Path) -> bool {
        self.tree.entries.get(path).is_some_and(|entry| entry.is_file)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.tree.entries.get(path).is_some_and(|entry| entry.is_directory)
    }

    /// Whether the entry is or belongs to a partial that is a file, or a directory with files only.
    fn is_whole_partial(&self, path: &Path, base: &Path) -> bool {
        let parent = path.parent().unwrap_or(path);
        let is_within = parent != base && !parent.ends_with("ingest") && !parent.ends_with("sha256");
        let partial = if is_within && !parent.ends_with("sha512") { parent } else { path };
        let mut below = self.tree.entries.keys().filter(|entry| entry.parent() == Some(partial));
        self.is_file(partial) || self.is_directory(partial) && below.all(|entry| self.is_file(entry))
    }
}

/// The paths of the blobs that `keep` must protect: the blob itself anywhere, and the blobs of its image.
/// Images belong to a layout, so a flat blob beside the layout belongs to none.
pub(crate) fn kept_for(cache: &Path, keep: &str) -> BTreeSet<PathBuf> {
    let flat = [keep.to_owned(), keep.replacen(':', "-", 1)].map(|name| Path::new("cache").join(name));
    let nested = |digest: String| Path::new("cache/blobs").join(digest.replacen(':', "/", 1));
    image_of(cache, keep).into_iter().map(nested).chain(flat).collect()
}

fn is_flat_digest(name: &[u8]) -> bool {
    let hex_of = |algorithm: &[u8]| match name.strip_prefix(algorithm)? {
        [b':' | b'-', hex @ ..] => Some(hex),
        _ => None,
    };
    hex_of(b"sha256").is_some_and(|hex| is_hex(hex, 64))
        || hex_of(b"sha512").is_some_and(|hex| is_hex(hex, 128))
}

fn is_decimal(text: &[u8]) -> bool {
    (1..=10).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

fn is_partial_name(name: &[u8]) -> bool {
    [&b"oci-put-blob"[..], b".umoci-", b"warmingImage.", b"warmingManifest."]
        .iter()
        .any(|prefix| name.strip_prefix(*prefix).is_some_and(is_decimal))
        || name.strip_prefix(b"index.json.pruning-").is_some_and(|hex| is_hex(hex, 16))
}

/// Whether the name is a temporary file's that has a digest of so many digits, or a decimal, before its ending.
fn is_partial_beside(name: &[u8], digits: usize) -> bool {
    let (digest, rest) = name.split_at(name.len().min(digits));
    let has_ending = is_decimal(rest) || matches!(rest, b".tmp" | b".incomplete");
    is_hex(digest, digits) && has_ending || is_decimal(name.strip_suffix(b".tmp").unwrap_or(name))
}

fn is_ingest_name(name: &[u8]) -> bool {
    let (digest, rest) = name.split_at(name.len().min(64));
    is_hex(digest, 64) && (rest.is_empty() || rest.strip_prefix(b"_").is_some_and(is_decimal))
}

/// Whether the text is exactly so many lower-case hex digits.
fn is_hex(text: &[u8], digits: usize) -> bool {
    text.len() == digits && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::sandbox::{digest, hex_name};

    #[test]
    fn names_are_exact() {
        let hex = hex_name(7);
        assert!(is_flat_digest(format!("sha256-{hex}").as_bytes()) && is_flat_digest(digest(7).as_bytes()));
        for other in
            [hex.clone(), format!("sha512:{hex}"), format!("sha256:{hex}0"), digest(10).to_uppercase()]
        {
            assert!(!is_flat_digest(other.as_bytes()), "{other}");
        }
        assert!(is_partial_name(b"oci-put-blob12") && is_partial_name(b".umoci-1"));
        assert!(!is_partial_name(b"oci-put-blob") && !is_partial_name(b"oci-put-blob1\x1b"));
        let kept = kept_for(Path::new("/none"), &digest(7));
        assert!(kept.contains(Path::new(&format!("cache/blobs/sha256/{hex}"))), "{kept:?}");
    }
}
