//! Examples of each command, with which its long help ends.
//!
//! Guarantees: every example is a command line that this program accepts; a test parses each. They do not name the program:
//! whoever offers a command says how it is called.

use crate::{exit, style};

/// The examples of one command: what each is for, and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Examples(&'static [(&'static str, &'static str)]);

/// The examples of `prune`.
pub const PRUNE: Examples = Examples(&[
    ("See what would go, and change nothing", "--dry-run"),
    ("Remove what was not used for a week", "--older-than 7d"),
    ("Keep the cache below 20 GiB; what was used least recently goes first", "--max-used-space 20GiB"),
    (
        "Keep a tenth of the disk free, but never remove two images",
        "--min-free-space 10% --keep app:1 --keep db:5",
    ),
    ("Remove what no image in the layout's index leads to", "--unreferenced"),
    ("Remove one image, with what no other image needs", "--image app:1"),
    ("Free a full disk although pulls run: all but files in use", "--grace 0s"),
    ("Review a plan, then remove exactly what it lists", "--dry-run --save-plan plan.json"),
    ("", "--from-plan plan.json"),
]);

/// The examples of `usage`.
pub const USAGE: Examples = Examples(&[
    ("Show what is in a cache", "--cache-dir /var/cache/banger/oci"),
    ("Exit with 3 if the cache uses more than 50 GiB", "--check --max-used-space 50GiB"),
]);

/// The examples of `verify`.
pub const VERIFY: Examples = Examples(&[
    ("Find corrupt blobs, and leave the disk to others", "--io-idle"),
    ("Remove the corrupt blobs, so that the next pull fetches them again", "--prune"),
    ("Hash only what looks damaged", "--quick"),
]);

impl Examples {
    /// The end of the long help of a command that is called so: the examples, and the exit codes.
    #[must_use]
    pub fn help(self, call: &str) -> String {
        let examples = self.0.iter().map(|(purpose, arguments)| match *purpose {
            "" => format!("    {call} {arguments}\n"),
            purpose => format!("  {purpose}:\n    {call} {arguments}\n"),
        });
        let heading = style::paint(style::TITLE, "Examples:");
        format!("{heading}\n{}\n{}", examples.collect::<String>(), exit::styled_help())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_example_parses() {
        for (call, examples) in
            [("oci-cache prune", PRUNE), ("oci-cache usage", USAGE), ("oci-cache verify", VERIFY)]
        {
            let help = examples.help(call);
            let lines: Vec<&str> = help.lines().filter(|line| line.starts_with("    oci-cache ")).collect();
            assert_eq!(lines.len(), examples.0.len(), "{help}");
            for line in lines {
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
        assert!(Cli::try_parse_from(["oci-cache", "prune", "--older-than", "soon"]).is_err());
    }

    #[test]
    fn no_line_is_wider_than_the_help() {
        for examples in [PRUNE, USAGE, VERIFY] {
            let help = examples.help("cargo xtask cache-verify");
            let widest = help.lines().filter(|line| line.starts_with("  ")).map(str::len).max();
            assert!(widest <= Some(100), "{help}");
        }
    }
}
