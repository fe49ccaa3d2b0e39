//! The programs that the exercise needs.
//!
//! Guarantees: what is missing is named at once, with the packages that bring it, before anything runs.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::bail;

/// A program, and the Debian package that brings it.
type Program = (&'static str, &'static str);

const PROGRAMS: [Program; 9] = [
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("strace", "strace"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("python3", "python3-venv"),
];

/// Looks for the programs on the search path.
///
/// # Errors
///
/// If one is not there.
pub(crate) fn check() -> anyhow::Result<()> {
    let missing = missing_from(&env::var_os("PATH").unwrap_or_default());
    if !missing.is_empty() {
        let (programs, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        bail!(
            "smoke needs programs that are not here: {}; on Debian: apt-get install {}",
            programs.join(", "),
            packages.join(" ")
        );
    }
    Ok(())
}

fn missing_from(search_path: &OsStr) -> Vec<Program> {
    PROGRAMS.into_iter().filter(|(program, _)| !is_on(search_path, program)).collect()
}

fn is_on(search_path: &OsStr, program: &str) -> bool {
    env::split_paths(search_path).any(|directory| {
        let metadata = directory.join(program).metadata();
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    fn only_executable_files_count() {
        let directory = tempfile::tempdir().unwrap();
        let search_path = env::join_paths(["/nonexistent".as_ref(), directory.path()]).unwrap();
        assert_eq!(missing_from(&search_path), PROGRAMS);
        assert_eq!(missing_from(OsStr::new("")), PROGRAMS);

        fs::write(directory.path().join("skopeo"), "").unwrap();
        fs::set_permissions(directory.path().join("skopeo"), Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("umoci"), "").unwrap();
        fs::set_permissions(directory.path().join("umoci"), Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(directory.path().join("strace")).unwrap();
        let found: Vec<Program> =
            PROGRAMS.into_iter().filter(|program| !missing_from(&search_path).contains(program)).collect();
        assert_eq!(found, [("skopeo", "skopeo")]);
    }
}
