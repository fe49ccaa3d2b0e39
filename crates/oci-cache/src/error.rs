//! Errors: what was being done, to which path, and why it failed.
//!
//! Guarantees: `Display` never repeats the source; paths are escaped, so a name with newlines or
//! terminal escapes cannot forge output.

use std::io;
use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::escape::escape_path;

/// Why a cache could not be inspected or pruned at all.
///
/// What fails for a single entry does not end up here but in [`crate::PruneReport::failures`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory must not be pruned. Nothing was touched.
    #[error("refused to prune `{}`: {reason}", escape_path(.path))]
    Refused {
        /// The directory, as given.
        path: PathBuf,
        /// Why.
        reason: Refusal,
    },
    /// A system call failed.
    #[error("{operation} `{}`", escape_path(.path))]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the cache's lock.
    #[error("lock oci cache `{}`: another process holds the lock", escape_path(.path))]
    Locked {
        /// The cache.
        path: PathBuf,
    },
    /// The lock is on another directory than the plan is about. Nothing was touched.
    #[error("prune oci cache `{}`: the lock is on another directory", escape_path(.path))]
    OtherLock {
        /// The directory that the plan is about.
        path: PathBuf,
    },
    /// Only what is unreferenced is to go, and nothing says what is referenced. Nothing was touched.
    #[error("no index.json in `{}` from which blobs could be referenced, as an OCI image layout has", escape_path(.path))]
    NoIndex {
        /// The cache.
        path: PathBuf,
    },
    /// The cache went aside, could not be made anew, and could not be put back.
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
        /// Why it could not be put back.
        restore: io::Error,
        /// Why it could not be made anew.
        #[source]
        recreate: io::Error,
    },
}

impl Error {
    /// An error of a system call, as `map_err` takes it.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { operation, path: path.to_owned(), source: errno.into() }
    }
}

/// Why a directory is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path has no characters.
    #[error("the path is empty")]
    EmptyPath,
    /// The path names something other than a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// It is the file system's root, or it is or holds a directory that must stay.
    #[error("it is, or holds, `{}`", escape_path(.0))]
    Protected(PathBuf),
    /// It has entries, and none of them belongs to a cache.
    #[error("nothing in it belongs to an OCI blob cache (the first of {entries}: `{example}`)")]
    NotACache {
        /// How many entries it has.
        entries: usize,
        /// One of them, escaped.
        example: String,
    },
    /// The aside strategy cannot work there.
    #[error("the aside strategy cannot work here: {0}; prune in place (without --aside) instead")]
    NotAside(String),
}

/// An entry that could not be inspected or removed.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub operation: &'static str,
    /// To which path.
    pub path: PathBuf,
    /// Why it failed.
    pub error: io::Error,
}

impl Failure {
    pub(crate) fn new(operation: &'static str, path: PathBuf, error: impl Into<io::Error>) -> Self {
        Self { operation, path, error: error.into() }
    }

    /// The same again; an `io::Error` has no clone of its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let error = match self.error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(self.error.kind(), self.error.to_string()),
        };
        Self { operation: self.operation, path: self.path.clone(), error }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Failure", 2)?;
        object.serialize_field("path", &escape_path(&self.path))?;
        object.serialize_field("error", &format!("{}: {}", self.operation, self.error))?;
        object.end()
    }
}
