//! Stage: the files of the sources that are installed as they are: units, manifests, licences and documents.
//!
//! Guarantees: the documents lie to each other as in the sources, so the links between them lead somewhere.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use walkdir::WalkDir;

use crate::release::Release;
use crate::tree::Tree;

/// Where the systemd units are.
pub(crate) const UNITS: &str = "lib/systemd/system";
/// Where the documents are.
pub(crate) const DOCUMENTS: &str = "share/doc/oci-cache";

/// The files in `docs/fleet` that systemd reads.
const UNIT_FILES: [&str; 4] = [
    "oci-cache-prune.service",
    "oci-cache-prune.timer",
    "oci-cache-verify.service",
    "oci-cache-verify.timer",
];
/// The files beside the documents.
const TOP_FILES: [&str; 6] =
    ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "SECURITY.md"];

/// Adds the files.
///
/// # Errors
///
/// If one cannot be read.
pub(crate) fn add(tree: &mut Tree, release: &Release) -> anyhow::Result<()> {
    let units = UNIT_FILES.map(|name| (format!("docs/fleet/{name}"), format!("{UNITS}/{name}")));
    let top = TOP_FILES.map(|name| (name.to_owned(), format!("{DOCUMENTS}/{name}")));
    let documents = below(&release.workspace, "docs")?.into_iter().map(|path| {
        let installed = format!("{DOCUMENTS}/{path}");
        (path, installed)
    });
    for (source, path) in units.into_iter().chain(top).chain(documents) {
        let source = release.workspace.join(source);
        let content = fs::read(&source).with_context(|| format!("read `{}`", source.display()))?;
        tree.add(path, content);
    }
    Ok(())
}

/// The files below a directory of the sources, each by its path there.
fn below(sources: &Path, directory: &str) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(sources.join(directory)).sort_by_file_name() {
        let entry = entry.with_context(|| format!("list the documents in `{directory}`"))?;
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(sources).context("a document outside the sources")?;
            files.push(path.to_str().context("a document's name is not UTF-8")?.to_owned());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_in_all_directories_are_found() {
        let sources = tempfile::tempdir().unwrap();
        fs::create_dir_all(sources.path().join("docs/fleet")).unwrap();
        for name in ["README.md", "docs/faq.md", "docs/fleet/a.timer"] {
            fs::write(sources.path().join(name), "text").unwrap();
        }
        assert_eq!(below(sources.path(), "docs").unwrap(), ["docs/faq.md", "docs/fleet/a.timer"]);
        assert!(below(sources.path(), "nowhere").is_err());
    }
}
