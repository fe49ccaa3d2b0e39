//! Measures memory and system calls of a command, each in a run that is not timed.
//!
//! Guarantees: peak memory is the kernel's high-water mark (`VmHWM` in `/proc/PID/status`) of the largest
//! process that the command started. It is read while strace delays the process at its last system call,
//! `exit_group`, so nothing is missed. Unlike the mark of `wait4`, it excludes the memory of the parent.
//!
//! What it does not guarantee: the same without a working strace. Then there are no system calls, and the
//! mark is read once a millisecond, so the last millisecond may be missing.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::kit::process::{command, complaint, peak_kibibytes_of, quiet};
use crate::kit::programs;

/// Measures commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observer {
    has_strace: bool,
}

/// Delays every process by 50 ms at its end. All other system calls run at full speed.
const HOLD: &[&str] = &[
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-e",
    "trace=exit_group",
    "-e",
    "inject=exit_group:delay_enter=50000",
    "-o",
    "/dev/null",
];
const PAUSE: Duration = Duration::from_millis(1);

impl Observer {
    /// Checks whether strace is installed and allowed.
    pub(crate) fn new() -> Self {
        let try_out = || {
            let mut line: Vec<OsString> = HOLD.iter().map(OsString::from).collect();
            line.push("true".into());
            quiet(&mut command(&line)).output().is_ok_and(|output| output.status.success())
        };
        Self { has_strace: programs::find("strace").is_some() && try_out() }
    }

    /// Whether system calls can be counted.
    pub(crate) const fn has_strace(self) -> bool {
        self.has_strace
    }

    /// The peak memory of the largest process, in bytes.
    pub(crate) fn peak_memory(self, line: &[OsString]) -> anyhow::Result<Option<u64>> {
        let hold = if self.has_strace { HOLD } else { &[] };
        let line: Vec<OsString> = hold.iter().map(OsString::from).chain(line.iter().cloned()).collect();
        let mut command = command(&line);
        let mut child = quiet(&mut command)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{}`", line[0].display()))?;
        let group = child.id();
        let mut marks = HashMap::new();
        loop {
            for process in processes_of(group).filter(|process| !self.has_strace || *process != group) {
                // A mark only grows, unless the process starts another program. The last mark counts.
                if let Some(mark) = peak_kibibytes_of(process) {
                    marks.insert(process, mark);
                }
            }
            if child.try_wait().context("wait for a command")?.is_some() {
                break;
            }
            thread::sleep(PAUSE);
        }
        let output = child.wait_with_output().context("wait for a command")?;
        ensure!(output.status.success(), "{}", complaint(&command, &output));
        Ok(marks.into_values().max().map(|kibibytes| kibibytes * 1024))
    }

    /// The number of each system call, in the command and all that it started.
    pub(crate) fn system_calls(
        self,
        line: &[OsString],
        home: &Path,
    ) -> anyhow::Result<BTreeMap<String, u64>> {
        if !self.has_strace {
            return Ok(BTreeMap::new());
        }
        let path = home.join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o"]).arg(&path).args(line);
        let output = quiet(&mut strace).output().context("run strace")?;
        ensure!(output.status.success(), "{}", complaint(&strace, &output));
        let summary = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
        Ok(calls_in(&summary))
    }
}

/// The processes of a process group.
fn processes_of(group: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(move |process| {
        let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        group_in(&status) == Some(group)
    })
}

/// The process group in `/proc/PID/stat`: the third field after the name in parentheses.
fn group_in(status: &str) -> Option<u32> {
    let (_, fields) = status.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// The calls in a summary of `strace -c`.
fn calls_in(summary: &str) -> BTreeMap<String, u64> {
    let call = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = fields.last().filter(|name| fields.len() >= 5 && **name != "total")?;
        Some(((*name).to_owned(), fields.get(3)?.parse().ok()?))
    };
    summary.lines().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000123           0     10000           unlinkat
 40.00    0.000050           0         7         2 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.000173           0     10007         2 total
";

    #[test]
    fn a_summary_of_strace() {
        let calls = calls_in(SUMMARY);
        assert_eq!(calls, BTreeMap::from([("openat".to_owned(), 7), ("unlinkat".to_owned(), 10_000)]));
    }

    #[test]
    fn names_with_spaces_and_parentheses_do_not_confuse() {
        assert_eq!(group_in("12 (a) b (c)) S 1 34 34 0"), Some(34));
        assert_eq!(group_in("garbage"), None);
    }

    #[test]
    fn memory_is_seen_with_and_without_strace() {
        // `dd` holds one block in memory.
        let line = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=20"].map(OsString::from);
        for observer in [Observer { has_strace: false }, Observer::new()] {
            let peak = observer.peak_memory(&line).unwrap().unwrap();
            assert!((64 << 20..96 << 20).contains(&peak), "{peak}");
        }
    }

    #[test]
    fn calls_are_counted_if_strace_is_there() {
        let observer = Observer::new();
        let home = TempDir::new().unwrap();
        let calls = observer.system_calls(&["true".into()], home.path()).unwrap();
        assert_eq!(calls.contains_key("execve"), observer.has_strace());
    }
}
