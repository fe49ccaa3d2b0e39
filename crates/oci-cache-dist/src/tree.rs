//! The files that are installed, by their path below the prefix (`/usr/local`, `/usr`).
//!
//! Guarantees: they are in the order of their paths. A file is readable by all and writable by its owner; a program can
//! also be run by all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<PathBuf, File>,
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

impl Tree {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        let file = File { content: content.into(), mode: 0o644 };
        self.files.insert(path.as_ref().to_owned(), file);
    }

    /// Adds a program.
    pub(crate) fn add_program(&mut self, path: impl AsRef<Path>, content: Vec<u8>) {
        self.files.insert(path.as_ref().to_owned(), File { content, mode: 0o755 });
    }
}
