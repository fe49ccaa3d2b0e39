//! Stage: the files of the sources that are installed as they are: units, manifests, licences and documents.

use std::fs;

use anyhow::Context as _;

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
/// The files in `docs/fleet` that others read.
const FLEET_FILES: [&str; 4] = ["Containerfile", "alerts.yml", "cronjob.yaml", "daemonset.yaml"];
const TOP_FILES: [&str; 4] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Adds the files.
///
/// # Errors
///
/// If one cannot be read.
pub(crate) fn add(tree: &mut Tree, release: &Release) -> anyhow::Result<()> {
    let units = UNIT_FILES.map(|name| (format!("docs/fleet/{name}"), format!("{UNITS}/{name}")));
    let fleet = FLEET_FILES.map(|name| (format!("docs/fleet/{name}"), format!("{DOCUMENTS}/fleet/{name}")));
    let top = TOP_FILES.map(|name| (name.to_owned(), format!("{DOCUMENTS}/{name}")));
    for (source, path) in units.into_iter().chain(fleet).chain(top) {
        let source = release.workspace.join(source);
        let content = fs::read(&source).with_context(|| format!("read `{}`", source.display()))?;
        tree.add(path, content);
    }
    Ok(())
}
