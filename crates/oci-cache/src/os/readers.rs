//! Finds out whether a directory's lock (`flock(2)`) is held only by processes that cannot write to the directory.
//!
//! Guarantees: in doubt, the answer is no. Every lock in the kernel's table must be found again in a process, and every
//! process that has it must be without capabilities, be neither root nor the owner, and be denied writing by the mode.
//!
//! What it does not guarantee: it sees nothing of what these processes do later, and of locks that are taken later only
//! what [`Readers::has_newcomer`] is asked for.
//!
//! Source: `proc(5)`, `/proc/locks`, `/proc/pid/fdinfo` and `/proc/pid/status`; Linux's `fs/locks.c`
//! (`locks_translate_pid` hides the locks of processes outside the namespace) and `include/uapi/linux/nsfs.h`
//! (`PID_NS_INIT_INO`).

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::fgetxattr;
use rustix::io::Errno;

use crate::os::directory::{list, open_directory};
use crate::os::processes::{Process, is_file, name_of};
use crate::os::status::{FileId, Status};

/// The kernel's table of locks.
const LOCKS: &str = "/proc/locks";
/// How much of the table is read, in bytes: about 4,000 locks.
const MAX_TABLE_BYTES: u64 = 256 << 10;
/// What the link to the first process namespace says. Elsewhere, the table has not all locks.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// The processes that held the lock, none of which can write to the directory.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    key: String,
    /// The processes that took the locks, by ID; some may have ended, and left them to others.
    takers: Vec<u32>,
    /// One of the processes that hold them.
    pub(crate) first: Process,
}

/// A lock on a file, as the kernel's table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    is_shared: bool,
    taker: u32,
}

impl Readers {
    /// Those who hold the directory's lock, if there are any and none of them can write to it. This process may hold the
    /// shared lock too, `own` times.
    pub(crate) fn of(directory: BorrowedFd<'_>, own: usize) -> Option<Self> {
        if fs::read_link("/proc/self/ns/pid").ok()?.as_os_str() != OsStr::new(FIRST_NAMESPACE) {
            return None;
        }
        let status = Status::of_descriptor(directory).ok()?;
        let key = key(status.id);
        let lines = lines(&table()?, &key)?;
        let (ours, others): (Vec<Line>, Vec<Line>) =
            lines.into_iter().partition(|line| line.taker == std::process::id());
        if ours.len() != own || others.is_empty() || !others.iter().chain(&ours).all(|line| line.is_shared) {
            return None;
        }
        let holders = holders(status.id, &key).ok()?;
        let mut places = Places::of(directory, status)?;
        let is_found = |line: &Line| holders.iter().any(|(_, takers)| takers.contains(&line.taker));
        if !others.iter().all(is_found) {
            return None;
        }
        for (process, _) in &holders {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
            if places.let_write(&Rights::of(&status)?) {
                return None;
            }
        }
        let takers = others.iter().map(|line| line.taker).collect();
        Some(Self { key, takers, first: holders.into_iter().next()?.0 })
    }

    /// Whether somebody else has taken the lock since then. This process may hold it.
    pub(crate) fn has_newcomer(&self) -> bool {
        let lines = table().and_then(|table| lines(&table, &self.key));
        let is_known = |line: &Line| {
            line.is_shared && (line.taker == std::process::id() || self.takers.contains(&line.taker))
        };
        lines.is_none_or(|lines| !lines.iter().all(is_known))
    }
}

/// The kernel's table of locks; `None` if it is so long that somebody may want it to take time.
fn table() -> Option<String> {
    let mut table = String::new();
    fs::File::open(LOCKS).ok()?.take(MAX_TABLE_BYTES).read_to_string(&mut table).ok()?;
    ((table.len() as u64) < MAX_TABLE_BYTES).then_some(table)
}

/// How the kernel's table names a file.
fn key(FileId { device: (major, minor), inode }: FileId) -> String {
    format!("{major:02x}:{minor:02x}:{inode}")
}

