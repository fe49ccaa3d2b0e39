//! What a test needs of the machine. Where that is missing, the test is skipped, and says so.
//!
//! Guarantees: a skipped test leaves one line, on stderr, which the test harness does not hold back, or at the end of the
//! file that `XTASK_SKIPPED` names: `cargo xtask ci` counts the lines there.
//!
//! Each function returns whether the need is met: `if !needs::root() { return; }`.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

/// Whether this process is root. If the test can do without, it is no need.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Root that can give files away; in a user namespace, often it cannot.
pub fn root() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    unless(is_root() && chown(file.path(), Some(4711), Some(4711)).is_ok(), "root")
}

/// `chattr`, on a file system that has attributes, by root.
pub fn chattr() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    let change = |flag: &str| is_done(Command::new("chattr").arg(flag).arg(file.path()));
    root() && unless(change("+i") && change("-i"), "chattr")
}

/// `setfacl`, on a file system that has access control lists.
pub fn setfacl() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    unless(is_done(Command::new("setfacl").args(["-m", "u:4711:r"]).arg(file.path())), "setfacl")
}

/// A new user namespace, in which this user is root and can mount.
pub fn user_namespace() -> bool {
    let script = "mount -t tmpfs none /tmp";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    unless(is_done(&mut unshare), "a user namespace")
}

/// A new user namespace without inotify.
pub fn namespace_without_inotify() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c", "echo 0 >/proc/sys/user/max_inotify_instances"]);
    unless(is_done(&mut unshare), "a user namespace without inotify")
}

/// A mount, for temporary files, with `relatime`, of a file system that keeps access times as the mount says: the first read
/// after a write is recorded, the next is not.
pub fn recorded_reads() -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"content").unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    file.as_file().set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
    let read = || {
        // The clock of files has gone on.
        thread::sleep(Duration::from_millis(20));
        File::open(file.path()).unwrap().read_to_end(&mut Vec::new()).unwrap();
        fs::metadata(file.path()).unwrap().accessed().unwrap()
    };
    let (first, second) = (read(), read());
    let stat = Command::new("stat").args(["--file-system", "--format=%T"]).arg(file.path()).output();
    let kind =
        stat.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let is_trusted = ["ext2/ext3", "xfs", "btrfs", "tmpfs", "f2fs"].contains(&kind.as_str());
    unless(is_trusted && first != long_ago && second == first, "a mount with relatime, no overlay")
}

/// Skips the test unless the need is met.
pub fn unless(is_met: bool, need: &str) -> bool {
    if !is_met {
        skip(need);
    }
    is_met
}

fn skip(need: &str) {
    let (file, current) = (env!("CARGO_CRATE_NAME"), thread::current());
    let line = format!("skipped: {file}::{}: needs {need}\n", current.name().unwrap_or("a test"));
    match env::var_os("XTASK_SKIPPED") {
        Some(path) => File::options().append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap(),
        None => io::stderr().write_all(line.as_bytes()).unwrap(),
    }
}

fn is_done(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
