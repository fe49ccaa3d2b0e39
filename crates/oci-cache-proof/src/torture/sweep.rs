//! What must hold after a prune that was tampered with.
//!
//! Guarantees: each attempt has a sandbox of its own, and is compared with an undisturbed prune of the same
//! mode.

use std::path::{Path, PathBuf};

use crate::kit::layout::problems;
use crate::kit::process::Ended;
use crate::kit::tree::Tree;
use crate::torture::mode::Mode;
use crate::torture::row::Row;
use crate::torture::sandbox::{Sandbox, is_protected, is_the_caches};
use crate::torture::stage::Stage;
use crate::torture::strace::{self, Point, Tampering};

/// An undisturbed prune of a mode.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) mode: Mode,
    /// The calls that it makes.
    pub(crate) points: Vec<Point>,
    /// What it leaves.
    outline: Vec<String>,
}

impl Course {
    /// Prunes under strace without tampering.
    pub(crate) fn of(mode: Mode, stage: &Stage) -> anyhow::Result<Self> {
        let sandbox = mode.sandbox(stage)?;
        mode.prepare(stage, &sandbox)?;
        let command = || Ok(mode.command(stage, &sandbox));
        let points = strace::survey(command, &sandbox.cache(), &sandbox.out("strace.log"))?;
        for call in mode.calls() {
            let is_there = points.iter().any(|point| point.call == *call);
            anyhow::ensure!(is_there, "strace saw no {call} of a prune {}", mode.name());
        }
        let found = sandbox.tree()?;
        let left: Vec<String> = caches_files(&found).map(|path| path.display().to_string()).collect();
        anyhow::ensure!(left == mode.leaves(), "a prune {} leaves {left:?}", mode.name());
        Ok(Self { mode, points, outline: found.outline() })
    }

    /// Tampers with a prune, checks what is left, and prunes again.
    pub(crate) fn attempt(&self, stage: &Stage, tampering: &Tampering) -> anyhow::Result<Attempt> {
        let sandbox = self.mode.sandbox(stage)?;
        self.mode.prepare(stage, &sandbox)?;
        let before = sandbox.tree()?;
        let mut command = self.mode.command(stage, &sandbox);
        let log = sandbox.out("strace.log");
        let (ended, hits) = strace::tamper(&mut command, &sandbox.cache(), tampering, &log)?;
        let after = sandbox.tree()?;
        let (call, how) = (&tampering.call, &tampering.how);
        let mut attempt = Attempt {
            row: Row { executions: 1, ..Row::default() },
            what: format!("{}: {call}:{how}", self.mode.name()),
            ended,
            hits,
            is_whole: is_whole(&self.outline, &after, tampering),
            before,
            after,
        };
        attempt.check_what_stays(&sandbox);
        self.check_again(stage, &sandbox, tampering, &mut attempt)?;
        Ok(attempt)
    }

    /// Checks that the next prune, undisturbed, leads to the same result.
    fn check_again(
        &self,
        stage: &Stage,
        sandbox: &Sandbox,
        tampering: &Tampering,
        attempt: &mut Attempt,
    ) -> anyhow::Result<()> {
        self.mode.prepare(stage, sandbox)?;
        let again = self.mode.run(stage, sandbox)?;
        attempt.row.executions += 1;
        let done = again.code == Some(0) || self.mode == Mode::Verify && again.code == Some(3);
        attempt.check(done, || format!("the next prune: {}", again.story()));
        let found = sandbox.tree()?;
        // On a full disk, an index without remaining images is removed. The next pull writes a new one.
        let index = Path::new("cache/index.json");
        let may_lack_index = tampering.how.contains("ENOSPC") && !found.entries.contains_key(index);
        let is_wanted = |line: &&String| !may_lack_index || !line.starts_with("cache/index.json ");
        let outline: Vec<String> = self.outline.iter().filter(is_wanted).cloned().collect();
        let difference = first_difference(&outline, &found.outline());
        attempt.check(difference.is_none(), || {
            format!("the next prune leads to another result: {}", difference.unwrap_or_default())
        });
        // `verify` removes only corrupt blobs.
        let is_left = |path: &&Path| is_leftover(path) && !is_protected(path) && self.mode != Mode::Verify;
        let leftover = found.entries.keys().map(PathBuf::as_path).find(is_left).map(Path::to_owned);
        attempt.check(leftover.is_none(), || format!("a leftover after the next prune: {leftover:?}"));
        Ok(())
    }
}