/// The locks on a file; `None` if a line cannot be read.
fn lines(table: &str, key: &str) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK ADVISORY READ 4711 fe:00:42 0 EOF`; of one who waits, the second word is an arrow.
        if let ["FLOCK", _, kind, taker, file, ..] = words.get(1..)?
            && *file == key
        {
            lines.push(Line { is_shared: *kind == "READ", taker: taker.parse().ok()? });
        }
    }
    Some(lines)
}

/// The other processes that hold the lock of the file, each with the takers of the locks that it holds.
fn holders(file: FileId, key: &str) -> io::Result<Vec<(Process, Vec<u32>)>> {
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { continue };
        let takers = unless_gone(takers(&path, file, key))?.unwrap_or_default();
        if !takers.is_empty() {
            holders.push((Process { name: name_of(&path), pid }, takers));
        }
    }
    Ok(holders)
}

/// The takers of the locks on the file that a process holds.
fn takers(process: &Path, file: FileId, key: &str) -> io::Result<Vec<u32>> {
    let mut takers = Vec::new();
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        if is_file(&entry.path(), file) {
            let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name()));
            let Some(info) = unless_gone(info)? else { continue };
            let locks: Vec<&str> = info.lines().filter_map(|line| line.strip_prefix("lock:")).collect();
            let lines = lines(&locks.join("\n"), key).ok_or(io::ErrorKind::InvalidData)?;
            takers.extend(lines.iter().map(|line| line.taker));
        }
    }
    Ok(takers)
}

/// `None` if the process, or its descriptor, is gone.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        result => result.map(Some),
    }
}

/// What a process is allowed, as its status has it.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    /// Real, effective, saved and file system user.
    users: Vec<u32>,
    groups: Vec<u32>,
    has_capabilities: bool,
}

impl Rights {
    fn of(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let numbers = |name: &str| -> Option<Vec<u32>> {
            field(name)?.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let mut groups = numbers("Gid:")?;
        groups.extend(numbers("Groups:")?);
        let capabilities = u64::from_str_radix(field("CapPrm:")?.trim(), 16).ok()?;
        Some(Self { users: numbers("Uid:")?, groups, has_capabilities: capabilities != 0 })
    }
}

/// The directories into which a puller writes.
struct Places(Vec<Status>);

impl Places {
    /// The root, the directory of blobs and those in it; `None` if one has an access control list, or cannot be read.
    fn of(root: BorrowedFd<'_>, status: Status) -> Option<Self> {
        let mut places = vec![status];
        has_no_list(root).then_some(())?;
        let blobs = match open_directory(root, c"blobs") {
            Ok((blobs, status)) => {
                places.push(status);
                blobs
            }
            Err(Errno::NOENT) => return Some(Self(places)),
            Err(_) => return None,
        };
        has_no_list(blobs.as_fd()).then_some(())?;
        let mut names = Vec::new();
        list(blobs.as_fd(), |name| names.push(name.to_owned())).ok()?;
        for name in names {
            match open_directory(blobs.as_fd(), &name) {
                Ok((opened, status)) if has_no_list(opened.as_fd()) => places.push(status),
                Err(Errno::NOTDIR) => {}
                _ => return None,
            }
        }
        Some(Self(places))
    }

    /// Whether one of them may let a process write.
    fn let_write(&mut self, rights: &Rights) -> bool {
        let may_write = |place: &Status| {
            rights.users.iter().any(|user| *user == 0 || *user == place.owner)
                || place.mode & 0o020 != 0 && rights.groups.contains(&place.group)
                || place.mode & 0o002 != 0
        };
        rights.has_capabilities || self.0.iter().any(may_write)
    }
}

/// Whether the directory certainly has no access control list.
fn has_no_list(directory: BorrowedFd<'_>) -> bool {
    let found = fgetxattr(directory, c"system.posix_acl_access", &mut [0_u8; 0][..]);
    matches!(found, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_locks_is_read() {
        let table = "1: FLOCK  ADVISORY  READ 27 fe:00:42 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 28 fe:00:42 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 29 fe:00:42 0 EOF\n3: FLOCK  ADVISORY  WRITE 30 fe:00:42 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 31 fe:00:421 0 EOF\n";
        let expected = [Line { is_shared: true, taker: 27 }, Line { is_shared: false, taker: 30 }];
        assert_eq!(lines(table, &key(FileId { device: (0xfe, 0), inode: 42 })).unwrap(), expected);
        assert_eq!(lines("1: FLOCK  ADVISORY  READ -1 fe:00:42 0 EOF\n", "fe:00:42"), None);
    }

    #[test]
    fn only_who_certainly_cannot_write_is_a_reader() {
        let mut status = Status::of_descriptor(std::fs::File::open("/").unwrap().as_fd()).unwrap();
        (status.mode, status.owner, status.group) = (0o755, 7, 8);
        let text = |users: &str, groups: &str, capabilities: &str| {
            format!(
                "Name:\tx\nUid:\t{users}\nGid:\t9\t9\t9\t9\nGroups:\t{groups} \nCapPrm:\t{capabilities}\n"
            )
        };
        let may = |status: Status, text: &str| Places(vec![status]).let_write(&Rights::of(text).unwrap());
        assert!(!may(status, &text("5 5 5 5", "8 10", "0")));
        for users in ["7 5 5 5", "5 7 5 5", "5 5 7 5", "5 5 5 7", "0 5 5 5"] {
            assert!(may(status, &text(users, "", "0")), "{users}");
        }
        assert!(may(status, &text("5 5 5 5", "", "2")));
        status.mode = 0o775;
        assert!(may(status, &text("5 5 5 5", "8", "0")) && !may(status, &text("5 5 5 5", "10", "0")));
        status.mode = 0o757;
        assert!(may(status, &text("5 5 5 5", "", "0")));
        assert_eq!(Rights::of("Uid:\t5\n"), None);
    }
}
