//! The nouns: the cache directory, and what can be in it.
//!
//! Takes a path; gives an open directory ([`cache_dir::CacheDir`]) and the types in which the other stages
//! talk about its entries.
//!
//! Guarantees: nothing here lists a directory, decides or removes anything.

pub(crate) mod cache_dir;
pub(crate) mod digest;
pub(crate) mod finding;
pub(crate) mod inventory;
pub(crate) mod ledger;
pub(crate) mod leftover;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod partial;
pub(crate) mod references;

use std::time::Duration;

/// How long an entry must have been idle: longer than a pull takes between closing a file and renaming
/// it or opening it again.
pub const SETTLE: Duration = Duration::from_millis(500);
