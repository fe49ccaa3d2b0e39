//! What every part is given: the programs, a place for files, and how much to try.
//!
//! Guarantees: any user can run the programs, and no build replaces them.

use std::path::PathBuf;
use std::process::Command;

/// What every part is given.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Where files go: memory, seen in this mount namespace only.
    pub(crate) scratch: PathBuf,
    /// The program that is put to the proof, where any user can run it.
    pub(crate) program: PathBuf,
    /// This program, where any user can run it.
    pub(crate) proof: PathBuf,
    pub(crate) quick: bool,
}

impl Stage {
    /// This program in a role, to which its words are to be added.
    pub(crate) fn role(&self, name: &str) -> Command {
        let mut role = Command::new(&self.proof);
        role.arg("--program").arg(&self.program).args(["torture", "--", name]);
        role
    }
}
