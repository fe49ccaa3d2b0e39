//! Checks whether an OCI image layout is valid.
//!
//! Guarantees: a layout is valid if it has no index, or if its index names no manifest. Otherwise every
//! manifest, config and layer must be a blob of the size that its descriptor gives.
//!
//! A check leaves no trace in access times, where that is allowed.
//!
//! What it does not guarantee: anything while a pull or a prune changes the layout.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::OFlags;
use serde::Deserialize;

use crate::kit::process::while_none_starts;

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(rename = "size")]
    size_bytes: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Descriptor {
    fn tag(&self) -> &str {
        self.annotations.get("org.opencontainers.image.ref.name").map_or("(untagged)", String::as_str)
    }

    fn path_in(&self, layout: &Path) -> PathBuf {
        layout.join("blobs").join(self.digest.replacen(':', "/", 1))
    }

    /// Checks that the blob exists and has its size.
    fn check_in(&self, layout: &Path, role: &str) -> anyhow::Result<()> {
        let metadata = self.path_in(layout).metadata().with_context(|| format!("{role} {}", self.digest))?;
        let size_bytes = metadata.len();
        ensure!(size_bytes == self.size_bytes, "{role} {} has {size_bytes} bytes", self.digest);
        Ok(())
    }
}

/// The tags in the index of `layout`.
///
/// # Errors
///
/// If the index cannot be read.
pub(crate) fn tags(layout: &Path) -> anyhow::Result<Vec<String>> {
    Ok(read_index(layout)?.iter().map(|manifest| manifest.tag().to_owned()).collect())
}

/// Describes what is wrong with the layout.
pub(crate) fn problems(layout: &Path) -> Vec<String> {
    let manifests = match read_index(layout) {
        Ok(manifests) => manifests,
        Err(error) => return vec![format!("{error:#}")],
    };
    let problem_of = |manifest: &Descriptor| {
        let error = check_manifest(layout, manifest).err()?;
        Some(format!("`{}`: {error:#}", manifest.tag()))
    };
    manifests.iter().filter_map(problem_of).collect()
}

fn check_manifest(layout: &Path, descriptor: &Descriptor) -> anyhow::Result<()> {
    descriptor.check_in(layout, "manifest")?;
    let path = descriptor.path_in(layout);
    let content =
        while_none_starts(|| read_without_trace(&path)).with_context(|| descriptor.digest.clone())?;
    let manifest: Manifest = serde_json::from_slice(&content)
        .with_context(|| format!("{} is not a manifest", descriptor.digest))?;
    manifest.config.check_in(layout, "config")?;
    manifest.layers.iter().try_for_each(|layer| layer.check_in(layout, "layer"))
}

fn read_index(layout: &Path) -> anyhow::Result<Vec<Descriptor>> {
    let path = layout.join("index.json");
    let content = match while_none_starts(|| read_without_trace(&path)) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let index: Index = serde_json::from_slice(&content)
        .with_context(|| format!("{} is not an index, but {} bytes", path.display(), content.len()))?;
    Ok(index.manifests)
}

/// Reads a file without changing the time of its last read, where that is allowed: a prune waits for a pull that has read the
/// index.
fn read_without_trace(path: &Path) -> io::Result<Vec<u8>> {
    let without_trace =
        File::options().read(true).custom_flags(OFlags::NOATIME.bits().cast_signed()).open(path);
    let mut file = match without_trace {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(path)?,
        opened => opened?,
    };
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_an_index_names_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path();
        assert_eq!(problems(layout), Vec::<String>::new());
        let write = |path: &str, content: &str| fs::write(layout.join(path), content).unwrap();
        write("index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
        assert_eq!(problems(layout), Vec::<String>::new());

        write(
            "index.json",
            r#"{"manifests":[{"digest":"sha256:aa","size":80,
                "annotations":{"org.opencontainers.image.ref.name":"one"}}]}"#,
        );
        assert!(
            problems(layout)[0].starts_with("`one`: ") && problems(layout)[0].contains("manifest sha256:aa")
        );
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let manifest =
            r#"{"config":{"digest":"sha256:bb","size":1},"layers":[{"digest":"sha256:cc","size":2}]}"#;
        write("blobs/sha256/aa", manifest);
        assert!(problems(layout)[0].contains("sha256:aa has 8"));
        write(
            "index.json",
            &format!(r#"{{"manifests":[{{"digest":"sha256:aa","size":{}}}]}}"#, manifest.len()),
        );
        assert!(problems(layout)[0].contains("config sha256:bb"));
        write("blobs/sha256/bb", "b");
        assert!(problems(layout)[0].contains("layer sha256:cc"));
        write("blobs/sha256/cc", "cc");
        assert_eq!(problems(layout), Vec::<String>::new());
        write("index.json", "");
        assert!(problems(layout)[0].contains("is not an index, but 0 bytes"));
    }
}
