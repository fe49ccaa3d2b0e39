//! `cargo xtask completions`: prints completions for a shell, for the program as it is installed.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArguments};
use crate::exit::Exit;
use crate::output;

/// The name under which the program is installed.
const PROGRAM: &str = "xtask";

pub(crate) fn run(arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut command = Cli::command().name(PROGRAM).bin_name(PROGRAM);
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, PROGRAM, &mut script);
    output::print(&String::from_utf8(script)?)
}
