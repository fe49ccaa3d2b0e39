//! Hostile caches that are written by hand.
//!
//! Guarantees: each demands too much of a resource, or contains what a prune must not believe.

use std::path::Path;

use serde_json::{Value, json};

use crate::torture::hostile::documents::descriptor;
use crate::torture::sandbox::{digest, hex_name, write};

/// A hostile cache.
#[derive(Debug)]
pub(crate) struct Special {
    pub(crate) name: &'static str,
    /// Writes it into a layout.
    pub(crate) fill: fn(&Path) -> anyhow::Result<()>,
}

/// All of them.
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

/// Thousands of images that all lead to the same thousands of missing layers.
fn product(cache: &Path) -> anyhow::Result<()> {
    let layers: Vec<Value> = (1_000..11_000).map(|number| descriptor(&digest(number))).collect();
    blob(cache, 100, &json!({"layers": layers}).to_string())?;
    index(cache, &vec![descriptor(&digest(100)); 10_000])
}

/// Manifests just below the size limit of one, and together just below that of all.
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
