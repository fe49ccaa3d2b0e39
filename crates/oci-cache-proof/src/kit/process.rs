//! Runs programs with a time limit.
//!
//! Guarantees: a program that exceeds its limit is killed with all that it started, and counts as hung.
//! Output goes to unnamed files, so no program blocks on a full pipe.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::kit::machine;

const POLL: Duration = Duration::from_millis(2);
/// How long a program may take to stop.
const STOPPING: Duration = Duration::from_secs(5);

/// Locked for reading while a file of a cache is open here, and for writing while a program starts. Between
/// fork and exec a child has all open files of this process, and a prune would see them in use.
static STARTS: RwLock<()> = RwLock::new(());

/// Opens files of a cache while no program starts.
pub(crate) fn while_none_starts<T>(work: impl FnOnce() -> T) -> T {
    let _no_start = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, or the negated signal that ended the program. `None` if it hung.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The peak memory that was seen, in KiB.
    pub(crate) peak_kibibytes: u64,
}

impl Ended {
    /// Whether a command is documented to end with this code when no signal arrives.
    pub(crate) fn is_documented(&self) -> bool {
        matches!(self.code, Some(0..=3))
    }

    /// The report that was printed, if any.
    pub(crate) fn report(&self) -> Option<Value> {
        let line = self.stdout.strip_suffix('\n')?;
        serde_json::from_str(line).ok().filter(Value::is_object)
    }

    /// A number of the report.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.report()?.get(field)?.as_u64()
    }

    /// Describes how the program ended.
    pub(crate) fn story(&self) -> String {
        let code = self.code.map_or("no end".to_owned(), |code| format!("code {code}"));
        let said: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with("note:")).take(3).collect();
        let told = match (self.number("blobs_freed"), self.number("bytes_freed")) {
            (Some(blobs), Some(bytes)) => format!("{blobs} blobs and {bytes} bytes reported"),
            _ => format!("stdout {:?}", shortened(&self.stdout)),
        };
        format!("{code}, {told}, stderr {:?}", shortened(&said.join(" / ")))
    }
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(300).map_or(text.len(), |(position, _)| position);
    text.get(..end).unwrap_or(text)
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    peak_kibibytes: u64,
}

/// Starts a program. Keeps its stdout unless `to_stdout` says where it goes.
pub(crate) fn start(command: &mut Command, to_stdout: Option<Stdio>) -> anyhow::Result<Running> {
    let file = || tempfile::tempfile().context("make a temporary file");
    let (stdout, stderr) = (file()?, file()?);
    let to_stdout = match to_stdout {
        Some(given) => given,
        None => stdout.try_clone().context("share a descriptor")?.into(),
    };
    command.stdin(Stdio::null()).stdout(to_stdout);
    command.stderr(stderr.try_clone().context("share a descriptor")?).process_group(0);
    let no_files_open = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().with_context(|| format!("run {command:?}"))?;
    drop(no_files_open);
    Ok(Running { child, stdout, stderr, peak_kibibytes: 0 })
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command, limit: Duration) -> anyhow::Result<Ended> {
    start(command, None)?.finish(limit)
}

/// Runs a program that must exit with 0.
pub(crate) fn must(command: &mut Command, limit: Duration) -> anyhow::Result<Ended> {
    let ended = run(command, limit)?;
    anyhow::ensure!(ended.code == Some(0), "{command:?}: {}", ended.story());
    Ok(ended)
}

