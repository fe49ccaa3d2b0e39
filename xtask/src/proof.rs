//! `cargo xtask smoke`, `torture`, `fuzz` and `bench`: builds `oci-cache` and `oci-cache-proof`, and runs the latter.
//!
//! Guarantees: one call of cargo builds both programs, so the tested program matches the sources. All
//! arguments are passed on unchanged. `oci-cache-proof` replaces this process, so signals go to it and the
//! exit code is its own.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use oci_cache_cli::exit::Exit;

use crate::cli::ProofArguments;
use crate::workspace::{target, workspace};

/// Runs the command `name` of `oci-cache-proof`.
pub(crate) fn run(name: &str, arguments: &ProofArguments) -> anyhow::Result<Exit> {
    let error = command()?.arg(name).args(&arguments.arguments).exec();
    Err(error).context("run `oci-cache-proof`")
}

/// Builds both programs. Returns `oci-cache-proof`; the caller adds a command and its arguments.
pub(crate) fn command() -> anyhow::Result<Command> {
    let target = target()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(["--package", "oci-cache-cli", "--package", "oci-cache-proof", "--target-dir"]).arg(&target);
    let status = cargo.current_dir(workspace()).status().context("run cargo")?;
    ensure!(status.success(), "building `oci-cache-proof` ended with {status}");
    let programs = target.join("release");
    let mut proof = Command::new(programs.join("oci-cache-proof"));
    proof.arg("--program").arg(programs.join("oci-cache"));
    Ok(proof)
}
