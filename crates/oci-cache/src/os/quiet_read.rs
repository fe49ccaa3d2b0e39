//! Reads files and leaves no trace: neither in their access times nor in the page cache.
//!
//! Guarantees: access times stay where `O_NOATIME` is allowed. Pages that were cached before stay cached. Pages that were not are dropped again after they were
//! read, where the kernel tells which those are (`RWF_NOWAIT`, `preadv2(2)`); where it does not, all stay.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::num::NonZeroU64;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// The size of a page of the page cache; where pages are larger, less is dropped.
const PAGE_BYTES: u64 = 4096;
/// The unit in which a file that is read from start to end is looked at: a window of which the first or the last
/// page is cached is left alone.
const WINDOW_BYTES: u64 = 256 << 10;
/// How far ahead of such reading it is looked at: further than the kernel reads ahead.
const AHEAD_BYTES: u64 = 64 << 20;

/// Opens the entry `name` of `directory`, without moving its access time where that is allowed: for its
/// owner and for root (`open(2)`, `O_NOATIME`).
pub(crate) fn open_without_atime(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let open = |flags| rustix::io::retry_on_intr(|| openat(directory, name, flags, Mode::empty()));
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        opened => opened,
    }
}

/// Opens a file of the cache for reading, as [`open_without_atime`] does.
pub(crate) fn open_quietly(directory: BorrowedFd<'_>, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open_without_atime(directory, name, flags).map(File::from)
}

/// Reads a file whole, but not more than a little above the size that it had.
pub(crate) fn read_limited(file: File, size_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(size_bytes.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads exactly so much at the position.
pub(crate) fn read_exact_quietly(file: &File, bytes: &mut [u8], position: u64) -> io::Result<()> {
    let cached = read_cached(file, bytes, position);
    if cached == Ok(bytes.len()) {
        return Ok(());
    }
    file.read_exact_at(bytes, position)?;
    if cached == Err(Errno::AGAIN) {
        let end = (position + bytes.len() as u64).next_multiple_of(PAGE_BYTES);
        drop_pages(file, position / PAGE_BYTES * PAGE_BYTES, end);
    }
    Ok(())
}

/// Which windows of a file were cached before it was read from start to end.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    were_cached: Vec<bool>,
}

impl Windows {
    /// Looks at the windows up to well ahead of the position, which is where the next read begins.
    pub(crate) fn look_ahead(&mut self, file: &File, size_bytes: u64, position: u64) {
        let is_cached = |position| read_cached(file, &mut [0], position) != Err(Errno::AGAIN);
        let end = size_bytes.min(position.saturating_add(AHEAD_BYTES));
        loop {
            let start = self.were_cached.len() as u64 * WINDOW_BYTES;
            if start >= end {
                return;
            }
            let last_byte = start.saturating_add(WINDOW_BYTES).min(size_bytes) - 1;
            self.were_cached.push(is_cached(start) || is_cached(last_byte));
        }
    }

    /// Drops what was read of the windows in the range, unless they were cached.
    pub(crate) fn drop_read(&self, file: &File, from: u64, to: u64) {
        for window in from / WINDOW_BYTES..to.div_ceil(WINDOW_BYTES) {
            let was_cached = usize::try_from(window).ok().and_then(|window| self.were_cached.get(window));
            if was_cached == Some(&false) {
                drop_pages(file, window * WINDOW_BYTES, to.min((window + 1) * WINDOW_BYTES));
            }
        }
    }
}

/// Reads what is cached: `EAGAIN` if nothing is.
fn read_cached(file: &File, bytes: &mut [u8], position: u64) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(bytes)], position, ReadWriteFlags::NOWAIT)
}

fn drop_pages(file: &File, start: u64, end: u64) {
    if let Some(length) = end.checked_sub(start).and_then(NonZeroU64::new) {
        // Advice: nothing is lost if it is not taken.
        let _ = fadvise(file, start, Some(length), Advice::DontNeed);
    }
}
