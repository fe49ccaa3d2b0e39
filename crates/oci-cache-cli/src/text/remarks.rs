//! What is unusual about a layout's index, as text.
//!
//! Guarantees: pure; names from the disk are escaped. One note for each kind, however many entries there are.

use std::path::Path;

use oci_cache::{Remark, escape_path};

use crate::text::count;

/// The notes.
pub(crate) fn remarks(remarks: &[Remark]) -> Vec<String> {
    let absent = remarks.iter().filter_map(|remark| match remark {
        Remark::AbsentManifest { name, digest } => Some(name.clone().unwrap_or_else(|| digest.to_string())),
        Remark::UnknownAlgorithm { .. } => None,
    });
    let unknown = remarks.iter().filter_map(|remark| match remark {
        Remark::UnknownAlgorithm { digest } => Some(digest.clone()),
        Remark::AbsentManifest { .. } => None,
    });
    let absent = note(absent, "whose manifest is not there");
    absent.into_iter().chain(note(unknown, "whose digest has an unknown algorithm")).collect()
}

/// A note about entries of one kind, by their names or digests.
fn note(mut entries: impl Iterator<Item = String>, what: &str) -> Option<String> {
    let first = escape_path(Path::new(&entries.next()?));
    let entries = 1 + entries.count() as u64;
    let example = if entries == 1 { String::new() } else { "such as ".to_owned() };
    let entries = count(entries, "entry", "entries");
    Some(format!("note: the index has {entries} {what}: {example}`{first}`"))
}
