//! Caches to run the commands on, in directories that the tests create.
//!
//! Guarantees: everything is in a temporary directory. Every file is an hour old unless a test changes its
//! age, so runs do not wait for files to settle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

pub mod image;
pub mod layout;
pub mod needs;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

pub const KIB: usize = 1024;

/// Held for reading while a file is open for writing, and for writing while a process starts. Between its
/// fork and its exec, a new process has every file of this one open, so a prune would find these files in
/// use.
static NO_FORK: RwLock<()> = RwLock::new(());

/// Starts a process while no test has a file open for writing.
pub fn spawn(command: &mut Command) -> Child {
    let _writers = NO_FORK.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Whether a process has a file open, by the path that `/proc/PID/fd` tells.
pub fn has_open(process: &Child, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.id())).into_iter().flatten().flatten();
    { descriptors }.any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link == path))
}

/// Lets the processes that this one starts from now on heed SIGHUP, though this one may run under `nohup`: what is ignored is
/// inherited, what is handled is not.
pub fn let_children_heed_hangups() {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, std::sync::Arc::default()).unwrap();
}

/// A cache directory named `oci` in a temporary directory.
pub struct Cache {
    pub base: TempDir,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        let cache = Self::missing();
        fs::create_dir(cache.path()).unwrap();
        cache
    }

    /// The path of a cache that does not exist.
    pub fn missing() -> Self {
        Self { base: tempfile::tempdir().unwrap() }
    }

    /// A flat cache of `blobs` blobs of `size` bytes.
    pub fn flat(blobs: u8, size: usize) -> Self {
        let cache = Self::new();
        for number in 1..=blobs {
            cache.write(flat(number), size);
        }
        cache
    }

    pub fn path(&self) -> PathBuf {
        self.base.path().join("oci")
    }

    /// Writes a file into the cache, or next to it with `../`, and creates its directories. The file is an
    /// hour old. Returns its path.
    pub fn write(&self, name: impl AsRef<Path>, size: usize) -> PathBuf {
        self.write_content(name, &vec![b'x'; size])
    }

    pub fn write_content(&self, name: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let name = name.as_ref();
        let path = match name.strip_prefix("..") {
            Ok(beside) => self.base.path().join(beside),
            Err(_) => self.path().join(name),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        {
            let _no_fork = NO_FORK.read().unwrap_or_else(PoisonError::into_inner);
            fs::write(&path, content).unwrap();
        }
        set_age(&path, Duration::from_secs(3600));
        path
    }

    /// Runs `cargo xtask COMMAND --cache-dir <this cache> ARGUMENTS…`.
    pub fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        let mut program = xtask();
        program.arg(command).arg("--cache-dir").arg(self.path()).args(arguments);
        Ran::of(&mut program, self.base.path())
    }

    pub fn prune(&self, arguments: &[&str]) -> Ran {
        self.run("cache-prune", arguments)
    }

    /// Prunes without root's capabilities, so that permissions apply to root too.
    pub fn prune_unprivileged(&self, arguments: &[&str]) -> Ran {
        self.run_unprivileged("cache-prune", arguments)
    }

    pub fn run_unprivileged(&self, command: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.unprivileged(command).args(arguments), self.base.path())
    }

    /// A command on this cache, without any capability.
    pub fn unprivileged(&self, command: &str) -> Command {
        let mut program = Command::new("setpriv");
        program.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]);
        if !needs::is_root() {
            program = Command::new("env");
        }
        program.arg(env!("CARGO_BIN_EXE_xtask")).args([command, "--cache-dir"]).arg(self.path());
        program
    }

    /// Waits until another process holds the cache's lock.
    pub fn wait_until_locked(&self) {
        let started = Instant::now();
        while Command::new("flock").arg("--nonblock").arg(self.path()).arg("true").status().unwrap().success()
        {
            assert!(started.elapsed() < Duration::from_secs(10), "nobody took the lock");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts a prune that waits for entries to settle, and returns while it waits.
    pub fn start_prune(&self, arguments: &[&str]) -> Child {
        let mut program = xtask();
        program
            .args(["cache-prune", "--format", "json", "--cache-dir"])
            .arg(self.path())
            .args(arguments)
            .stdout(Stdio::piped());
        let prune = spawn(&mut program);
        self.wait_until_locked();
        // The scan follows at once, and then the wait of half a second.
        std::thread::sleep(Duration::from_millis(100));
        prune
    }

    /// Everything below the temporary directory, with all attributes that a prune must not change.
    pub fn tree(&self) -> String {
        tree(self.base.path())
    }
}

/// The variables that the program reads, also through its libraries; `CI` has a say about colours.
const READ_VARIABLES: [&str; 10] = [
    "BANGER_OCI_CACHE_DIR",
    "GITHUB_STEP_SUMMARY",
    "COLUMNS",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "NO_COLOR",
    "LC_CTYPE",
    "LANG",
    "TERM",
];

/// The program, without a terminal on stdin and without the variables that it reads.
pub fn xtask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.stdin(Stdio::null());
    without_read_variables(&mut command);
    command
}

