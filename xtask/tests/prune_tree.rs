//! What `cache-prune` does to a cache: compares the trees before and after, and checks the counts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Cache, KIB, Ran, flat, gone, hex, needs, nested, xtask};

/// Prunes, after a dry run that must change nothing and predict the totals. Returns the removed paths and the
/// report.
fn prune(cache: &Cache, arguments: &[&str]) -> (Vec<String>, Value) {
    let before = cache.tree();
    let dry_run = cache.prune(&["--dry-run", "--format", "json"]);
    assert_eq!(dry_run.exit, 0, "{}", dry_run.block());
    assert_eq!(cache.tree(), before, "the dry run changed something");
    let mut all = vec!["--format", "json"];
    all.extend(arguments);
    let ran = cache.prune(&all);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    let report = ran.json();
    for field in ["bytes_freed", "blobs_freed", "disk_bytes_freed", "leftovers_freed", "foreign"] {
        assert_eq!(report[field], dry_run.json()[field], "{field}");
    }
    (gone(&before, &cache.tree()), report)
}

#[test]
fn flat_nested_and_sha512_blobs_go() {
    let cache = Cache::flat(2, 3 * KIB);
    cache.write(format!("sha256-{}", hex(3)), KIB);
    cache.write(format!("sha512:{}{}", hex(4), hex(4)), KIB);
    cache.write(nested(5), KIB);
    cache.write(format!("blobs/sha512/{}{}", hex(6), hex(6)), KIB);
    let (went, report) = prune(&cache, &[]);
    assert_eq!(went.len(), 6);
    assert_eq!(report["blobs_freed"], 6);
    assert_eq!(report["bytes_freed"], 10 * KIB);
    assert!(cache.path().join("blobs/sha256").is_dir() && cache.path().join("blobs/sha512").is_dir());
}

#[test]
fn what_is_not_a_blob_stays() {
    let outside = Cache::new();
    let canary = outside.write("canary", KIB);
    let cache = Cache::flat(1, KIB);
    let path = cache.path();
    cache.write("README.md", 10);
    cache.write(hex(7), 10);
    cache.write(format!("sha256:{}", hex(8).to_uppercase().replace('0', "A")), 10);
    cache.write(format!("blobs/md5/{}", &hex(1)[..32]), 10);
    cache.write("blobs/sha256/notes", 10);
    cache.write(format!("deeper/{}", flat(9)), 10);
    cache.write("download.tmp.txt", 10);
    cache.write("oci.pruning-0123/file", 10);
    symlink(&canary, path.join(flat(10))).unwrap();
    symlink(outside.path(), path.join("blobs/sha512")).unwrap();
    symlink(outside.path(), path.join("oci.pruning-0123456789abcdef")).unwrap();
    fs::create_dir(path.join(flat(11))).unwrap();
    assert!(Command::new("mkfifo").arg(path.join(flat(12))).status().unwrap().success());
    let _socket = UnixListener::bind(path.join("socket")).unwrap();
    let (went, report) = prune(&cache, &[]);
    assert_eq!(went, [format!("oci/{}", flat(1))]);
    assert_eq!(report["foreign"], 14);
    assert_eq!(fs::read(canary).unwrap().len(), KIB);
}

