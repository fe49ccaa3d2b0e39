//! Reads a few bytes of files, or all of small ones, without changing their access times or the page cache.
//!
//! Guarantees: access times do not change where `O_NOATIME` is allowed. Pages that were already cached
//! stay cached. Other pages are dropped again after they are read, if the kernel can tell which pages
//! are cached (`RWF_NOWAIT`, `preadv2(2)`); if it cannot, all pages stay.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::num::NonZeroU64;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Page size of the page cache. Where pages are larger, less is dropped.
const PAGE_BYTES: u64 = 4096;

/// Opens the entry `name` of `directory` without changing its access time, where that is allowed: for
/// the owner and for root (`open(2)`, `O_NOATIME`).
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

/// Reads a whole file, but at most one byte more than the given size.
pub(crate) fn read_limited(file: &File, size_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(size_bytes.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads exactly `bytes.len()` bytes at `position`.
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

/// Whether a byte is in the page cache. The kernel may begin to read its page.
pub(crate) fn is_cached(file: &File, position: u64) -> bool {
    read_cached(file, &mut [0], position) != Err(Errno::AGAIN)
}

/// Reads from the page cache only; `EAGAIN` if nothing is cached.
fn read_cached(file: &File, bytes: &mut [u8], position: u64) -> Result<usize, Errno> {
    preadv2(file, &mut [IoSliceMut::new(bytes)], position, ReadWriteFlags::NOWAIT)
}

/// Drops the pages of a range from the page cache, where nobody else uses them.
pub(crate) fn drop_pages(file: &File, start: u64, end: u64) {
    if let Some(length) = end.checked_sub(start).and_then(NonZeroU64::new) {
        // This is advice only: nothing is lost if the kernel ignores it.
        let _ = fadvise(file, start, Some(length), Advice::DontNeed);
    }
}