/// The files in the cache that belong to it, without leftovers.
fn caches_files(tree: &Tree) -> impl Iterator<Item = &Path> {
    let files = tree.entries.iter().filter(|(_, entry)| entry.is_file).map(|(path, _)| path.as_path());
    let is_in_cache = |path: &&Path| path.starts_with("cache") && !is_leftover(path);
    files.filter(|path| is_the_caches(path)).filter(is_in_cache)
}

/// Whether the path contains a name that a killed prune leaves.
fn is_leftover(path: &Path) -> bool {
    path.to_string_lossy().contains(".pruning-")
}

/// Describes the first difference between two outlines.
fn first_difference(expected: &[String], found: &[String]) -> Option<String> {
    let missing = expected.iter().find(|line| !found.contains(line)).map(|line| format!("missing {line}"));
    missing.or_else(|| {
        found.iter().find(|line| !expected.contains(line)).map(|line| format!("unexpected {line}"))
    })
}

/// Whether a prune left what an undisturbed one leaves. A prune that may not list the cache's parent cannot
/// find the leftovers there, and reports nothing about them.
fn is_whole(expected: &[String], after: &Tree, tampering: &Tampering) -> bool {
    let is_denied = ["EACCES", "EPERM"].iter().any(|error| tampering.how.contains(error));
    let is_seen = |line: &&String| !is_denied || !line.starts_with("cache.pruning-");
    after.outline().iter().filter(is_seen).eq(expected.iter().filter(is_seen))
}

/// A prune that was tampered with.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) row: Row,
    what: String,
    pub(crate) ended: Ended,
    /// How many threads strace tampered with.
    pub(crate) hits: usize,
    /// Whether it left what an undisturbed prune leaves.
    is_whole: bool,
    before: Tree,
    after: Tree,
}

impl Attempt {
    /// Counts a loss, unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        let what = &self.what;
        self.row.check(holds, || format!("{what}: {}", detail()));
    }

    fn check_what_stays(&mut self, sandbox: &Sandbox) {
        let change = self.before.first_change(&self.after, is_protected);
        self.check(change.is_none(), || format!("protected: {}", change.unwrap_or_default()));
        let new = self.before.first_new(&self.after, |path| !is_leftover(path)).map(Path::to_owned);
        self.check(new.is_none(), || format!("{new:?} is new"));
        let problems = problems(&sandbox.cache());
        self.check(problems.is_empty(), || format!("the layout is broken: {problems:?}"));
    }

    /// Checks the report against the disk. `told` says whether there must be a report.
    pub(crate) fn check_report(&mut self, told: bool) {
        let gone = self.before.gone_from(&self.after, is_the_caches);
        let Some(report) = self.ended.report() else {
            let story = self.ended.story();
            self.check(!told || gone.blobs == 0, || format!("{gone:?} went without a report: {story}"));
            return;
        };
        let number = |field: &str| report.get(field).and_then(serde_json::Value::as_u64);
        // `verify` has a report of its own.
        if let (Some(blobs), Some(bytes)) = (number("blobs_freed"), number("bytes_freed")) {
            self.check((blobs, bytes) == (gone.blobs, gone.bytes), || {
                format!("it reports {blobs} blobs, {bytes} bytes, but {gone:?} went")
            });
        }
        // A prune that is done has kept what is left, and reports it.
        let kept = report.get("kept").and_then(serde_json::Value::as_object);
        let kept = kept.map(|kept| kept.values().filter_map(|kept| kept["blobs"].as_u64()).sum::<u64>());
        let left = caches_files(&self.after).count() as u64;
        let is_done = self.ended.code == Some(0);
        let story = self.ended.story();
        self.check(!is_done || self.is_whole || kept.is_some_and(|kept| kept >= left), || {
            format!("it reports that it is done, but {left} files are left: {story}")
        });
    }
}
