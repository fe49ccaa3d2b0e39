//! System calls of a prune, counted and tampered with by strace.
//!
//! Guarantees: only calls after the program opened the cache are tampered with, so neither the loader nor
//! the start of the program is what is tried; and only those of the main thread, on which a prune of a
//! small cache does everything.
//!
//! What is left out: calls by which the program's runtime manages memory, threads and signals, which do
//! not fail so on Linux. The start of a thread is kept: it fails at a limit of processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::process::{self, Ended};

/// What is left out.
const RUNTIME: [&str; 30] = [
    "arch_prctl",
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "execve",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "poll",
    "prctl",
    "prlimit64",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
];

/// A call to tamper with: the `number`th of its name in a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) call: String,
    pub(super) number: u32,
}

/// What to do to a call, in strace's words.
#[derive(Clone, Debug)]
pub(super) struct Tampering {
    pub(super) call: String,
    /// Such as `error=EIO:when=3`.
    pub(super) how: String,
}

/// Runs a command under strace and lists the calls to tamper with.
pub(super) fn survey(command: &Command, cache: &Path, log: &Path) -> anyhow::Result<Vec<Point>> {
    let mut strace = under_strace(command, log, &[]);
    process::must(&mut strace, super::mode::LIMIT)?;
    Ok(points(&String::from_utf8_lossy(&std::fs::read(log)?), &cache.to_string_lossy()))
}

/// Runs a command under strace, which tampers with it. Also returns whether it came to that.
pub(super) fn tamper(command: &Command, tampering: &Tampering, log: &Path) -> anyhow::Result<(Ended, bool)> {
    let inject = format!("inject={}:{}", tampering.call, tampering.how);
    let trace = format!("trace={}", tampering.call);
    let options = ["-e", &trace, "-e", &inject];
    // With a filter in the kernel a signal would come too late.
    let filter: &[&str] = if tampering.how.starts_with("signal") { &[] } else { &["--seccomp-bpf"] };
    let mut strace = under_strace(command, log, &[filter, &options].concat());
    let ended = process::run(&mut strace, super::mode::LIMIT)?;
    let log = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    let happened = log.contains("(INJECTED)");
    Ok((ended, happened))
}

fn under_strace(command: &Command, log: &Path, options: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none"]).args(options).arg("-o").arg(log);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    strace
}

fn points(log: &str, cache: &str) -> Vec<Point> {
    let main_thread = log.split_whitespace().next().unwrap_or_default();
    let opened = format!("\"{cache}\"");
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut has_opened = false;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if thread != main_thread || !is_name || RUNTIME.contains(&name) {
            continue;
        }
        has_opened |= name == "openat" && arguments.contains(&opened);
        let (before, all) = counts.entry(name).or_default();
        *all += 1;
        *before += u32::from(!has_opened);
    }
    let points = counts.into_iter().flat_map(|(name, (before, all))| {
        (before + 1..=all).map(|number| Point { call: name.to_owned(), number })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_from_where_the_cache_is_opened() {
        let log = "7 openat(AT_FDCWD, \"/lib\", O_RDONLY) = 3\n7 read(3, \"\") = 0\n\
                   7 openat(AT_FDCWD, \"/c\", O_RDONLY) = 3\n8 openat(3, \"x\", 0) = 4\n\
                   7 statx(3, \"\" <unfinished ...>\n7 <... statx resumed>) = 0\n7 mmap(NULL) = 0\n\
                   7 openat(3, \"y\", 0) = 5\n7 +++ exited with 0 +++\n";
        let found: Vec<_> = points(log, "/c").into_iter().map(|point| (point.call, point.number)).collect();
        assert_eq!(found, [("openat".to_owned(), 2), ("openat".to_owned(), 3), ("statx".to_owned(), 1)]);
    }
}
