//! The contenders: programs with their arguments, and loops of bare system calls.
//!
//! Guarantees: a missing program is reported as missing, and never left out.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench::caches::Cache;
use crate::bench::unlink_loop::UnlinkLoop;
use crate::kit::machine::cores;
use crate::kit::programs;

/// A contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    /// Its name in tables.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
}

/// How it does the work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A command of the measured program, with its arguments.
    Own(&'static [&'static str]),
    /// Another program, with its arguments.
    Program(&'static [&'static str]),
    /// A loop within this process.
    Loop(UnlinkLoop),
    /// The protocol that the pruner replaced, within this process.
    Original,
}

/// In arguments, `DIR` stands for the cache, `FILES` for every blob, `LIST` for a file that lists them,
/// and `CORES` for the number of cores.
const fn own(name: &'static str, arguments: &'static [&'static str]) -> Contender {
    Contender { name, work: Work::Own(arguments) }
}

const fn program(name: &'static str, arguments: &'static [&'static str]) -> Contender {
    Contender { name, work: Work::Program(arguments) }
}

const CACHE_PRUNE: Contender = own("cache-prune", &["prune", "-q", "--cache-dir", "DIR"]);
const RM: Contender = program(BASELINE, &["rm", "-rf", "DIR"]);

/// The contender that the chart compares with.
pub(crate) const BASELINE: &str = "rm -rf";

/// The protocol that the pruner replaced.
pub(crate) const ORIGINAL: &str = "tally, rename aside, remove";

/// For removing a cache.
pub(crate) const PRUNE: &[Contender] = &[
    CACHE_PRUNE,
    RM,
    Contender { name: ORIGINAL, work: Work::Original },
    program("find -delete", &["find", "DIR", "-type", "f", "-delete"]),
    program("rmz", &["rmz", "DIR"]),
];

/// The name of the dry run.
pub(crate) const DRY_RUN_NAME: &str = "cache-prune --dry-run";
/// Hashing with all cores.
pub(crate) const OPENSSL: &str = "openssl dgst, all cores";
/// Reading without hashing.
pub(crate) const CAT: &str = "cat";

/// For removing a cache, beside the baseline only.
pub(crate) const BESIDE_BASELINE: &[Contender] = &[CACHE_PRUNE, RM];

/// For removing a cache beside nothing else.
pub(crate) const ALONE: &[Contender] = &[CACHE_PRUNE];

const CACHE_DRY_RUN: Contender = own(DRY_RUN_NAME, &["prune", "--dry-run", "-q", "--cache-dir", "DIR"]);

/// For summarising a cache.
pub(crate) const USAGE: &[Contender] =
    &[own("cache-usage", &["usage", "-q", "--cache-dir", "DIR"]), CACHE_DRY_RUN];

/// For counting a cache.
pub(crate) const DRY_RUN: &[Contender] = &[
    CACHE_DRY_RUN,
    program("du -sb", &["du", "-sb", "DIR"]),
    program("diskus", &["diskus", "DIR"]),
    program("pdu", &["pdu", "DIR"]),
];

/// For hashing a cache.
pub(crate) const VERIFY: &[Contender] = &[
    own("cache-verify", &["verify", "-q", "--cache-dir", "DIR"]),
    program(OPENSSL, &["xargs", "-0", "-a", "LIST", "-n1", "-PCORES", "openssl", "dgst", "-sha256"]),
    program("sha256sum", &["sha256sum", "FILES"]),
    program(CAT, &["cat", "FILES"]),
];

/// For the time during which a cache is half-gone.
pub(crate) const HALF_GONE: &[Contender] =
    &[CACHE_PRUNE, own("cache-prune --aside", &["prune", "--aside", "-q", "--cache-dir", "DIR"]), RM];

/// For the lower limit of removing a cache.
pub(crate) const UNLINK_LIMIT: &[Contender] = &[
    CACHE_PRUNE,
    Contender { name: "unlinkat, inode order", work: Work::Loop(UnlinkLoop { by_inode: true, threads: 1 }) },
    Contender {
        name: "unlinkat, inode order, 2 threads",
        work: Work::Loop(UnlinkLoop { by_inode: true, threads: 2 }),
    },
    Contender {
        name: "unlinkat, directory order",
        work: Work::Loop(UnlinkLoop { by_inode: false, threads: 1 }),
    },
    Contender {
        name: "unlinkat, directory order, 2 threads",
        work: Work::Loop(UnlinkLoop { by_inode: false, threads: 2 }),
    },
    RM,
];

impl Contender {
    /// The command, as the document shows it.
    pub(crate) fn description(&self) -> String {
        match self.work {
            Work::Own(arguments) => format!("oci-cache {}", arguments.join(" ")),
            Work::Program(arguments) => arguments.join(" "),
            Work::Loop(_) | Work::Original => "within the benchmark's own process".to_owned(),
        }
    }

    /// What it needs and is not installed.
    pub(crate) fn missing(&self, pruner: &Path) -> Option<String> {
        match self.work {
            Work::Own(arguments) => {
                let command = arguments.first()?;
                (!has_command(pruner, command)).then(|| format!("no command `{command}`"))
            }
            Work::Program(arguments) => programs_in(arguments)
                .find(|program| programs::find(program).is_none())
                .map(|program| format!("`{program}` is not installed")),
            Work::Loop(_) | Work::Original => None,
        }
    }

    /// The programs that it starts.
    pub(crate) fn programs<'a>(&self, pruner: &'a Path) -> Vec<&'a OsStr> {
        match self.work {
            Work::Own(_) => vec![pruner.as_os_str()],
            Work::Program(arguments) => programs_in(arguments).map(OsStr::new).collect(),
            Work::Loop(_) | Work::Original => Vec::new(),
        }
    }

    /// The program and its arguments for one run.
    pub(crate) fn command_line(&self, pruner: &Path, cache: &Cache) -> anyhow::Result<Vec<OsString>> {
        let mut line = Vec::new();
        let arguments = match self.work {
            Work::Own(arguments) => {
                line.push(pruner.into());
                arguments
            }
            Work::Program(arguments) => arguments,
            Work::Loop(_) | Work::Original => &[],
        };
        for argument in arguments {
            match *argument {
                "DIR" => line.push(cache.path().into()),
                "LIST" => line.push(cache.list()?.into()),
                "FILES" => line.extend(cache.blobs().iter().map(OsString::from)),
                "-PCORES" => line.push(format!("-P{}", cores()?).into()),
                argument => line.push(argument.into()),
            }
        }
        Ok(line)
    }
}

