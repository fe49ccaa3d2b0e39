//! Counts a prune's system calls, and tampers with them, by strace.
//!
//! Guarantees: the calls of every thread count from the point at which the program opened the cache. So
//! neither the loader nor the program's start is tested. Up to the lock, the program runs under strace from
//! its start, and the calls of its main thread are numbered from there. After that, strace attaches while the
//! lock is held against the program, and the calls of each thread are numbered from there.
//!
//! What it does not guarantee: anything about calls by which the runtime manages memory, threads and signals.
//! They do not fail like this on Linux. Starting a thread is included, because it fails at a limit on
//! processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::kit::process::{self, Ended, Running};

/// The calls that are left out.
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
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_setaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
];

/// The part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// From opening the cache to the lock.
    ToLock,
    /// From the lock to the end.
    FromLock,
}

/// A call to tamper with: the `number`th of its name in a thread, within the span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) span: Span,
    pub(crate) call: String,
    pub(crate) number: u32,
}

/// What strace does to a call.
#[derive(Clone, Debug)]
pub(crate) struct Tampering {
    pub(crate) span: Span,
    pub(crate) call: String,
    /// As strace writes it, such as `error=EIO:when=3`.
    pub(crate) how: String,
}

/// Runs a command under strace twice. Returns the calls to tamper with.
pub(crate) fn survey(
    command: impl Fn() -> anyhow::Result<Command>,
    cache: &Path,
    log: &Path,
) -> anyhow::Result<Vec<Point>> {
    let read = || anyhow::Ok(String::from_utf8_lossy(&fs::read(log)?).into_owned());
    let ended = run_attached(&mut command()?, cache, log, &[])?;
    ensure!(ended.code == Some(0) || ended.code == Some(3), "under strace: {}", ended.story());
    let mut points = points_from_lock(&read()?);
    process::run(&mut under_strace(&command()?, log, &[]), crate::torture::mode::LIMIT)?;
    points.extend(points_to_lock(&read()?, &cache.to_string_lossy()));
    Ok(points)
}

/// Runs a command while strace tampers with it. Also returns how often strace did: once in each thread that
/// makes the call so many times.
pub(crate) fn tamper(
    command: &mut Command,
    cache: &Path,
    tampering: &Tampering,
    log: &Path,
) -> anyhow::Result<(Ended, usize)> {
    let inject = format!("inject={}:{}", tampering.call, tampering.how);
    let trace = format!("trace={}", tampering.call);
    let options = ["-e", &trace, "-e", &inject];
    let ended = match tampering.span {
        Span::FromLock => run_attached(command, cache, log, &options)?,
        Span::ToLock => {
            // With a seccomp filter, the signal would arrive too late.
            let filter: &[&str] = if tampering.how.starts_with("signal") { &[] } else { &["--seccomp-bpf"] };
            process::run(
                &mut under_strace(command, log, &[filter, &options].concat()),
                crate::torture::mode::LIMIT,
            )?
        }
    };
    Ok((ended, hits(&String::from_utf8_lossy(&fs::read(log)?), tampering)))
}

/// How many threads made the call as often as it takes. The log does not mark signals.
fn hits(log: &str, tampering: &Tampering) -> usize {
    let when = tampering.how.rsplit("when=").next().unwrap_or_default();
    let when: String = when.chars().take_while(char::is_ascii_digit).collect();
    let when: u32 = when.parse().unwrap_or(1);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for (thread, ..) in calls(log).filter(|(_, call, _)| *call == tampering.call) {
        *counts.entry(thread).or_default() += 1;
    }
    counts.values().filter(|count| **count >= when).count()
}

fn strace(log: &Path, options: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none"]).args(options).arg("-o").arg(log);
    strace
}

/// The command under strace, which writes to `log`.
pub(crate) fn under_strace(command: &Command, log: &Path, options: &[&str]) -> Command {
    let mut strace = strace(log, options);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    strace
}

/// Runs a command, and holds the cache's lock until strace is attached.
fn run_attached(command: &mut Command, cache: &Path, log: &Path, options: &[&str]) -> anyhow::Result<Ended> {
    let held = File::open(cache).with_context(|| format!("open {}", cache.display()))?;
    flock(held.as_fd(), FlockOperation::LockExclusive).context("lock the cache")?;
    let program = process::start(command, None)?;
    wait_for("the program to wait for the lock", || Ok(program.has_open(cache)))?;
    // Once the program has asked for the lock, it only asks again.
    thread::sleep(POLL_OF_THE_LOCK);
    // If strace tampers with the calls that ask for the lock, the program may end at once.
    let tracer = attach(&program, log, options)?;
    // Closing is not enough: programs that other threads start hold the descriptor for a moment.
    flock(held.as_fd(), FlockOperation::Unlock).context("unlock the cache")?;
    let ended = program.finish(crate::torture::mode::LIMIT)?;
    tracer.finish(crate::torture::mode::LIMIT)?;
    Ok(ended)
}

