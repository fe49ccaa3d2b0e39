//! The commands, one module each.
//!
//! Guarantees: `run` does the whole command and returns how the process should exit. An error ends the
//! command early; the caller prints it. A command that opens the cache refuses the home directory, the
//! directories that the caller protects, and every directory that contains one of these.

pub mod completions;
pub mod dir;
pub mod prune;
pub mod usage;
pub mod verify;
