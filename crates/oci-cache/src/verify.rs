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
//! How it is fast: each core hashes two blobs at once, while the kernel reads ahead of it and other threads wait for the
//! disk. The largest blobs come first, so that the cores finish together.

mod block;
mod check;
mod checker;
mod early_end;
mod hasher;
mod sha256;
#[cfg(target_arch = "x86_64")]
mod sha256_pair;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::cache::finding::Finding;
use crate::cache::inventory::Inventory;
use crate::cache::ledger::Tally;
use crate::error::{Failure, Failures};
use crate::progress::{Progress, Stage};
use crate::scan::references::read_references;
pub use crate::verify::check::Check;
use crate::verify::checker::{Checker, Verdict};
use crate::verify::worker::{Queue, Worker};

/// Threads for each core: while one waits for the disk, another hashes.
const THREADS_PER_CORE: usize = 2;

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
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores * THREADS_PER_CORE).min(order.len());
    let queue = Queue::new(&order, cores);
    let tell = |index, verdict| {
        found.lock().unwrap_or_else(PoisonError::into_inner).add(inventory, index, verdict);
    };
    let work = || Worker::new(Checker { inventory, check, progress }, threads, tell).run(&queue);
    thread::scope(|scope| {
        if progress.has_callback() {
            let started = (0..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
            let started: Vec<_> = started.collect();
            progress.tell_until(|| started.iter().all(thread::ScopedJoinHandle::is_finished));
        }
        for _ in 1..threads {
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
