//! The makings of hostile caches: names, documents, lists; and those that were thought up.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::torture::sandbox::{digest, flat_name, hex_name, write};

/// A cache that was thought up.
#[derive(Debug)]
pub(crate) struct Special {
    pub(crate) name: &'static str,
    /// Puts it into a layout.
    pub(crate) fill: fn(&Path) -> anyhow::Result<()>,
}

pub(crate) const SPECIALS: [Special; 9] = [
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
pub(crate) fn random_name(random: &mut StdRng, cache: &Path, canary: &Path) {
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
pub(crate) fn random_document(random: &mut StdRng) -> Vec<u8> {
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
pub(crate) fn random_keep(random: &mut StdRng) -> Vec<u8> {
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

/// A plan of which some leaves are others, or some elements gone or there twice.
pub(crate) fn mutated_plan(random: &mut StdRng, plan: &[u8], canary: &Path) -> Vec<u8> {
    let Ok(mut plan) = serde_json::from_slice::<Value>(plan) else { return mutated(random, plan.to_vec()) };
    for _ in 0..random.random_range(1..4) {
        let (mut leaves, mut arrays) = (Vec::new(), Vec::new());
        collect_pointers(&plan, String::new(), &mut leaves, &mut arrays);
        if !arrays.is_empty() && (leaves.is_empty() || random.random_bool(0.3)) {
            let pointer = &arrays[random.random_range(0..arrays.len())];
            if let Some(Value::Array(elements)) = plan.pointer_mut(pointer) {
                let position = random.random_range(0..elements.len());
                let element = elements.remove(position);
                if random.random_bool(0.5) {
                    elements.extend([element.clone(), element]);
                }
            }
        } else if !leaves.is_empty() {
            let pointer = &leaves[random.random_range(0..leaves.len())];
            let other = plan.pointer(&leaves[random.random_range(0..leaves.len())]).cloned();
            if let Some(leaf) = plan.pointer_mut(pointer) {
                *leaf = other_leaf(random, leaf, other.unwrap_or_default(), canary);
            }
        }
    }
    plan.to_string().into_bytes()
}

/// The JSON pointers (RFC 6901) of what has nothing below it, and of the arrays that have something.
fn collect_pointers(value: &Value, pointer: String, leaves: &mut Vec<String>, arrays: &mut Vec<String>) {
    match value {
        Value::Array(elements) => {
            for (position, element) in elements.iter().enumerate() {
                collect_pointers(element, format!("{pointer}/{position}"), leaves, arrays);
            }
            if !elements.is_empty() {
                arrays.push(pointer);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                collect_pointers(field, format!("{pointer}/{name}"), leaves, arrays);
            }
        }
        _ => leaves.push(pointer),
    }
}

/// What may stand in the place of a leaf: `other` is one of the same document.
fn other_leaf(random: &mut StdRng, leaf: &Value, other: Value, canary: &Path) -> Value {
    let Some(number) = leaf.as_i64() else {
        let name = flat_name(random.random_range(1..5));
        return match random.random_range(0..4) {
            0 => json!(format!("../canary/{name}")),
            1 => json!(canary.join(name).display().to_string()),
            _ => other,
        };
    };
    match random.random_range(0..5) {
        0 => json!(number.saturating_add(1)),
        1 => json!(number.saturating_sub(1)),
        2 => json!(0),
        3 => json!(u64::MAX),
        _ => other,
    }
}

/// The digests that must stay for the sake of `keep`: it, and where the index names it and documents can be
/// read, all that it leads to.
pub(crate) fn image_of(cache: &Path, keep: &str) -> BTreeSet<String> {
    let digest = |descriptor: &Value| descriptor["digest"].as_str().map(str::to_owned);
    let listed = |document: &Value, field: &str| -> Vec<String> {
        document[field].as_array().into_iter().flatten().filter_map(digest).collect()
    };
    let index = read_json(&cache.join("index.json"));
    let mut image = BTreeSet::from([keep.to_owned()]);
    let mut ahead: Vec<String> = listed(&index, "manifests").into_iter().filter(|one| one == keep).collect();
    ahead.truncate(1);
    while let Some(name) = ahead.pop() {
        let Some(hex) = name.strip_prefix("sha256:").filter(|hex| !hex.contains('/')) else { continue };
        let document = read_json(&cache.join("blobs/sha256").join(hex));
        let leaves = [listed(&document, "layers"), listed(&document, "blobs")].concat();
        image.extend(leaves.into_iter().chain(digest(&document["config"])));
        let documents = listed(&document, "manifests").into_iter().chain(digest(&document["subject"]));
        ahead.extend(documents.filter(|one| image.insert(one.clone())));
    }
    image
}

/// A file that is JSON and not large, else nothing.
fn read_json(path: &Path) -> Value {
    let is_small = path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() < 4 << 20);
    let content = if is_small { fs::read(path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&content).unwrap_or_default()
}

/// Some bytes are another's, some are gone, some are there twice.
pub(crate) fn mutated(random: &mut StdRng, mut bytes: Vec<u8>) -> Vec<u8> {
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
