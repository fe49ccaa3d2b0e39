//! `docs/json.md` and what the commands print: every printed field is documented, and every documented field is
//! printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::layout::{MANIFEST, descriptor, entry};
use support::{Cache, KIB, Ran, flat, hex, nested};

type Fields = BTreeSet<String>;

/// The fields that a section of the document lists, each by its path; those of a tally too.
fn documented(section: &str) -> Fields {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/json.md");
    let document = fs::read_to_string(path).unwrap();
    let (_, rest) = document.split_once(&format!("\n## {section}\n")).expect(section);
    let text = rest.split("\n## ").next().unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let rows = rows.filter(|(_, rest)| rest.split(" | ").count() == 3);
    let mut fields = Fields::new();
    for (field, rest) in rows {
        if rest.starts_with("tally") {
            fields.extend([format!("{field}.blobs"), format!("{field}.bytes")]);
        }
        assert!(fields.insert(field.to_owned()), "twice in {section}: {field}");
    }
    fields
}

/// Adds the path of each field in the value.
fn collect(value: &Value, path: &str, fields: &mut Fields) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(value, &path, fields);
                fields.insert(path);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, &format!("{path}[]"), fields)),
        _ => {}
    }
}

/// The fields of all results, except those that every result has, which are checked here.
fn printed(runs: &[Ran]) -> Fields {
    let mut fields = Fields::new();
    for ran in runs {
        let object = ran.json();
        assert_eq!(object["schema_version"], 1, "{}", ran.block());
        assert!(object["duration_seconds"].as_f64().unwrap() > 0.0, "{}", ran.block());
        collect(&object, "", &mut fields);
    }
    for common in documented("Every result") {
        assert!(fields.remove(&common), "{common} is not printed");
    }
    fields
}

fn run_for_json(cache: &Cache, command: &str, arguments: &[&str]) -> Ran {
    cache.run(command, &[&["--format", "json", "-v"], arguments].concat())
}

/// A flat and nested cache with an entry of every kind, and a directory from which nothing can be removed.
fn of_every_kind() -> Cache {
    let cache = Cache::flat(3, KIB);
    cache.write("oci-put-blob1", KIB);
    cache.write("notes.txt", KIB);
    cache.write(nested(4), KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(7)), KIB);
    symlink("/etc/hostname", cache.path().join(flat(9))).unwrap();
    fs::set_permissions(cache.path().join("blobs/sha256"), fs::Permissions::from_mode(0o555)).unwrap();
    cache
}

/// A layout with a corrupt blob and a hole of each kind.
fn with_holes() -> Cache {
    let cache = Cache::typical_layout();
    cache.write_manifest(20, 21, &[2, 77]);
    cache.write(nested(1), 2 * KIB);
    // It is intact, but of another size than its descriptor says.
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    cache.write(format!("blobs/sha256/{empty}"), 0);
    let mut layer = descriptor(1, "layer");
    layer["digest"] = format!("sha256:{empty}").into();
    let manifest = json!({"schemaVersion": 2, "config": descriptor(11, "config"), "layers": [layer]});
    cache.write_content(nested(10), manifest.to_string().as_bytes());
    let mut named = entry(50, MANIFEST, "gone");
    named["size"] = KIB.into();
    cache.write_index(&[
        entry(10, MANIFEST, "app:1"),
        entry(20, MANIFEST, "app:2"),
        named,
        descriptor(40, MANIFEST),
    ]);
    cache
}

#[test]
fn a_prune() {
    let cache = of_every_kind();
    let arguments = ["--format", "json", "-v", "--max-used-space", "0B", "--keep", "nowhere:1"];
    let beside = Cache::flat(1, KIB);
    let open = fs::File::open(beside.path().join(flat(1))).unwrap();
    let runs = [
        cache.prune_unprivileged(&[&arguments[..], &["--dry-run"]].concat()),
        cache.prune_unprivileged(&arguments),
        beside.prune(&["--format", "json"]),
    ];
    drop(open);
    assert_eq!((runs[0].exit, runs[1].exit), (1, 1), "{}", runs[1].block());
    assert_eq!(runs[2].json()["pull"]["sign"], "open", "{}", runs[2].block());
    assert_eq!(printed(&runs), documented("Prune"));
}

