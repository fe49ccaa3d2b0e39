//! Fuzzing: random input, guided by coverage, for all that reads what others wrote. The targets are in `fuzz/`.
//!
//! Guarantees: what a target finds is told, counted, and fails the command. New inputs go to a temporary directory, so the
//! corpus in `fuzz/corpus` stays as it is; an input that finds something goes to `fuzz/artifacts`. No nightly toolchain is
//! needed.
//!
//! What it does not guarantee: that what was not found is not there.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use oci_cache_cli::exit::Exit;
use oci_cache_cli::output;
use tempfile::TempDir;

use crate::kit::process::{self, Ended};
use crate::kit::workspace::workspace;
use crate::kit::{machine, programs, section, table};

/// How long a target may take beyond its time, to be built and to start.
const SPARE: Duration = Duration::from_secs(1800);
/// The memory that a target may take, in MiB, and the longest time for one input, in seconds.
const MAX_MEBIBYTES: u32 = 512;
const MAX_SECONDS: u32 = 10;
/// The length of an input, in bytes.
const MAX_BYTES: u32 = 1 << 16;
/// How many lines to show of a target that found something.
const SHOWN: usize = 40;

/// The arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u32,
    /// Run this target only
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "publish")]
    only: Option<Target>,
    /// Write the figures into docs/reliability.md
    #[arg(long)]
    publish: bool,
}

/// The targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The rewritten index.json
    Index,
    /// What a layout's index leads to
    Manifests,
    /// Saved plans
    Plan,
    /// Lists of what to keep
    Keep,
    /// Lines to the JSON-RPC server
    #[value(name = "json_rpc")]
    JsonRpc,
}

impl Target {
    const ALL: [Self; 5] = [Self::Index, Self::Manifests, Self::Plan, Self::Keep, Self::JsonRpc];

    const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Manifests => "manifests",
            Self::Plan => "plan",
            Self::Keep => "keep",
            Self::JsonRpc => "json_rpc",
        }
    }

    /// What it feeds, and what must hold.
    const fn story(self) -> &'static str {
        match self {
            Self::Index => "`index.json` as it is rewritten",
            Self::Manifests => "indexes and manifests of a layout",
            Self::Plan => "saved plans",
            Self::Keep => "lists of what to keep",
            Self::JsonRpc => "lines to the JSON-RPC server",
        }
    }
}

/// What a target did.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    target: Target,
    executions: u64,
    /// The edges of the program that were reached, and how many there are.
    covered: u64,
    edges: u64,
    seconds: u64,
    peak_mebibytes: u64,
    findings: u64,
}

/// Runs the targets one after the other and prints the table.
///
/// # Errors
///
/// If cargo-fuzz is missing, a target cannot be built, or a target finds something.
pub(crate) fn run(arguments: &FuzzArguments) -> anyhow::Result<Exit> {
    ensure!(
        programs::find("cargo-fuzz").is_some(),
        "fuzz needs `cargo-fuzz`, which is not on the search path: cargo install cargo-fuzz --locked"
    );
    let scratch = TempDir::with_prefix("oci-cache-fuzz-").context("make a temporary directory")?;
    let started = Instant::now();
    let mut rows = Vec::new();
    for target in Target::ALL.into_iter().filter(|target| arguments.only.is_none_or(|only| only == *target)) {
        output::complain(&format!("fuzz: {} for {} s", target.name(), arguments.seconds));
        rows.push(run_target(target, arguments.seconds, scratch.path())?);
    }
    let printed = output::print(&told(&rows))?;
    if arguments.publish {
        let command = format!("cargo xtask fuzz --seconds {} --publish", arguments.seconds);
        let source = machine::source(&command, started.elapsed())?;
        let measured = format!("\n{source}\n\n{}\n", told(&rows));
        section::write_named(&workspace().join("docs/reliability.md"), "fuzz", &measured)?;
    }
    match rows.iter().map(|row| row.findings).sum::<u64>() {
        0 => Ok(printed),
        findings => bail!("fuzz: {findings} target(s) found something; the inputs are in fuzz/artifacts"),
    }
}

