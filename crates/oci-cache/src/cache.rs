//! The cache directory, and the types of the entries in it.
//!
//! Takes a path; gives an open directory ([`cache_dir::CacheDir`]) and the types that the other stages
//! use for its entries.
//!
//! Guarantees: nothing here lists a directory or removes a blob. Directories that must never be pruned are
//! refused here, whatever comes later.

pub(crate) mod cache_dir;
pub(crate) mod companions;
pub(crate) mod digest;
pub(crate) mod displaced_index;
pub(crate) mod finding;
pub(crate) mod idle;
pub(crate) mod inventory;
pub(crate) mod ledger;
pub(crate) mod leftover;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod own_changes;
pub(crate) mod own_reads;
pub(crate) mod partial;
pub(crate) mod references;

use std::time::Duration;

/// How long an entry must have been idle before it may be removed.
///
/// This is longer than a pull takes between closing a file and renaming or reopening it.
pub const SETTLE: Duration = Duration::from_millis(500);
