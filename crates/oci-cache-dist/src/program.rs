//! Stage: the program, built by cargo for the target.
//!
//! Guarantees: it is static, so it runs on any Linux of the target's kind and in an empty container. It has no path of
//! the machine that built it: neither of the sources nor of their dependencies nor of the target directory.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::release::{NAME, PACKAGE, Release};

/// Builds the program. Returns its content.
///
/// # Errors
///
/// If cargo cannot build it.
pub(crate) fn build(release: &Release) -> anyhow::Result<Vec<u8>> {
    let mut cargo = release.cargo();
    cargo.args(["build", "--release", "--locked", "--package", PACKAGE, "--target", &release.target]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(release)?);
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "building the program for {} ended with {status}", release.target);
    let path = release.built().join(NAME);
    fs::read(&path).with_context(|| format!("read the program `{}`", path.display()))
}

/// The flags of the compiler, separated as cargo wants them: paths may have spaces.
fn flags(release: &Release) -> anyhow::Result<String> {
    // Of several that fit, the compiler takes the last: the target directory may be in the workspace.
    let places = [
        (release.workspace.clone(), "/build"),
        (cargo_home()?, "/cargo"),
        (release.target_directory.clone(), "/target"),
    ];
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    for (path, name) in places {
        let path = path.to_str().with_context(|| format!("the path `{}` is not UTF-8", path.display()))?;
        flags.push(format!("--remap-path-prefix={path}={name}"));
    }
    Ok(flags.join("\x1f"))
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = given.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.context("cargo's home is unknown: set CARGO_HOME")
}
