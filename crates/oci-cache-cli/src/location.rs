//! Where the cache is, and which directories are never a cache.
//!
//! Guarantees: the cache is the first of these that is set and not empty: `--cache-dir` (empty is an error),
//! `BANGER_OCI_CACHE_DIR`, for root `/var/cache/banger/oci`, `$XDG_CACHE_HOME/banger/oci` if absolute (the
//! XDG base directory specification says to ignore a relative one), `$HOME/.cache/banger/oci`. Root is the machine's
//! root, not that of a user namespace (`unshare -r`, rootless containers). A `~` that no shell replaced is an error.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_cache::{CacheDir, escape_path};

use crate::cli::LocationArguments;
use crate::exit::UsageError;

const VARIABLE: &str = "BANGER_OCI_CACHE_DIR";

/// What the choice of the directory depends on.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    is_root: bool,
    /// The content of `/proc/self/uid_map`, if it can be read.
    uid_map: Option<String>,
}

/// The cache's directory.
pub(crate) fn cache_dir(arguments: &LocationArguments) -> Result<PathBuf, UsageError> {
    let is_root = rustix::process::geteuid().is_root();
    let surroundings = Surroundings {
        variable: &|name| std::env::var_os(name),
        is_root,
        uid_map: is_root.then(|| fs::read_to_string("/proc/self/uid_map").ok()).flatten(),
    };
    surroundings.choose(arguments.cache_dir.as_deref())
}

/// The directories that are never pruned, and neither are their ancestors: the home directory and `more`.
pub(crate) fn protected(more: &[PathBuf]) -> Vec<PathBuf> {
    std::env::home_dir().into_iter().chain(more.iter().cloned()).collect()
}

/// The note on a cache whose directory does not exist.
pub(crate) fn absence(cache: &CacheDir) -> Option<String> {
    // Without a slash at the end, which would follow a link.
    let path: PathBuf = cache.path().components().collect();
    let is_link = || fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
    let why = match cache.exists() {
        true => return None,
        false if is_link() => "is a symbolic link that leads to nothing",
        false => "does not exist",
    };
    Some(format!("note: {} {why}", escape_path(&path)))
}

impl Surroundings<'_> {
    fn choose(&self, given: Option<&Path>) -> Result<PathBuf, UsageError> {
        let chosen = self.first_set(given)?;
        if chosen.as_os_str().as_bytes().starts_with(b"~") {
            let path = escape_path(&chosen);
            return Err(UsageError(format!(
                "the cache directory `{path}` begins with a `~` that no shell replaced: write the home directory out, \
                 as in $HOME/.cache, or `./{path}` if that is the directory's name"
            )));
        }
        Ok(chosen)
    }

    fn first_set(&self, given: Option<&Path>) -> Result<PathBuf, UsageError> {
        let set = |name| (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let below = |base: PathBuf| base.join("banger/oci");
        given
            .map(Path::to_owned)
            .or_else(|| set(VARIABLE))
            .or_else(|| self.is_machines_root().then(|| below("/var/cache".into())))
            .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(below))
            .or_else(|| set("HOME").map(|home| below(home.join(".cache"))))
            .ok_or_else(|| {
                UsageError(format!("no cache directory: set --cache-dir, {VARIABLE}, XDG_CACHE_HOME or HOME"))
            })
    }

    /// Whether this is the machine's root, and not a user who is root of a namespace of his own (`user_namespaces(7)`).
    /// Without `/proc`, root counts as the machine's.
    fn is_machines_root(&self) -> bool {
        let is_root_outside = |map: &str| map.split_whitespace().take(2).eq(["0", "0"]);
        self.is_root && self.uid_map.as_deref().is_none_or(is_root_outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(given: Option<&str>, variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        Surroundings { variable: &variable, is_root, uid_map: None }.choose(given.map(Path::new)).ok()
    }

    #[test]
    fn the_order_of_the_places() {
        let all = [(VARIABLE, "/env"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/me")];
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(Some("/given"), &all, true), path("/given"));
        assert_eq!(choose(None, &all, true), path("/env"));
        assert_eq!(choose(None, &all[1..], true), path("/var/cache/banger/oci"));
        assert_eq!(choose(None, &all[1..], false), path("/xdg/banger/oci"));
        assert_eq!(choose(None, &all[2..], false), path("/home/me/.cache/banger/oci"));
        assert_eq!(choose(None, &[], false), None);
    }

    #[test]
    fn empty_counts_as_unset_and_a_relative_xdg_directory_is_ignored() {
        let empty = [(VARIABLE, ""), ("XDG_CACHE_HOME", ""), ("HOME", "/home/me")];
        assert_eq!(choose(None, &empty, false), Some("/home/me/.cache/banger/oci".into()));
        let relative = [("XDG_CACHE_HOME", "cache"), ("HOME", "/home/me")];
        assert_eq!(choose(None, &relative, false), Some("/home/me/.cache/banger/oci".into()));
    }

    #[test]
    fn only_the_machines_root_gets_the_machines_cache() {
        let variable = |name: &str| (name == "HOME").then(|| OsString::from("/home/me"));
        let choose = |uid_map: Option<&str>, is_root| {
            let uid_map = uid_map.map(str::to_owned);
            Surroundings { variable: &variable, is_root, uid_map }.choose(None).ok()
        };
        let (machine, own) =
            (PathBuf::from("/var/cache/banger/oci"), PathBuf::from("/home/me/.cache/banger/oci"));
        let initial = "         0          0 4294967295\n";
        let of_podman = "         0       1000          1\n         1     524288      65536\n";
        for (uid_map, is_root, expected) in [
            (Some(initial), true, &machine),
            (None, true, &machine),
            (Some("         0       1000          1\n"), true, &own),
            (Some("         0          0          1\n"), true, &machine),
            (Some(of_podman), true, &own),
            (Some(initial), false, &own),
            (None, false, &own),
        ] {
            assert_eq!(choose(uid_map, is_root).as_ref(), Some(expected), "{uid_map:?} {is_root}");
        }
    }

    #[test]
    fn a_tilde_that_no_shell_replaced_is_an_error() {
        for path in ["~", "~/oci", "~me/oci"] {
            assert_eq!(choose(Some(path), &[], false), None, "{path}");
            assert_eq!(choose(None, &[(VARIABLE, path), ("HOME", "/home/me")], false), None, "{path}");
        }
        for path in ["./~/oci", "/a/~/oci", "a~"] {
            assert_eq!(choose(Some(path), &[], false), Some(path.into()), "{path}");
        }
    }
}
