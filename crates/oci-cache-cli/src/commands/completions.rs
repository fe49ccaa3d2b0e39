//! `completions`: prints shell completions.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArguments};
use crate::exit::Exit;
use crate::output;

/// Runs the command, for the program `oci-cache`.
///
/// # Errors
///
/// None is known: the generated script is text.
pub fn run(arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output::print(&String::from_utf8(script)?)
}
