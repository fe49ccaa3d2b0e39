//! Opens a blob for hashing, and judges it by its digest.
//!
//! Guarantees: a file is called corrupt only if it did not change while it was read, and nobody had it open for writing. See
//! [`verify`](mod@crate::verify).

use std::io;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use crate::cache::SETTLE;
use crate::cache::digest::{Digest, Spelling};
use crate::cache::inventory::{Inventory, Tree};
use crate::os::lease::has_writer;
use crate::os::quiet_read::open_quietly;
use crate::os::read_through::ReadThrough;
use crate::os::status::Status;
use crate::progress::Progress;
use crate::verify::check::Check;
use crate::verify::early_end::suspicion;

/// A quick check hashes blobs up to this size in full.
const SMALL_BYTES: u64 = 4096;
/// Maximum number of times that a changing blob is read.
const ATTEMPTS: usize = 3;

/// The result for one blob.
pub(crate) enum Verdict {
    Intact,
    /// The digest of the content, and whether a lease proved that no process writes to the file.
    Corrupt(Digest, bool),
    InUse,
    Changed,
    Gone,
    NotReached,
    Failed(io::Error),
}

impl From<io::Error> for Verdict {
    fn from(error: io::Error) -> Self {
        let is_gone = matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP));
        if is_gone { Self::Gone } else { Self::Failed(error) }
    }
}

/// What is to be done with a blob next.
pub(crate) enum Next {
    Judged(Verdict),
    /// Its content is to be hashed.
    Hash(Candidate),
}

/// A blob whose content is to be hashed.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) index: usize,
    pub(crate) reading: ReadThrough,
    before: Status,
    attempts: usize,
}

/// Opens and judges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checker<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) check: Check,
    pub(crate) progress: &'a Progress,
}

impl Checker<'_> {
    /// The manifest beside an archive: if it is intact, the archive is judged by it.
    pub(crate) fn manifest_of(&self, index: usize) -> Option<usize> {
        let Tree { blobs, companions, .. } = &self.inventory.tree;
        let is_manifest = |companion: &&usize| blobs[**companion].spelling == Spelling::Json;
        companions.of(index).iter().find(is_manifest).copied()
    }

    /// Opens a blob; judges it if its content need not be hashed.
    pub(crate) fn open(&self, index: usize) -> Next {
        self.try_open(index).unwrap_or_else(|error| Next::Judged(error.into()))
    }

    fn try_open(&self, index: usize) -> io::Result<Next> {
        let blob = &self.inventory.tree.blobs[index];
        let directory = self.inventory.tree.directory(blob.directory).descriptor.as_fd();
        let file = open_quietly(directory, blob.digest.file_name(blob.spelling).as_c_str())?;
        let before = Status::of_descriptor(file.as_fd())?;
        if !before.is_regular_file() {
            return Ok(Next::Judged(Verdict::Changed));
        }
        if self.check == Check::Quick && !(1..=SMALL_BYTES).contains(&before.size_bytes) {
            let expected = self.inventory.references.sizes.get(&index).copied();
            if suspicion(&file, before.size_bytes, expected)?.is_none() {
                self.progress.add(0, blob.size_bytes);
                return Ok(Next::Judged(Verdict::Intact));
            }
        }
        // What somebody appends meanwhile is not read: it may grow as fast as it is read.
        let reading = ReadThrough::new(file, before.size_bytes);
        Ok(Next::Hash(Candidate { index, reading, before, attempts: 0 }))
    }

    /// Judges a blob by the digest of what was read; if it changed meanwhile, it is to be hashed again.
    pub(crate) fn judge(&self, candidate: Candidate, actual: Digest) -> Next {
        self.try_judge(candidate, actual).unwrap_or_else(|error| Next::Judged(error.into()))
    }

    fn try_judge(&self, mut candidate: Candidate, actual: Digest) -> io::Result<Next> {
        let Candidate { index, ref mut reading, ref mut before, ref mut attempts } = candidate;
        let blob = &self.inventory.tree.blobs[index];
        let after = Status::of_descriptor(reading.file())?;
        self.inventory.tree.own_reads.record(index, blob.accessed, &after);
        if actual == blob.digest && after.size_bytes == before.size_bytes {
            return Ok(Next::Judged(Verdict::Intact));
        }
        let has_writer = has_writer(reading.file());
        if has_writer == Some(true) {
            return Ok(Next::Judged(Verdict::InUse));
        }
        if after.is_same_content(before) {
            let is_at_rest = has_writer.is_some() || self.is_at_rest(reading, &after)?;
            if has_writer.is_none() && self.progress.is_stopped() {
                // Half a second was not over.
                return Ok(Next::Judged(Verdict::NotReached));
            }
            if is_at_rest {
                return Ok(Next::Judged(Verdict::Corrupt(actual, has_writer.is_some())));
            }
        }
        *attempts += 1;
        if *attempts == ATTEMPTS {
            return Ok(Next::Judged(Verdict::Changed));
        }
        reading.restart(after.size_bytes);
        *before = after;
        Ok(Next::Hash(candidate))
    }

    /// Whether the content stays the same for half a second; used where a lease cannot show writers.
    fn is_at_rest(&self, reading: &ReadThrough, status: &Status) -> io::Result<bool> {
        self.progress.wait(SETTLE);
        Ok(Status::of_descriptor(reading.file())?.is_same_content(status))
    }
}
