//! Errors: the operation, the path and the cause.
//!
//! Guarantees: `Display` never repeats the source. Paths are escaped, so newlines or terminal escapes in
//! a name cannot forge output.

mod failures;

use std::io;
use std::path::{Path, PathBuf};

use crate::escape::escape_path;

pub use self::failures::{Cause, Failure, Failures, MAX_CAUSES, MAX_EXAMPLES};

/// Why a cache could not be inspected or pruned at all.
///
/// Failures of single entries are in [`crate::PruneReport::failures`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory must not be pruned. Nothing was changed.
    #[error("refusing `{}`: {reason}", escape_path(.path))]
    Refused {
        /// The directory, as given.
        path: PathBuf,
        /// The reason.
        reason: Refusal,
    },
    /// A system call failed.
    #[error("{operation} `{}`", escape_path(.path))]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// The path that it failed on.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process holds the cache's lock.
    #[error("lock oci cache `{}`: another process holds the lock", escape_path(.path))]
    Locked {
        /// The cache.
        path: PathBuf,
    },
    /// The lock belongs to another directory than the plan. Nothing was changed.
    #[error("prune oci cache `{}`: the lock is on another directory", escape_path(.path))]
    OtherLock {
        /// The plan's directory.
        path: PathBuf,
    },
    /// The policy removes only unreferenced blobs, but there is no index. Nothing was changed.
    #[error("no index.json in `{}`: without one, no blob is known to be unreferenced", escape_path(.path))]
    NoIndex {
        /// The cache.
        path: PathBuf,
    },
    /// The cache was renamed aside, but could be neither recreated nor restored.
    #[error(
        "recreate oci cache `{}`, then restore it from `{}` ({restore})",
        escape_path(.path),
        escape_path(.aside)
    )]
    NotRestored {
        /// The cache.
        path: PathBuf,
        /// Where its content is now.
        aside: PathBuf,
        /// Why the cache could not be restored.
        restore: io::Error,
        /// Why the cache could not be recreated.
        #[source]
        recreate: io::Error,
    },
}

impl Error {
    /// Turns the error number of a system call into an error; for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { operation, path: path.to_owned(), source: errno.into() }
    }
}

/// Why a directory is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is empty.
    #[error("the path is empty")]
    EmptyPath,
    /// The path names something other than a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// The directory is, or contains, `/` or a protected directory.
    #[error("it is, or contains, the protected directory `{}`", escape_path(.0))]
    Protected(PathBuf),
    /// The directory has entries, but most of them do not belong to a cache, or none does.
    #[error("{} to an OCI blob cache (the first of {}: `{example}`){}", share(*.blobs), others(*.entries), directions(.nearby))]
    NotACache {
        /// The number of blobs and temporary files of downloads.
        blobs: usize,
        /// The number of other entries.
        entries: usize,
        /// The name of one of them, escaped.
        example: String,
        /// Caches that lie one or two levels below or above.
        nearby: Vec<PathBuf>,
    },
    /// The directory belongs to a store that keeps records of what is in it.
    #[error("it belongs to {store}, which keeps records of its content; clean it with `{command}`")]
    Store {
        /// The store.
        store: &'static str,
        /// The command that cleans it.
        command: &'static str,
    },
    /// The prune is strict, and the kernel cannot confine it.
    #[error(
        "the kernel cannot confine the prune to it (Landlock is unavailable), and a strict prune does not go without; \
         nothing was removed"
    )]
    Unconfined,
    /// The aside strategy cannot work on this cache, for the reason given.
    #[error("the aside strategy cannot work here: {0}; prune in place (without --aside) instead")]
    NotAside(String),
}

fn share(blobs: usize) -> String {
    match blobs {
        0 => "nothing in it belongs".to_owned(),
        1 => "only 1 of the entries in it belongs".to_owned(),
        _ => format!("only {blobs} of the entries in it belong"),
    }
}

fn others(entries: usize) -> String {
    if entries == 1 { "1 other".to_owned() } else { format!("{entries} others") }
}

/// Where to look instead.
fn directions(nearby: &[PathBuf]) -> String {
    /// The maximum number of caches to name.
    const SHOWN: usize = 5;
    let named: Vec<String> =
        nearby.iter().take(SHOWN).map(|path| format!("`{}`", escape_path(path))).collect();
    let more = match nearby.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if named.is_empty() { String::new() } else { format!("; try {}{more}", named.join(", ")) }
}
