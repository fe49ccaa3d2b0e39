//! Follows the entries of a layout's index to everything below them.
//!
//! Guarantees: each document is read once, and each entry's manifest is followed once, whatever its names. The number of
//! references is limited, for any cycles and any depth. More: [`crate::scan::references`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::cache::digest::{Digest, Spelling};
use crate::cache::inventory::Tree;
use crate::cache::names::Place;
use crate::cache::references::{Image, Remark};
use crate::error::Failure;
use crate::os::quiet_read::{open_quietly, read_limited};
use crate::os::status::Status;
use crate::scan::descriptor::{Descriptor, Kind, Target};
use crate::scan::document::{Document, parse, starts_as_object};
use crate::scan::needs::Needs;

/// Maximum size of one manifest: what registries accept (OCI distribution specification, "Pushing
/// manifests").
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Maximum length of an unsupported digest in a message, in characters.
const MAX_SHOWN: usize = 200;
/// Maximum number of references that are remembered, and that are followed, summed over all images. Remembering one takes
/// 48 bytes.
const MAX_REFERENCES: usize = 3 << 20;
/// How much of a large file is read to see whether it is a document.
const START_BYTES: u64 = 512;

/// Reads documents, each of them once.
pub(crate) struct DocumentReader<'a> {
    tree: &'a Tree,
    by_digest: HashMap<&'a Digest, Vec<usize>>,
    /// The references of each content read so far, as that kind; `None` if they are unknown.
    contents: HashMap<(Digest, Kind), Option<Vec<Reference>>>,
    pub(crate) problems: Vec<Failure>,
    pub(crate) remarks: Vec<Remark>,
    pub(crate) sizes: HashMap<usize, u64>,
    pub(crate) other_sizes: BTreeMap<usize, u64>,
    /// What each manifest needs.
    pub(crate) needs: HashMap<Digest, Needs>,
    /// The links and the like in the places of blobs.
    links: HashSet<&'a Path>,
    pub(crate) has_unseen: bool,
    /// The images so far.
    walked: HashMap<(Digest, Kind), Image>,
    /// The config of each manifest.
    configs: HashMap<Digest, Digest>,
    /// How many more references may be remembered, and followed.
    memory: usize,
    steps: usize,
    has_too_many: bool,
}

/// A reference: the digest, and what the content is.
#[derive(Clone)]
struct Reference {
    digest: Digest,
    kind: Kind,
    /// Whether the descriptor embeds the content, or says that it is elsewhere.
    is_elsewhere: bool,
}

