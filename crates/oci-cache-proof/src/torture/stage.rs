//! What every part gets.
//!
//! Guarantees: any user can run the programs, and no build replaces them.

use std::path::PathBuf;
use std::process::Command;

/// The programs, a place for files, and the extent of the run.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The directory for files: a tmpfs, visible in this mount namespace only.
    pub(crate) scratch: PathBuf,
    /// The tested program. Any user can run it.
    pub(crate) program: PathBuf,
    /// This program. Any user can run it.
    pub(crate) proof: PathBuf,
    pub(crate) quick: bool,
}

impl Stage {
    /// This program in a role. The caller adds the role's arguments.
    pub(crate) fn role(&self, name: &str) -> Command {
        let mut role = Command::new(&self.proof);
        role.arg("--program").arg(&self.program).args(["torture", "--", name]);
        role
    }
}