#[test]
fn an_oci_layout_ends_up_empty_and_valid() {
    let cache = Cache::new();
    cache.write_content("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let digest = format!("sha256:{}", hex(1));
    let index =
        json!({"schemaVersion": 2, "annotations": {"kept": "yes"}, "manifests": [{"digest": digest}]});
    let index_path = cache.write_content("index.json", index.to_string().as_bytes());
    fs::set_permissions(&index_path, fs::Permissions::from_mode(0o640)).unwrap();
    for number in 1..=3 {
        cache.write(nested(number), KIB);
    }
    let report = cache.prune(&["--format", "json"]).json();
    assert_eq!((&report["blobs_freed"], &report["foreign"]), (&json!(3), &json!(0)));
    assert_eq!(fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count(), 0);
    let emptied: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    assert_eq!(emptied, json!({"schemaVersion": 2, "annotations": {"kept": "yes"}, "manifests": []}));
    assert_eq!(fs::metadata(&index_path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 3, "{}", cache.tree());
}

#[test]
fn only_the_list_of_manifests_changes_in_the_index() {
    let cache = Cache::typical_layout();
    let index = cache.path().join("index.json");
    let entries: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let [first, second, third] = [0, 1, 2].map(|position| format!("{:#}", entries["manifests"][position]));
    let text = |entries: &str| {
        format!(
            "{{ \"x-serial\": 123456789012345678901234567890, \"z\": 1.50,\n \"manifests\": [\n{entries}\n ],\n \
             \"a\": \"\\u00e9\",\"schemaVersion\": 2 }}\n"
        )
    };
    cache.write_content("index.json", text(&format!("{first},\n{second},\n\n{third}")).as_bytes());
    let ran = cache.prune(&["--image", "app:2"]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!(fs::read_to_string(&index).unwrap(), text(&format!("{first},\n\n{third}")));
    assert_eq!(cache.nested_blobs(), [1, 2, 4, 10, 11, 30, 40, 41, 99]);
}

#[test]
fn a_layout_whose_index_cannot_be_replaced_keeps_its_blobs() {
    if !needs::is_root() {
        // Without root, an unwritable directory has the same effect.
        return layout_in_an_unwritable_directory();
    }
    if !needs::chattr() {
        return;
    }
    let cache = Cache::new();
    cache.write_content("oci-layout", b"{}");
    let index = cache.write_content("index.json", br#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#);
    cache.write(nested(1), KIB);
    let immutable =
        |flag: &str| assert!(Command::new("chattr").arg(flag).arg(&index).status().unwrap().success());
    immutable("+i");
    let before = cache.tree();
    let ran = cache.prune(&[]);
    immutable("-i");
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
    assert!(ran.stderr.contains("index.json`: Operation not permitted"), "{}", ran.stderr);
}

fn layout_in_an_unwritable_directory() {
    let cache = Cache::new();
    cache.write_content("oci-layout", b"{}");
    cache.write_content("index.json", br#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#);
    cache.write(nested(1), KIB);
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let before = cache.tree();
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn partials_of_every_known_tool_go_once_nobody_uses_them() {
    let cache = Cache::flat(1, KIB);
    let (flat, hex) = (flat(7), support::hex(7));
    let partials = [
        "oci-put-blob42",
        ".umoci-42/blob-1",
        "warmingImage.1234567890",
        "warmingManifest.7",
        "index.json.77.tmp",
        &format!("{flat}1234567890"),
        &format!("{flat}.tmp"),
        &format!("blobs/sha256/{hex}1234567890"),
        "blobs/sha256/1234567890",
        "blobs/sha256/42.tmp",
        &format!("blobs/sha256/{hex}.incomplete"),
        &format!("ingest/{hex}_123456"),
    ];
    let others = [
        "thesis.tmp",
        "database.tmp",
        "blobs/sha256/thesis.tmp",
        "ingest/2024/june.csv",
        "ingest/notes",
        &format!("ingest/{}/data", support::hex(8)),
        &format!("ingest/{}/below/data", support::hex(9)),
        "warmingImage.txt",
        "oci-put-blob43/blob-1",
        ".umoci-44/notes.md",
    ];
    partials.iter().chain(&others).for_each(|name| drop(cache.write(name, KIB)));
    for name in ["data", "ref", "startedat", "updatedat", "total"] {
        cache.write(format!("ingest/{hex}/{name}"), KIB);
    }
    let (went, report) = prune(&cache, &[]);
    // The blob, the files above, the five of containerd, and two directories.
    assert_eq!(went.len(), 1 + partials.len() + 5 + 2, "{went:?}");
    assert_eq!((&report["blobs_freed"], &report["partials_freed"]), (&json!(18), &json!(17)));
    assert_eq!(report["foreign"], others.len());
    assert!(others.iter().all(|name| cache.path().join(name).exists()));
}

#[test]
fn partials_in_use_stay() {
    let cache = Cache::flat(1, KIB);
    let _writer = File::options().append(true).open(cache.write("oci-put-blob42", KIB)).unwrap();
    cache.write(".umoci-42/blob-1", KIB);
    let _locked = flock(&cache.path().join(".umoci-42"));
    cache.write(".umoci-43/blob-1", KIB);
    let report = cache.prune(&["--format", "json"]).json();
    // A pull is under way, so what changed lately stays too; of a partial, its inode counts.
    assert_eq!(report["kept"]["in_use"], json!({"blobs": 2, "bytes": 2 * KIB}));
    assert_eq!(report["kept"]["spared"], json!({"blobs": 1, "bytes": KIB}));
    assert_eq!(report["blobs_freed"], 1);
    let report = cache.prune(&["--format", "json", "--grace", "0s"]).json();
    assert_eq!(report["kept"]["in_use"], json!({"blobs": 2, "bytes": 2 * KIB}));
    assert!(cache.path().join(".umoci-42/blob-1").exists() && !cache.path().join(".umoci-43").exists());
}

/// A process that holds the lock of a directory, until this guard is dropped.
struct Locked(std::process::Child);

fn flock(directory: &Path) -> Locked {
    let mut child = Command::new("flock");
    child
        .arg("--no-fork")
        .arg(directory)
        .args(["sh", "-c", "echo locked; exec sleep 60"])
        .stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    Locked(child)
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn leftovers_go_and_live_ones_stay() {
    let cache = Cache::flat(1, KIB);
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", nested(1)), KIB);
    cache.write("../oci.pruning-0123456789abcdef/oci-layout", 10);
    cache.write("../oci.pruning-0123456789abcdef/index.json", 10);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(2)), KIB);
    cache.write(format!("../oci.pruning-00000000000000ff/{}", flat(3)), KIB);
    cache.write(format!("../other.pruning-00000000000000ff/{}", flat(3)), KIB);
    let live = cache.base.path().join("oci.pruning-00000000000000ff");
    let _live = flock(&live);
    let (_, report) = prune(&cache, &[]);
    assert_eq!((&report["leftovers_freed"], &report["blobs_freed"]), (&json!(2), &json!(3)));
    let mut names: Vec<_> =
        fs::read_dir(cache.base.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["oci", "oci.pruning-00000000000000ff", "other.pruning-00000000000000ff"]);
}

#[test]
fn leftovers_of_a_missing_cache_go() {
    let cache = Cache::missing();
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(1)), KIB);
    let report = cache.prune(&["--format", "json"]).json();
    assert_eq!((&report["leftovers_freed"], &report["bytes_freed"]), (&json!(1), &json!(KIB)));
    assert_eq!(fs::read_dir(cache.base.path()).unwrap().count(), 0);
}

#[test]
fn what_is_foreign_in_a_leftover_stays_and_is_told() {
    let cache = Cache::flat(1, KIB);
    let foreign = cache.write("../oci.pruning-0123456789abcdef/thesis.tex", KIB);
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(2)), KIB);
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["leftovers_freed"]), (0, &json!(0)));
    assert_eq!(ran.json()["blobs_freed"], 2);
    assert!(foreign.exists() && ran.stderr.contains("thesis.tex"), "{}", ran.stderr);
}

