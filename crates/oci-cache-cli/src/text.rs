//! Reports as text.
//!
//! Guarantees: pure; names from the disk are escaped.

pub(crate) mod metrics;
pub(crate) mod prune;
mod reason;
mod remarks;
pub(crate) mod summary;
pub(crate) mod usage;
pub(crate) mod verify;

use banger_fmt::format_bytes;
use oci_cache::{Failure, Tally, escape_path};

/// A failure as an error message.
pub(crate) fn failure(failure: &Failure) -> String {
    format!("error: {} `{}`: {}", failure.operation, escape_path(&failure.path), failure.error)
}

/// A tally as text.
fn amount(tally: Tally) -> String {
    format!("{}, {}", count(tally.blobs, "blob", "blobs"), format_bytes(tally.bytes))
}

/// A number with its noun, or the start of a sentence, in the singular or the plural.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
