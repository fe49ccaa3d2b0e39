//! Finds the blobs of an OCI image layout that are reachable from its index, and the images that
//! reference them.
//!
//! Guarantees: nothing is guessed. If a manifest is missing, too large or malformed, or has a malformed
//! digest, its references are unknown: the image is then incomplete, the problem is reported, and no blob of
//! the cache counts as unreferenced. Each document is read once, and limits on size and number hold for any cycles and any
//! depth of references. Nothing is changed; access times do not change where `O_NOATIME` is allowed.
//!
//! Sources: OCI image specification, `image-index.md`, `manifest.md` (with `subject`); Docker image
//! manifest version 2, schema 2 and its manifest list, which have the same fields.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use crate::cache::digest::{Digest, Spelling};
use crate::cache::inventory::{Blob, Inventory, Tree};
use crate::cache::names::{Place, index_path};
use crate::cache::references::{Image, References};
use crate::error::Failure;
use crate::os::quiet_read::{open_quietly, read_limited};
use crate::scan::descriptor::{Descriptor, Target};
use crate::scan::document::{Document, parse};
use crate::scan::index;

/// Maximum total size of the documents read from a cache; documents beyond it count as unreadable.
const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// Maximum size of one manifest: what registries accept (OCI distribution specification, "Pushing
/// manifests").
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Maximum length of an unsupported digest in a message, in characters.
const MAX_SHOWN: usize = 200;
/// Maximum number of references followed, summed over all images; images beyond it count as incomplete.
const MAX_REACHED: usize = 2 << 20;

/// Reads the layout's index and everything it references, unless already read; the inventory keeps the
/// result.
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
        Ok(Some((content, _))) => parse(&content).and_then(|document| {
            document
                .manifests
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no manifests"))
        }),
        Ok(None) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    };
    match index {
        Ok(entries) => {
            for (position, entry) in entries.iter().enumerate() {
                references.images.push(reader.image(position, entry));
            }
        }
        Err(error) => reader.problems.push(Failure::new("read the index", path, error)),
    }
    references.problems = reader.problems;
    references.sizes = reader.sizes;
    references
}

/// Reads documents, each of them once.
struct DocumentReader<'a> {
    tree: &'a Tree,
    by_digest: HashMap<&'a Digest, Vec<usize>>,
    /// The references of each document read so far; `None` if they are unknown.
    documents: HashMap<Digest, Option<Vec<Reference>>>,
    problems: Vec<Failure>,
    sizes: HashMap<usize, u64>,
    bytes_left: u64,
    reached: usize,
    has_too_many: bool,
}

/// A reference: the digest, and whether the content is a document with references of its own.
#[derive(Clone)]
struct Reference {
    digest: Digest,
    is_document: bool,
}

impl<'a> DocumentReader<'a> {
    fn new(tree: &'a Tree) -> Self {
        let mut by_digest: HashMap<&Digest, Vec<usize>> = HashMap::new();
        for (index, blob) in tree.blobs.iter().enumerate() {
            if tree.directory(blob.directory).place != Place::Root {
                by_digest.entry(&blob.digest).or_default().push(index);
            }
        }
        let (documents, problems, sizes) = (HashMap::new(), Vec::new(), HashMap::new());
        Self {
            tree,
            by_digest,
            documents,
            problems,
            sizes,
            bytes_left: MAX_TOTAL_BYTES,
            reached: 0,
            has_too_many: false,
        }
    }

    /// Follows an entry of the index to everything below it.
    fn image(&mut self, position: usize, entry: &Descriptor) -> Image {
        let name = entry.name().map(str::to_owned);
        let Target::Known(digest) = entry.target() else {
            self.unknown_content(entry);
            let digest = Digest::Sha256([0; 32]);
            let (blobs, missing) = (Vec::new(), Vec::new());
            let documents = Vec::new();
            return Image { digest, name, blobs, documents, is_complete: false, missing, position };
        };
        self.note_size(&digest, entry);
        let mut seen = HashSet::new();
        let (mut blobs, mut missing, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_complete = true;
        let mut ahead = vec![Reference { digest: digest.clone(), is_document: true }];
        while let Some(reference) = ahead.pop() {
            self.reached += 1;
            if self.reached > MAX_REACHED {
                is_complete = false;
                self.too_many(&digest);
                break;
            }
            if !seen.insert(reference.digest.clone()) {
                continue;
            }
            match self.by_digest.get(&reference.digest) {
                Some(positions) => blobs.extend_from_slice(positions),
                None => missing.push(reference.digest.clone()),
            }
            if reference.is_document {
                documents.push(reference.digest.clone());
                match self.document(&reference.digest) {
                    Some(below) => ahead.extend(below),
                    None => is_complete = false,
                }
            }
        }
        blobs.sort_unstable();
        Image { digest, name, blobs, documents, is_complete, missing, position }
    }

    /// Records the blob size that a descriptor gives.
    fn note_size(&mut self, digest: &Digest, descriptor: &Descriptor) {
        let Some(size_bytes) = descriptor.size_bytes() else { return };
        for &position in self.by_digest.get(digest).into_iter().flatten() {
            self.sizes.insert(position, size_bytes);
        }
    }

    /// Records a problem, once, that the images have more references than the limit.
    fn too_many(&mut self, digest: &Digest) {
        if !self.has_too_many {
            self.has_too_many = true;
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "the images reference too many blobs");
            let path = self.path_of(digest);
            self.problems.push(Failure::new("read manifest", path, error));
        }
    }

