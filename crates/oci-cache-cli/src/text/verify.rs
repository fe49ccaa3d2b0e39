//! A verification as text: its result, its notes, and each corrupt blob.
//!
//! Guarantees: pure; names from the disk are escaped.

use std::path::Path;

use banger_fmt::format_bytes;
use oci_cache::{Hole, escape_path};

use crate::report::verify::{CorruptBlob, VerifyReport};
use crate::style::{ERROR, STRONG, paint};
use crate::text::{amount, count, interrupted};

/// The result as one line, styled, including its newline.
pub(crate) fn result(report: &VerifyReport) -> String {
    let verb = if report.quick { "quickly checked" } else { "verified" };
    let (size, blobs) = (format_bytes(report.bytes_verified), report.blobs_verified);
    let holes = match report.holes.len() as u64 {
        0 => String::new(),
        holes => format!(", {}", count(holes, "hole", "holes")),
    };
    let corrupt = match report.corrupt.len() {
        0 => "0 corrupt".to_owned(),
        corrupt => paint(ERROR, &format!("{corrupt} corrupt")),
    };
    let interrupted = interrupted(report.interrupted, blobs, report.blobs_in_all());
    let verified = paint(STRONG, &format!("{verb} {size}"));
    format!("{verified} across {blobs} blob(s) in {}: {corrupt}{holes}{interrupted}\n", report.cache_dir)
}

/// A corrupt blob.
pub(crate) fn corrupt(corrupt: &CorruptBlob) -> String {
    let CorruptBlob { path, bytes, expected, actual } = corrupt;
    format!("corrupt `{path}` ({}): expected {expected}, found {actual}", format_bytes(*bytes))
}

/// A hole.
pub(crate) fn hole(hole: &Hole) -> String {
    match hole {
        Hole::AbsentManifest { name, digest } => {
            let name = name.as_ref().map_or_else(|| digest.to_string(), |name| escape_path(Path::new(name)));
            format!("hole: the index has an entry `{name}`, but {digest} is not there")
        }
        Hole::AbsentBlob { manifest, digest } => {
            format!("hole: manifest {manifest} needs {digest}, which is not there")
        }
        Hole::OtherSize { path, bytes, expected_bytes } => format!(
            "hole: `{path}` has {}, but its descriptor says {}",
            count(*bytes, "byte", "bytes"),
            count(*expected_bytes, "byte", "bytes")
        ),
    }
}

/// What people should know besides the result.
pub(crate) fn notes(report: &VerifyReport) -> Vec<String> {
    let mut notes = Vec::new();
    if report.quick {
        notes.push("note: quick check: hashed only small blobs and those that look truncated".to_owned());
    }
    let why_unread = if report.interrupted { "stopped early" } else { "could not be read" };
    for (tally, why) in [
        (report.in_use, "being written"),
        (report.changed, "changed while being read"),
        (report.unread, why_unread),
    ] {
        if tally.blobs > 0 {
            notes.push(format!("note: did not check {}: {why}; verify again later", amount(tally)));
        }
    }
    if report.unprobed > 0 {
        let blobs = count(report.unprobed, "corrupt blob", "corrupt blobs");
        notes.push(format!(
            "note: could not check {blobs} for writers (leases unavailable); no change for half a second"
        ));
    }
    notes
}
