//! The makings of hostile caches: names, documents, lists; and those that were thought up.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::sandbox::{digest, flat_name, hex_name, write};

/// A cache that was thought up.
#[derive(Debug)]
pub(super) struct Special {
    pub(super) name: &'static str,
    /// Puts it into a layout.
    pub(super) fill: fn(&Path) -> anyhow::Result<()>,
}

pub(super) const SPECIALS: [Special; 9] = [
    Special { name: "cycle", fill: cycle },
    Special { name: "depth 10,000", fill: deep },
    Special { name: "manifest of 100 MB", fill: huge },
    Special { name: "digests that leave", fill: leaving },
    Special { name: "deep JSON", fill: nested_json },
    Special { name: "duplicate keys", fill: duplicates },
    Special { name: "images times layers", fill: product },
    Special { name: "large manifests", fill: large },
    Special { name: "an index of 15 MiB", fill: long_index },
];

fn descriptor(digest: &str) -> Value {
    json!({"mediaType": "a/b", "digest": digest, "size": 1})
}

fn blob(cache: &Path, number: usize, content: &str) -> anyhow::Result<()> {
    write(&cache.join("blobs/sha256").join(hex_name(number)), content)
}

fn index(cache: &Path, manifests: &[Value]) -> anyhow::Result<()> {
    write(&cache.join("index.json"), &json!({"schemaVersion": 2, "manifests": manifests}).to_string())
}

fn cycle(cache: &Path) -> anyhow::Result<()> {
    for number in 100..120 {
        let next = [descriptor(&digest(100 + (number + 1) % 20)), descriptor(&digest(number))];
        let subject = descriptor(&digest(100 + (number + 7) % 20));
        blob(cache, number, &json!({"manifests": next, "subject": subject}).to_string())?;
    }
    index(cache, &[descriptor(&digest(100))])
}

fn deep(cache: &Path) -> anyhow::Result<()> {
    for number in 100..10_100 {
        blob(cache, number, &json!({"manifests": [descriptor(&digest(number + 1))]}).to_string())?;
    }
    index(cache, &[descriptor(&digest(100))])
}

fn huge(cache: &Path) -> anyhow::Result<()> {
    blob(cache, 100, &format!("{{\"layers\":[{}]}}", " ".repeat(100 << 20)))?;
    index(cache, &[descriptor(&digest(100))])
}

fn leaving(cache: &Path) -> anyhow::Result<()> {
    let digests = [
        "sha256:../../../canary/x",
        "../../canary:x",
        "sha256:/etc/passwd",
        "sha256:",
        "",
        ":",
        "sha256:\u{0}",
        "sha1:00",
        "sha256:ABCDEF",
    ];
    let manifests: Vec<Value> = digests.iter().map(|digest| descriptor(digest)).collect();
    blob(cache, 100, &json!({"layers": manifests, "config": descriptor("sha256:../../x")}).to_string())?;
    index(cache, &[&manifests[..], &[descriptor(&digest(100))]].concat())
}

fn nested_json(cache: &Path) -> anyhow::Result<()> {
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    blob(cache, 100, &format!("{{\"layers\":[],\"x\":{deep}}}"))?;
    write(
        &cache.join("index.json"),
        &format!("{{\"manifests\":{},\"y\":{deep}}}", json!([descriptor(&digest(100))])),
    )
}

fn duplicates(cache: &Path) -> anyhow::Result<()> {
    let entry = descriptor(&digest(10));
    write(
        &cache.join("index.json"),
        &format!("{{\"manifests\":[],\"manifests\":[{entry}],\"manifests\":[]}}"),
    )
}

/// Thousands of images, each of which leads to the same thousands of layers that are not there.
fn product(cache: &Path) -> anyhow::Result<()> {
    let layers: Vec<Value> = (1_000..11_000).map(|number| descriptor(&digest(number))).collect();
    blob(cache, 100, &json!({"layers": layers}).to_string())?;
    index(cache, &vec![descriptor(&digest(100)); 10_000])
}

