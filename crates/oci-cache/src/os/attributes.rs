//! Gives a new file what the file that it replaces has: owner, group, mode, access control list and extended attributes.
//!
//! Guarantees: nobody may do more with the new file than with the old one. If the group cannot be kept, its members lose
//! what others may not do. If the access control list cannot be kept, there is an error. Labels of security modules and
//! attributes of the kernel are kept where that is allowed.
//!
//! What it does not guarantee: without privilege, the owner may be the caller.
//!
//! Sources: `acl(5)`, `xattr(7)`; `chown(2)`.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::{
    Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr,
};
use rustix::io::Errno;

use crate::os::status::Status;

/// The attribute that holds the access control list (`XATTR_NAME_POSIX_ACL_ACCESS` in Linux's
/// `include/uapi/linux/xattr.h`).
const ACCESS_LIST: &CStr = c"system.posix_acl_access";

/// Gives the file `new` what the file `old` has, whose status is given.
pub(crate) fn copy_attributes(
    old: BorrowedFd<'_>,
    status: &Status,
    new: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let group = Gid::from_raw(status.group);
    // Only root can change the owner. Otherwise the file belongs to the caller, as with any tool that renames.
    let has_group = fchown(new, Some(Uid::from_raw(status.owner)), Some(group)).is_ok()
        || fchown(new, None, Some(group)).is_ok();
    let names = names(old)?;
    let has_list = names.iter().any(|name| name.as_c_str() == ACCESS_LIST);
    if has_list && !has_group {
        return Err(Errno::PERM);
    }
    if !has_list {
        // It may have one from the directory.
        match fremovexattr(new, ACCESS_LIST) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    for name in &names {
        copy(old, new, name)?;
    }
    fchmod(new, Mode::from_raw_mode(mode(status.mode, has_group)))
}

/// The mode of the new file: without the group, its members have what others have at most.
const fn mode(old: u32, has_group: bool) -> u32 {
    const OTHERS: u32 = 0o007;
    const GROUP: u32 = 0o070;
    if has_group { old } else { old & (!GROUP | (old & OTHERS) << 3) }
}

/// The names of a file's extended attributes.
fn names(file: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let list = whole(|buffer| flistxattr(file, buffer));
    let list = match list {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        list => list?,
    };
    Ok(list
        .split(|byte| *byte == 0)
        .filter_map(|name| CString::new(name).ok())
        .filter(|name| !name.is_empty())
        .collect())
}

fn copy(old: BorrowedFd<'_>, new: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let is_own = name.to_bytes().starts_with(b"user.") || name == ACCESS_LIST;
    let copied = whole(|buffer| fgetxattr(old, name, buffer))
        .and_then(|value| fsetxattr(new, name, &value, XattrFlags::empty()));
    if is_own { copied } else { Ok(()) }
}

/// Reads a list of names, or a value: neither is longer than 64 KiB (`XATTR_LIST_MAX` and `XATTR_SIZE_MAX` in Linux's
/// `include/uapi/linux/limits.h`).
fn whole(read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1 << 16];
    let length = read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;

    #[test]
    fn without_the_group_its_members_have_what_others_have() {
        for (old, has_group, new) in [
            (0o660, true, 0o660),
            (0o660, false, 0o600),
            (0o664, false, 0o644),
            (0o646, false, 0o646),
            (0o640, false, 0o600),
        ] {
            assert_eq!(mode(old, has_group), new, "{old:o}");
        }
    }

    /// An access control list as the kernel reads it: the owner may do all, user 65534 and the mask `group`, and others
    /// nothing (`struct posix_acl_xattr_entry` in Linux's `include/uapi/linux/posix_acl_xattr.h`).
    fn list(group: u8) -> Vec<u8> {
        let entries: [(u8, u8, u32); 5] = [
            (1, 7, u32::MAX),
            (2, group, 65534),
            (4, 0, u32::MAX),
            (0x10, group, u32::MAX),
            (0x20, 0, u32::MAX),
        ];
        let entries =
            entries.map(|(tag, permissions, id)| [&[tag, 0, permissions, 0][..], &id.to_le_bytes()].concat());
        [&[2, 0, 0, 0][..], &entries.concat()].concat()
    }

    #[test]
    fn mode_lists_and_attributes_are_copied() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            fs::write(directory.path().join(name), "").unwrap();
            File::open(directory.path().join(name)).unwrap()
        };
        let [old, listed] = ["old", "listed"].map(open);
        let root = File::open(directory.path()).unwrap();
        fsetxattr(&root, c"system.posix_acl_default", &list(6), XattrFlags::empty()).unwrap();
        let [new, newly_listed] = ["new", "newly listed"].map(open);
        let (old, listed) = (old.as_fd(), listed.as_fd());
        assert_eq!(names(new.as_fd()).unwrap(), [ACCESS_LIST], "inherited");

        fchmod(old, Mode::from_raw_mode(0o640)).unwrap();
        fsetxattr(old, c"user.owner", &[7; 300], XattrFlags::empty()).unwrap();
        fsetxattr(old, c"user.empty", &[], XattrFlags::empty()).unwrap();
        // Only root can do that.
        let _ = fchown(old, Some(Uid::from_raw(4711)), Some(Gid::from_raw(4712)));
        let expected = Status::of_descriptor(old).unwrap();
        copy_attributes(old, &expected, new.as_fd()).unwrap();
        let found = Status::of_descriptor(new.as_fd()).unwrap();
        assert_eq!((found.owner, found.group), (expected.owner, expected.group));
        assert_eq!(whole(|buffer| fgetxattr(&new, c"user.owner", buffer)), Ok(vec![7; 300]));
        assert_eq!(whole(|buffer| fgetxattr(&new, c"user.empty", buffer)), Ok(Vec::new()));
        assert_eq!(names(new.as_fd()).unwrap().len(), 2, "the inherited list is gone");
        assert_eq!(Status::of_descriptor(new.as_fd()).unwrap().mode, 0o640);

        fsetxattr(listed, ACCESS_LIST, &list(4), XattrFlags::empty()).unwrap();
        copy_attributes(listed, &Status::of_descriptor(listed).unwrap(), newly_listed.as_fd()).unwrap();
        assert_eq!(whole(|buffer| fgetxattr(&newly_listed, ACCESS_LIST, buffer)), Ok(list(4)));
    }
}