#[test]
fn a_usage() {
    let whole = Cache::typical_layout().run("cache-usage", &["--format", "json"]);
    let [first, second] = [with_holes(), of_every_kind()].map(|cache| {
        let locked = cache.path().join("blobs/sha512");
        fs::create_dir_all(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        cache.run_unprivileged("cache-usage", &["--format", "json"])
    });
    assert_eq!((whole.exit, first.exit, second.exit), (0, 1, 1), "{}", second.block());
    assert_eq!(printed(&[whole, first, second]), documented("Usage"));
}

#[test]
fn a_verification() {
    let cache = with_holes();
    let locked = cache.write(format!("blobs/sha512/{}{}", hex(1), hex(1)), KIB);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let arguments = ["--format", "json", "-v"];
    let runs = [
        cache.run_unprivileged("cache-verify", &[&arguments[..], &["--quick"]].concat()),
        cache.run_unprivileged("cache-verify", &[&arguments[..], &["--prune"]].concat()),
    ];
    let holes = runs.iter().flat_map(|ran| ran.json()["holes"].as_array().unwrap().clone());
    let kinds: BTreeSet<String> = holes.map(|hole| hole["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.len(), 3, "{}", runs[1].block());
    let (pruned, own): (Fields, Fields) =
        printed(&runs).into_iter().partition(|field| field.starts_with("pruned."));
    assert_eq!(own, documented("Verify"));
    let of_a_prune = documented("Prune");
    for field in pruned {
        assert!(of_a_prune.contains(field.strip_prefix("pruned.").unwrap()), "{field}");
    }
}

#[test]
fn the_directory() {
    let ran = run_for_json(&Cache::new(), "cache-dir", &[]);
    assert_eq!(printed(&[ran]), documented("Directory"));
}

#[test]
fn errors() {
    let refused = Cache::new();
    refused.write("thesis.tex", KIB);
    let locked = Cache::flat(1, KIB);
    let mut lock =
        Command::new("flock").arg("--no-fork").arg(locked.path()).args(["sleep", "60"]).spawn().unwrap();
    locked.wait_until_locked();
    let runs = [
        run_for_json(&refused, "cache-prune", &[]),
        run_for_json(&refused, "cache-usage", &[]),
        run_for_json(&refused, "cache-verify", &[]),
        run_for_json(&refused, "cache-prune", &["--older-than", "soon"]),
        run_for_json(&locked, "cache-prune", &["--wait-timeout", "10ms"]),
        run_for_json(&locked, "cache-verify", &["--prune", "--wait-timeout", "10ms"]),
    ];
    let (pid, user) =
        (lock.id(), std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()));
    lock.kill().unwrap();
    lock.wait().unwrap();
    assert_eq!(runs.each_ref().map(|ran| ran.exit), [2, 2, 2, 2, 1, 1]);
    for ran in &runs {
        let object = ran.json();
        assert_eq!(object["exit_code"], ran.exit);
        let error = object["error"].as_str().unwrap();
        assert!(ran.stderr.ends_with(&format!("error: {error}\n")), "{}", ran.block());
    }
    let holder =
        format!("still holds the lock after 10ms; sleep (pid {pid}) of user {user} has the directory open");
    assert!(runs[4].stdout.contains(&holder), "{}", runs[4].stdout);
    assert_eq!(printed(&runs), documented("Errors"));
}

#[test]
fn entries_say_what_became_of_each() {
    let cache = Cache::flat(2, KIB);
    cache.write("oci-put-blob1", 2 * KIB);
    cache.write("notes.txt", KIB);
    let keep = flat(2);
    let arguments = ["--format", "json", "-v", "--keep", &keep];
    let told = |ran: Ran| -> Vec<String> {
        let object = ran.json();
        let entries = object["entries"].as_array().unwrap();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("null").to_owned();
        let fields = ["fate", "reason", "path", "digest"];
        entries
            .iter()
            .map(|entry| format!("{} {}", fields.map(|field| text(entry, field)).join(" "), entry["bytes"]))
            .collect()
    };
    let went = |fate: &str| {
        vec![
            "foreign file [TMP]/oci/notes.txt null 0".to_owned(),
            format!("{fate} everything [TMP]/oci/oci-put-blob1 null 2048"),
            format!("{fate} everything [TMP]/oci/{} {} 1024", flat(1), flat(1)),
            format!("kept pinned [TMP]/oci/{keep} {keep} 1024"),
        ]
    };
    assert_eq!(told(cache.prune(&[&arguments[..], &["--dry-run"]].concat())), went("would_remove"));
    assert_eq!(told(cache.prune(&arguments)), went("removed"));
    let without = cache.prune(&["--format", "json"]).json();
    assert_eq!(without.get("entries"), None, "only with -v");
}
