//! Random names, documents, lists and plans that are made to do harm.
//!
//! Guarantees: everything follows from the random source, so the same seed gives the same result.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use rand::RngExt as _;
use serde_json::{Value, json};

use crate::kit::random::Random;
use crate::torture::sandbox::{digest, flat_name};

/// A descriptor of a manifest.
pub(crate) fn descriptor(digest: &str) -> Value {
    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1})
}

/// Adds an entry with a bad name, or one of a bad kind with a good name. Skips what the file system refuses.
pub(crate) fn random_name(random: &mut Random, cache: &Path, canary: &Path) {
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
pub(crate) fn random_document(random: &mut Random) -> Vec<u8> {
    let fields = ["manifests", "layers", "config", "subject", "blobs", "schemaVersion", "annotations"];
    let mut document = serde_json::Map::new();
    for _ in 0..random.random_range(0..6) {
        let field = fields[random.random_range(0..fields.len())];
        document.insert(field.to_owned(), random_value(random, 3));
    }
    let text = Value::Object(document).to_string().into_bytes();
    if random.random_bool(0.3) { mutated(random, text) } else { text }
}

fn random_value(random: &mut Random, depth: u32) -> Value {
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

/// A list of digests to keep, or something close to it.
pub(crate) fn random_keep(random: &mut Random) -> Vec<u8> {
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

/// A plan in which leaves are replaced, or elements are removed or duplicated.
pub(crate) fn mutated_plan(random: &mut Random, plan: &[u8], canary: &Path) -> Vec<u8> {
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

/// Collects the JSON pointers (RFC 6901) of all leaves and of all arrays that are not empty.
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

/// A replacement for a leaf. `other` is a leaf of the same document.
fn other_leaf(random: &mut Random, leaf: &Value, other: Value, canary: &Path) -> Value {
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

/// Replaces, removes or duplicates some bytes.
pub(crate) fn mutated(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
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
