//! The command line.
//!
//! Guarantees: every command is declared here. Each command declares its own arguments.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_markdown::MarkdownOptions;

use crate::bench::BenchArguments;
use crate::fuzz::FuzzArguments;
use crate::pictures::PicturesArguments;
use crate::smoke::SmokeArguments;
use crate::torture::TortureArguments;

/// Puts the program `oci-cache` to the proof.
#[derive(Debug, Parser)]
#[command(name = "oci-cache-proof", version)]
pub(crate) struct Cli {
    /// The program `oci-cache` that is put to the proof.
    #[arg(long, value_name = "PATH")]
    pub(crate) program: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prune real caches while real tools pull into them, and count what breaks.
    Smoke(SmokeArguments),
    /// Prune under faults, kills, pulls and attacks, and count what is lost.
    Torture(TortureArguments),
    /// Feed random input, guided by coverage, to all that reads what others wrote; needs cargo-fuzz
    Fuzz(FuzzArguments),
    /// Measure the pruner beside other tools, and write the results into docs/.
    Bench(BenchArguments),
    /// Draw what the program prints on sample caches into docs/pictures.
    Pictures(PicturesArguments),
    /// Print this command line as Markdown.
    #[command(hide = true)]
    Markdown,
}

/// The command line as Markdown.
pub(crate) fn markdown() -> String {
    let options = MarkdownOptions::new().show_footer(false).show_table_of_contents(false);
    clap_markdown::help_markdown_command_custom(&Cli::command(), &options)
}
