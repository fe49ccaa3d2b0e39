//! Idle caches: what a prune reports, and what it does.
//!
//! Guarantees: nothing else touches the caches. A dry run changes nothing: names, inodes, sizes, modes,
//! owners and times stay the same. A real run frees what the dry run reported. What it reports matches the
//! disk to the byte. It removes every blob, and keeps all directories and everything that is not a blob.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::kit::total::Total;
use crate::kit::tree::Tree;
use crate::smoke::damage::{blobs, first_damage, first_difference};
use crate::smoke::fill::{fill_flat, fill_layout, settle};
use crate::smoke::images::Images;
use crate::smoke::prune::{Prune, Report};
use crate::smoke::table::Row;
use crate::smoke::tally::{Failure, Tally};

/// Runs the exercise with caches in `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Vec<Row>> {
    let (layout, flat) = (directory.join("idle-layout"), directory.join("idle-flat"));
    let mut in_layout = fill_layout(images, &layout);
    let mut in_flat = fill_flat(&flat);
    for cache in [&layout, &flat] {
        let foreign = cache.join("README");
        fs::write(&foreign, "none of the cache's").with_context(|| format!("write {}", foreign.display()))?;
    }
    settle();
    in_layout.merge(check(prune, &layout)?);
    in_flat.merge(check(prune, &flat)?);
    Ok(vec![
        Row { exercise: "OCI layout, idle", may_fail: false, tally: in_layout },
        Row { exercise: "flat cache, idle", may_fail: false, tally: in_flat },
    ])
}

fn check(prune: &Prune, cache: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let before = Tree::of(cache)?;
    let dry = prune.run(cache, &["--dry-run"]);
    let after_dry = Tree::of(cache)?;
    let real = prune.run(cache, &[]);
    let after = Tree::of(cache)?;

    tally.expect_none("a dry run changed", first_difference(&before, &after_dry));
    tally.expect_none("a prune damaged", first_damage(&before, &after));
    let gone = before.names_gone_from(&after);
    tally.check(gone == blobs(&before), || format!("{gone:?} went of {:?}", blobs(&before)));
    for (name, report) in [("the dry run", &dry), ("the prune", &real)] {
        let Ok(report) = report else { continue };
        tally.check(total_of(report) == gone, || {
            format!("{name} reports {:?}, but what left the disk is {gone:?}", total_of(report))
        });
        let (foreign, kept) = (report.foreign, report.blobs_kept());
        tally.check(foreign == 1, || format!("{name} reports {foreign} foreign entries instead of 1"));
        tally.check(kept == 0, || format!("{name} kept {kept} idle blobs"));
    }
    tally.add_dry_run(dry);
    tally.add_prune(real);
    Ok(tally)
}

fn total_of(report: &Report) -> Total {
    Total { blobs: report.blobs_freed, bytes: report.bytes_freed }
}

impl Tally {
    fn expect_none(&mut self, what: &str, found: Option<String>) {
        if let Some(found) = found {
            self.fail(Failure::Check, &format!("{what} {found}"));
        }
    }
}
