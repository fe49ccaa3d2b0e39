//! Files for output in places that others can change, and files for input that never end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Cache, KIB, Ran, flat, needs, spawn, xtask};

const OTHER: u32 = 4711;
const SECRET: &str = "root:x:0:0";

/// A directory beside the cache, with this mode.
fn directory(cache: &Cache, name: &str, mode: u32) -> PathBuf {
    let path = cache.base.path().join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// A file that nobody else may read, beside the cache.
fn secret(cache: &Cache) -> PathBuf {
    let path = directory(cache, "secret", 0o700).join("passwd");
    fs::write(&path, SECRET).unwrap();
    path
}

/// Runs a prune for each kind of output, with the file at this path. The plan needs a dry run.
fn outputs(cache: &Cache, path: &Path) -> [Ran; 3] {
    let path = path.to_str().unwrap();
    let mut summary = xtask();
    summary.args(["cache-prune", "-q", "--github-summary", "--cache-dir"]).arg(cache.path());
    [
        cache.prune(&["-q", "--metrics-file", path]),
        cache.prune(&["-q", "-n", "--save-plan", path]),
        Ran::of(summary.env("GITHUB_STEP_SUMMARY", path), cache.base.path()),
    ]
}

/// Checks that no output goes to this path, and that nothing at all changes.
fn is_refused(cache: &Cache, path: &Path, why: &str) {
    let before = cache.tree();
    for ran in outputs(cache, path) {
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{why}: {}", ran.block());
    }
    assert_eq!(cache.tree(), before, "{why}");
}

/// Checks that every output goes to this path.
fn is_written(path: &Path) {
    let cache = Cache::flat(1, KIB);
    for ran in outputs(&cache, path) {
        assert_eq!(ran.exit, 0, "{}", ran.block());
    }
    assert!(fs::metadata(path).unwrap().len() > 0);
}

#[test]
fn a_directory_that_another_user_owns_is_refused() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(1, KIB);
    let (secret, text) = (secret(&cache), directory(&cache, "text", 0o755));
    let inner = text.join("inner");
    fs::create_dir(&inner).unwrap();
    symlink(&secret, text.join("link")).unwrap();
    chown(&text, Some(OTHER), None).unwrap();
    let why = "`[TMP]/text` belongs to user 4711, who can replace what is in it";
    for name in ["link", "new", "inner/new", "inner/../inner/new", "inner/../../secret/passwd"] {
        is_refused(&cache, &text.join(name), why);
    }
    // So is one to which a link leads, whoever made the link.
    let link = cache.base.path().join("to-inner");
    symlink("text/inner", &link).unwrap();
    is_refused(&cache, &link.join("new"), why);
    assert_eq!(fs::read_to_string(secret).unwrap(), SECRET);
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let cache = Cache::flat(1, KIB);
    for (name, mode) in [("all", 0o777), ("others", 0o757)] {
        let directory = directory(&cache, name, mode);
        let why = format!("`[TMP]/{name}` can be written by everybody: run `chmod o-w [TMP]/{name}`");
        is_refused(&cache, &directory.join("new"), &why);
        let inner = directory.join("inner");
        fs::create_dir(&inner).unwrap();
        is_refused(&cache, &inner.join("new"), &why);
    }
}

#[test]
fn a_directory_that_a_group_can_write_is_refused() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(1, KIB);
    let group = directory(&cache, "group", 0o2775);
    chown(&group, None, Some(OTHER)).unwrap();
    fs::set_permissions(&group, Permissions::from_mode(0o2775)).unwrap();
    symlink("../secret", group.join("link")).unwrap();
    let why = "`[TMP]/group` can be written by group 4711: run `chmod g-w [TMP]/group`";
    is_refused(&cache, &group.join("new"), why);
    is_refused(&cache, &group.join("link"), why);
}

#[test]
fn links_and_files_of_others_in_a_sticky_directory_are_refused() {
    if !needs::root() {
        return;
    }
    let cache = Cache::flat(1, KIB);
    let (secret, sticky) = (secret(&cache), directory(&cache, "tmp", 0o1777));
    for (name, target) in [("link", secret.as_path()), ("dir", secret.parent().unwrap())] {
        symlink(target, sticky.join(name)).unwrap();
        lchown(sticky.join(name), Some(OTHER), None).unwrap();
    }
    is_refused(&cache, &sticky.join("link"), "`[TMP]/tmp/link` is a symbolic link of user 4711");
    is_refused(&cache, &sticky.join("dir/passwd"), "`[TMP]/tmp/dir` is a symbolic link of user 4711");
    is_refused(&cache, &sticky.join("dir/new"), "`[TMP]/tmp/dir` is a symbolic link of user 4711");
    fs::write(sticky.join("file"), "theirs").unwrap();
    chown(sticky.join("file"), Some(OTHER), None).unwrap();
    is_refused(&cache, &sticky.join("file"), "`[TMP]/tmp/file` belongs to user 4711, in a directory where");
    assert_eq!(fs::read_to_string(secret).unwrap(), SECRET);
}

#[test]
fn own_files_directories_and_links_are_used() {
    let cache = Cache::new();
    let (own, sticky) = (directory(&cache, "own", 0o755), directory(&cache, "tmp", 0o1777));
    for path in [own.join("new"), sticky.join("new"), own.join("../own/./again")] {
        is_written(&path);
    }
    for (link, target, file) in [
        (sticky.join("link"), "../own/through", own.join("through")),
        (own.join("dangling"), "nothing/../yet", own.join("yet")),
    ] {
        fs::create_dir_all(own.join("nothing")).unwrap();
        symlink(target, &link).unwrap();
        is_written(&link);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && file.is_file());
    }
    symlink(&own, sticky.join("dir")).unwrap();
    is_written(&sticky.join("dir/below"));
    let loops = own.join("loop");
    symlink("loop", &loops).unwrap();
    let ran = cache.prune(&["-n", "--save-plan", loops.to_str().unwrap()]);
    assert_eq!(ran.exit, 1, "{}", ran.block());
    assert!(ran.stderr.contains("Too many levels of symbolic links"), "{}", ran.block());
}

