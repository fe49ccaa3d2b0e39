//! `cargo xtask smoke`, `torture`, `fuzz` and `bench`: builds the programs, and runs `oci-cache-proof`.
//!
//! Guarantees: the tested program matches the sources. All arguments are passed on unchanged. `oci-cache-proof` replaces this
//! process, so signals go to it and the exit code is its own.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use oci_cache_cli::exit::Exit;

use crate::cli::OtherArguments;
use crate::programs;

/// Runs the command `name` of `oci-cache-proof`.
pub(crate) fn run(name: &str, arguments: &OtherArguments) -> anyhow::Result<Exit> {
    let error = command(&programs::build()?).arg(name).args(&arguments.arguments).exec();
    Err(error).context("run `oci-cache-proof`")
}

/// `oci-cache-proof` of these programs; the caller adds a command and its arguments.
pub(crate) fn command(programs: &Path) -> Command {
    let mut proof = Command::new(programs.join("oci-cache-proof"));
    proof.arg("--program").arg(programs.join("oci-cache"));
    proof
}
