//! The kinds of prune for faults and kills.
//!
//! Guarantees: each has a known end: the calls that it must make, and the files that it leaves.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::kit::process::{self, Ended};
use crate::torture::sandbox::{Sandbox, Shape, digest, hex_name};
use crate::torture::stage::Stage;

/// The time limit of a prune of a sandbox. Beyond it, the prune counts as hung.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A kind of prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Flat,
    /// The blobs were used ten minutes ago.
    Fresh,
    Layout,
    /// One of the layout's images stays.
    OneImage,
    Aside,
    FromPlan,
    /// With a goal, and with metrics.
    Goal,
    /// `verify --prune`.
    Verify,
}

impl Mode {
    const ALL: [Self; 8] = [
        Self::Flat,
        Self::Fresh,
        Self::Layout,
        Self::OneImage,
        Self::Aside,
        Self::FromPlan,
        Self::Goal,
        Self::Verify,
    ];

    /// The modes that the tested program supports.
    pub(crate) fn all(stage: &Stage) -> anyhow::Result<Vec<Self>> {
        let help = process::run(Command::new(&stage.program).args(["verify", "--help"]), LIMIT)?;
        let has_verify = help.code == Some(0) && help.stdout.contains("--prune");
        Ok(Self::ALL.into_iter().filter(|mode| *mode != Self::Verify || has_verify).collect())
    }

    /// The name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flat => "in place, flat",
            Self::Fresh => "in place, fresh",
            Self::Layout => "in place, layout",
            Self::OneImage => "in place, one image stays",
            Self::Aside => "aside",
            Self::FromPlan => "from a plan",
            Self::Goal => "to a goal, metrics",
            Self::Verify => "verify --prune",
        }
    }

    /// Makes a new cache for this mode.
    pub(crate) fn sandbox(self, stage: &Stage) -> anyhow::Result<Sandbox> {
        let shape = match self {
            Self::Layout | Self::OneImage => Shape::Layout,
            Self::Aside => Shape::Pure,
            Self::Fresh => Shape::Fresh,
            Self::Flat | Self::FromPlan | Self::Goal | Self::Verify => Shape::Flat,
        };
        Sandbox::new(&stage.scratch, shape)
    }

    /// Does what must precede each prune.
    pub(crate) fn prepare(self, stage: &Stage, sandbox: &Sandbox) -> anyhow::Result<()> {
        if self == Self::FromPlan {
            let mut command = command(&stage.program, "prune", &sandbox.cache());
            command.args(["--dry-run", "--save-plan"]).arg(sandbox.out("plan.json"));
            process::must(&mut command, LIMIT)?;
        }
        Ok(())
    }

    /// The command that prunes.
    pub(crate) fn command(self, stage: &Stage, sandbox: &Sandbox) -> Command {
        let name = if self == Self::Verify { "verify" } else { "prune" };
        let mut command = command(&stage.program, name, &sandbox.cache());
        match self {
            Self::Flat | Self::Fresh | Self::Layout => {}
            Self::OneImage => drop(command.args(["--keep", &digest(10)])),
            Self::Aside => drop(command.arg("--aside")),
            Self::FromPlan => drop(command.arg("--from-plan").arg(sandbox.out("plan.json"))),
            Self::Goal => {
                let metrics = sandbox.out("metrics.prom");
                command.args(["--max-used-space", "0", "--metrics-file"]).arg(metrics);
            }
            Self::Verify => drop(command.arg("--prune")),
        }
        command
    }

    /// Calls that strace must see. Without them, it has not seen the prune.
    pub(crate) const fn calls(self) -> &'static [&'static str] {
        match self {
            Self::Flat | Self::FromPlan | Self::Verify => &["unlinkat", "landlock_restrict_self"],
            Self::Fresh => &["unlinkat", "landlock_restrict_self", "inotify_add_watch", "renameat2"],
            Self::Goal => &["unlinkat", "landlock_restrict_self", "renameat"],
            Self::Layout | Self::OneImage => {
                &["unlinkat", "landlock_restrict_self", "inotify_add_watch", "renameat2"]
            }
            Self::Aside => &["unlinkat", "landlock_restrict_self", "mkdirat", "renameat2"],
        }
    }

    /// The cache's files that stay, in order.
    pub(crate) fn leaves(self) -> Vec<String> {
        let nested = |numbers: &[usize]| -> Vec<String> {
            numbers.iter().map(|number| format!("cache/blobs/sha256/{}", hex_name(*number))).collect()
        };
        match self {
            Self::OneImage => nested(&[3, 10, 11, 12]),
            // All blobs are corrupt here, so all blobs go, and nothing else.
            Self::Verify => vec!["cache/oci-put-blob1234".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Prunes.
    pub(crate) fn run(self, stage: &Stage, sandbox: &Sandbox) -> anyhow::Result<Ended> {
        process::run(&mut self.command(stage, sandbox), LIMIT)
    }

    /// Whether this mode is documented to end like this when no signal arrives. A prune without a goal has nothing to
    /// find.
    pub(crate) fn may_end_with(self, ended: &Ended) -> bool {
        let may_find = matches!(self, Self::Goal | Self::Verify);
        ended.is_documented() && (may_find || ended.code != Some(3))
    }
}

/// A command on a cache, with JSON output.
pub(crate) fn command(program: &Path, name: &str, cache: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(name).args(["--format", "json", "--quiet", "--cache-dir"]).arg(cache);
    command
}
