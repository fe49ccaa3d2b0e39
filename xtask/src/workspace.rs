//! The workspaces of these commands, and the target directory.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The workspaces, which must not be pruned either: the one cargo runs this in, and the one this was built
/// in.
pub(crate) fn workspaces() -> Vec<PathBuf> {
    let manifests = [env::var_os("CARGO_MANIFEST_DIR"), Some(env!("CARGO_MANIFEST_DIR").into())];
    let workspaces = manifests.iter().flatten().filter_map(|manifest| Path::new(manifest).parent());
    workspaces.map(Path::to_owned).collect()
}

/// The workspace that this program was built in.
pub(crate) fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The target directory that this program was built in.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let here = env::current_exe().context("find the path of this program")?;
    Ok(here.ancestors().nth(2).context("this program is not in a target directory")?.to_owned())
}
