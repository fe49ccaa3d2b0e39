//! Reports as text: the one place where the wording stands.
//!
//! Guarantees: pure; names from the disk are escaped.

pub(crate) mod metrics;
pub(crate) mod prune;
mod reason;
pub(crate) mod summary;
pub(crate) mod usage;
pub(crate) mod verify;

use banger_fmt::format_bytes;
use oci_cache::{Failure, Tally, escape_path};

/// Something that could not be done.
pub(crate) fn failure(failure: &Failure) -> String {
    format!("error: {} `{}`: {}", failure.operation, escape_path(&failure.path), failure.error)
}

/// A tally in words.
fn amount(tally: Tally) -> String {
    format!("{} blob(s), {}", tally.blobs, format_bytes(tally.bytes))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
