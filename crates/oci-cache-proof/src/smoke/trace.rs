//! A dry run under strace makes no system call that changes anything.
//!
//! Guarantees: strace watches the whole process with all threads, not only its calls on the cache. A real run
//! under the same strace must show an `unlink` for each blob that it reports, which proves that the check
//! sees them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use xshell::cmd;

use crate::kit::shell::shell;
use crate::smoke::fill::{fill_flat, fill_layout, settle};
use crate::smoke::images::Images;
use crate::smoke::mutation::{TRACED, mutating_call};
use crate::smoke::prune::{Prune, report_of};
use crate::smoke::table::Row;
use crate::smoke::tally::{Failure, Tally};

/// Runs the exercise with caches in `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn row(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Row> {
    let (layout, flat) = (directory.join("traced-layout"), directory.join("traced-flat"));
    let mut tally = fill_layout(images, &layout);
    tally.merge(fill_flat(&flat));
    settle();
    for cache in [&layout, &flat] {
        for flags in [&["--dry-run"][..], &["--dry-run", "--aside"]] {
            let (_, changes) = traced(prune, cache, flags, directory, &mut tally)?;
            for change in &changes {
                tally.fail(Failure::Check, &format!("{flags:?} on {}: {change}", cache.display()));
            }
        }
        let (blobs_freed, changes) = traced(prune, cache, &[], directory, &mut tally)?;
        let unlinks = changes.iter().filter(|line| is_unlink(line)).count() as u64;
        tally.check(blobs_freed > 0 && unlinks >= blobs_freed, || {
            format!("strace saw {unlinks} unlinks, but the prune reports {blobs_freed} freed blobs")
        });
    }
    Ok(Row { exercise: "dry run under strace", may_fail: false, tally })
}

/// Prunes `cache` under strace. Returns the reported number of blobs, and the calls that change something.
fn traced(
    prune: &Prune,
    cache: &Path,
    flags: &[&str],
    directory: &Path,
    tally: &mut Tally,
) -> anyhow::Result<(u64, Vec<String>)> {
    let shell = shell()?;
    let log = directory.join("strace.log");
    let strace = cmd!(shell, "strace -f -qq -o {log} -e signal=none -e trace={TRACED}");
    let is_dry = flags.contains(&"--dry-run");
    let report = report_of(strace.args(prune.argv(cache, flags)), is_dry);
    let blobs_freed = report.as_ref().map_or(0, |report| report.blobs_freed);
    if is_dry {
        tally.add_dry_run(report);
    } else {
        tally.add_prune(report);
    }
    let text = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    ensure!(text.contains("openat"), "strace saw nothing of the prune of {}", cache.display());
    let changes = text.lines().filter(|line| mutating_call(line).is_some());
    Ok((blobs_freed, changes.map(str::to_owned).collect()))
}

fn is_unlink(line: &str) -> bool {
    matches!(mutating_call(line), Some("unlink" | "unlinkat"))
}
