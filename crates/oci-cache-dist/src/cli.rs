//! The command line.

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser};
use clap_markdown::MarkdownOptions;

/// Build what people install: an archive, a Debian package, and their checksums.
///
/// The archive has the static program, man pages, completions, the systemd units, the manifests, the licences and a
/// list of what the program is made of (CycloneDX). The files are the same in every directory: their times are those
/// of the last commit, or of $SOURCE_DATE_EPOCH.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask dist", bin_name = "cargo xtask dist", version)]
pub(crate) struct Cli {
    /// What the program is for; by default, this machine.
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,
    /// Where to put the files; by default, target/dist.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The Cargo.toml of the workspace; by default, of this workspace.
    #[arg(long, value_name = "PATH")]
    pub(crate) manifest_path: Option<PathBuf>,
    /// Print this command line as Markdown.
    #[arg(long, hide = true)]
    pub(crate) markdown: bool,
}

/// The command line as Markdown.
pub(crate) fn markdown() -> String {
    let options = MarkdownOptions::new().show_footer(false).show_table_of_contents(false);
    clap_markdown::help_markdown_command_custom(&Cli::command(), &options)
}

/// The Cargo.toml of the workspace that this program was built in.
pub(crate) fn manifest_path() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).join("Cargo.toml")
}