impl Running {
    /// The process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program has this file or directory open.
    pub(crate) fn has_open(&self, path: &Path) -> bool {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.id())).into_iter().flatten();
        descriptors.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|open| open == path))
    }

    /// Whether another process traces all of its live threads.
    pub(crate) fn is_traced(&self) -> anyhow::Result<bool> {
        Ok(self.threads_untraced()?.is_empty())
    }

    /// The names and states of live threads that no process traces (`TracerPid`, `proc(5)`).
    pub(crate) fn threads_untraced(&self) -> anyhow::Result<Vec<String>> {
        let mut threads = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id())).context("list the threads")? {
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            let has = |start: &str| status.lines().any(|line| line.starts_with(start));
            if has("TracerPid:\t0") && !has("State:\tZ") {
                let told =
                    status.lines().filter(|line| line.starts_with("Name") || line.starts_with("State"));
                threads.push(told.collect::<Vec<_>>().join(", "));
            }
        }
        Ok(threads)
    }

    /// Sends a signal to the program and to all that it started.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended already.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Does `work` while the program is stopped. The signal alone only asks for that: on another core, the program goes on
    /// for a moment. So the work begins when each of its threads has stopped, or the program has ended.
    ///
    /// # Errors
    ///
    /// If it does not stop within five seconds. It goes on in any case.
    pub(crate) fn while_stopped<T>(&self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        self.signal(Signal::STOP);
        let done = self.wait_until_stopped().map(|()| work());
        self.signal(Signal::CONT);
        done
    }

    fn wait_until_stopped(&self) -> anyhow::Result<()> {
        let end = Instant::now() + STOPPING;
        while !self.is_stopped() {
            ensure!(Instant::now() < end, "process {} did not stop within {STOPPING:?}", self.id());
            thread::yield_now();
        }
        Ok(())
    }

    /// Whether each thread has stopped or ended (`State`, `proc(5)`).
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        threads.into_iter().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            machine::value_of(&status, "State").is_none_or(|state| state.starts_with(['T', 'X', 'Z']))
        })
    }

    /// Waits until the program ends, or kills it at the limit.
    pub(crate) fn finish(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("wait for a program")? {
                break Some(status);
            }
            let peak_kibibytes = peak_kibibytes_of(self.id()).unwrap_or(0);
            self.peak_kibibytes = self.peak_kibibytes.max(peak_kibibytes);
            if Instant::now() >= end {
                self.signal(Signal::KILL);
                self.child.wait().context("wait for a program")?;
                break None;
            }
            thread::sleep(POLL);
        };
        Ok(Ended {
            code: status.map(code_of),
            stdout: content_of(&mut self.stdout)?,
            stderr: content_of(&mut self.stderr)?,
            peak_kibibytes: self.peak_kibibytes,
        })
    }
}

/// The peak memory of a process, in KiB: `VmHWM` in `proc(5)`.
pub(crate) fn peak_kibibytes_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    machine::value_of(&status, "VmHWM").and_then(machine::kibibytes)
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
}

fn content_of(file: &mut File) -> anyhow::Result<String> {
    let mut content = Vec::new();
    file.rewind().context("read an output")?;
    file.read_to_end(&mut content).context("read an output")?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Builds a command from a program and its arguments.
pub(crate) fn command(line: &[OsString]) -> Command {
    let mut parts = line.iter();
    let mut command = Command::new(parts.next().map_or("true".as_ref(), OsString::as_os_str));
    command.args(parts);
    command
}

/// Puts the words of a wrapper, such as `prlimit`, before a command. Variables that are set on the command
/// are lost.
pub(crate) fn wrapped(words: &[&str], command: &Command) -> Command {
    let mut wrapper = Command::new(words.first().unwrap_or(&"env"));
    wrapper.args(words.iter().skip(1)).arg(command.get_program()).args(command.get_args());
    wrapper
}

/// Connects stdin and stdout to `/dev/null`, and captures stderr.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

/// Describes a command that failed.
pub(crate) fn complaint(command: &Command, output: &Output) -> String {
    let program = Path::new(command.get_program()).display();
    let said = String::from_utf8_lossy(&output.stderr);
    format!("`{program}` failed ({}): {}", output.status, said.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(&mut command, Duration::from_millis(800)).unwrap()
        };
        assert_eq!(shell("exit 2").code, Some(2));
        assert_eq!(shell("kill -KILL $$").code, Some(-9));
        assert_eq!(shell("sleep 5").code, None);
        let ended = shell("echo '{\"blobs_freed\":7}'");
        assert_eq!(ended.number("blobs_freed"), Some(7));
        assert!(ended.is_documented());
        assert_eq!(shell("echo freed; echo 1").number("blobs_freed"), None);
    }
    #[test]
    fn a_program_that_is_stopped_does_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("count");
        let mut count = Command::new("sh");
        count
            .args(["-c", "n=0; while [ $n -lt 10000000 ]; do n=$((n+1)); echo $n > \"$0\"; done"])
            .arg(&path);
        let running = start(&mut count, None).unwrap();
        while !path.exists() {
            thread::yield_now();
        }
        let read = || std::fs::read(&path).unwrap();
        for _ in 0..200 {
            let counts = running.while_stopped(|| {
                let before = read();
                thread::sleep(Duration::from_millis(1));
                (before, read())
            });
            let (before, after) = counts.unwrap();
            assert_eq!(before, after);
        }
        running.signal(Signal::KILL);
        assert_eq!(running.finish(Duration::from_secs(5)).unwrap().code, Some(-9));
    }
}
