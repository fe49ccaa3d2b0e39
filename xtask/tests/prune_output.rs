//! The exact output of `cache-prune`: exit code, stdout and stderr in one block.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::os::unix::fs::symlink;

use insta::assert_snapshot;
use support::{Cache, KIB, flat};

/// 47 sparse blobs with a total size of 1.2 GiB.
fn typical() -> Cache {
    let cache = Cache::new();
    for number in 1..=47 {
        let path = cache.write(flat(number), 0);
        File::options().write(true).open(&path).unwrap().set_len(1_288_490_189 / 47).unwrap();
        support::set_age(&path, std::time::Duration::from_secs(3600));
    }
    cache
}

#[test]
fn would_free_then_freed() {
    let cache = typical();
    assert_snapshot!(cache.prune(&["--dry-run", "--quiet"]).block(), @"
    exit: 0
    --- stdout
    would free 1.2 GiB across 47 blob(s) in [TMP]/oci
    --- stderr
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--dry-run", "--format", "json", "-q"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":1288490148,"blobs_freed":47,"dry_run":true,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":47,"used_bytes":0,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    [EOF]
    "#);
    assert_snapshot!(typical().prune(&["--format", "json", "-q"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":1288490148,"blobs_freed":47,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":47,"used_bytes":0,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    [EOF]
    "#);
    assert_snapshot!(cache.prune(&["--quiet"]).block(), @"
    exit: 0
    --- stdout
    freed 1.2 GiB across 47 blob(s) in [TMP]/oci
    --- stderr
    [EOF]
    ");
}

#[test]
fn sparse_files_make_a_note() {
    assert_snapshot!(typical().prune(&[]).block(), @"
    exit: 0
    --- stdout
    freed 1.2 GiB across 47 blob(s) in [TMP]/oci
    --- stderr
    note: freed only 0 B on disk: some files are sparse, compressed, open or have other links
    [EOF]
    ");
}

#[test]
fn zero() {
    let cache = Cache::new();
    assert_snapshot!(cache.prune(&["--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":0,"used_bytes":0,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    [EOF]
    "#);
    assert_snapshot!(cache.prune(&[]).block(), @"
    exit: 0
    --- stdout
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--dry-run"]).block(), @"
    exit: 0
    --- stdout
    would free 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    [EOF]
    ");
}

#[test]
fn missing_cache() {
    assert_snapshot!(Cache::missing().prune(&[]).block(), @"
    exit: 0
    --- stdout
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    note: [TMP]/oci does not exist
    [EOF]
    ");
    assert_snapshot!(Cache::missing().prune(&["--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":false,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":0,"used_bytes":0,"available_bytes":[ROOM]null,"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: [TMP]/oci does not exist
    [EOF]
    "#);
}

#[test]
fn in_use_kept() {
    let cache = Cache::flat(3, KIB);
    let _reader = File::open(cache.path().join(flat(2))).unwrap();
    assert_snapshot!(cache.prune(&[]).block(), @"
    exit: 0
    --- stdout
    freed 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    note: kept 1 blob, 1.0 KiB: in use
    note: a pull may be under way: [TEST] (pid [PID]) has `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` open. Kept what it may count on; --aside frees everything
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":1,"bytes":1024},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":1,"used_bytes":1024,"available_bytes":[ROOM],"goals":[],"pull":{"sign":"open","path":"[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002","process":{"name":"[TEST]","pid":[PID]}},"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: kept 1 blob, 1.0 KiB: in use
    note: a pull may be under way: [TEST] (pid [PID]) has `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` open. Kept what it may count on; --aside frees everything
    [EOF]
    "#);
    assert_snapshot!(cache.prune(&["--verbose"]).block(), @"
    exit: 0
    --- stdout
    freed 0 B across 0 blob(s) in [TMP]/oci
    --- stderr
    keep `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): in use
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: kept 1 blob, 1.0 KiB: in use
    note: a pull may be under way: [TEST] (pid [PID]) has `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` open. Kept what it may count on; --aside frees everything
    [EOF]
    ");
}

#[test]
fn foreign_kept() {
    let cache = Cache::flat(2, KIB);
    cache.write("notes.txt", KIB);
    symlink("/etc/hostname", cache.path().join(flat(9))).unwrap();
    assert_snapshot!(cache.prune(&["--dry-run", "--verbose"]).block(), @"
    exit: 0
    --- stdout
    would free 2.0 KiB across 2 blob(s) in [TMP]/oci
    --- stderr
    leave `[TMP]/oci/notes.txt`: foreign, a file
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): nothing keeps it
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000002` (1.0 KiB): nothing keeps it
    leave `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000009`: foreign, a symbolic link
    note: last use is [MOUNT]
    note: left 2 foreign entries alone; 1 symbolic link in the place of blobs not followed
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":2048,"blobs_freed":2,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":2,"leftovers_freed":0,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":2,"used_bytes":0,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: left 2 foreign entries alone; 1 symbolic link in the place of blobs not followed
    [EOF]
    "#);
}

#[test]
fn partial_failure() {
    let cache = Cache::flat(1, KIB);
    cache.write(support::nested(2), KIB);
    let stuck = cache.path().join("blobs/sha256");
    std::fs::set_permissions(&stuck, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    assert_snapshot!(cache.prune_unprivileged(&[]).block(), @"
    exit: 1
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    error: remove `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002`: Permission denied (os error 13)
    [EOF]
    ");
    assert_snapshot!(cache.prune_unprivileged(&["--format", "json"]).block(), @r#"
    exit: 1
    --- stdout
    {"bytes_freed":0,"blobs_freed":0,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":0,"partials_freed":0,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":0,"failures":[{"path":"[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002","error":"remove: Permission denied (os error 13)","count":1,"examples":["[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002"]}],"failures_total":1,"interrupted":false,"blobs_planned":1,"used_bytes":1024,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    error: remove `[TMP]/oci/blobs/sha256/0000000000000000000000000000000000000000000000000000000000000002`: Permission denied (os error 13)
    [EOF]
    "#);
}

#[test]
fn refused_directory() {
    let cache = Cache::new();
    cache.write("thesis.tex", KIB);
    assert_snapshot!(cache.prune(&[]).block(), @"
    exit: 2
    --- stdout
    --- stderr
    error: refusing `[TMP]/oci`: nothing in it belongs to an OCI blob cache (the first of 1 other: `thesis.tex`)
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--format", "json"]).block(), @r#"
    exit: 2
    --- stdout
    {"error":"refusing `[TMP]/oci`: nothing in it belongs to an OCI blob cache (the first of 1 other: `thesis.tex`)","exit_code":2,"cache_dir":"[TMP]/oci","schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    error: refusing `[TMP]/oci`: nothing in it belongs to an OCI blob cache (the first of 1 other: `thesis.tex`)
    [EOF]
    "#);
}

#[test]
fn names_are_escaped() {
    let cache = Cache::flat(1, KIB);
    use std::os::unix::ffi::OsStrExt as _;
    let hostile = std::ffi::OsStr::from_bytes(b"\x1b[2Jfreed\n9 GiB\xff");
    cache.write(hostile, 1);
    assert_snapshot!(cache.prune(&["-v"]).block(), @r"
    exit: 0
    --- stdout
    freed 1.0 KiB across 1 blob(s) in [TMP]/oci
    --- stderr
    leave `[TMP]/oci/\u{1b}[2Jfreed\n9 GiB\xff`: foreign, a file
    removed `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): nothing keeps it
    note: last use is [MOUNT]
    note: confined by Landlock to removals beneath the cache
    note: left 1 foreign entry alone
    [EOF]
    ");
}

#[test]
fn partials_and_leftovers() {
    let cache = Cache::flat(1, KIB);
    cache.write("oci-put-blob123", KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(7)), KIB);
    cache.write(format!("../oci.pruning-fedcba9876543210/{}", flat(8)), KIB);
    // This prune waits for the partial to settle, because a change time cannot be set back.
    assert_snapshot!(cache.prune(&["--dry-run", "-v"]).block(), @"
    exit: 0
    --- stdout
    would free 4.0 KiB across 4 blob(s) in [TMP]/oci
    --- stderr
    would remove `[TMP]/oci/.pruning-0123456789abcdef` (1 blob, 1.0 KiB): left by a killed prune
    would remove `[TMP]/oci/oci-put-blob123` (1.0 KiB): nothing keeps it
    would remove `[TMP]/oci/sha256:0000000000000000000000000000000000000000000000000000000000000001` (1.0 KiB): nothing keeps it
    would remove `[TMP]/oci.pruning-fedcba9876543210` (1 blob, 1.0 KiB): left by a killed prune
    note: last use is [MOUNT]
    note: would remove 2 leftovers of killed prunes
    [EOF]
    ");
    assert_snapshot!(cache.prune(&["--format", "json"]).block(), @r#"
    exit: 0
    --- stdout
    {"bytes_freed":4096,"blobs_freed":4,"dry_run":false,"cache_dir":"[TMP]/oci","exists":true,"disk_bytes_freed":[DISK],"partials_freed":1,"kept":{"in_use":{"blobs":0,"bytes":0},"spared":{"blobs":0,"bytes":0},"unprobed":{"blobs":0,"bytes":0},"recent":{"blobs":0,"bytes":0},"referenced":{"blobs":0,"bytes":0},"pinned":{"blobs":0,"bytes":0},"goal_met":{"blobs":0,"bytes":0},"frees_nothing":{"blobs":0,"bytes":0},"changed":{"blobs":0,"bytes":0},"unlisted":{"blobs":0,"bytes":0},"intact":{"blobs":0,"bytes":0},"unread":{"blobs":0,"bytes":0},"unselected":{"blobs":0,"bytes":0}},"unmatched":{"count":0,"first":[]},"foreign":0,"leftovers_freed":2,"failures":[],"failures_total":0,"interrupted":false,"blobs_planned":4,"used_bytes":0,"available_bytes":[ROOM],"goals":[],"pull":null,"held_off_since":null,"schema_version":1,"duration_seconds":[TIME]}
    --- stderr
    note: removed 2 leftovers of killed prunes
    [EOF]
    "#);
}

#[test]
fn help_says_what_goes() {
    let mut program = support::xtask();
    let help = support::Ran::of(program.args(["cache-prune", "--help"]), std::path::Path::new("/nowhere"));
    let about: Vec<&str> = help.stdout.lines().take_while(|line| !line.is_empty()).collect();
    assert_snapshot!(about.join("\n"), @"
    Free space in the cache: remove blobs and unfinished downloads that nobody uses, and report in one
    line what was freed.
    ");
}

#[test]
fn no_command_prints_help() {
    let ran = support::Ran::of(&mut support::xtask(), std::path::Path::new("/nowhere"));
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    assert_snapshot!(ran.stdout, @"
    Prune, inspect and verify a local cache of OCI layer blobs

    Usage: cargo xtask [COMMAND]

    Commands:
      cache-prune   Free space in the cache, and report in one line what was freed
      cache-verify  Hash every blob, and list those whose content does not match their digest
      cache-usage   Show what is in the cache, by kind, age and size, and what common policies would
                    free
      cache-dir     Print the cache directory that the other commands would use
      dist          Build what people install: an archive, a Debian package, and their checksums
      ci            Run the project's own checks: format, lints, tests, documentation
      smoke         Prune real caches while real tools pull into them, and count what breaks
      torture       Prune under faults, kills, pulls and attacks, and count what is lost
      fuzz          Feed random input, guided by coverage, to all that reads what others wrote; needs
                    cargo-fuzz
      bench         Measure the pruner beside other tools, and write the results into docs/
      cli-docs      Generate docs/cli.md from the declarations of the command lines, and docs/pictures
                    from what the program prints
      help          Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Exit codes:
      0         done, even if there was nothing to do
      1         not all could be done; what was done is reported
      2         wrong usage, or the directory is refused; the cache was not touched
      3         done, and what was asked about is not so:
                a goal not met, corrupt or missing blobs, over budget
      128 + N   interrupted by signal N:
                SIGHUP (129), SIGINT (130), SIGTERM (143), SIGXCPU (152); what was done is reported
    ");
}