/// A shell command on a terminal of its own that knows colours. `script(1)` provides it.
pub fn on_a_terminal(command: &str) -> Command {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
    script.stdin(Stdio::piped());
    without_read_variables(&mut script);
    script.env("TERM", "xterm");
    script
}

fn without_read_variables(command: &mut Command) {
    for variable in READ_VARIABLES {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C");
}

/// The hex digits of a test digest: a padded number.
pub fn hex(number: u8) -> String {
    format!("{number:064x}")
}

/// The name of a blob in a flat cache.
pub fn flat(number: u8) -> String {
    format!("sha256:{}", hex(number))
}

/// The name of a blob in a nested cache.
pub fn nested(number: u8) -> String {
    format!("blobs/sha256/{}", hex(number))
}

/// Sets how long ago a file was last written and read.
#[expect(clippy::disallowed_methods, reason = "a test's files need an age")]
pub fn set_age(path: &Path, age: Duration) {
    let _no_fork = NO_FORK.read().unwrap_or_else(PoisonError::into_inner);
    let time = SystemTime::now() - age;
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// A finished run of the program: exit code and output.
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Runs the command. Replaces the path `base` in its output with `[TMP]`.
    pub fn of(command: &mut Command, base: &Path) -> Self {
        let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        Self::from(&child.wait_with_output().unwrap(), base)
    }

    pub fn from(output: &Output, base: &Path) -> Self {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).unwrap().replace(base.to_str().unwrap(), "[TMP]")
        };
        Self {
            exit: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Everything in one block, for a snapshot. Replaces what depends on the file system, which is disk usage, free
    /// space and how reads are recorded, and the time that the run took.
    pub fn block(&self) -> String {
        let mut stdout = self.stdout.clone();
        redact(&mut stdout, "disk_bytes_freed", "[DISK]");
        redact(&mut stdout, "available_bytes", "[ROOM]");
        redact(&mut stdout, "duration_seconds", "[TIME]");
        redact(&mut stdout, "pid", "[PID]");
        stdout = stdout.replace(&own_name(), "[TEST]");
        if stdout.contains("\"min_free_space\"") {
            redact(&mut stdout, "reached", "[ROOM]");
        }
        let line = |line: &str| match line {
            line if line.starts_with("note: last use is ") => "note: last use is [MOUNT]\n".to_owned(),
            line if line.contains(" free, ") => "note: goal not met: [ROOM]\n".to_owned(),
            line => format!("{}\n", without_pid(line)),
        };
        let stderr: String = self.stderr.lines().map(line).collect();
        format!("exit: {}\n--- stdout\n{stdout}--- stderr\n{stderr}[EOF]", self.exit)
    }

    /// The JSON object on stdout.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.block());
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A line in which the number of a process is replaced, and this test's own name.
fn without_pid(line: &str) -> String {
    let Some((before, after)) = line.split_once(" (pid ") else { return line.to_owned() };
    let after = after.split_once(')').map_or(after, |(_, after)| after);
    format!("{} (pid [PID]){after}", before.replace(&own_name(), "[TEST]"))
}

/// What the kernel calls this test.
fn own_name() -> String {
    fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

/// Replaces the numbers of a field of a JSON object, but for 0.
fn redact(json: &mut String, field: &str, by: &str) {
    let field = format!("\"{field}\":");
    let starts: Vec<usize> = json.match_indices(&field).map(|(start, _)| start + field.len()).collect();
    for start in starts.into_iter().rev() {
        let is_in_number = |byte: &u8| byte.is_ascii_digit() || b".e-".contains(byte);
        let end = start + json[start..].bytes().take_while(is_in_number).count();
        if &json[start..end] != "0" {
            json.replace_range(start..end, by);
        }
    }
}

/// Lists a tree, sorted by path: type and mode, owner, inode, size, time of the last write and path of each
/// entry. Leaves out size and time of directories: they only show that entries were removed.
pub fn tree(base: &Path) -> String {
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(base).sort_by_file_name() {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        let path = entry.path().strip_prefix(base).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let (size, time) = if data.is_dir() { (0, 0) } else { (data.size(), data.mtime_nsec()) };
        let mut line = String::new();
        write!(line, "{:o} {}:{} {} {size} {time} {path}", data.mode(), data.uid(), data.gid(), data.ino())
            .unwrap();
        lines.push(line);
    }
    lines.join("\n")
}

/// The paths that are in `before` but not in `after`. Panics if anything was added or changed.
pub fn gone(before: &str, after: &str) -> Vec<String> {
    for line in after.lines() {
        assert!(before.lines().any(|earlier| earlier == line), "came or changed: {line}");
    }
    let went = before.lines().filter(|line| !after.lines().any(|later| later == *line));
    went.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}
