//! `cargo xtask ci`: the project's own checks, fastest failures first.
//!
//! Guarantees: its last lines say how many tests passed, how many were skipped and for want of what, and which checks were
//! not run because a program is not installed.

use anyhow::{Context as _, bail};
use oci_cache_cli::exit::Exit;
use oci_cache_cli::output;
use xshell::{Shell, cmd};

use crate::cli::{CiArguments, CliDocsArguments};
use crate::cli_docs;
use crate::test_run::{TestRun, User};
use crate::workspace::workspace;

/// Checks by cargo's plug-ins, where they are installed. Nothing is fetched: no advisories are asked for.
const PLUG_INS: [(&str, &[&str]); 2] =
    [("machete", &[]), ("deny", &["--offline", "--locked", "check", "bans", "licenses", "sources"])];

pub(crate) fn run(arguments: &CiArguments) -> anyhow::Result<Exit> {
    let shell = Shell::new().context("find the current directory")?;
    shell.change_dir(workspace());
    cmd!(shell, "cargo fmt --all --check").run()?;
    cli_docs::run(&CliDocsArguments { check: true })?;
    cmd!(shell, "cargo clippy --workspace --all-targets --locked -- --deny warnings").run()?;
    let not_run = run_plug_ins(&shell)?;
    let own = TestRun::of(User::Own)?;
    if arguments.no_skips && own.has_skips() {
        bail!("tests were skipped:\n{}", own.skips());
    }
    let mut summary = format!("{own}\n");
    if arguments.also_as_nobody {
        summary.push_str(&format!("as nobody: {}\n", TestRun::of(User::Nobody)?));
    }
    let deny = cmd!(shell, "cargo doc --workspace --no-deps --document-private-items --locked");
    deny.env("RUSTDOCFLAGS", "--deny warnings").run()?;
    // Builds each from its package alone. Without debug information, as in this workspace, so that less is built anew.
    let package =
        cmd!(shell, "cargo package --package banger-fmt --package oci-cache --allow-dirty --locked");
    package.env("CARGO_PROFILE_DEV_DEBUG", "false").run()?;
    if !not_run.is_empty() {
        summary.push_str(&format!("{} not run: install {}\n", not_run.len(), not_run.join(" and ")));
    }
    output::print(&format!("{summary}all checks passed\n"))
}

/// Runs the plug-ins that are installed. Returns the names of the others.
fn run_plug_ins(shell: &Shell) -> anyhow::Result<Vec<String>> {
    let mut not_run = Vec::new();
    for (name, words) in PLUG_INS {
        // By this variable, which `cargo xtask` leaves behind, a plug-in takes itself for a program that `cargo run` started.
        let asked =
            cmd!(shell, "cargo {name} --version").env_remove("CARGO_PKG_NAME").quiet().ignore_status();
        if asked.ignore_stderr().output()?.status.success() {
            cmd!(shell, "cargo {name} {words...}").env_remove("CARGO_PKG_NAME").run()?;
        } else {
            not_run.push(format!("cargo-{name}"));
        }
    }
    Ok(not_run)
}
