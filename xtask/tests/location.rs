//! Where the cache is looked for, and what is said of one that does not exist.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Cache, Ran, needs, xtask};

const COMMANDS: [&str; 3] = ["cache-prune", "cache-usage", "cache-verify"];

#[test]
fn a_directory_that_does_not_exist_is_told_once() {
    let cache = Cache::missing();
    for command in COMMANDS {
        for arguments in [&[][..], &["-v"], &["--format", "json"]] {
            let ran = cache.run(command, arguments);
            assert_eq!((ran.exit, ran.stderr.as_str()), (0, "note: [TMP]/oci does not exist\n"), "{command}");
        }
        let quiet = cache.run(command, &["-q"]);
        assert_eq!((quiet.exit, quiet.stderr.as_str()), (0, ""), "{command}");
    }
    for (command, arguments) in [("cache-prune", &["-n", "-v"][..]), ("cache-verify", &["--prune", "-v"])] {
        let ran = cache.run(command, arguments);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, "note: [TMP]/oci does not exist\n"), "{command}");
    }
    assert!(!cache.path().exists());
}

#[test]
fn the_lines_of_a_directory_that_does_not_exist() {
    let cache = Cache::missing();
    assert_eq!(cache.prune(&[]).stdout, "freed 0 B across 0 blob(s) in [TMP]/oci\n");
    let usage = cache.run("cache-usage", &[]).stdout;
    assert_eq!(usage, "0 B in [TMP]/oci\n0 B on disk\n");
}

#[test]
fn json_says_whether_the_directory_exists() {
    for (cache, exists) in [(Cache::missing(), false), (Cache::new(), true)] {
        for command in COMMANDS {
            assert_eq!(cache.run(command, &["--format", "json"]).json()["exists"], exists, "{command}");
        }
        assert_eq!(cache.run("cache-dir", &["--format", "json"]).json()["exists"], exists);
        let dry_run = cache.prune(&["-n", "--format", "json"]).json();
        assert_eq!((&dry_run["exists"], dry_run["available_bytes"].is_u64()), (&exists.into(), exists));
        let usage = cache.run("cache-usage", &["--format", "json"]).json();
        for field in ["available_bytes", "file_system_bytes"] {
            assert_eq!(usage[field].is_u64(), exists, "{field}");
            assert_eq!(usage[field] == Value::Null, !exists, "{field}");
        }
    }
}

#[test]
fn no_goal_is_judged_for_a_directory_that_does_not_exist() {
    for goal in
        [["--min-free-space", "100%"], ["--min-free-space", "16000000TB"], ["--max-used-space", "20%"]]
    {
        let ran = Cache::missing().prune(&[&goal[..], &["--format", "json"]].concat());
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, "note: [TMP]/oci does not exist\n"), "{goal:?}");
        assert_eq!(ran.json()["goals"].as_array().map(Vec::len), Some(0), "{goal:?}");
    }
}

#[test]
fn a_link_that_leads_to_nothing_is_told() {
    let cache = Cache::missing();
    symlink("nowhere", cache.path()).unwrap();
    let before = cache.tree();
    for command in COMMANDS {
        let ran = cache.run(command, &[]);
        let note = "note: [TMP]/oci is a symbolic link that leads to nothing\n";
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, note), "{command}");
    }
    // A slash at the end follows the link.
    let mut program = xtask();
    program.args(["cache-usage", "--cache-dir"]).arg(cache.path().join(""));
    let ran = Ran::of(&mut program, cache.base.path());
    assert!(ran.stderr.contains("is a symbolic link that leads to nothing"), "{}", ran.block());
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_tilde_that_no_shell_replaced_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let run = |command: &str, flag: Option<&str>, variable: Option<&str>| {
        let mut program = xtask();
        program.arg(command).current_dir(base.path());
        program.args(flag.map(|path| format!("--cache-dir={path}")));
        program.envs(variable.map(|path| ("BANGER_OCI_CACHE_DIR", path)));
        Ran::of(&mut program, base.path())
    };
    for command in [&COMMANDS[..], &["cache-dir"]].concat() {
        for (flag, variable) in [(Some("~/oci"), None), (Some("~"), None), (None, Some("~me/oci"))] {
            let ran = run(command, flag, variable);
            assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{command} {}", ran.block());
            let why = "begins with a `~` that no shell replaced: write the home directory out";
            assert!(ran.stderr.contains(why), "{command} {}", ran.block());
        }
    }
    // A directory may have such a name.
    let named = run("cache-dir", Some("./~"), None);
    assert_eq!((named.exit, named.stdout.as_str()), (0, "[TMP]/~\n"), "{}", named.block());
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn root_of_a_user_namespace_gets_the_user_s_own_cache() {
    if !needs::user_namespace() {
        return;
    }
    let mut program = Command::new("unshare");
    program.args(["-r", env!("CARGO_BIN_EXE_xtask"), "cache-dir"]).env("HOME", "/home/me");
    program.env_remove("BANGER_OCI_CACHE_DIR").env_remove("XDG_CACHE_HOME");
    let ran = Ran::of(&mut program, Path::new("/nonexistent"));
    // What is root outside too is the machine's root.
    let expected = if needs::is_root() { "/var/cache/banger/oci\n" } else { "/home/me/.cache/banger/oci\n" };
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, expected), "{}", ran.block());
}