fn attach(program: &Running, log: &Path, options: &[&str]) -> anyhow::Result<Running> {
    let tracer = process::start(strace(log, options).arg("-p").arg(program.id().to_string()), None)?;
    match wait_for("strace to attach", || program.is_traced()) {
        Ok(()) => Ok(tracer),
        Err(error) => {
            tracer.signal(Signal::INT);
            let threads = program.threads_untraced()?;
            let said = tracer.finish(crate::torture::mode::LIMIT)?;
            Err(error.context(format!("{threads:?}; strace: {}", said.story())))
        }
    }
}

/// A little more than a prune's interval between attempts to lock.
const POLL_OF_THE_LOCK: Duration = Duration::from_millis(30);

fn wait_for(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + crate::torture::mode::LIMIT;
    while !is_so()? {
        ensure!(Instant::now() < end, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The calls in a log: thread, name, arguments.
fn calls(log: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    log.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim_start().split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && !RUNTIME.contains(&name)).then_some((thread, name, arguments))
    })
}

/// The points from opening the cache to the first lock, in the main thread.
fn points_to_lock(log: &str, cache: &str) -> Vec<Point> {
    let main_thread = log.split_whitespace().next().unwrap_or_default();
    let opened = format!("\"{cache}\"");
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut points = Vec::new();
    for (_, call, arguments) in calls(log).filter(|(thread, ..)| *thread == main_thread) {
        let number = counts.entry(call).or_default();
        *number += 1;
        let has_opened = !points.is_empty() || call == "openat" && arguments.contains(&opened);
        if has_opened {
            points.push(Point { span: Span::ToLock, call: call.to_owned(), number: *number });
        }
        if has_opened && call == "flock" {
            break;
        }
    }
    points
}

/// The points after the lock. Of each name there are as many as in the thread that calls it most.
fn points_from_lock(log: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (thread, call, _) in calls(log) {
        *counts.entry((call, thread)).or_default() += 1;
    }
    let mut most: BTreeMap<&str, u32> = BTreeMap::new();
    for ((call, _), count) in counts {
        let most = most.entry(call).or_default();
        *most = count.max(*most);
    }
    let points = most.into_iter().flat_map(|(call, most)| {
        (1..=most).map(|number| Point { span: Span::FromLock, call: call.to_owned(), number })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(points: Vec<Point>) -> Vec<String> {
        points.into_iter().map(|point| format!("{} {}", point.call, point.number)).collect()
    }

    #[test]
    fn calls_count_from_where_the_cache_is_opened_to_the_lock() {
        let log = "7 openat(AT_FDCWD, \"/lib\", O_RDONLY) = 3\n7 read(3, \"\") = 0\n\
                   7 openat(AT_FDCWD, \"/c\", O_RDONLY) = 3\n8 openat(3, \"x\", 0) = 4\n\
                   7 statx(3, \"\" <unfinished ...>\n7 <... statx resumed>) = 0\n7 mmap(NULL) = 0\n\
                   7 openat(3, \"y\", 0) = 5\n7 flock(3, LOCK_EX) = 0\n7 openat(3, \"z\", 0) = 5\n\
                   7 +++ exited with 0 +++\n";
        assert_eq!(told(points_to_lock(log, "/c")), ["openat 2", "statx 1", "openat 3", "flock 1"]);
    }

    #[test]
    fn each_thread_that_calls_often_enough_is_hit() {
        let log = "7 close(3) = 0\n7 close(3 <unfinished ...>\n7 <... close resumed>) = 0\n8 close(4) = 0\n\
                   8 close(5) = -1 EIO (INJECTED)\n9 close(3) = 0\n9 openat(3) = 4\n";
        let hits = |when| {
            let how = format!("signal=INT:when={when}");
            hits(log, &Tampering { span: Span::FromLock, call: "close".to_owned(), how })
        };
        assert_eq!([hits(1), hits(2), hits(3)], [3, 2, 0]);
    }

    #[test]
    fn from_the_lock_on_every_thread_counts_for_itself() {
        let log = "7 flock(3, LOCK_EX) = 0\n7 openat(3, \"x\") = 4\n9 openat(3, \"x\") = 4\n\
                   9 unlinkat(3, \"x\", 0 <unfinished ...>\n9 <... unlinkat resumed>) = 0\n\
                   9 openat(3, \"y\") = 4\n9 +++ exited with 0 +++\n";
        assert_eq!(told(points_from_lock(log)), ["flock 1", "openat 1", "openat 2", "unlinkat 1"]);
    }
}
