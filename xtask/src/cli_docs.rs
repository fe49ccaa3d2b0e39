//! `cargo xtask cli-docs`: generates docs/cli.md from the declarations of the command lines, and docs/pictures from what the
//! program prints.
//!
//! Guarantees: the document lists the flags of each program exactly once. `oci-cache-dist` and `oci-cache-proof` print
//! their own sections, and the latter draws the pictures.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::CommandFactory as _;
use clap_markdown::MarkdownOptions;
use oci_cache_cli::exit::{self, Exit};

use crate::cli::{Cli, CliDocsArguments};
use crate::workspace::workspace;
use crate::{dist, programs, proof};

const INTRODUCTION: &str = "\
# The command line

`oci-cache` is the program to install. In this workspace, `cargo xtask` builds and runs the same commands \
with the same flags:

| installed | in this workspace |
|---|---|
| `oci-cache prune` | `cargo xtask cache-prune` |
| `oci-cache usage` | `cargo xtask cache-usage` |
| `oci-cache verify` | `cargo xtask cache-verify` |
| `oci-cache dir` | `cargo xtask cache-dir` |

`cargo xtask smoke`, `torture` and `bench` build `oci-cache` and `oci-cache-proof`, and test the first with \
the second. `cargo xtask fuzz` builds the fuzz targets instead. `cargo xtask dist` builds what people install.
";

/// The picture of what each command prints, and what it shows.
const PICTURES: [(&str, &str, &str); 3] = [
    ("oci-cache prune", "prune-80.svg", "What a dry run with -v prints"),
    ("oci-cache usage", "usage-80.svg", "What usage prints of a layout"),
    ("oci-cache verify", "verify-80.svg", "What verify prints of a layout with a corrupt blob and a hole"),
];

pub(crate) fn run(arguments: &CliDocsArguments) -> anyhow::Result<Exit> {
    let path = workspace().join("docs/cli.md");
    let programs = programs::build()?;
    let mut pictures = proof::command(&programs);
    pictures.arg("pictures").args(arguments.check.then_some("--check"));
    let status = pictures.status().context("run `oci-cache-proof`")?;
    ensure!(status.success(), "`oci-cache-proof pictures` ended with {status}");
    let document = document(&programs)?;
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

fn document(programs: &Path) -> anyhow::Result<String> {
    let dist = printed(dist::command(programs).arg("--markdown"))?;
    let proof = printed(proof::command(programs).arg("markdown"))?;
    let own = markdown(&Cli::command());
    // These commands are documented with the programs that run them.
    let is_another = |section: &&str| {
        let name = section.strip_prefix("`cargo xtask ").unwrap_or_default();
        ["cache-", "dist`", "smoke`", "torture`", "fuzz`", "bench`"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let program = markdown(&oci_cache_cli::command());
    let own = sections(&own).filter(|section| !is_another(section));
    let all = sections(&program)
        .map(illustrated)
        .chain(own.chain(sections(&dist)).chain(sections(&proof)).map(str::to_owned));
    let introduction = format!("{INTRODUCTION}\n{}", exit_codes());
    Ok(all.fold(introduction, |document, section| format!("{document}\n## {}\n", section.trim_end())))
}

/// A section with the picture of what its command prints, if there is one.
fn illustrated(section: &str) -> String {
    let command = section.split('`').nth(1).unwrap_or_default();
    match PICTURES.iter().find(|(of, ..)| *of == command) {
        Some((_, picture, what)) => format!("{}\n\n![{what}](pictures/{picture})\n", section.trim_end()),
        None => section.to_owned(),
    }
}

/// What another program prints about itself.
fn printed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("read what {command:?} printed"))
}

/// The exit codes, once: the help of every command repeats them.
fn exit_codes() -> String {
    exit::CODES.iter().fold(
        "## Exit codes\n\n| exit code | meaning |\n|---|---|\n".to_owned(),
        |table, (codes, meaning)| format!("{table}| {codes} | {meaning} |\n"),
    )
}

fn markdown(command: &clap::Command) -> String {
    let options = MarkdownOptions::new().show_footer(false).show_table_of_contents(false);
    let repeated = format!("{}\n\n", exit::help());
    fence_examples(&clap_markdown::help_markdown_command_custom(command, &options).replace(&repeated, ""))
}

/// Turns the examples, which help shows indented, into blocks of shell commands.
fn fence_examples(markdown: &str) -> String {
    let (mut text, mut is_example) = (String::new(), false);
    for line in markdown.lines() {
        match line {
            "Examples:" => text.push_str("###### **Examples:**\n\n```sh"),
            "" if is_example => text.push_str("```\n"),
            _ if is_example && line.starts_with("    ") => text.push_str(line.trim_start()),
            _ if is_example => text.push_str(&format!("# {}", line.trim().trim_end_matches(':'))),
            _ => text.push_str(line),
        }
        is_example = line == "Examples:" || is_example && !line.is_empty();
        text.push('\n');
    }
    text
}

/// The sections, one per command, each starting with its heading.
fn sections(markdown: &str) -> impl Iterator<Item = &str> {
    markdown.split("\n## ").skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_become_a_block_of_commands() {
        let help =
            "About.\n\nExamples:\n  Do it:\n    run a\n    run b\n  Undo it:\n    run c\n\n    as it is\n";
        let expected = "About.\n\n###### **Examples:**\n\n```sh\n# Do it\nrun a\nrun b\n# Undo it\nrun c\n```\n\n    as it is\n";
        assert_eq!(fence_examples(help), expected);
    }

    #[test]
    fn a_command_with_a_picture_shows_it() {
        let section = "`oci-cache usage`\n\nShow what is in the cache.\n\n";
        let shown = illustrated(section);
        assert!(
            shown.starts_with("`oci-cache usage`\n") && shown.ends_with("](pictures/usage-80.svg)\n"),
            "{shown}"
        );
        assert_eq!(illustrated("`oci-cache dir`\n\nPrint it.\n"), "`oci-cache dir`\n\nPrint it.\n");
    }
}