/// Manifests just below what is read of one, together just below what is read of all.
fn large(cache: &Path) -> anyhow::Result<()> {
    for manifest in 0..15 {
        let first = 1_000_000 * (manifest + 1);
        let layers: Vec<String> =
            (first..first + 130_000).map(|number| descriptor(&digest(number)).to_string()).collect();
        blob(cache, 100 + manifest, &format!("{{\"layers\":[{}]}}", layers.join(",")))?;
    }
    let manifests: Vec<Value> = (100..115).map(|number| descriptor(&digest(number))).collect();
    index(cache, &manifests)
}

fn long_index(cache: &Path) -> anyhow::Result<()> {
    let manifests: Vec<Value> = (0..130_000).map(|number| descriptor(&digest(1000 + number))).collect();
    index(cache, &manifests)
}

/// Adds an entry of a bad name, or of a bad kind under a good one. What the file system refuses is left.
pub(super) fn random_name(random: &mut StdRng, cache: &Path, canary: &Path) {
    let mut name: Vec<u8> = match random.random_range(0..6) {
        0 => (0..random.random_range(1..255)).map(|_| random.random_range(1..=255)).collect(),
        1 => b"\x1b[2J\x1b]0;title\x07\nfreed 9 GiB across 9 blob(s) in /".to_vec(),
        2 => flat_name(random.random_range(1..9)).to_uppercase().into_bytes(),
        3 => format!(".pruning-{:016x}", random.random::<u64>()).into_bytes(),
        4 => format!("sha512:{}", "ab".repeat(64)).into_bytes(),
        _ => flat_name(random.random_range(1..9)).into_bytes(),
    };
    name.retain(|byte| *byte != b'/' && *byte != 0);
    name.truncate(255);
    let directory = match random.random_range(0..3) {
        0 => cache.join("blobs/sha256"),
        1 => cache.join("ingest"),
        _ => cache.to_owned(),
    };
    let path = directory.join(std::ffi::OsString::from_vec(name));
    let _ = fs::create_dir_all(&directory);
    if path.symlink_metadata().is_ok() {
        return;
    }
    let _ = match random.random_range(0..4) {
        0 => symlink(canary, &path),
        1 => fs::create_dir(&path).and_then(|()| fs::write(path.join(flat_name(3)), "x")),
        2 => rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0)
            .map_err(Into::into),
        _ => fs::write(&path, "x"),
    };
}

/// A document that may be an index, a manifest, or nothing.
pub(super) fn random_document(random: &mut StdRng) -> Vec<u8> {
    let fields = ["manifests", "layers", "config", "subject", "blobs", "schemaVersion", "annotations"];
    let mut document = serde_json::Map::new();
    for _ in 0..random.random_range(0..6) {
        let field = fields[random.random_range(0..fields.len())];
        document.insert(field.to_owned(), random_value(random, 3));
    }
    let text = Value::Object(document).to_string().into_bytes();
    if random.random_bool(0.3) { mutated(random, text) } else { text }
}

fn random_value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 5 } else { 9 }) {
        0 => json!(null),
        1 => json!(random.random::<i64>()),
        2 => json!("sha256:../../../canary/x"),
        3 => json!(u64::MAX),
        4 => json!("\u{202e}\u{1b}[0m\n"),
        5 => (0..random.random_range(0..4)).map(|_| random_value(random, depth - 1)).collect(),
        6 | 7 => {
            let number = random.random_range(1..45);
            (0..random.random_range(1..5)).map(|_| descriptor(&digest(number))).collect()
        }
        _ => descriptor(&digest(random.random_range(1..45))),
    }
}

/// A list of digests to keep, or nearly one.
pub(super) fn random_keep(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..3) {
        0 => random_document(random),
        1 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
        _ => {
            let lines: Vec<String> = (0..5).map(|_| digest(random.random_range(1..45))).collect();
            let text = lines.join("\n").into_bytes();
            if random.random_bool(0.5) { mutated(random, text) } else { text }
        }
    }
}

/// Some bytes are another's, some are gone, some are there twice.
pub(super) fn mutated(random: &mut StdRng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.random_range(0..6) {
        let Some(last) = bytes.len().checked_sub(1) else { break };
        let position = random.random_range(0..=last);
        let end = random.random_range(position..=last);
        match random.random_range(0..4) {
            0 => bytes[position] = random.random(),
            1 => drop(bytes.drain(position..end)),
            2 => bytes.truncate(end),
            _ => {
                let again = bytes[position..end].to_vec();
                bytes.splice(position..position, again);
            }
        }
    }
    bytes
}
