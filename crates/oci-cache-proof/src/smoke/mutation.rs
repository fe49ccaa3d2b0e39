//! The system calls that change a file system, as strace prints them.
//!
//! Guarantees: a call counts even if it fails, and whatever it acts on. Only null devices and terminals may
//! be opened for writing. Calls that write need no check: they need a descriptor that was opened for writing.
//! A lease counts too, because it makes others wait.

/// The calls for strace to show: all that change a name, a content or an attribute, or that could do so
/// unseen. A question mark marks calls that not every machine has.
pub(crate) const TRACED: &str = "?open,openat,openat2,?creat,?open_by_handle_at,\
    ?unlink,unlinkat,?rename,?renameat,renameat2,?mkdir,mkdirat,?rmdir,?link,linkat,?symlink,symlinkat,\
    ?mknod,mknodat,truncate,ftruncate,fallocate,?chmod,fchmod,fchmodat,?fchmodat2,?chown,fchown,?lchown,\
    fchownat,?utime,?utimes,?futimesat,utimensat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,\
    fremovexattr,?setxattrat,?removexattrat,mount,umount2,copy_file_range,fcntl,ioctl,?io_uring_setup";

/// The calls that change something only with one of these arguments.
const CONDITIONAL: [(&str, &[&str]); 6] = [
    ("open", WRITABLE),
    ("openat", WRITABLE),
    ("openat2", WRITABLE),
    ("open_by_handle_at", WRITABLE),
    ("fcntl", &["F_SETLEASE"]),
    ("ioctl", &["FS_IOC_SETFLAGS", "FS_IOC_FSSETXATTR", "FICLONE", "FIDEDUPERANGE"]),
];
const WRITABLE: &[&str] = &["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"];
/// Files that may be opened for writing.
const HARMLESS: [&str; 3] = ["\"/dev/null\"", "\"/dev/tty\"", "\"/dev/pts/"];

/// The name of the call in a line of strace, if the call changes anything.
pub(crate) fn mutating_call(line: &str) -> Option<&str> {
    // With `-f` and `-o`, each line begins with the thread's ID.
    let line = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
    let (name, arguments) = line.split_once('(')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let is_opened = CONDITIONAL.iter().find(|(call, _)| *call == name);
    let changes = is_opened.is_none_or(|(_, signs)| signs.iter().any(|sign| arguments.contains(sign)));
    let is_harmless = is_opened.is_some() && HARMLESS.iter().any(|path| arguments.contains(path));
    (changes && !is_harmless).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_change_something_are_found() {
        for (line, name) in [
            (r#"4711 unlinkat(5, "sha256:00", 0) = 0"#, "unlinkat"),
            (r#"4711  unlink("/x") = -1 ENOENT (No such file or directory)"#, "unlink"),
            (r#"1 renameat2(3, "a", 3, "b", RENAME_EXCHANGE <unfinished ...>"#, "renameat2"),
            (r#"openat(AT_FDCWD, "a", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0644) = 3"#, "openat"),
            (r#"2 openat2(3, "a", {flags=O_RDWR|O_NOFOLLOW, resolve=RESOLVE_BENEATH}, 24) = 4"#, "openat2"),
            ("3 fcntl(9, F_SETLEASE, F_WRLCK) = 0", "fcntl"),
            ("4 ftruncate(9, 0) = 0", "ftruncate"),
            ("5 utimensat(4, NULL, NULL, 0) = 0", "utimensat"),
            ("6 ioctl(4, FS_IOC_SETFLAGS, 0x7ff) = 0", "ioctl"),
            ("7 io_uring_setup(8, {flags=0}) = 4", "io_uring_setup"),
        ] {
            assert_eq!(mutating_call(line), Some(name), "{line}");
        }
    }

    #[test]
    fn calls_that_only_look_are_not() {
        for line in [
            r#"1 openat(AT_FDCWD, "/cache", O_RDONLY|O_NOFOLLOW|O_CLOEXEC|O_DIRECTORY) = 3"#,
            r#"2 openat2(3, "blobs", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_NO_XDEV}, 24 <unfinished ...>"#,
            r#"openat(AT_FDCWD, "/dev/null", O_RDWR) = 3"#,
            "3 fcntl(9, F_DUPFD_CLOEXEC, 3) = 4",
            "4 ioctl(1, TCGETS, 0x7ffd) = -1 ENOTTY (Inappropriate ioctl for device)",
            "5 <... unlinkat resumed>) = 0",
            "6 +++ exited with 0 +++",
            "7 --- SIGURG {si_signo=SIGURG, si_code=SI_USER} ---",
            "",
        ] {
            assert_eq!(mutating_call(line), None, "{line}");
        }
    }
}