#[test]
fn hard_links_are_counted_on_disk_once() {
    let cache = Cache::flat(1, 64 * KIB);
    fs::hard_link(cache.path().join(flat(1)), cache.path().join(flat(2))).unwrap();
    let outside = cache.write("../outside", 64 * KIB);
    fs::hard_link(&outside, cache.path().join(flat(3))).unwrap();
    let (went, report) = prune(&cache, &[]);
    assert_eq!(went.len(), 3);
    assert_eq!(report["bytes_freed"], 3 * 64 * KIB);
    assert_eq!(report["disk_bytes_freed"], 64 * KIB);
}

#[test]
fn a_blob_in_use_under_another_name_stays() {
    let cache = Cache::flat(2, KIB);
    let other = cache.base.path().join("other");
    fs::hard_link(cache.path().join(flat(1)), &other).unwrap();
    let _writer = File::options().append(true).open(&other).unwrap();
    let report = cache.prune(&["--format", "json"]).json();
    assert_eq!((&report["blobs_freed"], &report["kept"]["in_use"]["blobs"]), (&json!(1), &json!(1)));
    assert!(cache.path().join(flat(1)).exists());
}

#[test]
fn the_directories_stay_as_they_are() {
    let cache = Cache::flat(1, KIB);
    cache.write(nested(1), KIB);
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let directories =
        || cache.tree().lines().filter(|line| line.starts_with('4')).map(str::to_owned).collect::<Vec<_>>();
    let before = directories();
    assert_eq!(cache.prune(&[]).exit, 0);
    assert_eq!(directories(), before);
}

#[test]
fn a_symlinked_cache_is_pruned_where_it_is() {
    let cache = Cache::flat(1, KIB);
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(2)), KIB);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(cache.path(), &link).unwrap();
    let ran = Ran::of(xtask().args(["cache-prune", "--cache-dir"]).arg(&link), elsewhere.path());
    assert_eq!(ran.stdout, "freed 2.0 KiB across 2 blob(s) in [TMP]/link\n");
    assert!(link.is_symlink() && cache.path().is_dir());
}

