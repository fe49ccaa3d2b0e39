//! `cargo xtask dist`: builds the programs, and runs `oci-cache-dist`.
//!
//! Guarantees: all arguments are passed on unchanged. `oci-cache-dist` replaces this process. It is a program of its own,
//! so nobody who prunes compiles what packs.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use oci_cache_cli::exit::Exit;

use crate::cli::OtherArguments;
use crate::programs;

pub(crate) fn run(arguments: &OtherArguments) -> anyhow::Result<Exit> {
    let error = command(&programs::build()?).args(&arguments.arguments).exec();
    Err(error).context("run `oci-cache-dist`")
}

/// `oci-cache-dist` of these programs; the caller adds its arguments.
pub(crate) fn command(programs: &Path) -> Command {
    Command::new(programs.join("oci-cache-dist"))
}
