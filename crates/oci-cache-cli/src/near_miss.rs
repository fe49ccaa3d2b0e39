//! What was perhaps meant by a command or a flag that does not exist.
//!
//! Guarantees: only the advice of an error changes, never whether there is one. `--aside`, which frees the whole cache, is
//! advised to nobody: clap finds similar names by their letters, so it would be for `--max-size`.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands as other tools call them.
const COMMANDS: [(&[&str], &str); 3] = [
    (&["clean", "clear", "gc", "purge", "rm"], "prune"),
    (&["df", "du", "info", "list", "ls", "stats"], "usage"),
    (&["check", "fsck"], "verify"),
];

/// Flags as other tools call them.
const FLAGS: [(&[&str], &str); 4] = [
    (&["--json"], "--format json"),
    (&["--keep-bytes", "--keep-storage", "--max-cache-size", "--max-size", "--size"], "--max-used-space"),
    (&["--free", "--min-free", "--reserved-space"], "--min-free-space"),
    (&["--age", "--keep-duration", "--max-age", "--until"], "--older-than"),
];

const NEVER: &str = "--aside";

/// Adds to the error what was perhaps meant. `command` is the whole command line.
pub(crate) fn with_advice(mut error: clap::Error, command: &Command) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let near = text(ContextKind::InvalidSubcommand).map(|given| commands_like(&given, command));
            if let Some(near) = near.filter(|near| !near.is_empty()) {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
            }
        }
        ErrorKind::UnknownArgument => {
            let meant = text(ContextKind::InvalidArg).and_then(|given| flag_like(&given));
            let is_never = text(ContextKind::SuggestedArg).is_some_and(|found| found == NEVER);
            if meant.is_some() || is_never {
                // It shows the advised flag, too.
                error.remove(ContextKind::Usage);
                error.remove(ContextKind::SuggestedArg);
            }
            if let Some(meant) = meant {
                error.insert(ContextKind::SuggestedArg, ContextValue::String(meant.to_owned()));
            }
        }
        _ => {}
    }
    error
}

/// The commands with this name, without the first part of theirs, or with a part too many, and with the name of other
/// tools: `prune` and `cache-prune` are far apart by their letters.
fn commands_like(given: &str, command: &Command) -> Vec<String> {
    let given = COMMANDS.iter().find(|(names, _)| names.contains(&given)).map_or(given, |(_, name)| *name);
    let ends_in = |name: &str, end: &str| name.strip_suffix(end).is_some_and(|start| start.ends_with('-'));
    let names = command.get_subcommands().map(Command::get_name);
    names
        .filter(|name| *name == given || ends_in(name, given) || ends_in(given, name))
        .map(str::to_owned)
        .collect()
}

/// The flag that is meant by another tool's, or by a path without a flag.
fn flag_like(given: &str) -> Option<&'static str> {
    let flag = given.split('=').next().unwrap_or_default();
    let known = FLAGS.iter().find(|(names, _)| names.contains(&flag)).map(|(_, name)| *name);
    known.or_else(|| (!given.starts_with('-') && given.contains('/')).then_some("--cache-dir"))
}