    /// The references of the document `digest`; `None` if they are unknown, and then the problem is
    /// recorded.
    fn document(&mut self, digest: &Digest) -> Option<Vec<Reference>> {
        if let Some(known) = self.documents.get(digest) {
            return known.clone();
        }
        let positions = self.by_digest.get(digest).and_then(|positions| positions.first().copied());
        let read = match positions {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(position) => self.read(&self.tree.blobs[position]).and_then(|content| parse(&content)),
        };
        let read = read.and_then(|document| match document.is_known() {
            true => Ok(document),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "neither an index nor a manifest")),
        });
        let references = match read {
            Ok(document) => self.references(document),
            Err(error) => {
                let path = self.path_of(digest);
                self.problems.push(Failure::new("read manifest", path, error));
                None
            }
        };
        self.documents.insert(digest.clone(), references.clone());
        references
    }

    /// Records a problem: it is unknown what a descriptor references, or what the document that it
    /// references does.
    fn unknown_content(&mut self, descriptor: &Descriptor) {
        let root = self.tree.directories.first().map(|root| root.path.clone()).unwrap_or_default();
        let error = match descriptor.target() {
            Target::Malformed => io::Error::new(io::ErrorKind::InvalidData, "its digest is malformed"),
            _ => io::Error::new(io::ErrorKind::Unsupported, "its digest has an unsupported algorithm"),
        };
        // Do not join it as a path: the digest may be any text of any length.
        let mut path = root.join("blobs").into_os_string();
        path.push("/");
        path.push(descriptor.digest.chars().take(MAX_SHOWN).collect::<String>());
        self.problems.push(Failure::new("read manifest", path.into(), error));
    }

    /// The references in a parsed document; `None` if one of them is unknown, and then the problem is
    /// recorded.
    fn references(&mut self, document: Document) -> Option<Vec<Reference>> {
        let documents = document.manifests.into_iter().flatten();
        let leaves = document.layers.into_iter().chain(document.blobs).flatten().chain(document.config);
        let mut references = Vec::new();
        for (descriptor, is_document) in
            documents.map(|one| (one, true)).chain(leaves.map(|one| (one, false)))
        {
            match descriptor.target() {
                Target::Known(digest) => {
                    self.note_size(&digest, &descriptor);
                    references.push(Reference { digest, is_document });
                }
                Target::Foreign if !is_document => {}
                Target::Foreign | Target::Malformed => {
                    self.unknown_content(&descriptor);
                    return None;
                }
            }
        }
        if let Some(subject) = document.subject {
            match subject.target() {
                // The subject may be missing: a signature may arrive before the content that it signs.
                Target::Known(digest) if self.by_digest.contains_key(&digest) => {
                    references.push(Reference { digest, is_document: true });
                }
                Target::Known(_) | Target::Foreign => {}
                Target::Malformed => {
                    self.unknown_content(&subject);
                    return None;
                }
            }
        }
        Some(references)
    }

    fn read(&mut self, blob: &Blob) -> io::Result<Vec<u8>> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "too large for a manifest");
        if blob.size_bytes > MAX_MANIFEST_BYTES.min(self.bytes_left) {
            return Err(too_large());
        }
        self.bytes_left -= blob.size_bytes;
        let directory = self.tree.directory(blob.directory).descriptor.as_fd();
        let name = blob.digest.file_name(blob.spelling);
        let opened = open_quietly(directory, name.as_c_str())?;
        read_limited(opened, blob.size_bytes)
    }

    /// The path where a document is or would be.
    fn path_of(&self, digest: &Digest) -> PathBuf {
        match self.by_digest.get(digest).and_then(|positions| positions.first()) {
            Some(&position) => self.tree.path_of(&self.tree.blobs[position]),
            None => {
                let root = self.tree.directories.first().map(|root| root.path.clone()).unwrap_or_default();
                let file_name = digest.file_name(Spelling::Nested);
                root.join("blobs").join(digest.algorithm().name()).join(file_name.as_str())
            }
        }
    }
}
