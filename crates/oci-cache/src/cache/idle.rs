//! Works out since when an entry has certainly been idle: neither written nor read.
//!
//! Guarantees: pure. It relies on a read only where the mount records it. `relatime` records a read if the access
//! time is not later than the last write or the last change of the inode, or is over a day old. So if the access
//! time is later than both, further reads within a day of it left no trace.
//!
//! What it does not guarantee: some reads leave no trace on any mount: those of a file with the attribute `A`
//! (`chattr(1)`), those with `O_NOATIME`, and those through another mount of the file system that has `noatime`.
//! A tool can also set a file's times to the past.
//!
//! Source: `mount(8)`, `relatime`; Linux's `fs/inode.c`, `relatime_need_update`.

use std::time::Duration;

use rustix::fs::{FsWord, fstatfs};

use crate::cache::cache_dir::{AccessTimes, CacheDir};
use crate::os::status::{Status, Timestamp};

/// How long `relatime` may leave reads unrecorded.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The file systems on which the kernel itself keeps access times as the mount says: ext2 to ext4, XFS, btrfs,
/// tmpfs and F2FS, by their magic numbers in Linux's `include/uapi/linux/magic.h`. An overlay is not among them: its
/// lower files record nothing. Neither are FUSE and network file systems: there the server decides.
const TRUSTED: [FsWord; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010];

/// The magic numbers of overlay and FUSE. They do not keep access times reliably, but a watch sees each use through the
/// mount.
const WATCHABLE: [FsWord; 2] = [0x794C_7630, 0x6573_5546];

/// How the cache's reads are recorded, as far as that is reliable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idleness {
    access_times: AccessTimes,
    /// Whether a watch sees every use through this kernel's mounts of the file system. Of a network file system, it does
    /// not see what other machines use.
    pub(crate) is_watchable: bool,
}

impl Idleness {
    /// Looks at the cache's mount and file system. Nothing is certain on a file system that is not known to keep
    /// access times.
    pub(crate) fn of(cache: &CacheDir) -> Self {
        let kind = cache.root().and_then(|root| fstatfs(&root.descriptor).ok()).map(|answer| answer.f_type);
        let is_trusted = kind.is_some_and(|kind| TRUSTED.contains(&kind));
        let access_times = cache.access_times().filter(|_| is_trusted);
        let is_watchable = is_trusted || kind.is_some_and(|kind| WATCHABLE.contains(&kind));
        Self { access_times: access_times.unwrap_or(AccessTimes::Never), is_watchable }
    }

    /// Whether it is known which reads are recorded.
    pub(crate) fn records_reads(self) -> bool {
        self.access_times != AccessTimes::Never
    }

    /// Since when an entry with these times has certainly been idle, at the latest `now`.
    pub(crate) fn since(self, times: Times, now: Timestamp) -> Timestamp {
        let Times { modified, accessed, changed } = times;
        let since = match self.access_times {
            AccessTimes::Never => now,
            AccessTimes::Always => modified.max(accessed),
            // It was not read since the last write: that read would have been recorded.
            AccessTimes::Daily if accessed <= modified => modified,
            // It is armed. Reads between the recorded one and the change of the inode left no trace.
            AccessTimes::Daily if accessed <= changed => changed.min(accessed.after(DAY)),
            AccessTimes::Daily => accessed.after(DAY),
        };
        since.min(now)
    }

    /// Whether the next read would leave no trace, but would leave one after a change of the inode.
    /// An access time in the future is later than any change can be made.
    pub(crate) fn can_be_armed(self, times: Times, now: Timestamp) -> bool {
        let last_change = times.modified.max(times.changed);
        self.access_times == AccessTimes::Daily && times.accessed > last_change && times.accessed <= now
    }
}

#[cfg(test)]
impl Idleness {
    /// That of a mount with `relatime`, for tests, whatever the mount of their files is.
    pub(crate) fn of_relatime() -> Self {
        Self { access_times: AccessTimes::Daily, is_watchable: true }
    }
}

impl Default for Idleness {
    /// Nothing is certain.
    fn default() -> Self {
        Self { access_times: AccessTimes::Never, is_watchable: false }
    }
}

/// When an entry was last written and read, and its inode last changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) modified: Timestamp,
    pub(crate) accessed: Timestamp,
    pub(crate) changed: Timestamp,
}

impl Times {
    /// Those of a file with this status.
    pub(crate) const fn of(status: &Status) -> Self {
        Self { modified: status.modified, accessed: status.accessed, changed: status.changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_recorded_is_not_certain() {
        const HOUR: i64 = 3600 * 1_000_000_000;
        let now = Timestamp(1000 * HOUR);
        let since = |access_times, modified: i64, accessed: i64, changed: i64| {
            let at = |hour: i64| Timestamp(hour * HOUR);
            let times = Times { modified: at(modified), accessed: at(accessed), changed: at(changed) };
            let idle = Idleness { access_times, is_watchable: true };
            (idle.since(times, now).0 / HOUR, idle.can_be_armed(times, now))
        };
        let (daily, always, never) = (AccessTimes::Daily, AccessTimes::Always, AccessTimes::Never);
        for (access_times, (modified, accessed, changed), expected) in [
            // Written and not read since: a read would have been recorded.
            (daily, (990, 990, 999), (990, false)),
            (daily, (990, 980, 990), (990, false)),
            // Read since the write: for a day, further reads leave no trace.
            (daily, (900, 995, 900), (1000, true)),
            (daily, (900, 976, 900), (1000, true)),
            (daily, (900, 975, 900), (999, true)),
            (daily, (900, 952, 900), (976, true)),
            // Armed: the inode changed after the read.
            (daily, (900, 995, 996), (996, false)),
            (daily, (900, 950, 990), (974, false)),
            (always, (900, 995, 900), (995, false)),
            (always, (900, 900, 996), (900, false)),
            (never, (1, 1, 1), (1000, false)),
            // A time in the future counts as now.
            (daily, (900, 2000, 900), (1000, false)),
            (daily, (2000, 2000, 2000), (1000, false)),
        ] {
            assert_eq!(
                since(access_times, modified, accessed, changed),
                expected,
                "{modified} {accessed} {changed}"
            );
        }
    }
}
