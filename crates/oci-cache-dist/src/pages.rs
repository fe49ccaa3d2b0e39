//! Stage: the man pages, one for each command.
//!
//! Guarantees: they are made from the declarations of the command line, as `--help` is. Their date is that of the release.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use crate::release::NAME;
use crate::tree::Tree;

/// Adds the pages of the program and of its commands.
///
/// # Errors
///
/// If a page cannot be rendered.
pub(crate) fn add(tree: &mut Tree, epoch: u64) -> anyhow::Result<()> {
    let time =
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(epoch)).to_string();
    let date = time.split('T').next().unwrap_or_default().to_owned();
    // Pages of `help` would only repeat the others.
    let mut program = oci_cache_cli::command().disable_help_subcommand(true);
    program.build();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        add_page(command.clone(), &date, tree)?;
    }
    add_page(program, &date, tree)
}

fn add_page(command: Command, date: &str, tree: &mut Tree) -> anyhow::Result<()> {
    let version = oci_cache_cli::command().get_version().unwrap_or_default().to_owned();
    let page = Man::new(command).source(format!("{NAME} {version}")).manual("User Commands").date(date);
    let mut content = Vec::new();
    page.render(&mut content).context("render a man page")?;
    tree.add(format!("share/man/man1/{}", page.get_filename()), content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let mut tree = Tree::default();
        add(&mut tree, 86_400).unwrap();
        for command in ["", "-prune", "-usage", "-verify", "-dir", "-completions"] {
            let path = format!("share/man/man1/oci-cache{command}.1");
            let page = &tree.files[std::path::Path::new(&path)];
            let text = String::from_utf8(page.content.clone()).unwrap();
            let title = format!(".TH oci-cache{command} 1 1970-01-02 \"oci-cache ");
            assert!(text.contains(&title), "{path} has no {title:?}:\n{text}");
        }
        assert_eq!(tree.files.len(), 6);
    }
}
