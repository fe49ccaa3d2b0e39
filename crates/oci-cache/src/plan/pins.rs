//! Pins: what a prune keeps, or the images that it is narrowed to, by name or digest.
//!
//! Guarantees: pure. A pin that is no digest, and could not be a name either, is refused. A digest pins the blob, and
//! every image that needs it: an image's manifest, its config ("image ID"), a layer. A name pins the images of that
//! name in the layout's index, with or without the parts that container tools add to it.
//!
//! Source: `pkg/reference` of distribution, for the parts that a name may lack: `docker.io/`, `library/` and `:latest`.

use std::collections::{BTreeSet, HashSet};
use std::ops::AddAssign;
use std::str::FromStr;

use serde::Serialize;

use crate::cache::digest::{Algorithm, Digest, ParseDigestError};
use crate::cache::inventory::Inventory;
use crate::cache::references::Image;

/// The length of the longest name, in bytes.
const MAX_NAME: usize = 1024;

/// A digest, a name, or what else is known of one image. It pins what any of these leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    pub(crate) digests: Vec<Digest>,
    pub(crate) names: Vec<String>,
    /// Digests of blobs, which do not pin the images that need them.
    pub(crate) blobs: Vec<Digest>,
}

/// A text is no pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePinError {
    /// It starts like a digest.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// It is neither a digest nor a name.
    #[error("`{}` is neither an image's name nor a digest", .0.escape_debug())]
    Name(String),
}

impl FromStr for Pin {
    type Err = ParsePinError;

    /// Parses a digest, its hex digits alone, a name, or `<name>@<digest>`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let starts_as_digest = |text: &str| {
            let rest = |algorithm: &Algorithm| text.strip_prefix(algorithm.name());
            Algorithm::ALL.iter().filter_map(rest).any(|rest| rest.starts_with(':'))
        };
        if starts_as_digest(text) {
            return Ok(Self { digests: vec![text.parse()?], ..Self::default() });
        }
        if let Some(digest) = Digest::from_hex(Algorithm::Sha256, text.as_bytes()) {
            return Ok(Self { digests: vec![digest], ..Self::default() });
        }
        let (name, digests) = match text.rsplit_once('@') {
            Some((name, digest)) if starts_as_digest(digest) => (name, vec![digest.parse()?]),
            _ => (text, Vec::new()),
        };
        let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:+@".contains(&byte);
        let is_name = name.len() <= MAX_NAME
            && name.bytes().all(is_of_a_name)
            && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
        if !is_name {
            return Err(ParsePinError::Name(text.chars().take(MAX_NAME).collect()));
        }
        Ok(Self { digests, names: vec![name.to_owned()], blobs: Vec::new() })
    }
}

impl Pin {
    /// A pin that means one image: of `<name>@<digest>`, the digest.
    #[must_use]
    pub fn exact(mut self) -> Self {
        if !self.digests.is_empty() {
            self.names.clear();
        }
        self
    }

    /// What a message calls it.
    fn label(&self) -> String {
        let digest = self.digests.first().or_else(|| self.blobs.first());
        self.names.first().cloned().or_else(|| digest.map(Digest::to_string)).unwrap_or_default()
    }
}

/// Pins, for fast lookups.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    digests: HashSet<Digest>,
    blobs: HashSet<Digest>,
    /// Without the parts that a name may lack.
    names: HashSet<String>,
    /// Those of more than one digest or name. A single one is in its set alone, of which there may be a million.
    manifold: Vec<Pin>,
}

impl Pins {
    /// Adds a pin.
    pub fn insert(&mut self, pin: Pin) {
        self.digests.extend(pin.digests.iter().cloned());
        self.blobs.extend(pin.blobs.iter().cloned());
        self.names.extend(pin.names.iter().map(|name| short(name).to_owned()));
        if pin.digests.len() + pin.names.len() + pin.blobs.len() > 1 {
            self.manifold.push(pin);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty() && self.names.is_empty() && self.blobs.is_empty()
    }

    /// Whether there are digests among them, so that an image may be pinned by what it needs.
    pub(crate) fn has_digests(&self) -> bool {
        !self.digests.is_empty()
    }

    /// Whether a blob of this digest is pinned, whatever needs it.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.digests.contains(digest) || self.blobs.contains(digest)
    }

    /// Whether an image is pinned: by a name, or by the digest of anything that it needs.
    pub(crate) fn need(&self, image: &Image, inventory: &Inventory) -> bool {
        let blobs = image.blobs.iter().map(|&index| &inventory.tree.blobs[index].digest);
        self.name(image)
            || !self.digests.is_empty()
                && blobs.chain(&image.missing).any(|digest| self.digests.contains(digest))
    }

