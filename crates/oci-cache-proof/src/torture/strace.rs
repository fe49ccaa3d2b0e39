//! System calls of a prune, counted and tampered with by strace.
//!
//! Guarantees: the calls of every thread from where the program opened the cache, so neither the loader nor
//! the start of the program is what is tried. Until it has the cache's lock, the program is started under
//! strace, and the calls of its main thread count from its start; from then on strace is attached while the
//! lock is held against it, and each thread's calls count from there.
//!
//! What is left out: calls by which the program's runtime manages memory, threads and signals, which do
//! not fail so on Linux. The start of a thread is kept: it fails at a limit of processes.

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

/// Until when a program's calls are looked at, or from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// From the opening of the cache to the lock.
    ToLock,
    /// From the lock to the end.
    FromLock,
}

/// A call to tamper with: the `number`th of its name in a thread, in the span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) span: Span,
    pub(crate) call: String,
    pub(crate) number: u32,
}

/// What to do to a call, in strace's words.
#[derive(Clone, Debug)]
pub(crate) struct Tampering {
    pub(crate) span: Span,
    pub(crate) call: String,
    /// Such as `error=EIO:when=3`.
    pub(crate) how: String,
}

/// Runs a command under strace twice and lists the calls to tamper with.
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

/// Runs a command under strace, which tampers with it. Also returns whether it came to that.
pub(crate) fn tamper(
    command: &mut Command,
    cache: &Path,
    tampering: &Tampering,
    log: &Path,
) -> anyhow::Result<(Ended, bool)> {
    let inject = format!("inject={}:{}", tampering.call, tampering.how);
    let trace = format!("trace={}", tampering.call);
    let options = ["-e", &trace, "-e", &inject];
    let ended = match tampering.span {
        Span::FromLock => run_attached(command, cache, log, &options)?,
        Span::ToLock => {
            // With a filter in the kernel a signal would come too late.
            let filter: &[&str] = if tampering.how.starts_with("signal") { &[] } else { &["--seccomp-bpf"] };
            process::run(
                &mut under_strace(command, log, &[filter, &options].concat()),
                crate::torture::mode::LIMIT,
            )?
        }
    };
    let happened = String::from_utf8_lossy(&fs::read(log)?).contains("(INJECTED)");
    Ok((ended, happened))
}

fn strace(log: &Path, options: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "signal=none"]).args(options).arg("-o").arg(log);
    strace
}

/// The command, run under strace, which writes to `log`.
pub(crate) fn under_strace(command: &Command, log: &Path, options: &[&str]) -> Command {
    let mut strace = strace(log, options);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    strace
}

/// Runs a command that waits for the cache's lock until strace is attached to it.
fn run_attached(command: &mut Command, cache: &Path, log: &Path, options: &[&str]) -> anyhow::Result<Ended> {
    let held = File::open(cache).with_context(|| format!("open {}", cache.display()))?;
    flock(held.as_fd(), FlockOperation::LockExclusive).context("lock the cache")?;
    let program = process::start(command, None)?;
    wait_for("the program to wait for the lock", || Ok(program.has_open(cache)))?;
    // From the first time that it asks for the lock on, it only asks again.
    thread::sleep(POLL_OF_THE_LOCK);
    // What is done to the calls that ask for the lock may end it at once.
    let tracer = attach(&program, log, options)?;
    // Not by closing: programs that other threads start have it open for a moment.
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

/// How often a prune asks for the lock, and a bit.
const POLL_OF_THE_LOCK: Duration = Duration::from_millis(30);

fn wait_for(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + crate::torture::mode::LIMIT;
    while !is_so()? {
        ensure!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The calls in the log of a run: thread, name, arguments.
fn calls(log: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    log.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim_start().split_once('(')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (is_name && !RUNTIME.contains(&name)).then_some((thread, name, arguments))
    })
}

/// From the opening of the cache to the first lock, in the main thread.
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

/// From the lock on, as many of each name as the thread with the most of them makes.
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
    fn from_the_lock_on_every_thread_counts_for_itself() {
        let log = "7 flock(3, LOCK_EX) = 0\n7 openat(3, \"x\") = 4\n9 openat(3, \"x\") = 4\n\
                   9 unlinkat(3, \"x\", 0 <unfinished ...>\n9 <... unlinkat resumed>) = 0\n\
                   9 openat(3, \"y\") = 4\n9 +++ exited with 0 +++\n";
        assert_eq!(told(points_from_lock(log)), ["flock 1", "openat 1", "openat 2", "unlinkat 1"]);
    }
}
