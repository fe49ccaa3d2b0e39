//! The commands, a module each.
//!
//! Guarantees: `run` does all of a command, and returns how the process is to end; what ends it early is an
//! error, to be printed. A command that opens the cache refuses the home, what the caller wants protected
//! beside it, and whatever holds one of these.

pub mod completions;
pub mod dir;
pub mod prune;
pub mod usage;
pub mod verify;
