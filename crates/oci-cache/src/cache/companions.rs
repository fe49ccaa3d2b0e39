//! Companions: files that a tool writes beside a blob, named after it.
//!
//! Guarantees: pure. A file is a companion by its name alone, and belongs to the blob of that digest in its directory.
//! A blob and its companions are one unit: they stay or go together. A companion without its blob is of no use to
//! anybody, and is treated as any other blob.
//!
//! Source: `<blob>.json`, kaniko `pkg/cache/warm.go`; `<blob>.compressed` and `<blob>.decompressed`, containers/image
//! `pkg/blobcache/dest.go`.

use std::collections::{BTreeMap, HashMap};
use std::iter;

use crate::cache::digest::{Digest, Spelling};

/// Which blobs of a tree are companions of which: indexes into its blobs.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    of: BTreeMap<usize, Vec<usize>>,
    owners: BTreeMap<usize, usize>,
}

impl Companions {
    /// The companions among blobs, by the directory, digest and spelling of each.
    pub(crate) fn among<'a>(blobs: impl Iterator<Item = (u16, &'a Digest, Spelling)> + Clone) -> Self {
        let mut companions = Self::default();
        let mut by_digest: HashMap<(u16, &Digest), Vec<usize>> = HashMap::new();
        let named = blobs.clone().enumerate().filter(|(_, (.., spelling))| spelling.is_companion());
        for (index, (directory, digest, _)) in named {
            by_digest.entry((directory, digest)).or_default().push(index);
        }
        if by_digest.is_empty() {
            return companions;
        }
        let owners = blobs.enumerate().filter(|(_, (.., spelling))| *spelling == Spelling::Colon);
        for (owner, (directory, digest, _)) in owners {
            if let Some(its) = by_digest.remove(&(directory, digest)) {
                companions.owners.extend(its.iter().map(|&companion| (companion, owner)));
                companions.of.insert(owner, its);
            }
        }
        companions
    }

    /// The companions of a blob.
    pub(crate) fn of(&self, blob: usize) -> &[usize] {
        self.of.get(&blob).map_or(&[], Vec::as_slice)
    }

    /// The blob that this one is a companion of.
    pub(crate) fn owner(&self, companion: usize) -> Option<usize> {
        self.owners.get(&companion).copied()
    }

    /// A blob and its companions.
    pub(crate) fn unit(&self, blob: usize) -> impl Iterator<Item = usize> + Clone {
        iter::once(blob).chain(self.of(blob).iter().copied())
    }

    /// Each blob that has companions, with them.
    pub(crate) fn units(&self) -> impl Iterator<Item = impl Iterator<Item = usize> + Clone> {
        self.of.keys().map(|&blob| self.unit(blob))
    }
}