#[test]
fn a_relative_path_begins_at_the_working_directory() {
    let cache = Cache::flat(1, KIB);
    let own = directory(&cache, "own", 0o755);
    let save = |path: &str| {
        let mut program = xtask();
        program.args(["cache-prune", "-n", "-q", "--save-plan", path, "--cache-dir"]).arg(cache.path());
        Ran::of(program.current_dir(&own), cache.base.path())
    };
    for path in ["plan", "../beside", "./../own/again"] {
        assert_eq!(save(path).exit, 0, "{path}");
        assert!(own.join(path).is_file(), "{path}");
    }
    let ran = save("../oci/plan");
    assert_eq!(ran.exit, 2, "{}", ran.block());
    assert!(ran.stderr.contains("is inside the cache"), "{}", ran.block());
    fs::set_permissions(&own, Permissions::from_mode(0o777)).unwrap();
    let ran = save("plan");
    assert_eq!(ran.exit, 2, "{}", ran.block());
    assert!(ran.stderr.contains("`[TMP]/own` can be written by everybody"), "{}", ran.block());
}

#[test]
fn a_metrics_file_is_replaced_and_read_again_where_it_is() {
    let cache = Cache::flat(2, KIB);
    let path = directory(&cache, "own", 0o755).join("metrics");
    let record = || cache.run("cache-usage", &["-q", "--metrics-file", path.to_str().unwrap()]).exit;
    assert_eq!(record(), 0);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(record(), 0);
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode() & 0o7777, 0o600);
    assert_ne!(after.ino(), inode);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

/// Runs a prune under a limit of 256 MiB of memory, with endless or large input. Returns what it says.
fn limited(cache: &Cache, arguments: &[&str], stdin: Stdio) -> Ran {
    let mut program = Command::new("prlimit");
    program.args(["--data=268435456", "--"]).arg(xtask().get_program()).args(["cache-prune", "--cache-dir"]);
    program.arg(cache.path()).args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ran::from(&spawn(&mut program).wait_with_output().unwrap(), cache.base.path())
}

#[test]
fn a_list_is_a_regular_file_or_standard_input() {
    let cache = Cache::flat(1, KIB);
    let fifo = cache.base.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = cache.tree();
    for path in [fifo.to_str().unwrap(), "/dev/zero", "/dev/stdin", "/"] {
        let ran = limited(&cache, &["--keep-from", path], Stdio::piped());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{path} {}", ran.block());
        let why = "it is not a regular file: pipe the list to `--keep-from -`, or name a file";
        assert!(ran.stderr.contains(why), "{path} {}", ran.block());
    }
    let zeros = || File::open("/dev/zero").unwrap();
    let ran = limited(&cache, &["--keep-from", "-"], zeros().into());
    assert_eq!(ran.exit, 2, "{}", ran.block());
    assert!(ran.stderr.contains("line 1 is longer than 8 KiB"), "{}", ran.block());
    assert_eq!(cache.tree(), before);
}

#[test]
fn what_is_large_takes_no_memory() {
    let cache = Cache::flat(1, KIB);
    let path = cache.base.path().join("large");
    let large = |start: &str, part: &str| {
        let mut file = io::BufWriter::new(File::create(&path).unwrap());
        file.write_all(start.as_bytes()).unwrap();
        (0..(300 << 20) / part.len()).for_each(|_| file.write_all(part.as_bytes()).unwrap());
        file.into_inner().unwrap().set_permissions(Permissions::from_mode(0o600)).unwrap();
    };
    let start = r#"{"format":"oci-cache prune plan","version":1,"#;
    let numbers = "0,".repeat(1 << 16);
    for (start, part, why) in [
        (format!(r#"{start}"images":["#), r#""","#.repeat(1 << 16), "an image's digest is malformed"),
        (format!(r#"{start}"entries":["#), "{},".repeat(1 << 16), "missing field `kind`"),
        (format!(r#"{start}"more":["#), numbers.clone(), "unknown field `more`"),
        (format!(r#"{start}"cache_dir":""#), "x".repeat(1 << 16), "a text in it is longer than 64 KiB"),
        (r#"{"format":"#.to_owned(), numbers.clone(), "it is not a saved plan, or it is damaged"),
    ] {
        large(&start, &part);
        let ran = limited(&cache, &["--from-plan", path.to_str().unwrap()], Stdio::null());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{why}: {}", ran.block());
    }
    for (start, part, why) in [
        (r#"{"a":["#, numbers.as_str(), "it is JSON of more than 3 MiB"),
        ("", "# a comment\n", "it has more than two million pins, or more than 256 MiB"),
        ("", "x", "line 1 is longer than 8 KiB"),
    ] {
        large(start, part);
        for arguments in [["--keep-from", path.to_str().unwrap()], ["--keep-from", "-"]] {
            let ran = limited(&cache, &arguments, File::open(&path).unwrap().into());
            assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
            assert!(ran.stderr.contains(why), "{why}: {}", ran.block());
        }
    }
    // More than may be read of a plan, without a block on the disk.
    File::create(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    let ran = limited(&cache, &["--from-plan", path.to_str().unwrap()], Stdio::null());
    assert!(ran.stderr.contains("it is larger than 1.0 GiB: plan a part"), "{}", ran.block());
    assert!(cache.path().join(flat(1)).exists());
}
