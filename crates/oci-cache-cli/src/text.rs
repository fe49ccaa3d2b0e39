//! Reports as text.
//!
//! Guarantees: pure; names from the disk are escaped.

pub(crate) mod entries;
pub(crate) mod failures;
pub(crate) mod gauges;
pub(crate) mod metrics;
pub(crate) mod prune;
mod reason;
mod remarks;
pub(crate) mod summary;
mod table;
pub(crate) mod usage;
pub(crate) mod verify;
pub(crate) mod without;

use std::path::PathBuf;

use banger_fmt::format_bytes;
use oci_cache::{MAX_EXAMPLES, Tally, escape_path};

/// How far a run came that was stopped, as the end of its line: so many blobs of so many. Says no numbers if there were
/// none to come to.
fn interrupted(is_interrupted: bool, done: u64, all: u64) -> String {
    match (is_interrupted, all) {
        (false, _) => String::new(),
        (true, 0) => " (interrupted)".to_owned(),
        (true, _) => format!(" (interrupted: {done} of {all} blob(s))"),
    }
}

/// A tally as text.
fn amount(tally: Tally) -> String {
    format!("{}, {}", count(tally.blobs, "blob", "blobs"), format_bytes(tally.bytes))
}

/// The first paths of so many, and how many more there are.
fn paths(all: &[PathBuf], total: u64) -> String {
    let shown = &all[..all.len().min(MAX_EXAMPLES)];
    let named: Vec<String> = shown.iter().map(|path| format!("`{}`", escape_path(path))).collect();
    let more = match total.saturating_sub(shown.len() as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

/// A number with its noun, or the start of a sentence, in the singular or the plural.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
