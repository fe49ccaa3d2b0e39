//! `cargo xtask cli-docs`: writes docs/cli.md from the command line's own declarations.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap_markdown::MarkdownOptions;

use crate::{Cli, CliDocsArguments};
use oci_cache_cli::exit::Exit;

pub(crate) fn run(arguments: &CliDocsArguments) -> anyhow::Result<Exit> {
    let path = workspace().join("docs/cli.md");
    let options = MarkdownOptions::new()
        .title("The command line".to_owned())
        .show_footer(false)
        .show_table_of_contents(false);
    let document = clap_markdown::help_markdown_custom::<Cli>(&options);
    if !arguments.check {
        fs::write(&path, document).with_context(|| format!("write `{}`", path.display()))?;
        return Ok(Exit::Done);
    }
    let found = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    if found != document {
        bail!("`{}` is out of date: run `cargo xtask cli-docs`", path.display());
    }
    Ok(Exit::Done)
}

/// The directory of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}
