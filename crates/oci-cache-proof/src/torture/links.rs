//! A user plays with links around the files that root's program writes: metrics, saved plans, summaries.
//!
//! Guarantees: for each output and each trick, the program runs again and again while the user swaps two names, each time
//! in one atomic step. One of them leads to root's canary, or makes whoever opens it wait. The canary must keep its content,
//! mode, owner and inode, no new file may appear beside it, and every run must end by itself. Where nobody plays, the output
//! must be written. A writer by path runs too and must lose, which proves that the detector sees a loss.
//!
//! Source: `proc_sys_fs(5)`, `protected_symlinks`, `protected_hardlinks`, `protected_fifos`, `protected_regular`.

pub(crate) mod naive;
mod yard;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::kit::process::{self, Running};
use crate::torture::links::yard::{Trick, Yard};
use crate::torture::mode::command;
use crate::torture::row::Row;
use crate::torture::stage::Stage;

/// A run beyond this counts as hung.
const LIMIT: Duration = Duration::from_secs(10);
const SWAPPER_LIMIT: Duration = Duration::from_secs(60);
/// The name of the negative control.
const BY_PATH: &str = "by path (must lose)";
/// The least number of swaps in a full run, and in a quick one.
const MIN_SWAPS: [u64; 2] = [100_000, 5_000];
/// The least number of runs for each output.
const MIN_RUNS: [u64; 2] = [500, 40];

/// What the program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Metrics,
    Plan,
    Summary,
}

impl Output {
    const ALL: [Self; 3] = [Self::Metrics, Self::Plan, Self::Summary];

    const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "--metrics-file",
            Self::Plan => "--save-plan",
            Self::Summary => "--github-summary",
        }
    }

    /// A prune that removes nothing and writes this output.
    fn command(self, stage: &Stage, cache: &Path, path: &Path) -> Command {
        let mut prune = command(&stage.program, "prune", cache);
        prune.args(["--older-than", "100y"]);
        match self {
            Self::Metrics => drop(prune.arg("--metrics-file").arg(path)),
            Self::Plan => drop(prune.args(["--dry-run", "--save-plan"]).arg(path)),
            Self::Summary => drop(prune.arg("--github-summary").env("GITHUB_STEP_SUMMARY", path)),
        }
        prune
    }
}

/// Plays around each output, then around the negative control.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for output in Output::ALL {
        let mut row = Row::new("links", "tmpfs", output.name());
        write_in_peace(stage, output, &mut row)?;
        for trick in Trick::ALL {
            play(stage, output, trick, &mut row)?;
        }
        let (runs, least) = (row.executions, MIN_RUNS[usize::from(stage.quick)]);
        row.check(runs >= least, || format!("{runs} runs are too few"));
        rows.push(row);
    }
    let mut control = Row::new("links", "tmpfs", BY_PATH);
    for trick in [Trick::Directory, Trick::Parent, Trick::File] {
        lose_by_path(stage, trick, &mut control)?;
    }
    let (swaps, least) = (rows.iter().map(|row| row.swaps).sum::<u64>(), MIN_SWAPS[usize::from(stage.quick)]);
    control.check(swaps >= least, || format!("{swaps} swaps in total are too few"));
    rows.push(control);
    Ok(rows)
}

/// Where only root may write, the output must be written: a program that refuses all would pass the rest.
fn write_in_peace(stage: &Stage, output: Output, row: &mut Row) -> anyhow::Result<()> {
    let yard = Yard::new(stage, Trick::File)?;
    let path = yard.peace()?;
    let ended = process::run(&mut output.command(stage, &yard.cache(), &path), LIMIT)?;
    let size_bytes = fs::metadata(&path).map_or(0, |status| status.len());
    row.check(ended.code == Some(0) && size_bytes > 0, || {
        format!("in peace, {size_bytes} bytes are written: {}", ended.story())
    });
    Ok(())
}

/// Writes an output again and again while the user plays a trick.
fn play(stage: &Stage, output: Output, trick: Trick, row: &mut Row) -> anyhow::Result<()> {
    let time = Duration::from_millis(if stage.quick { 500 } else { 5_000 });
    let yard = Yard::new(stage, trick)?;
    let swapper = yard.swapper(stage, time)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        yard.mend_beside(&swapper)?;
        let ended = process::run(&mut output.command(stage, &yard.cache(), &yard.output()), LIMIT)?;
        row.executions += 1;
        row.check(ended.is_documented(), || format!("{trick:?}: {}", ended.story()));
        if ended.code.is_none() {
            break;
        }
    }
    let swaps = swaps_of(swapper)?;
    row.swaps += swaps;
    row.check(swaps > 0, || format!("{trick:?}: nothing was swapped"));
    let change = yard.change()?;
    row.check(change.is_none(), || format!("{trick:?}: the canary: {}", change.unwrap_or_default()));
    Ok(())
}

/// Lets a writer by path run. It must lose, or the tricks prove nothing.
fn lose_by_path(stage: &Stage, trick: Trick, row: &mut Row) -> anyhow::Result<()> {
    let time = Duration::from_secs(if stage.quick { 5 } else { 20 });
    let yard = Yard::new(stage, trick)?;
    let swapper = yard.swapper(stage, time)?;
    let end = Instant::now() + time;
    let mut change = None;
    while change.is_none() && Instant::now() < end {
        yard.mend_beside(&swapper)?;
        let mut naive = stage.role("by-path");
        naive.arg(yard.output());
        let ended = process::run(&mut naive, LIMIT)?;
        ensure!(ended.code == Some(0), "the writer by path: {}", ended.story());
        row.executions += 1;
        change = yard.change()?;
    }
    swapper.signal(Signal::KILL);
    swapper.finish(SWAPPER_LIMIT)?;
    row.check(change.is_some(), || {
        format!("{trick:?}: the writer by path lost nothing, so the trick proves nothing")
    });
    Ok(())
}

fn swaps_of(swapper: Running) -> anyhow::Result<u64> {
    let swapped = swapper.finish(SWAPPER_LIMIT)?;
    swapped.stdout.trim().parse().with_context(|| format!("the swapper: {}", swapped.story()))
}
