//! Re-hashes blobs: does the content hash to the name?
//!
//! Guarantees: a blob is called corrupt only on what was read of one unchanging file: nobody had it open
//! for writing, and device, inode, size and time of the last write were the same before and after. A blob
//! that changes is read again; one that keeps changing is reported as changed. One that cannot be read
//! does not stop the rest. Nothing is changed; access times do not move where `O_NOATIME` is allowed; what
//! was not in the page cache before is dropped from it again.
//!
//! How it is fast: all cores, the largest blobs first so that the cores end together, and reads that fit
//! the processor's cache.

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
use crate::cache::digest::{Algorithm, Digest};
use crate::cache::finding::Finding;
use crate::cache::inventory::{Blob, Inventory};
use crate::cache::ledger::Tally;
use crate::error::Failure;
use crate::os::lease::has_writer;
use crate::os::quiet_read::Windows;
use crate::os::quiet_read::open_quietly;
use crate::os::status::{Status, Timestamp};
use crate::progress::Progress;
use crate::scan::references::read_references;
use crate::verify::early_end::suspicion;

/// How much is read at a time: what stays in the processor's second-level cache between copy and hash.
const BUFFER_BYTES: usize = 64 << 10;
/// Up to this size a quick check hashes everything.
const SMALL_BYTES: u64 = 4096;
/// How often a blob that changes is read.
const ATTEMPTS: usize = 3;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Hash every blob.
    Full,
    /// Hash only those that show a sign of ending early: a wrong size, a missing trailer, no content.
    Quick,
}

/// What a verification came to. What is not intact is in [`Inventory::findings`].
#[derive(Debug, Default)]
pub struct Verification {
    /// What was looked at.
    pub checked: Tally,
    /// How many of the corrupt ones nobody could be asked about: leases do not work for them. They did not
    /// change for half a second.
    pub unprobed: u64,
    /// What could not be read, and why.
    pub failures: Vec<Failure>,
    /// Whether a stop was asked for before the end.
    pub interrupted: bool,
}

/// Verifies the blobs of the inventory, which keeps what was found.
#[must_use]
pub fn verify(inventory: &mut Inventory, check: Check, progress: &Progress) -> Verification {
    // They give the sizes that a quick check compares. First, since reading a manifest may move its access time,
    // of which the check of that blob then takes note.
    read_references(inventory);
    let blobs = &inventory.tree.blobs;
    progress.begin(blobs.len() as u64, blobs.iter().map(|blob| blob.size_bytes).fold(0, u64::saturating_add));
    let mut order: Vec<usize> = (0..blobs.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(blobs[index].size_bytes));
    let found = Mutex::new(Found::default());
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from).min(order.len());
    let work = || {
        let mut checker = Checker { inventory, check, progress, buffer: vec![0; BUFFER_BYTES] };
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict =
                if progress.is_stopped() { (Verdict::NotReached, None) } else { checker.check(index) };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.add(inventory, index, verdict);
        }
    };
    thread::scope(|scope| {
        for _ in 1..cores {
            // Where no thread is to be had, this one does it all.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let Found { mut verification, findings, accessed } =
        found.into_inner().unwrap_or_else(PoisonError::into_inner);
    verification.interrupted = progress.is_stopped();
    for (index, accessed) in accessed {
        inventory.tree.blobs[index].accessed = accessed;
    }
    inventory.findings = Some(findings);
    verification
}

/// What is true of one blob.
enum Verdict {
    Intact,
    /// What it hashes to, and whether it is known that nobody writes to it.
    Corrupt(Digest, bool),
    InUse,
    Changed,
    Gone,
    NotReached,
    Failed(io::Error),
}

/// What was found so far.
#[derive(Default)]
struct Found {
    verification: Verification,
    findings: BTreeMap<usize, Finding>,
    /// Access times that moved by reading, since `O_NOATIME` was not allowed.
    accessed: Vec<(usize, Timestamp)>,
}

impl Found {
    fn add(
        &mut self,
        inventory: &Inventory,
        index: usize,
        (verdict, accessed): (Verdict, Option<Timestamp>),
    ) {
        let blob = &inventory.tree.blobs[index];
        let verification = &mut self.verification;
        self.accessed.extend(accessed.map(|accessed| (index, accessed)));
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
    /// Checks a blob. Also returns its access time, if reading moved that.
    fn check(&mut self, index: usize) -> (Verdict, Option<Timestamp>) {
        let blob = &self.inventory.tree.blobs[index];
        match self.try_check(index, blob) {
            Ok(result) => result,
            Err(error) => {
                let is_gone = matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::LOOP));
                (if is_gone { Verdict::Gone } else { Verdict::Failed(error) }, None)
            }
        }
    }

    fn try_check(&mut self, index: usize, blob: &Blob) -> io::Result<(Verdict, Option<Timestamp>)> {
        let directory = self.inventory.tree.directory(blob.directory).descriptor.as_fd();
        let file = open_quietly(directory, blob.digest.file_name(blob.spelling).as_c_str())?;
        let mut before = Status::of_descriptor(file.as_fd())?;
        if !before.is_regular_file() {
            return Ok((Verdict::Changed, None));
        }
        if self.check == Check::Quick && !(1..=SMALL_BYTES).contains(&before.size_bytes) {
            let expected = self.inventory.references.sizes.get(&index).copied();
            if suspicion(&file, before.size_bytes, expected)?.is_none() {
                self.progress.add(1, blob.size_bytes);
                return Ok((Verdict::Intact, None));
            }
        }
        for _ in 0..ATTEMPTS {
            let Some(actual) = self.hash(&file, before.size_bytes, blob.digest.algorithm())? else {
                return Ok((Verdict::NotReached, None));
            };
            let after = Status::of_descriptor(file.as_fd())?;
            let accessed = (after.accessed != blob.accessed).then_some(after.accessed);
            if actual == blob.digest {
                self.progress.add(1, 0);
                return Ok((Verdict::Intact, accessed));
            }
            let has_writer = has_writer(file.as_fd());
            if has_writer == Some(true) {
                return Ok((Verdict::InUse, accessed));
            }
            if after.is_same_content(&before) && (has_writer.is_some() || self.is_at_rest(&file, &after)?) {
                return Ok((Verdict::Corrupt(actual, has_writer.is_some()), accessed));
            }
            before = after;
        }
        Ok((Verdict::Changed, None))
    }

    /// Whether the content stays the same for a while, where it cannot be asked who writes to it.
    fn is_at_rest(&self, file: &File, status: &Status) -> io::Result<bool> {
        self.progress.wait(SETTLE);
        Ok(Status::of_descriptor(file.as_fd())?.is_same_content(status))
    }

    /// Hashes a file; `None` if a stop was asked for.
    fn hash(&mut self, file: &File, size_bytes: u64, algorithm: Algorithm) -> io::Result<Option<Digest>> {
        let mut windows = Windows::default();
        let mut hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(Sha512::new())),
        };
        let mut position = 0;
        loop {
            windows.look_ahead(file, size_bytes, position);
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..], position))?;
            if read == 0 {
                return Ok(Some(hasher.finish()));
            }
            if self.progress.is_stopped() {
                return Ok(None);
            }
            hasher.update(&self.buffer[..read]);
            self.progress.add(0, read as u64);
            windows.drop_read(file, position, position + read as u64);
            position += read as u64;
        }
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