#[test]
fn a_pull_that_has_only_read_the_index_keeps_a_layout_as_it_is() {
    let cache = Cache::new();
    cache.write_content("oci-layout", b"{}");
    let index = cache.write_content("index.json", br#"{"schemaVersion":2,"manifests":[{"digest":"x"}]}"#);
    cache.write(nested(1), KIB);
    let before = cache.tree();
    let prune = cache.start_prune(&[]);
    fs::read(index).unwrap();
    let report = Ran::from(&prune.wait_with_output().unwrap(), cache.base.path()).json();
    assert_eq!((&report["kept"]["spared"]["blobs"], cache.tree()), (&json!(1), before));
}

#[test]
fn an_index_that_an_early_pull_writes_back_loses_what_is_gone() {
    let cache = Cache::new();
    cache.write_content("oci-layout", b"{}");
    let manifest = |config: u8| {
        let descriptor = json!({"mediaType": "x/y", "digest": format!("sha256:{}", hex(config)), "size": 1});
        json!({"schemaVersion": 2, "config": descriptor, "layers": []}).to_string()
    };
    let entry =
        |number: u8| json!({"mediaType": "x/y", "digest": format!("sha256:{}", hex(number)), "size": 1});
    cache.write_content(nested(1), manifest(2).as_bytes());
    cache.write(nested(2), KIB);
    let old = json!({"schemaVersion": 2, "manifests": [entry(1)]});
    let index = cache.write_content("index.json", old.to_string().as_bytes());
    let mut prune = cache.start_prune(&[]);
    let started = std::time::Instant::now();
    while cache.path().join(nested(2)).exists() {
        assert!(started.elapsed() < Duration::from_secs(10), "the prune removed nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The pull read the old index before the prune, and adds its own image to that.
    cache.write_content(nested(3), manifest(4).as_bytes());
    cache.write(nested(4), KIB);
    let written_back = json!({"schemaVersion": 2, "manifests": [entry(1), entry(3)]});
    cache.write_content("index.new", written_back.to_string().as_bytes());
    fs::rename(cache.path().join("index.new"), &index).unwrap();
    assert!(prune.wait().unwrap().success());
    let found: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    assert_eq!(found, json!({"schemaVersion": 2, "manifests": [entry(3)]}));
    assert!(cache.path().join(nested(4)).exists());
}

#[test]
fn one_entry_that_fails_does_not_stop_the_rest() {
    let is_root = needs::is_root();
    if is_root && !needs::chattr() {
        return;
    }
    let cache = Cache::flat(2, KIB);
    cache.write(nested(3), KIB);
    let block = if is_root { "chattr +i" } else { "chmod a-w" };
    let free = if is_root { "chattr -i" } else { "chmod u+w" };
    let stuck = if is_root { cache.path().join(nested(3)) } else { cache.path().join("blobs/sha256") };
    let run = |command: &str| {
        let mut words = command.split(' ');
        assert!(Command::new(words.next().unwrap()).args(words).arg(&stuck).status().unwrap().success());
    };
    run(block);
    let ran = cache.prune(&["--format", "json"]);
    run(free);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"]), (1, &json!(2)), "{}", ran.block());
    let failure = &ran.json()["failures"][0];
    assert!(failure["path"].as_str().unwrap().ends_with(&nested(3)), "{failure}");
    assert!(failure["error"].as_str().unwrap().starts_with("remove: "), "{failure}");
    assert!(ran.stderr.starts_with("error: remove `"), "{}", ran.stderr);
    assert!(cache.path().join(nested(3)).exists());
}

#[test]
fn aside_leaves_an_empty_cache_of_the_same_mode() {
    let cache = Cache::flat(3, KIB);
    cache.write(nested(4), KIB);
    cache.write_content("oci-layout", b"{}");
    cache.write("oci-put-blob1", KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(7)), KIB);
    cache.write(format!("../oci.pruning-fedcba9876543210/{}", flat(8)), KIB);
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o2750)).unwrap();
    let inode = fs::metadata(cache.path()).unwrap().ino();
    let dry_run = cache.prune(&["--aside", "--dry-run", "--format", "json"]).json();
    let report = cache.prune(&["--aside", "--format", "json"]).json();
    assert_eq!((&report["blobs_freed"], &report["bytes_freed"]), (&json!(7), &json!(7 * KIB)));
    for field in ["bytes_freed", "blobs_freed", "disk_bytes_freed", "leftovers_freed"] {
        assert_eq!(report[field], dry_run[field], "{field}");
    }
    let data = fs::metadata(cache.path()).unwrap();
    assert_eq!((data.mode() & 0o7777, data.ino() == inode), (0o2750, false));
    assert_eq!(support::tree(cache.base.path()).lines().count(), 2, "{}", cache.tree());
}

#[test]
fn aside_is_refused_where_something_foreign_would_go_too() {
    let cache = Cache::flat(1, KIB);
    cache.write("notes.txt", KIB);
    let before = cache.tree();
    let ran = cache.prune(&["--aside"]);
    assert_eq!((ran.exit, ran.stdout.as_str(), cache.tree()), (2, "", before));
    assert!(ran.stderr.contains("prune in place (without --aside) instead"), "{}", ran.stderr);
}

