//! What became of each entry, as text.
//!
//! Guarantees: pure; names from the disk are escaped.

use banger_fmt::format_bytes;
use oci_cache::{Tally, escape_path};

use crate::report::entries::{End, Entry};
use crate::text::amount;
use crate::text::reason::{of_keeping, of_removal};

/// The line that `-v` prints for an entry.
pub(crate) fn line(entry: &Entry) -> String {
    let path = escape_path(&entry.path);
    let (removed, remove) =
        if entry.is_dry_run { ("would remove", "would remove") } else { ("removed", "remove") };
    let size = format_bytes(entry.bytes);
    match entry.end {
        End::Removed(reason) => format!("{removed} `{path}` ({size}): {}", of_removal(reason)),
        End::Kept(reason) => format!("keep `{path}` ({size}): {}", of_keeping(reason)),
        End::Gone => format!("missed `{path}` ({size}): already gone"),
        End::Failed => format!("failed `{path}` ({size}): see the error"),
        End::NotReached => format!("missed `{path}` ({size}): the prune was stopped first"),
        End::Leftover(went) => {
            let amount = amount(Tally { blobs: entry.files, bytes: entry.bytes });
            let verb = if went { remove } else { "keep" };
            format!("{verb} `{path}` ({amount}): left by a killed prune")
        }
        End::Foreign(kind) => format!("leave `{path}`: foreign, a {kind}"),
    }
}