/// The programs in a command line: the first, and the one that `xargs` starts.
fn programs_in(arguments: &[&'static str]) -> impl Iterator<Item = &'static str> {
    let first = arguments.first().copied();
    let started = arguments.iter().copied().find(|argument| *argument == "openssl");
    first.into_iter().chain(started)
}

/// All programs that take part, without duplicates.
pub(crate) fn all_programs() -> Vec<&'static str> {
    let mut all = Vec::new();
    for contender in [PRUNE, DRY_RUN, VERIFY].concat() {
        if let Work::Program(arguments) = contender.work {
            all.extend(programs_in(arguments).filter(|program| !all.contains(program)).collect::<Vec<_>>());
        }
    }
    all
}

fn has_command(pruner: &Path, command: &str) -> bool {
    let mut help = Command::new(pruner);
    help.args([command, "--help"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    help.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        let pruner = Path::new("/nonexistent");
        assert_eq!(RM.missing(pruner), None);
        let absent = program("absent", &["no-such-program-anywhere", "DIR"]);
        assert_eq!(absent.missing(pruner).unwrap(), "`no-such-program-anywhere` is not installed");
        assert_eq!(CACHE_PRUNE.missing(pruner).unwrap(), "no command `prune`");
    }

    #[test]
    fn programs_are_named_once() {
        let all = all_programs();
        assert_eq!(all, ["rm", "find", "rmz", "du", "diskus", "pdu", "xargs", "openssl", "sha256sum", "cat"]);
    }
}
