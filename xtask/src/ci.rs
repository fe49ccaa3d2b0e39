//! `cargo xtask ci`: the project's own checks, fastest failures first.

use anyhow::Context as _;
use oci_cache_cli::exit::Exit;
use xshell::{Shell, cmd};

use crate::cli::CliDocsArguments;
use crate::cli_docs;
use crate::workspace::workspace;

pub(crate) fn run() -> anyhow::Result<Exit> {
    let shell = Shell::new().context("find the current directory")?;
    shell.change_dir(workspace());
    cmd!(shell, "cargo fmt --all --check").run()?;
    cli_docs::run(&CliDocsArguments { check: true })?;
    cmd!(shell, "cargo clippy --workspace --all-targets --locked -- --deny warnings").run()?;
    // No `--all-targets`: it would build the examples as tests, not as the programs that the tests run.
    cmd!(shell, "cargo test --workspace --locked").env("INSTA_UPDATE", "no").run()?;
    let deny = cmd!(shell, "cargo doc --workspace --no-deps --document-private-items --locked");
    deny.env("RUSTDOCFLAGS", "--deny warnings").run()?;
    // Builds each from its package alone. Without debug information, as in this workspace, so that less is built anew.
    let package =
        cmd!(shell, "cargo package --package banger-fmt --package oci-cache --allow-dirty --locked");
    package.env("CARGO_PROFILE_DEV_DEBUG", "false").run()?;
    Ok(Exit::Done)
}