#[test]
fn aside_is_refused_where_a_leftover_in_the_cache_cannot_go_first() {
    let cache = Cache::flat(1, KIB);
    cache.write(".pruning-0123456789abcdef/thesis.tex", KIB);
    let before = cache.tree();
    for arguments in [&["--aside"][..], &["--aside", "--dry-run"]] {
        let ran = cache.prune(arguments);
        assert_eq!((ran.exit, ran.stdout.as_str(), cache.tree()), (2, "", before.clone()));
        assert!(ran.stderr.contains("thesis.tex"), "{}", ran.stderr);
    }
    let cache = Cache::flat(1, KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(2)), KIB);
    let _live = flock(&cache.path().join(".pruning-0123456789abcdef"));
    let before = cache.tree();
    assert_eq!((cache.prune(&["--aside"]).exit, cache.tree()), (2, before));
}

#[test]
fn leftovers_are_not_looked_for_in_leftovers() {
    let cache = Cache::flat(1, KIB);
    let inner = cache.write(format!(".pruning-0123456789abcdef/.pruning-1111111111111111/{}", flat(2)), KIB);
    let ran = cache.prune(&["-v"]);
    assert_eq!(ran.exit, 0);
    assert!(inner.exists());
    let notes = ran.stderr.lines().filter(|line| line.contains("a leftover stays")).count();
    assert_eq!(notes, 1, "{}", ran.stderr);
}

#[test]
fn an_index_that_is_none_of_a_layout_is_foreign() {
    for content in [&b"{\"my\":\"settings\"}"[..], b"[\"a\",\"b\"]", b"text"] {
        let cache = Cache::new();
        cache.write(nested(1), KIB);
        let index = cache.write_content("index.json", content);
        let report = cache.prune(&["--format", "json"]).json();
        assert_eq!((&report["blobs_freed"], &report["foreign"]), (&json!(1), &json!(1)));
        assert_eq!(fs::read(index).unwrap(), content);
    }
}

#[test]
fn a_layout_whose_index_is_a_link_keeps_its_blobs_and_a_flat_blob_beside_it_goes() {
    let cache = Cache::typical_layout();
    fs::rename(cache.path().join("index.json"), cache.base.path().join("real.json")).unwrap();
    symlink("../real.json", cache.path().join("index.json")).unwrap();
    cache.write(flat(7), KIB);
    let blobs = cache.nested_blobs();
    let ran = cache.prune(&["--format", "json"]);
    assert_eq!((ran.exit, &ran.json()["blobs_freed"], cache.nested_blobs()), (1, &json!(1), blobs));
    assert!(ran.stderr.contains("index.json`: Operation not supported"), "{}", ran.stderr);
}

#[test]
fn a_partial_of_a_leftover_that_is_open_is_not_counted_as_freed_on_disk() {
    let cache = Cache::flat(1, KIB);
    let partial = cache.write("../oci.pruning-0123456789abcdef/oci-put-blob1", 64 * KIB);
    let _reader = File::open(partial).unwrap();
    let report = cache.prune(&["--format", "json"]).json();
    assert_eq!(report["bytes_freed"], 65 * KIB);
    assert!(report["disk_bytes_freed"].as_u64().unwrap() < 64 * KIB as u64);
}

#[test]
fn aside_of_a_missing_cache_leaves_it_missing() {
    let cache = Cache::missing();
    assert_eq!(cache.prune(&["--aside"]).stdout, "freed 0 B across 0 blob(s) in [TMP]/oci\n");
    assert!(!cache.path().exists());
}

#[test]
fn names_that_are_not_utf8_stay_and_are_printed_escaped() {
    let cache = Cache::flat(1, KIB);
    cache.write(OsStr::from_bytes(b"a\nb\x1b[31m\xff"), 1);
    let ran = cache.prune(&["-v"]);
    assert!(ran.stderr.contains(r"a\nb\u{1b}[31m\xff"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'));
}

#[test]
fn what_only_resembles_a_temporary_file_stays() {
    let cache = Cache::typical_layout();
    let hex = support::hex(7);
    let others = [
        format!("ingest/{hex}"),
        ".umoci-12".to_owned(),
        format!("sha256-{hex}123"),
        format!("sha256-{hex}.tmp"),
    ];
    let others: Vec<_> = others.iter().map(|name| cache.write(name, KIB)).collect();
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, cache.nested_blobs()), (0, vec![]), "{}", ran.block());
    assert!(others.iter().all(|path| path.exists()), "{}", ran.block());
}
