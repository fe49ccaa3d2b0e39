//! Which layer of an overlay a file is on.
//!
//! Guarantees: opens and changes nothing. The answer is known or `None`, never guessed. A file that was copied up counts
//! as one of a lower layer, which it still has a name on.
//!
//! Source: Linux's `fs/overlayfs/export.c` (`ovl_check_encode_origin`) and `overlayfs.h` (`struct ovl_fb`): an overlay
//! says in a file's handle on which layer it is. `name_to_handle_at(2)`, `AT_HANDLE_FID` (Linux 6.5).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FsWord, fstatfs};

use crate::os::sys::file_handle;

/// `OVERLAYFS_SUPER_MAGIC` in Linux's `include/uapi/linux/magic.h`.
pub(crate) const OVERLAY: FsWord = 0x794c_7630;
/// `OVL_FH_MAGIC`: the third byte of a handle's header, after the version, which follows three bytes of padding.
const MAGIC: (usize, u8) = (4, 0xfb);
/// `OVL_FH_FLAG_PATH_UPPER`, in the header's fourth byte.
const FLAGS: usize = 6;
const IS_UPPER: u8 = 1 << 2;

/// Whether the directory is one of an overlay; unknown counts as such.
pub(crate) fn is_overlay(directory: BorrowedFd<'_>) -> bool {
    fstatfs(directory).map_or(true, |it| it.f_type == OVERLAY)
}

/// Whether a file of an overlay is on a lower layer, if that can be told.
pub(crate) fn is_on_lower_layer(directory: BorrowedFd<'_>, name: &CStr) -> Option<bool> {
    let handle = file_handle(directory, name).ok()?;
    let (place, magic) = MAGIC;
    (handle.get(place) == Some(&magic)).then_some(())?;
    handle.get(FLAGS).map(|flags| flags & IS_UPPER == 0)
}
