//! `completions`: prints shell completions.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, CompletionsArguments};
use crate::exit::Exit;
use crate::output;

/// Runs the command, for the program `oci-cache`.
///
/// # Errors
///
/// None is known: the generated script is text.
pub fn run(arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    output::print(&script(arguments.shell)?)
}

/// The completions of the program `oci-cache`, as a script for `shell`.
///
/// # Errors
///
/// None is known: the generated script is text.
pub fn script(shell: Shell) -> anyhow::Result<String> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let mut script = String::from_utf8(script)?;
    if shell == Shell::Bash {
        // clap_complete mangles the hyphen of the name in one way where it sets a label, and in another where it
        // looks for it (clap issue 6421). Once it does not, this changes nothing.
        script = script.replace("oci__subcmd__cache", "oci__cache");
    }
    Ok(script)
}
