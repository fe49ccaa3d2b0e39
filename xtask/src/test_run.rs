//! Runs the workspace's tests, and counts them.
//!
//! Guarantees: each test counts once, as passed or as skipped. The test harness takes a skipped test for a passed one; the
//! test itself says that it was skipped, in the file that `XTASK_SKIPPED` names (`xtask/tests/support/needs.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use oci_cache_cli::output;

use crate::programs;
use crate::workspace::{target, workspace};

/// The user and the group `nobody`.
const NOBODY: u32 = 65534;

/// Who runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// The user of this process.
    Own,
    /// The user `nobody`, for root only. It runs the very programs that were built before, but for the examples in the
    /// documentation, which only their builder can read.
    Nobody,
}

/// A run in which no test failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestRun {
    passed: usize,
    ignored: usize,
    /// What each skipped test needs.
    needs: BTreeMap<String, String>,
}

impl TestRun {
    /// Runs the tests.
    pub(crate) fn of(user: User) -> anyhow::Result<Self> {
        // The tests of the documents run these programs. `nobody` could not build them.
        let mut build = cargo();
        build.args(["build", "--locked"]).args(programs::packages());
        ensure!(build.status().context("run cargo")?.success(), "the build of the programs failed");

        let directory = target()?.join("ci");
        fs::create_dir_all(&directory).with_context(|| format!("create `{}`", directory.display()))?;
        let skipped = directory.join("skipped");
        fs::write(&skipped, "").with_context(|| format!("write `{}`", skipped.display()))?;
        let mut tests = cargo();
        // No `--all-targets`: it would build the examples as tests, not as the programs that the tests run.
        tests.args(["test", "--workspace", "--locked"]);
        tests.envs([("XTASK_SKIPPED", skipped.as_path()), ("INSTA_WORKSPACE_ROOT", workspace())]);
        tests.envs([("INSTA_UPDATE", "no"), ("XTASK_PROGRAMS_ARE_BUILT", "1")]);
        if user == User::Nobody {
            let home = directory.join("home");
            fs::create_dir_all(&home).with_context(|| format!("create `{}`", home.display()))?;
            let give = chown(&home, Some(NOBODY), Some(NOBODY));
            give.with_context(|| format!("give `{}` to user {NOBODY}", home.display()))?;
            fs::set_permissions(&skipped, Permissions::from_mode(0o666)).context("let all users write")?;
            tests.args(["--tests", "--config", &runner(&home)]);
        }
        let output = show_and_read(&mut tests)?;
        let skipped =
            fs::read_to_string(&skipped).with_context(|| format!("read `{}`", skipped.display()))?;
        Self::read(&output, &skipped)
    }

    /// Reads the output of the test harness, and the lines of the skipped tests.
    fn read(output: &str, skipped: &str) -> anyhow::Result<Self> {
        let mut run = Self::default();
        for line in skipped.lines() {
            let told = line.strip_prefix("skipped: ").and_then(|told| told.split_once(": needs "));
            let (test, need) = told.with_context(|| format!("not the line of a skipped test: {line}"))?;
            run.needs.insert(test.to_owned(), need.to_owned());
        }
        for result in output.lines().filter_map(|line| line.strip_prefix("test result: ok. ")) {
            let count = |what: &str| {
                let words = result.split("; ").find_map(|part| part.strip_suffix(what));
                words
                    .and_then(|count| count.parse::<usize>().ok())
                    .with_context(|| format!("no{what}: {result}"))
            };
            run.passed += count(" passed")?;
            run.ignored += count(" ignored")?;
        }
        ensure!(run.passed > run.needs.len(), "no test was run");
        run.passed -= run.needs.len();
        Ok(run)
    }

    /// Whether a test was skipped.
    pub(crate) fn has_skips(&self) -> bool {
        !self.needs.is_empty() || self.ignored > 0
    }

    /// The skipped tests, one a line, and what they need.
    pub(crate) fn skips(&self) -> String {
        let lines: Vec<String> =
            self.needs.iter().map(|(test, need)| format!("{test}: needs {need}")).collect();
        lines.join("\n")
            + &if self.ignored > 0 { format!("\n{} ignored", self.ignored) } else { String::new() }
    }
}

impl fmt::Display for TestRun {
    /// For example `128 passed, 3 skipped: 2 need root, 1 needs chattr`: the most frequent need first.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.needs.values().for_each(|need| *counts.entry(need).or_default() += 1);
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let verb = |count| if count == 1 { "needs" } else { "need" };
        let needs = counts.iter().map(|(need, count)| format!("{count} {} {need}", verb(*count)));
        let ignored = (self.ignored > 0).then(|| format!("{} ignored", self.ignored));
        let reasons: Vec<String> = needs.chain(ignored).collect();
        write!(formatter, "{} passed, {} skipped", self.passed, self.needs.len() + self.ignored)?;
        if reasons.is_empty() { Ok(()) } else { write!(formatter, ": {}", reasons.join(", ")) }
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace());
    cargo
}

/// A setting that makes cargo start each test program as `nobody`.
fn runner(home: &Path) -> String {
    let user = format!(r#""setpriv", "--reuid={NOBODY}", "--regid={NOBODY}", "--clear-groups""#);
    format!("target.'cfg(unix)'.runner=[{user}, \"env\", {:?}]", format!("HOME={}", home.display()))
}

/// Runs the command, and shows and returns its output.
fn show_and_read(command: &mut Command) -> anyhow::Result<String> {
    output::complain(&format!("$ {command:?}"));
    let mut child = command.stdout(Stdio::piped()).spawn().context("run cargo")?;
    let mut read = String::new();
    for line in BufReader::new(child.stdout.take().context("the output of cargo")?).lines() {
        let line = line.context("read the output of cargo")? + "\n";
        output::print(&line)?;
        read.push_str(&line);
    }
    let status = child.wait().context("wait for cargo")?;
    ensure!(status.success(), "the tests ended with {status}");
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n\
                          test result: ok. 128 passed; 0 failed; 0 ignored; 0 measured; finished in 0.10s\n";

    fn summary(output: &str, skipped: &str) -> String {
        TestRun::read(output, skipped).unwrap().to_string()
    }

    #[test]
    fn what_passed_and_what_was_skipped_is_counted() {
        assert_eq!(summary(OUTPUT, ""), "131 passed, 0 skipped");
        let skipped = "skipped: a::b: needs chattr\nskipped: a::c: needs root\nskipped: b::c: needs root\n";
        assert_eq!(summary(OUTPUT, skipped), "128 passed, 3 skipped: 2 need root, 1 needs chattr");
        // A test that says it twice was skipped once.
        assert_eq!(summary(OUTPUT, &skipped.repeat(2)), summary(OUTPUT, skipped));
        let ignored = OUTPUT.replacen("0 ignored", "2 ignored", 1);
        assert_eq!(summary(&ignored, ""), "131 passed, 2 skipped: 2 ignored");
        assert!(TestRun::read(&ignored, "").unwrap().has_skips());
        let run = TestRun::read(&ignored, skipped).unwrap();
        assert!(run.has_skips() && !TestRun::read(OUTPUT, "").unwrap().has_skips());
        assert_eq!(run.skips(), "a::b: needs chattr\na::c: needs root\nb::c: needs root\n2 ignored");
    }

    #[test]
    fn what_is_not_understood_is_no_success() {
        for (output, skipped) in
            [("", ""), (OUTPUT, "skip\n"), ("test result: ok. many passed; 0 ignored\n", "")]
        {
            assert!(TestRun::read(output, skipped).is_err(), "{output:?} {skipped:?}");
        }
    }
}
