//! An unprivileged user swaps names for links to a canary while root prunes.
//!
//! Guarantees: one pair of names is swapped at a time. Each swap is one atomic step, and swaps follow each
//! other as fast as the kernel allows. A pruner that works by path runs too and must lose, which proves that
//! the detector sees a loss. One strategy runs without Landlock, because Landlock would hide that the pruner
//! followed a link.

mod arena;
pub(crate) mod roles;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::kit::process::{self, Running};
use crate::torture::attack::arena::{Arena, Pair};
use crate::torture::mode::command;
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use crate::torture::strace::under_strace;

const PRUNE_LIMIT: Duration = Duration::from_secs(60);
/// The name of the negative control.
const BY_PATH: &str = "by path (must lose)";
/// The minimum number of swaps in a full run.
const MIN_SWAPS: u64 = 100_000;

/// How root prunes.
#[derive(Debug)]
struct Strategy {
    name: &'static str,
    flags: &'static [&'static str],
    is_layout: bool,
    /// Landlock would hide that a link was followed, so one strategy runs without it.
    has_landlock: bool,
}

const STRATEGIES: [Strategy; 5] = [
    Strategy { name: "in place", flags: &[], is_layout: false, has_landlock: true },
    Strategy { name: "in place, without Landlock", flags: &[], is_layout: false, has_landlock: false },
    Strategy { name: "in place, layout", flags: &[], is_layout: true, has_landlock: true },
    Strategy {
        name: "--unreferenced, layout",
        flags: &["--unreferenced"],
        is_layout: true,
        has_landlock: true,
    },
    Strategy { name: "aside", flags: &["--aside"], is_layout: false, has_landlock: true },
];

/// Attacks every strategy, then the negative control.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for strategy in &STRATEGIES {
        rows.push(attack(stage, strategy)?);
    }
    let mut control = control(stage)?;
    let swaps: u64 = rows.iter().map(|row| row.swaps).sum();
    control.check(stage.quick || swaps >= MIN_SWAPS, || format!("{swaps} swaps in total are too few"));
    rows.push(control);
    Ok(rows)
}

/// Attacks a strategy with each pair in turn.
fn attack(stage: &Stage, strategy: &Strategy) -> anyhow::Result<Row> {
    let mut row = Row::new("attack", "tmpfs", strategy.name);
    let time = Duration::from_millis(if stage.quick { 700 } else { 3300 });
    let mut freed_something = 0;
    for pair in Pair::ALL {
        freed_something += attack_on(stage, strategy, pair, time, &mut row)?;
    }
    let Row { unlinks, swaps, executions, .. } = row;
    row.check(unlinks > 0, || "the prunes removed nothing, so this proves nothing".to_owned());
    let (least_swaps, least_prunes) = if stage.quick { (2_000, 6) } else { (25_000, 24) };
    row.check(swaps >= least_swaps, || format!("{swaps} swaps are too few"));
    row.check(executions >= least_prunes, || format!("{executions} prunes are too few"));
    // The swapper cannot protect all of a flat cache.
    let is_enough = strategy.is_layout || !strategy.flags.is_empty() || 2 * freed_something >= executions;
    row.check(is_enough, || format!("only {freed_something} of {executions} prunes freed something"));
    Ok(row)
}

/// Prunes for `time` while a pair is swapped. Returns the number of prunes that freed anything.
fn attack_on(
    stage: &Stage,
    strategy: &Strategy,
    pair: Pair,
    time: Duration,
    row: &mut Row,
) -> anyhow::Result<u64> {
    let arena = Arena::new(stage, pair, strategy.is_layout)?;
    let log = arena.path().join("strace.log");
    let mut freed_something = 0;
    let mut was_without = false;
    let swapper = arena.swapper(stage, time, strategy.is_layout)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        arena.refill_beside(&swapper)?;
        let mut prune = command(&stage.program, "prune", &arena.cache());
        prune.args(strategy.flags);
        let ended = match strategy.has_landlock {
            true => process::run(&mut prune, PRUNE_LIMIT)?,
            false => process::run(&mut without_landlock(&prune, &log), PRUNE_LIMIT)?,
        };
        was_without |= fs::read(&log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("(INJECTED)"));
        row.executions += 1;
        let freed = ended.number("blobs_freed").unwrap_or(0);
        row.unlinks += freed;
        freed_something += u64::from(freed > 0);
        row.check(ended.is_documented(), || format!("{pair:?}: a prune: {}", ended.story()));
    }
    let swaps = swaps_of(swapper)?;
    row.swaps += swaps;
    row.check(swaps > 0, || format!("{pair:?}: nothing was swapped"));
    row.check(strategy.has_landlock != was_without, || {
        format!("{pair:?}: Landlock was not in the intended state")
    });
    let change = arena.change()?;
    row.check(change.is_none(), || format!("{pair:?}: the canary: {}", change.unwrap_or_default()));
    Ok(freed_something)
}

/// The prune, on a kernel that seems to have no Landlock.
fn without_landlock(prune: &Command, log: &Path) -> Command {
    let inject = "inject=landlock_create_ruleset:error=ENOSYS";
    let options = ["--seccomp-bpf", "-e", "trace=landlock_create_ruleset", "-e", inject];
    under_strace(prune, log, &options)
}

/// Runs a pruner that works by path. It must lose, or the attack proves nothing.
fn control(stage: &Stage) -> anyhow::Result<Row> {
    let mut row = Row::new("attack", "tmpfs", BY_PATH);
    let time = Duration::from_secs(if stage.quick { 5 } else { 20 });
    let arena = Arena::new(stage, Pair::Algorithm, false)?;
    let swapper = arena.swapper(stage, time, false)?;
    let end = Instant::now() + time;
    let mut change = None;
    while change.is_none() && Instant::now() < end {
        arena.refill_beside(&swapper)?;
        let mut naive = stage.role("naive");
        naive.arg(arena.path());
        let ended = process::run(&mut naive, PRUNE_LIMIT)?;
        ensure!(ended.code == Some(0), "the pruner by path: {}", ended.story());
        row.executions += 1;
        change = arena.change()?;
    }
    swapper.signal(Signal::KILL);
    swapper.finish(PRUNE_LIMIT)?;
    row.check(change.is_some(), || {
        "the pruner by path lost nothing, so the attack proves nothing".to_owned()
    });
    Ok(row)
}

fn swaps_of(swapper: Running) -> anyhow::Result<u64> {
    let swapped = swapper.finish(PRUNE_LIMIT)?;
    swapped.stdout.trim().parse().with_context(|| format!("the swapper: {}", swapped.story()))
}
