//! The kernel's caches of the whole machine.
//!
//! Guarantees: after a drop, nothing of a file system on a disk is in memory that can be read again: no contents, no inodes, no
//! names. Source: `Documentation/admin-guide/sysctl/vm.rst`, `drop_caches`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Why the caches cannot be dropped; `None` if they can.
pub(crate) fn obstacle() -> Option<String> {
    let may_write = rustix::fs::access(Path::new(DROP_CACHES), rustix::fs::Access::WRITE_OK).is_ok();
    (!may_write).then(|| "dropping the page cache needs root".to_owned())
}

/// Drops the caches of the whole machine.
pub(crate) fn drop_all() -> anyhow::Result<()> {
    // What is not written yet cannot be dropped.
    rustix::fs::sync();
    fs::write(DROP_CACHES, "3").with_context(|| format!("write to `{DROP_CACHES}`"))
}
