//! What shows that a pull is under way.
//!
//! Guarantees: pure. In JSON, every sign has the same three fields, and paths are escaped.

use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::escape::escape_path;
use crate::os::processes::Process;

/// What shows that a pull is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A process has a file open.
    Open {
        /// Which file.
        path: PathBuf,
        /// Which process, if that can be told.
        process: Option<Process>,
    },
    /// A file was opened, closed, created or renamed while the prune looked.
    Used(PathBuf),
    /// A directory changed since the scan.
    Changed(PathBuf),
    /// A puller holds a lock.
    Locked(PathBuf),
    /// A blob is new, and the layout's index does not lead to it.
    NotInIndex(PathBuf),
    /// The prune cannot tell who opens what: inotify is unavailable, or its queue has overflowed.
    Unwatched,
}

impl Sign {
    /// The name of the sign in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Used(_) => "used",
            Self::Changed(_) => "changed",
            Self::Locked(_) => "locked",
            Self::NotInIndex(_) => "not_in_index",
            Self::Unwatched => "unwatched",
        }
    }

    /// The file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Used(path)
            | Self::Changed(path)
            | Self::Locked(path)
            | Self::NotInIndex(path) => Some(path),
            Self::Unwatched => None,
        }
    }
}

impl Serialize for Sign {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let process = if let Self::Open { process, .. } = self { process.as_ref() } else { None };
        let mut object = serializer.serialize_struct("Sign", 3)?;
        object.serialize_field("sign", self.name())?;
        object.serialize_field("path", &self.path().map(escape_path))?;
        object.serialize_field("process", &process)?;
        object.end()
    }
}
