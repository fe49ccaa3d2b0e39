//! The programs that the parts need.
//!
//! Guarantees: what is missing is named at once, with the Debian packages that bring it, before anything
//! runs.

use std::env;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::bail;

/// The programs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 12] = [
    ("strace", "strace"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("bindfs", "bindfs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("chattr", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("prlimit", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("capsh", "libcap2-bin"),
];
/// Where programs for root are, which is not on everyone's search path.
const FOR_ROOT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Looks for the programs, and for the rights that the parts need.
///
/// # Errors
///
/// If a program is missing, or this is not run by root.
pub(crate) fn check() -> anyhow::Result<()> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|(program, _)| !is_here(program)).collect();
    if !missing.is_empty() {
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!(
            "torture needs programs that are not here: {}; on Debian: apt-get install {}",
            programs.join(", "),
            packages.join(" ")
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("torture mounts file systems and changes users: it must be run by root");
    }
    Ok(())
}

fn is_here(program: &str) -> bool {
    let search_path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&search_path).chain(FOR_ROOT.iter().map(Into::into)).any(|directory| {
        let metadata = directory.join(program).metadata();
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_by_name() {
        assert!(is_here("sh"));
        assert!(!is_here("no-such-program-of-ours"));
    }
}
