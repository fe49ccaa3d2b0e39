//! A running case: its directory, its prunes and its counts.
//!
//! Guarantees: every prune's report is compared with what is gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::kit::layout::problems;
use crate::kit::process::{self, Ended};
use crate::kit::tree::Tree;
use crate::torture::mode::{LIMIT, command};
use crate::torture::row::Row;
use crate::torture::sandbox::{Sandbox, is_the_caches};
use crate::torture::stage::Stage;

/// A case: its name and its function.
pub(crate) type Case = (&'static str, fn(&mut Trial<'_>) -> anyhow::Result<()>);

/// Runs a case in a new directory.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn run(stage: &Stage, (name, case): &Case) -> anyhow::Result<Row> {
    let directory = TempDir::with_prefix_in("surroundings-", &stage.scratch)?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let mut trial = Trial { stage, name, directory, row: Row::default() };
    case(&mut trial).with_context(|| (*name).to_owned())?;
    Ok(trial.row)
}

/// A running case.
pub(crate) struct Trial<'a> {
    pub(crate) stage: &'a Stage,
    name: &'static str,
    directory: TempDir,
    pub(crate) row: Row,
}

impl Trial<'_> {
    /// A path in the case's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Counts a loss, unless `holds`.
    pub(crate) fn check(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        let name = self.name;
        self.row.check(holds, || format!("{name}: {}", detail()));
    }

    /// The command that prunes a cache.
    pub(crate) fn command(&self, cache: &Path, flags: &[&str]) -> Command {
        let mut prune = command(&self.stage.program, "prune", cache);
        prune.args(flags);
        prune
    }

    /// Prunes. Checks the exit code and the report.
    pub(crate) fn prune(&mut self, cache: &Path, flags: &[&str], code: i32) -> anyhow::Result<Ended> {
        let prune = self.command(cache, flags);
        self.run(prune, cache, &[code])
    }

    /// Runs a command that prunes the cache. Checks the exit code and the report.
    pub(crate) fn run(&mut self, mut prune: Command, cache: &Path, codes: &[i32]) -> anyhow::Result<Ended> {
        // What was taken aside is there.
        let beside = cache.parent().unwrap_or(cache);
        let before = Tree::of(beside)?;
        let ended = process::run(&mut prune, LIMIT)?;
        self.compare(&before, beside, &ended, codes)?;
        Ok(ended)
    }

    /// Checks how a prune ended, and its report against what is left below `root`.
    pub(crate) fn compare(
        &mut self,
        before: &Tree,
        root: &Path,
        ended: &Ended,
        codes: &[i32],
    ) -> anyhow::Result<()> {
        self.row.executions += 1;
        let is_expected = ended.code.is_some_and(|code| codes.contains(&code));
        self.check(is_expected, || format!("expected {codes:?}, {}", ended.story()));
        let gone = before.gone_from(&Tree::of(root)?, |path| !path.ends_with("index.json")).blobs;
        self.row.unlinks += gone;
        let told = ended.number("blobs_freed").unwrap_or(0);
        self.check(told == gone, || format!("{gone} went, {}", ended.story()));
        Ok(())
    }

    /// Checks what a prune left of a layout, and prunes again.
    pub(crate) fn compare_layout(
        &mut self,
        what: &str,
        sandbox: &Sandbox,
        before: &Tree,
        ended: &Ended,
    ) -> anyhow::Result<()> {
        self.row.executions += 1;
        let gone = before.gone_from(&sandbox.tree()?, is_the_caches).blobs;
        let told = ended.number("blobs_freed").unwrap_or(0);
        self.check(told == gone, || format!("{what}: {gone} went, {}", ended.story()));
        self.check_layout(what, &sandbox.cache());
        let again = process::run(&mut self.command(&sandbox.cache(), &[]), LIMIT)?;
        self.check(again.code == Some(0), || format!("after {what}: {}", again.story()));
        Ok(())
    }

    /// Checks that the layout is valid.
    pub(crate) fn check_layout(&mut self, what: &str, cache: &Path) {
        let problems = problems(cache);
        self.check(problems.is_empty(), || format!("{what}: the layout is broken: {problems:?}"));
    }

    /// Checks the number of blobs left in a flat cache.
    pub(crate) fn expect_blobs(&mut self, cache: &Path, expected: usize) {
        let left = blobs_in(cache);
        self.check(left == expected, || format!("{left} blobs are left, not {expected}"));
    }
}

/// The number of blobs in a flat cache.
pub(crate) fn blobs_in(cache: &Path) -> usize {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sha256:")).count()
}
