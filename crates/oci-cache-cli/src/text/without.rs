//! What a prune had to go without, as text.
//!
//! Guarantees: pure. One line, whatever is missing; nothing if nothing is.

use oci_cache::PruneReport;

use crate::text::count;

/// The note. It is for everyone: what is missing is what protects others.
pub(crate) fn note(report: &PruneReport) -> Option<String> {
    if report.dry_run || !report.exists {
        return None;
    }
    let notes = &report.notes;
    let leases = (notes.unprobed > 0)
        .then(|| format!("without leases for {}", count(notes.unprobed, "blob", "blobs")));
    let inotify = notes.unwatched.then(|| "without inotify".to_owned());
    let landlock = (notes.confined == Some(false)).then(|| "without Landlock".to_owned());
    let missing: Vec<String> = [leases, inotify, landlock].into_iter().flatten().collect();
    let (last, others) = missing.split_last()?;
    let and = if others.is_empty() { "" } else { ", and " };
    Some(format!("note: went {}{and}{last}", others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_all_that_was_missing() {
        let note_on = |unprobed, unwatched, confined| {
            let mut report = PruneReport { exists: true, ..PruneReport::default() };
            report.notes.unprobed = unprobed;
            report.notes.unwatched = unwatched;
            report.notes.confined = confined;
            note(&report)
        };
        assert_eq!(note_on(0, false, Some(true)), None);
        for (missing, expected) in [
            ((0, false, Some(false)), "note: went without Landlock"),
            ((1, false, Some(true)), "note: went without leases for 1 blob"),
            ((12, false, Some(false)), "note: went without leases for 12 blobs, and without Landlock"),
            (
                (2, true, Some(false)),
                "note: went without leases for 2 blobs, without inotify, and without Landlock",
            ),
        ] {
            let (unprobed, unwatched, confined) = missing;
            assert_eq!(note_on(unprobed, unwatched, confined).as_deref(), Some(expected));
        }
        let dry = PruneReport { exists: true, dry_run: true, ..PruneReport::default() };
        assert_eq!(note(&dry), None);
    }
}
