//! Where the cache is, and which directories are never a cache.
//!
//! Guarantees: the cache is the first of these that is set and not empty: `--cache-dir` (empty is an error),
//! `BANGER_OCI_CACHE_DIR`, for root `/var/cache/banger/oci`, `$XDG_CACHE_HOME/banger/oci` if absolute (the
//! XDG base directory specification says to ignore a relative one), `$HOME/.cache/banger/oci`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::LocationArguments;
use crate::exit::UsageError;

const VARIABLE: &str = "BANGER_OCI_CACHE_DIR";

/// What the choice of the directory depends on.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    is_root: bool,
}

/// The cache's directory.
pub(crate) fn cache_dir(arguments: &LocationArguments) -> Result<PathBuf, UsageError> {
    let surroundings = Surroundings {
        variable: &|name| std::env::var_os(name),
        is_root: rustix::process::geteuid().is_root(),
    };
    surroundings.choose(arguments.cache_dir.as_deref())
}

/// The directories that are never pruned, and neither are their ancestors: the home directory and `more`.
pub(crate) fn protected(more: &[PathBuf]) -> Vec<PathBuf> {
    std::env::home_dir().into_iter().chain(more.iter().cloned()).collect()
}

impl Surroundings<'_> {
    fn choose(&self, given: Option<&Path>) -> Result<PathBuf, UsageError> {
        let set = |name| (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let below = |base: PathBuf| base.join("banger/oci");
        given
            .map(Path::to_owned)
            .or_else(|| set(VARIABLE))
            .or_else(|| self.is_root.then(|| below("/var/cache".into())))
            .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(below))
            .or_else(|| set("HOME").map(|home| below(home.join(".cache"))))
            .ok_or_else(|| {
                UsageError(format!("no cache directory: set --cache-dir, {VARIABLE}, XDG_CACHE_HOME or HOME"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(given: Option<&str>, variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        let variable = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        Surroundings { variable: &variable, is_root }.choose(given.map(Path::new)).ok()
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
}
