//! `cargo xtask smoke`, `torture` and `bench`: builds the program and its proof, and becomes the proof.
//!
//! Guarantees: one call of cargo builds both, so that what is put to the proof is what the sources say. All
//! arguments are handed on as they are. The proof runs in this very process: signals and the exit code are its
//! own.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, ensure};
use oci_cache_cli::exit::Exit;

use crate::cli::ProofArguments;
use crate::workspace;

/// Does the command of this name.
pub(crate) fn run(name: &str, arguments: &ProofArguments) -> anyhow::Result<Exit> {
    let error = command()?.arg(name).args(&arguments.arguments).exec();
    Err(error).context("run `oci-cache-proof`")
}

/// The proof of the program, both just built; a command and its arguments are to be added.
pub(crate) fn command() -> anyhow::Result<Command> {
    let here = env::current_exe().context("find the path of this program")?;
    let target = here.ancestors().nth(2).context("this program is not in a target directory")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--quiet"]);
    cargo.args(["--package", "oci-cache-cli", "--package", "oci-cache-proof", "--target-dir"]).arg(target);
    let status = cargo.current_dir(workspace()).status().context("run cargo")?;
    ensure!(status.success(), "the build of `oci-cache-proof` ended with {status}");
    let programs = target.join("release");
    let mut proof = Command::new(programs.join("oci-cache-proof"));
    proof.arg("--program").arg(programs.join("oci-cache"));
    Ok(proof)
}
