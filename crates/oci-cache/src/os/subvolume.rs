//! Tells subvolumes of btrfs from mounts: both have another device number than the directory that they are in.
//!
//! Guarantees: opens and changes nothing. Where the kernel does not report mount roots (before Linux 5.8), an entry counts
//! as a mount.
//!
//! Source: Linux's `include/uapi/linux/btrfs_tree.h` (`BTRFS_FIRST_FREE_OBJECTID`) and `magic.h` (`BTRFS_SUPER_MAGIC`).

use std::os::fd::BorrowedFd;

use rustix::fs::{FsWord, fstatfs};

use crate::os::status::Status;

const BTRFS: FsWord = 0x9123_683e;
/// The inode number of a subvolume's directory. Nothing else on btrfs has it.
const INODE: u64 = 256;

/// Whether an entry of a directory on `device` is a subvolume.
pub(crate) fn is_nested_subvolume(entry: &Status, device: (u32, u32)) -> bool {
    let is_mount = entry.is_mount_root || !entry.knows_mount_roots;
    entry.is_directory() && entry.id.inode == INODE && entry.id.device != device && !is_mount
}

/// Whether an open directory is a subvolume.
pub(crate) fn is_subvolume(directory: BorrowedFd<'_>, status: &Status) -> bool {
    status.id.inode == INODE && fstatfs(directory).is_ok_and(|found| found.f_type == BTRFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::status::FileId;
    use rustix::fs::FileType;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    #[test]
    fn neither_a_mount_nor_another_directory_is_a_subvolume() {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        let status = Status::of_descriptor(opened.as_fd()).unwrap();
        let subvolume = Status {
            id: FileId { device: (0, 77), inode: INODE },
            is_mount_root: false,
            knows_mount_roots: true,
            ..status
        };
        assert!(is_nested_subvolume(&subvolume, (0, 76)));
        let id = FileId { inode: INODE + 1, ..subvolume.id };
        for other in [
            Status { is_mount_root: true, ..subvolume },
            Status { knows_mount_roots: false, ..subvolume },
            Status { kind: FileType::RegularFile, ..subvolume },
            Status { id, ..subvolume },
        ] {
            assert!(!is_nested_subvolume(&other, (0, 76)), "{other:?}");
        }
        assert!(!is_nested_subvolume(&subvolume, (0, 77)));
        assert!(!is_subvolume(opened.as_fd(), &Status { id, ..status }));
    }
}
