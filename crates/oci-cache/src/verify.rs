//! Verifies blobs: hashes their content and compares it with the digest in the name.
//!
//! Takes an [`Inventory`]; gives a [`Verification`], and the findings in the inventory.
//!
//! Guarantees: a blob is reported corrupt only if the file did not change while it was read: no process
//! had it open for writing, and device, inode, size and modification time were the same before and
//! after. Where leases do not work, the file must instead stay the same for another half second. A blob
//! that changes is read again; one that keeps changing is reported as changed. No more of a blob is read than the size
//! that was seen, so a blob that grows all the time ends too. A blob that cannot be
//! read does not stop the rest. A companion is not checked, but one: if a blob has a `.json` that hashes to the blob's
//! name, the blob is an archive of that image, and only the `.json` can be judged. Nothing is changed; access times do not change where `O_NOATIME` is
//! allowed; pages that were not in the page cache before are dropped again.
//!
//! How it is fast: it uses all cores, starts with the largest blobs so that the cores finish together,
//! and reads in blocks that fit the processor's cache.

mod early_end;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256, Sha512};

use crate::cache::SETTLE;
use crate::cache::digest::{Algorithm, Digest, Spelling};
use crate::cache::finding::Finding;
use crate::cache::inventory::{Blob, Inventory, Tree};
use crate::cache::ledger::Tally;
use crate::error::{Failure, Failures};
use crate::os::lease::has_writer;
use crate::os::quiet_read::Windows;
use crate::os::quiet_read::open_quietly;
use crate::os::status::Status;
use crate::progress::{Progress, Stage};
use crate::scan::references::read_references;
use crate::verify::early_end::suspicion;

/// Size of one read, in bytes: small enough to stay in the second-level cache between copying and
/// hashing.
const BUFFER_BYTES: usize = 64 << 10;
/// A quick check hashes blobs up to this size in full.
const SMALL_BYTES: u64 = 4096;
/// Maximum number of times that a changing blob is read.
const ATTEMPTS: usize = 3;

/// How thoroughly to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Hash every blob.
    Full,
    /// Hash only blobs that may be truncated: those with a wrong size, a missing trailer or no content.
    Quick,
}

/// The result of a verification. Blobs not found intact are in [`Inventory::findings`].
#[derive(Debug, Default)]
pub struct Verification {
    /// The blobs that were checked, with a result of intact or corrupt.
    pub checked: Tally,
    /// The number of corrupt blobs for which leases do not work, so it is unknown whether a process was
    /// writing to them. They did not change for half a second.
    pub unprobed: u64,
    /// Blobs that could not be read, and why.
    pub failures: Failures,
    /// Whether a stop was requested before the end.
    pub interrupted: bool,
}

