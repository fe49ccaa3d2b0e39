//! Runs the pruner.
//!
//! Guarantees: a prune succeeds only if it exits with 0, writes exactly one line, and that line is a report
//! without failures.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use xshell::Cmd;

use crate::kit::shell::shell;
use crate::smoke::tally::{Failure, Tally};

/// The tested program.
#[derive(Debug)]
pub(crate) struct Prune {
    program: PathBuf,
}

/// The checked part of a prune's report.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    /// The number of files that are freed, or would be.
    pub(crate) blobs_freed: u64,
    /// Their total size.
    pub(crate) bytes_freed: u64,
    /// The number of entries that do not belong to the cache.
    pub(crate) foreign: u64,
    dry_run: bool,
    kept: BTreeMap<String, Kept>,
    failures: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Kept {
    blobs: u64,
}

impl Report {
    /// The number of blobs that stay, for any reason.
    pub(crate) fn blobs_kept(&self) -> u64 {
        self.kept.values().map(|kept| kept.blobs).sum()
    }
}

impl Prune {
    /// The pruner at this path.
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// The program's path.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The program `oci-cache-dist`, which is built beside it.
    pub(crate) fn dist(&self) -> PathBuf {
        self.program.with_file_name("oci-cache-dist")
    }

    /// The program and arguments that prune `cache`.
    pub(crate) fn argv<'a>(
        &'a self,
        cache: &'a Path,
        flags: &'a [&'a str],
    ) -> impl Iterator<Item = &'a OsStr> {
        let program = [self.program.as_os_str(), "prune".as_ref(), "--cache-dir".as_ref()];
        let arguments = [cache.as_os_str(), "--format".as_ref(), "json".as_ref()];
        program.into_iter().chain(arguments).chain(flags.iter().map(OsStr::new))
    }

    /// Prunes `cache`.
    ///
    /// # Errors
    ///
    /// If the prune does not succeed.
    pub(crate) fn run(&self, cache: &Path, flags: &[&str]) -> anyhow::Result<Report> {
        let shell = shell()?;
        let mut argv = self.argv(cache, flags);
        let program = argv.next().unwrap_or_default();
        report_of(shell.cmd(program).args(argv), flags.contains(&"--dry-run"))
    }

    /// Prunes `cache` without a pause until `end`.
    pub(crate) fn run_until(&self, end: Instant, cache: &Path, flags: &[&str]) -> Tally {
        let mut tally = Tally::default();
        while Instant::now() < end {
            tally.add_prune(self.run(cache, flags));
        }
        tally
    }
}

/// Runs a command that prunes.
///
/// # Errors
///
/// If the prune does not succeed.
pub(crate) fn report_of(command: Cmd<'_>, dry_run: bool) -> anyhow::Result<Report> {
    let command = command.quiet().ignore_status();
    let output = command.output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = stderr.lines().take(3).collect();
        bail!("`{command}` ended with {}: {} {}", output.status, said.join("; "), stdout.trim());
    }
    let report = parse(&stdout).with_context(|| format!("`{command}` wrote {stdout:?}"))?;
    ensure!(report.dry_run == dry_run, "`{command}` reports dry_run {}", report.dry_run);
    ensure!(report.failures.is_empty(), "`{command}` exited with 0 despite {:?}", report.failures);
    Ok(report)
}

fn parse(stdout: &str) -> anyhow::Result<Report> {
    let line = stdout.strip_suffix('\n').context("the last line has no end")?;
    ensure!(!line.contains('\n'), "more than one line");
    serde_json::from_str(line).context("not a report")
}

impl Tally {
    /// Counts a prune, and what it freed.
    pub(crate) fn add_prune(&mut self, report: anyhow::Result<Report>) {
        if let Ok(report) = &report {
            self.blobs_freed += report.blobs_freed;
            self.bytes_freed += report.bytes_freed;
        }
        self.add_dry_run(report);
    }

    /// Counts a prune that frees nothing.
    pub(crate) fn add_dry_run(&mut self, report: anyhow::Result<Report>) {
        self.prunes += 1;
        if let Err(error) = report {
            self.fail(Failure::Prune, &format!("{error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let line = r#"{"bytes_freed":5,"blobs_freed":2,"dry_run":false,"kept":{"in_use":{"blobs":3,"bytes":9}},"foreign":1,"failures":[],"more":[]}"#;
        let report = parse(&format!("{line}\n")).unwrap();
        assert_eq!((report.blobs_freed, report.bytes_freed, report.blobs_kept()), (2, 5, 3));
        for wrong in ["", "\n", line, &format!("{line}\n\n"), &format!("freed\n{line}\n")] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
