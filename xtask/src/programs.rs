//! The other programs of this workspace: `oci-cache`, `oci-cache-dist` and `oci-cache-proof`.
//!
//! Guarantees: they are built beside this program, in its target directory, so that they match the sources. One call of
//! cargo builds all of them, so that it builds what they share once.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::workspace::{target, workspace};

const PACKAGES: [&str; 3] = ["oci-cache-cli", "oci-cache-dist", "oci-cache-proof"];

/// The arguments that name the packages to cargo.
pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().flat_map(|package| ["--package", package])
}

/// Builds the programs. Returns their directory.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let target = target()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&target);
    cargo.args(packages());
    let status = cargo.current_dir(workspace()).status().context("run cargo")?;
    ensure!(status.success(), "building {} ended with {status}", PACKAGES.join(", "));
    Ok(target.join("release"))
}
