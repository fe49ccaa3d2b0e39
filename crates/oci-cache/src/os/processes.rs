//! Finds a process that has a file open, by looking into `/proc`.
//!
//! Guarantees: nothing is changed.
//!
//! What it does not guarantee: an answer. Without privilege, processes of other users are not seen; processes outside
//! this process namespace never are.
//!
//! Source: `proc(5)`, `/proc/pid/fd` and `/proc/pid/comm`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::Serialize;

use crate::os::status::FileId;

/// The maximum number of descriptors to look at.
const MOST: usize = 100_000;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its command's name, as the kernel keeps it: at most 15 bytes.
    pub name: String,
    /// Its process ID.
    pub pid: u32,
}

/// Another process that has the file open.
pub(crate) fn process_with(file: FileId) -> Option<Process> {
    let own = std::process::id();
    let mut left = MOST;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid == own {
            continue;
        }
        for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            left = left.checked_sub(1)?;
            if is_file(&descriptor.path(), file) {
                return Some(Process { name: name_of(&entry.path()), pid });
            }
        }
    }
    None
}

impl Process {
    /// The ID of the user in whose name it acts, if it has not ended.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        fs::metadata(format!("/proc/{}", self.pid)).ok().map(|status| status.uid())
    }
}

/// The name of the process in a directory of `/proc`; empty if it has ended.
pub(crate) fn name_of(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned()
}

/// Whether the link in `/proc` leads to the file. Asks no server of a file system: one that hangs would never answer.
pub(crate) fn is_file(link: &Path, file: FileId) -> bool {
    let flags = AtFlags::STATX_DONT_SYNC;
    statx(CWD, link, flags, StatxFlags::INO).is_ok_and(|found| {
        ((found.stx_dev_major, found.stx_dev_minor), found.stx_ino) == (file.device, file.inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::status::Status;
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_process_that_has_a_file_open_is_named() {
        let file = tempfile::tempfile().unwrap();
        let id = Status::of_descriptor(file.as_fd()).unwrap().id;
        assert_eq!(process_with(id), None, "this process does not count");
        let mut sleep = Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap();
        let found = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            // Until it calls `execve`, it has the name of this program.
            process_with(id).filter(|process| process.name == "sleep")
        });
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(found, Some(Process { name: "sleep".to_owned(), pid: sleep.id() }));
    }
}