fn run_target(target: Target, seconds: u32, scratch: &Path) -> anyhow::Result<Row> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo_fuzz = |command: &str| {
        let mut cargo = Command::new(&cargo);
        cargo.current_dir(workspace()).env("TMPDIR", scratch);
        // A sanitizer would need a nightly toolchain. What parses has no `unsafe`.
        cargo.args(["fuzz", command, "--fuzz-dir", "fuzz", "--sanitizer", "none", target.name()]);
        cargo
    };
    process::must(&mut cargo_fuzz("build"), SPARE)?;
    let new = scratch.join(target.name());
    std::fs::create_dir(&new).with_context(|| format!("make `{}`", new.display()))?;
    let mut command = cargo_fuzz("run");
    command
        .arg(new)
        .arg(workspace().join("fuzz/corpus").join(target.name()))
        .args(["--", "-print_final_stats=1"]);
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_BYTES}")]);
    command.args([format!("-rss_limit_mb={MAX_MEBIBYTES}"), format!("-timeout={MAX_SECONDS}")]);
    let started = Instant::now();
    let ended = process::run(&mut command, SPARE + Duration::from_secs(seconds.into()))?;
    let row = Row { seconds: started.elapsed().as_secs(), ..row_of(target, &ended)? };
    if row.findings > 0 {
        let lines: Vec<&str> = ended.stderr.lines().collect();
        output::complain(&lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
    }
    Ok(row)
}

/// What a target says that it did.
fn row_of(target: Target, ended: &Ended) -> anyhow::Result<Row> {
    let number_after = |start: &str| {
        let after = ended.stderr.rsplit_once(start)?.1;
        after.split_whitespace().next()?.trim_matches(['(', ',']).parse::<u64>().ok()
    };
    let executions = number_after("stat::number_of_executed_units:");
    Ok(Row {
        target,
        executions: executions
            .with_context(|| format!("{} did not run: {}", target.name(), ended.story()))?,
        covered: number_after(" cov: ").unwrap_or(0),
        edges: number_after("Loaded 1 modules ").unwrap_or(0),
        seconds: 0,
        peak_mebibytes: number_after("stat::peak_rss_mb:").unwrap_or(0),
        findings: u64::from(ended.code != Some(0)),
    })
}

fn told(rows: &[Row]) -> String {
    let header = ["target", "input", "executions", "covered edges", "time", "peak memory", "findings"];
    let mut cells = vec![header.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.target.name().to_owned(),
            row.target.story().to_owned(),
            row.executions.to_string(),
            format!("{} of {}", row.covered, row.edges),
            format!("{} s", row.seconds),
            format!("{} MiB", row.peak_mebibytes),
            row.findings.to_string(),
        ]
    }));
    table::markdown(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stderr: &str) -> Ended {
        Ended { code: Some(code), stdout: String::new(), stderr: stderr.to_owned(), peak_kibibytes: 0 }
    }

    const SAID: &str = "\
INFO: Loaded 1 modules   (60123 inline 8-bit counters): 60123 [0x1, 0x2),
#2	INITED cov: 100 ft: 101 corp: 1/1b exec/s: 0 rss: 30Mb
#99	DONE   cov: 1543 ft: 9000 corp: 200/9Kb lim: 80 exec/s: 9 rss: 31Mb
Done 99 runs in 11 second(s)
stat::number_of_executed_units: 99
stat::peak_rss_mb:              32
";

    #[test]
    fn a_row_has_the_last_figures() {
        let row = row_of(Target::Keep, &ended(0, SAID)).unwrap();
        assert_eq!((row.executions, row.covered, row.edges), (99, 1543, 60123));
        assert_eq!((row.peak_mebibytes, row.findings), (32, 0));
        assert!(
            told(&[row]).contains("| keep   | lists of what to keep | 99         | 1543 of 60123 | 0 s  |")
        );
        assert_eq!(row_of(Target::Keep, &ended(77, SAID)).unwrap().findings, 1);
    }

    #[test]
    fn a_target_that_did_not_run_is_an_error() {
        assert!(row_of(Target::Plan, &ended(1, "error: no such target\n")).is_err());
    }
}