    /// Whether an image is meant: by a name, or by the digest of its manifest, its index or its config.
    pub(crate) fn mean(&self, image: &Image) -> bool {
        self.name(image) || image.documents.iter().chain(&image.configs).any(|it| self.digests.contains(it))
    }

    fn name(&self, image: &Image) -> bool {
        !self.names.is_empty() && image.names().any(|name| self.names.contains(short(name)))
    }

    /// The pins that match nothing in the inventory.
    pub(crate) fn unmatched(&self, inventory: &Inventory) -> Unmatched {
        let images = &inventory.references.images;
        let blobs = inventory.tree.blobs.iter().map(|blob| &blob.digest);
        self.unmatched_by(blobs.chain(images.iter().flat_map(|image| &image.missing)), images)
    }

    /// The pins that [mean](Self::mean) no image.
    pub(crate) fn unmeant(&self, images: &[Image]) -> Unmatched {
        let meant = images.iter().flat_map(|image| image.documents.iter().chain(&image.configs));
        self.unmatched_by(meant, images)
    }

    fn unmatched_by<'a>(&self, digests: impl Iterator<Item = &'a Digest>, images: &[Image]) -> Unmatched {
        let mut unmatched = Unmatched::default();
        if self.is_empty() {
            return unmatched;
        }
        let digests: HashSet<&Digest> = digests.collect();
        let names: HashSet<&str> = images.iter().flat_map(Image::names).map(short).collect();
        let (mut told_digests, mut told_names) = (HashSet::new(), HashSet::new());
        for pin in &self.manifold {
            told_digests.extend(pin.digests.iter().chain(&pin.blobs));
            told_names.extend(pin.names.iter().map(|name| short(name)));
            let is_here = pin.digests.iter().chain(&pin.blobs).any(|digest| digests.contains(digest))
                || pin.names.iter().any(|name| names.contains(short(name)));
            if !is_here {
                unmatched.add(pin.label());
            }
        }
        let is_lone = |digest: &&Digest| !told_digests.contains(digest) && !digests.contains(digest);
        let lone = self.digests.iter().chain(&self.blobs).filter(is_lone);
        lone.for_each(|digest| unmatched.add(digest.to_string()));
        let is_lone = |name: &&String| !told_names.contains(name.as_str()) && !names.contains(name.as_str());
        self.names.iter().filter(is_lone).for_each(|name| unmatched.add(name.clone()));
        unmatched
    }
}

/// Pins that match nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unmatched {
    /// How many there are.
    pub count: u64,
    /// The first of them in order, at most 20.
    pub first: BTreeSet<String>,
}

impl Unmatched {
    fn add(&mut self, pin: String) {
        const MOST: usize = 20;
        self.count += u64::from(self.first.insert(pin));
        if self.first.len() > MOST {
            self.first.pop_last();
        }
    }
}

impl AddAssign for Unmatched {
    fn add_assign(&mut self, other: Self) {
        let count = self.count + other.count;
        other.first.into_iter().for_each(|pin| self.add(pin));
        self.count = count;
    }
}

impl Extend<Self> for Pins {
    fn extend<T: IntoIterator<Item = Self>>(&mut self, all: T) {
        for pins in all {
            self.digests.extend(pins.digests);
            self.blobs.extend(pins.blobs);
            self.names.extend(pins.names);
            self.manifold.extend(pins.manifold);
        }
    }
}

impl Extend<Pin> for Pins {
    fn extend<T: IntoIterator<Item = Pin>>(&mut self, pins: T) {
        pins.into_iter().for_each(|pin| self.insert(pin));
    }
}

/// A name without the parts that it may lack.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_a_digest_a_name_or_both() {
        let hex = "0a".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        for text in [format!("sha256:{hex}"), hex.clone()] {
            assert_eq!(text.parse(), Ok(Pin { digests: vec![digest.clone()], ..Pin::default() }), "{text}");
        }
        let both: Pin = format!("registry:5000/app@sha256:{hex}").parse().unwrap();
        assert_eq!((both.digests, both.names), (vec![digest], vec!["registry:5000/app".to_owned()]));
        for name in
            ["app", "app:1.0", "docker.io/library/alpine:3", "3.1+build", "_x", "user@host", "sha256-00.sig"]
        {
            assert_eq!(name.parse(), Ok(Pin { names: vec![name.to_owned()], ..Pin::default() }), "{name}");
        }
        for wrong in ["", "sha256:1", "sha512:00", "a b", "app@sha256:1", "-v", "/app", "a\u{1b}", "<none>"] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_compared_without_what_they_may_lack() {
        for (name, expected) in [
            ("docker.io/library/alpine:latest", "alpine"),
            ("docker.io/user/app:1", "user/app:1"),
            ("alpine", "alpine"),
            ("quay.io/library/x", "quay.io/library/x"),
        ] {
            assert_eq!(short(name), expected);
        }
    }
}
