//! Programs on the search path.
//!
//! Guarantees: only executable files count. Missing programs are reported all at once, with their Debian
//! packages, before anything runs.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::bail;

/// A program, and the Debian package that contains it.
pub(crate) type Program = (&'static str, &'static str);

/// Checks that all programs that a command needs are installed.
///
/// # Errors
///
/// If a program is missing.
pub(crate) fn check(part: &str, needed: &[Program]) -> anyhow::Result<()> {
    let missing = missing_from(&env::var_os("PATH").unwrap_or_default(), needed);
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, mut packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    packages.sort_unstable();
    packages.dedup();
    bail!(
        "{part} needs programs that are not on the search path: {}; on Debian: apt-get install {}",
        programs.join(", "),
        packages.join(" ")
    )
}

/// The path of a program.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_on(&env::var_os("PATH")?, name)
}

fn missing_from(search_path: &OsStr, needed: &[Program]) -> Vec<Program> {
    needed.iter().copied().filter(|(program, _)| find_on(search_path, program).is_none()).collect()
}

fn find_on(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(search_path).map(|directory| directory.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    const NEEDED: [Program; 4] =
        [("skopeo", "skopeo"), ("mkfs.ext4", "e2fsprogs"), ("chattr", "e2fsprogs"), ("strace", "strace")];

    #[test]
    fn only_executable_files_count() {
        let directory = tempfile::tempdir().unwrap();
        let search_path = env::join_paths(["/nonexistent".as_ref(), directory.path()]).unwrap();
        assert_eq!(missing_from(&search_path, &NEEDED), NEEDED);
        assert_eq!(missing_from(OsStr::new(""), &NEEDED), NEEDED);

        for (name, mode) in [("skopeo", 0o755), ("chattr", 0o644)] {
            fs::write(directory.path().join(name), "").unwrap();
            fs::set_permissions(directory.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(directory.path().join("strace")).unwrap();
        assert_eq!(missing_from(&search_path, &NEEDED), NEEDED[1..]);
        assert_eq!(find_on(&search_path, "skopeo"), Some(directory.path().join("skopeo")));
    }

    #[test]
    fn a_package_is_named_once() {
        check("the test", &[("sh", "dash")]).unwrap();
        let absent = [("no-such-a", "one"), ("no-such-b", "two"), ("no-such-c", "one")];
        let said = check("the test", &absent).unwrap_err().to_string();
        assert!(
            said.ends_with("no-such-a, no-such-b, no-such-c; on Debian: apt-get install one two"),
            "{said}"
        );
    }
}
