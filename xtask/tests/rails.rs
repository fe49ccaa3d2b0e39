//! Refused directories: exit 2, nothing on stdout, the tree unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{Cache, KIB, Ran, flat, hex, xtask};

/// Prunes `directory` with `home` as the home directory, and checks that this is refused.
fn assert_refused(cache: &Cache, directory: &Path, home: &Path, why: &str) {
    let before = cache.tree();
    for extra in [&[][..], &["--aside"], &["--dry-run"]] {
        let mut program = xtask();
        program.args(["cache-prune", "--cache-dir"]).arg(directory).args(extra).env("HOME", home);
        let ran = Ran::of(&mut program, cache.base.path());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        assert_eq!(cache.tree(), before);
    }
}

#[test]
fn the_root_directory() {
    let cache = Cache::new();
    assert_refused(&cache, Path::new("/"), cache.base.path(), "contains, the protected directory `/`");
    assert_refused(&cache, Path::new("/usr/.."), cache.base.path(), "contains, the protected directory `/`");
    symlink("/", cache.path().join("link")).unwrap();
    assert_refused(
        &cache,
        &cache.path().join("link"),
        cache.base.path(),
        "contains, the protected directory `/`",
    );
}

#[test]
fn the_home_and_what_holds_it() {
    // The directory contains blobs, so only the protection of the home prevents the prune.
    let cache = Cache::flat(2, KIB);
    let home = cache.path().join("users/me");
    fs::create_dir_all(&home).unwrap();
    cache.write(format!("users/me/{}", flat(1)), KIB);
    for directory in [&cache.path(), &home, &home.join("../me")] {
        assert_refused(&cache, directory, &home, "contains, the protected directory `[TMP]/oci/users/me`");
    }
    let linked = cache.base.path().join("linked-home");
    symlink(&home, &linked).unwrap();
    assert_refused(&cache, &cache.path(), &linked, "contains, the protected directory `[TMP]/linked-home`");
}

#[test]
fn the_workspace_and_what_holds_it() {
    let cache = Cache::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for directory in [workspace, workspace.parent().unwrap()] {
        assert_refused(&cache, directory, cache.base.path(), "contains, the protected directory `");
    }
}

#[test]
fn a_file() {
    let cache = Cache::new();
    let file = cache.write("file", KIB);
    assert_refused(&cache, &file, cache.base.path(), "it is not a directory");
    assert_refused(&cache, &file.join("below"), cache.base.path(), "it is not a directory");
}

#[test]
fn an_empty_path() {
    let cache = Cache::new();
    assert_refused(&cache, Path::new(""), cache.base.path(), "a value is required");
}

#[test]
fn directories_that_only_look_like_a_cache() {
    for entries in [
        &["thesis.tex"][..],
        &["index.json", "index.html"],
        &["ingest/records.csv", "index.json"],
        &["blobs/photo.jpg", "ingest/records.csv"],
        &["notes.tmp"],
        &["oci-put-blob123", "oci-put-blob.go", ".umoci-42/notes.md"],
        &["deeper/oci-layout"],
    ] {
        let cache = Cache::new();
        for entry in entries {
            cache.write(entry, KIB);
        }
        cache.write(format!("more/{}", flat(1)), KIB);
        cache.write(format!("blobs/{}", hex(1)), KIB);
        assert_refused(
            &cache,
            &cache.path(),
            cache.base.path(),
            "nothing in it belongs to an OCI blob cache",
        );
    }
}

#[test]
fn an_empty_cache_on_a_file_system_of_its_own_is_no_mistake() {
    let cache = Cache::new();
    fs::create_dir(cache.path().join("lost+found")).unwrap();
    assert_eq!(cache.prune(&[]).exit, 0);
}

#[test]
fn usage_errors_touch_nothing() {
    let cache = Cache::flat(1, KIB);
    let before = cache.tree();
    for arguments in
        [&["--no-such-flag"][..], &["--wait-timeout", "soon"], &["--format", "xml"], &["-q", "-v"]]
    {
        let ran = cache.prune(arguments);
        assert_eq!((ran.exit, ran.stdout.as_str(), cache.tree()), (2, "", before.clone()), "{}", ran.block());
    }
}