/// Verifies the blobs of the inventory; the inventory keeps the findings.
///
/// # Examples
///
/// ```
/// use oci_cache::{CacheDir, Check, Finding, Progress, scan, verify};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// # std::fs::write(path.join(format!("sha256:{}", "0".repeat(64))), "blob")?;
/// let mut inventory = scan(&CacheDir::open(path, &[])?)?;
/// // A blob whose name is sixty-four zeros, and whose content is not.
/// let verification = verify(&mut inventory, Check::Full, &Progress::default());
/// assert_eq!(verification.checked.blobs, 1);
/// for (blob, finding) in inventory.findings() {
///     let path = inventory.path_of(blob);
///     assert!(matches!(finding, Finding::Corrupt { .. }), "{}: {finding:?}", path.display());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn verify(inventory: &mut Inventory, check: Check, progress: &Progress) -> Verification {
    // The quick check compares sizes given by the references.
    read_references(inventory);
    let blobs = &inventory.tree.blobs;
    let mut order: Vec<usize> =
        (0..blobs.len()).filter(|&index| !blobs[index].spelling.is_companion()).collect();
    let total = order.iter().map(|&index| blobs[index].size_bytes).fold(0, u64::saturating_add);
    progress.begin(Stage::Hashing, order.len() as u64, total);
    order.sort_by_key(|&index| std::cmp::Reverse(blobs[index].size_bytes));
    let found = Mutex::new(Found::default());
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from).min(order.len());
    let work = || {
        let mut checker = Checker { inventory, check, progress, buffer: vec![0; BUFFER_BYTES] };
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (index, verdict) =
                if progress.is_stopped() { (index, Verdict::NotReached) } else { checker.check(index) };
            found.lock().unwrap_or_else(PoisonError::into_inner).add(inventory, index, verdict);
        }
    };
    thread::scope(|scope| {
        if progress.has_callback() {
            let threads = (0..cores).map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
            let threads: Vec<_> = threads.collect();
            progress.tell_until(|| threads.iter().all(thread::ScopedJoinHandle::is_finished));
        }
        for _ in 1..cores {
            // If no thread can be started, this thread does all the work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let Found { mut verification, findings } = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    verification.interrupted = progress.is_stopped();
    inventory.findings = Some(findings);
    verification
}

/// The result for one blob.
enum Verdict {
    Intact,
    /// The digest of the content, and whether a lease proved that no process writes to the file.
    Corrupt(Digest, bool),
    InUse,
    Changed,
    Gone,
    NotReached,
    Failed(io::Error),
}

/// The results so far.
#[derive(Default)]
struct Found {
    verification: Verification,
    findings: BTreeMap<usize, Finding>,
}

impl Found {
    fn add(&mut self, inventory: &Inventory, index: usize, verdict: Verdict) {
        let blob = &inventory.tree.blobs[index];
        let verification = &mut self.verification;
        let finding = match verdict {
            Verdict::Intact => {
                verification.checked.add(blob.size_bytes);
                return;
            }
            Verdict::Gone => return,
            Verdict::Corrupt(actual, is_probed) => {
                verification.checked.add(blob.size_bytes);
                verification.unprobed += u64::from(!is_probed);
                Finding::Corrupt { actual }
            }
            Verdict::InUse => Finding::InUse,
            Verdict::Changed => Finding::Changed,
            Verdict::NotReached => Finding::Unread,
            Verdict::Failed(error) => {
                verification.failures.push(Failure::new("read", inventory.path_of(blob), error));
                Finding::Unread
            }
        };
        self.findings.insert(index, finding);
    }
}

/// One thread of a verification.
struct Checker<'a> {
    inventory: &'a Inventory,
    check: Check,
    progress: &'a Progress,
    buffer: Vec<u8>,
}

impl Checker<'_> {
    /// Checks a blob. Of an archive whose manifest is beside it, that manifest is checked instead. Returns the file
    /// that was judged.
    fn check(&mut self, index: usize) -> (usize, Verdict) {
        let Tree { blobs, companions, .. } = &self.inventory.tree;
        let is_manifest = |companion: &&usize| blobs[**companion].spelling == Spelling::Json;
        let manifest = companions.of(index).iter().copied().find(|companion| is_manifest(&companion));
        let archive = manifest.filter(|&manifest| matches!(self.check_file(manifest), Verdict::Intact));
        if archive.is_some() {
            self.progress.add(0, blobs[index].size_bytes);
        }
        let (judged, verdict) =
            archive.map_or_else(|| (index, self.check_file(index)), |manifest| (manifest, Verdict::Intact));
        if !matches!(verdict, Verdict::NotReached) {
            self.progress.add(1, 0);
        }
        (judged, verdict)
    }

    fn check_file(&mut self, index: usize) -> Verdict {
        self.try_check(index, &self.inventory.tree.blobs[index]).unwrap_or_else(|error| {
            let is_gone = matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP));
            if is_gone { Verdict::Gone } else { Verdict::Failed(error) }
        })
    }

    fn try_check(&mut self, index: usize, blob: &Blob) -> io::Result<Verdict> {
        let directory = self.inventory.tree.directory(blob.directory).descriptor.as_fd();
        let file = open_quietly(directory, blob.digest.file_name(blob.spelling).as_c_str())?;
        let mut before = Status::of_descriptor(file.as_fd())?;
        if !before.is_regular_file() {
            return Ok(Verdict::Changed);
        }
        if self.check == Check::Quick && !(1..=SMALL_BYTES).contains(&before.size_bytes) {
            let expected = self.inventory.references.sizes.get(&index).copied();
            if suspicion(&file, before.size_bytes, expected)?.is_none() {
                self.progress.add(0, blob.size_bytes);
                return Ok(Verdict::Intact);
            }
        }
        for _ in 0..ATTEMPTS {
            let Some(actual) = self.hash(&file, before.size_bytes, blob.digest.algorithm())? else {
                return Ok(Verdict::NotReached);
            };
            let after = Status::of_descriptor(file.as_fd())?;
            self.inventory.tree.own_reads.record(index, blob.accessed, &after);
            if actual == blob.digest && after.size_bytes == before.size_bytes {
                return Ok(Verdict::Intact);
            }
            let has_writer = has_writer(file.as_fd());
            if has_writer == Some(true) {
                return Ok(Verdict::InUse);
            }
            if after.is_same_content(&before) && (has_writer.is_some() || self.is_at_rest(&file, &after)?) {
                return Ok(Verdict::Corrupt(actual, has_writer.is_some()));
            }
            before = after;
        }
        Ok(Verdict::Changed)
    }

    /// Whether the content stays the same for half a second; used where a lease cannot show writers.
    fn is_at_rest(&self, file: &File, status: &Status) -> io::Result<bool> {
        self.progress.wait(SETTLE);
        Ok(Status::of_descriptor(file.as_fd())?.is_same_content(status))
    }

    /// Hashes the first `size_bytes` of a file, or all of it if it is shorter; `None` if a stop was requested.
    ///
    /// What somebody appends meanwhile is not read: it may grow as fast as it is read.
    fn hash(&mut self, file: &File, size_bytes: u64, algorithm: Algorithm) -> io::Result<Option<Digest>> {
        let mut windows = Windows::default();
        let mut hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(Sha512::new())),
        };
        let mut position = 0;
        while position < size_bytes {
            windows.look_ahead(file, size_bytes, position);
            let wanted = usize::try_from(size_bytes - position).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let buffer = &mut self.buffer[..wanted];
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, position))?;
            if read == 0 {
                break;
            }
            if self.progress.is_stopped() {
                return Ok(None);
            }
            hasher.update(&self.buffer[..read]);
            self.progress.add(0, read as u64);
            windows.drop_read(file, position, position + read as u64);
            position += read as u64;
        }
        Ok(Some(hasher.finish()))
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(Box::new(hasher.finalize().into())),
        }
    }
}
