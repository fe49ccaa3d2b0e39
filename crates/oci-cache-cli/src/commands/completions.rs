//! `completions`: prints completions for a shell.

use crate::cli::CompletionsArguments;
use crate::exit::Exit;
use crate::output;

/// Does all of it, for the program that `command` declares under the name by which it is called.
///
/// # Errors
///
/// None that is known: what is generated is text.
pub fn run(arguments: &CompletionsArguments, mut command: clap::Command) -> anyhow::Result<Exit> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output::print(&String::from_utf8(script)?)
}
