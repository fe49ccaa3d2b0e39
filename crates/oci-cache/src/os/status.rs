//! Reads the status of one file: `statx(2)`, relative to an open descriptor.
//!
//! Guarantees: only single names are resolved, never longer paths. No symbolic link is followed and no
//! timestamp changes.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A point in time, in nanoseconds since the Unix epoch.
///
/// The range is 1677 to 2262; times outside it are clamped to the nearest limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time that is `age` earlier.
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The point that lies `age` after this one.
    #[must_use]
    pub(crate) fn after(self, age: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long before `now` this point lies; zero if it lies after.
    #[must_use]
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_nanos(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    pub(crate) fn from_statx(time: rustix::fs::StatxTimestamp) -> Self {
        Self(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(nanoseconds(after)),
            Err(error) => Self(-nanoseconds(error.duration())),
        }
    }
}

/// Identifies a file by device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
}

/// The status of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) id: FileId,
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) links: u32,
    pub(crate) size_bytes: u64,
    /// Space occupied on disk, in bytes (from `stx_blocks`, which counts units of 512 bytes).
    pub(crate) disk_bytes: u64,
    pub(crate) modified: Timestamp,
    pub(crate) accessed: Timestamp,
    pub(crate) changed: Timestamp,
    /// Whether it is immutable or append-only: then neither its own name nor, of a directory, the names in it can be
    /// removed.
    pub(crate) is_fixed: bool,
    pub(crate) is_mount_root: bool,
    /// Whether the kernel reports mount roots (Linux 5.8).
    pub(crate) knows_mount_roots: bool,
}

impl Status {
    /// The status of the entry `name` of `directory`.
    pub(crate) fn of_entry(directory: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        Self::read(directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The status of an open file.
    pub(crate) fn of_descriptor(descriptor: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::read(descriptor, c"", AtFlags::EMPTY_PATH)
    }

    fn read(directory: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Self, Errno> {
        let flags = flags | AtFlags::NO_AUTOMOUNT;
        rustix::io::retry_on_intr(|| statx(directory, name, flags, StatxFlags::BASIC_STATS))
            .map(|statx| Self::from(&statx))
    }

    /// Whether this is the same file and, judging by size and modification time, has the same content.
    pub(crate) fn is_same_content(&self, other: &Self) -> bool {
        (self.id, self.size_bytes, self.modified) == (other.id, other.size_bytes, other.modified)
    }

    pub(crate) fn is_regular_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
}

impl From<&Statx> for Status {
    fn from(statx: &Statx) -> Self {
        Self {
            id: FileId { device: (statx.stx_dev_major, statx.stx_dev_minor), inode: statx.stx_ino },
            kind: FileType::from_raw_mode(statx.stx_mode.into()),
            mode: u32::from(statx.stx_mode) & 0o7777,
            owner: statx.stx_uid,
            group: statx.stx_gid,
            links: statx.stx_nlink,
            size_bytes: statx.stx_size,
            disk_bytes: statx.stx_blocks.saturating_mul(512),
            modified: Timestamp::from_statx(statx.stx_mtime),
            accessed: Timestamp::from_statx(statx.stx_atime),
            changed: Timestamp::from_statx(statx.stx_ctime),
            is_fixed: statx.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
            is_mount_root: statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            knows_mount_roots: statx.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}