impl<'a> DocumentReader<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        let mut by_digest: HashMap<&Digest, Vec<usize>> = HashMap::new();
        for (index, blob) in tree.blobs.iter().enumerate() {
            if tree.directory(blob.directory).place != Place::Root {
                by_digest.entry(&blob.digest).or_default().push(index);
            }
        }
        let links = tree.foreign.iter().filter(|foreign| foreign.stands_for_blobs);
        Self {
            tree,
            by_digest,
            contents: HashMap::new(),
            problems: Vec::new(),
            remarks: Vec::new(),
            sizes: HashMap::new(),
            other_sizes: BTreeMap::new(),
            needs: HashMap::new(),
            links: links.map(|foreign| foreign.path.as_path()).collect(),
            has_unseen: false,
            walked: HashMap::new(),
            configs: HashMap::new(),
            memory: MAX_REFERENCES,
            steps: MAX_REFERENCES,
            has_too_many: false,
        }
    }

    /// Follows an entry of the index to everything below it; `None` if no blob of a cache can be below it.
    pub(crate) fn image(&mut self, position: usize, entry: &Descriptor) -> Option<Image> {
        let name = entry.name().map(str::to_owned);
        let full_name = entry.full_name().map(str::to_owned);
        let digest = match entry.target() {
            Target::Known(digest) => digest,
            Target::Foreign => {
                self.remarks.push(Remark::UnknownAlgorithm { digest: shown(&entry.digest) });
                return None;
            }
            Target::Malformed => {
                self.malformed(entry);
                let digest = Digest::Sha256([0; 32]);
                return Some(Image { is_complete: false, ..Image::of(digest, name, full_name, position) });
            }
        };
        self.note_size(&digest, entry);
        if !self.by_digest.contains_key(&digest) && entry.is_needed() && !self.is_out_of_sight(&digest) {
            self.remarks.push(Remark::AbsentManifest { name: name.clone(), digest: digest.clone() });
        }
        let key = (digest.clone(), entry.kind());
        // Many names may lead to one manifest.
        if let Some(known) = self.walked.get(&key) {
            return Some(Image { name, full_name, position, ..known.clone() });
        }
        let mut image = Image::of(digest.clone(), name, full_name, position);
        self.follow(&mut image, Reference { digest, kind: entry.kind(), is_elsewhere: !entry.is_needed() });
        image.blobs.sort_unstable();
        image.blobs.dedup();
        self.walked.insert(key, image.clone());
        Some(image)
    }

    /// Adds to the image what a reference leads to.
    fn follow(&mut self, image: &mut Image, start: Reference) {
        let mut seen = HashSet::new();
        let mut ahead = vec![start];
        while let Some(Reference { digest, kind, is_elsewhere }) = ahead.pop() {
            if self.steps == 0 {
                image.is_complete = false;
                self.too_many(&image.digest);
                break;
            }
            self.steps -= 1;
            if !seen.insert((digest.clone(), kind)) {
                continue;
            }
            match self.by_digest.get(&digest) {
                Some(positions) => image.blobs.extend_from_slice(positions),
                // It is not read, so what it leads to is unknown.
                None if is_elsewhere || self.is_out_of_sight(&digest) => {
                    let is_followed = kind == Kind::Leaf;
                    image.is_complete &= is_followed;
                    self.has_unseen |= !is_followed;
                    continue;
                }
                None => image.missing.push(digest.clone()),
            }
            if kind == Kind::Leaf {
                continue;
            }
            match self.below(&digest, kind) {
                Some(below) => ahead.extend(below),
                None => image.is_complete = false,
            }
            image.configs.extend(self.configs.get(&digest).cloned());
            image.documents.push(digest);
        }
    }

    /// Records the blob size that a descriptor gives.
    fn note_size(&mut self, digest: &Digest, descriptor: &Descriptor) {
        let Some(size_bytes) = descriptor.size_bytes() else { return };
        for &position in self.by_digest.get(digest).into_iter().flatten() {
            self.sizes.insert(position, size_bytes);
            if self.tree.blobs[position].size_bytes != size_bytes {
                self.other_sizes.insert(position, size_bytes);
            }
        }
    }

    /// Whether a blob that was not found may be there all the same: a link or the like stands in its place, or some of
    /// the layout was not entered or could not be read.
    fn is_out_of_sight(&self, digest: &Digest) -> bool {
        let tree = self.tree;
        !tree.not_entered.is_empty()
            || !tree.failures.is_empty()
            || !self.links.is_empty() && self.links.contains(self.path_of(digest).as_path())
    }

    /// Records a problem, once, that there are more references than the limit.
    fn too_many(&mut self, digest: &Digest) {
        if !self.has_too_many {
            self.has_too_many = true;
            let error = format!("the layout's images have more than {MAX_REFERENCES} references");
            let error = io::Error::new(io::ErrorKind::FileTooLarge, error);
            let path = self.path_of(digest);
            self.problems.push(Failure::new("read manifest", path, error));
        }
    }

    /// The references of what may be a document; `None` if they are unknown, and then the problem is recorded.
    fn below(&mut self, digest: &Digest, kind: Kind) -> Option<Vec<Reference>> {
        // What is not there leads to nothing that is here.
        let Some(&position) = self.by_digest.get(digest).and_then(|positions| positions.first()) else {
            return Some(Vec::new());
        };
        let key = (digest.clone(), kind);
        if let Some(known) = self.contents.get(&key) {
            return known.clone();
        }
        let below = match self.read(position, kind) {
            Ok(None) => Some(Vec::new()),
            Ok(Some(document)) => {
                let is_here =
                    |digest: &Digest| self.by_digest.contains_key(digest) || self.is_out_of_sight(digest);
                self.needs.insert(digest.clone(), Needs::of(&document, is_here));
                if let Some(Target::Known(config)) = document.config.as_ref().map(Descriptor::target) {
                    self.configs.insert(digest.clone(), config);
                }
                self.references(&document)
            }
            Err(error) => {
                self.problems.push(Failure::new("read manifest", self.path_of(digest), error));
                None
            }
        };
        self.memory = self.memory.saturating_sub(below.as_ref().map_or(0, Vec::len));
        self.contents.insert(key, below.clone());
        below
    }

    /// Reads a document; `None` if the content turns out to be none.
    fn read(&self, position: usize, kind: Kind) -> io::Result<Option<Document>> {
        let blob = &self.tree.blobs[position];
        let directory = self.tree.directory(blob.directory).descriptor.as_fd();
        let opened = open_quietly(directory, blob.digest.file_name(blob.spelling).as_c_str())?;
        let read = |limit| {
            let content = read_limited(&opened, limit)?;
            self.tree.own_reads.record(position, blob.accessed, &Status::of_descriptor(opened.as_fd())?);
            io::Result::Ok(content)
        };
        if blob.size_bytes > MAX_MANIFEST_BYTES {
            let is_none = kind == Kind::Unstated && !starts_as_object(&read(START_BYTES)?);
            let error = format!("{} bytes are too many for a manifest", blob.size_bytes);
            return if is_none { Ok(None) } else { Err(io::Error::new(io::ErrorKind::FileTooLarge, error)) };
        }
        let content = read(blob.size_bytes)?;
        match (parse(&content), kind) {
            (Ok(document), Kind::Unstated) => Ok(Some(document).filter(Document::says_it_is_one)),
            (Ok(document), _) if document.is_known() => Ok(Some(document)),
            (Ok(_), _) => Err(io::Error::new(io::ErrorKind::InvalidData, "neither an index nor a manifest")),
            // An empty file may be all that is left of a document.
            (Err(_), Kind::Unstated) if !content.is_empty() && !starts_as_object(&content) => Ok(None),
            (Err(error), _) => Err(error),
        }
    }

    /// Records a problem: it is unknown what a descriptor references.
    fn malformed(&mut self, descriptor: &Descriptor) {
        let root = self.tree.directories.first().map(|root| root.path.clone()).unwrap_or_default();
        let error = io::Error::new(io::ErrorKind::InvalidData, "its digest is malformed");
        // Do not join it as a path: the digest may be any text of any length.
        let mut path = root.join("blobs").into_os_string();
        path.push("/");
        path.push(shown(&descriptor.digest));
        self.problems.push(Failure::new("read manifest", path.into(), error));
    }

    /// The references in a parsed document; `None` if one of them is unknown, and then the problem is recorded.
    fn references(&mut self, document: &Document) -> Option<Vec<Reference>> {
        let manifests = document.manifests().map(|one| (one, one.kind()));
        // A layer is never read to see what it is.
        let leaves = document.leaves().map(|one| match one.kind() {
            Kind::Document => (one, Kind::Document),
            Kind::Leaf | Kind::Unstated => (one, Kind::Leaf),
        });
        let subject = document.subject.iter().map(|one| match one.kind() {
            Kind::Unstated => (one, Kind::Document),
            kind => (one, kind),
        });
        let mut references = Vec::new();
        for (descriptor, kind) in manifests.chain(leaves).chain(subject) {
            match descriptor.target() {
                Target::Known(digest) => {
                    if references.len() == self.memory {
                        self.too_many(&digest);
                        return None;
                    }
                    self.note_size(&digest, descriptor);
                    references.push(Reference { digest, kind, is_elsewhere: !descriptor.is_needed() });
                }
                // No blob of a cache.
                Target::Foreign => {}
                Target::Malformed => {
                    self.malformed(descriptor);
                    return None;
                }
            }
        }
        Some(references)
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

/// A digest of any length, for a message.
fn shown(digest: &str) -> String {
    digest.chars().take(MAX_SHOWN).collect()
}
