//! Pulls in processes of their own, beside prunes without pause.
//!
//! Guarantees: on every file system three manners of pulling at once; a pull that breaks is counted by its
//! kind and not tried again. Under `--older-than`, with the age for which the pulls use blobs, none may
//! break. Without it none may break by a missing directory, a lost temporary file or wrong content; one that
//! looks a blob up and finds it gone when it opens it again is counted. One that itself stalled until its
//! file may go is counted as overslept. Aside is the negative control: there pulls must be seen to break.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::mode::command;
use super::mounts::{self, FileSystem, Mount};
use super::process::{self, Running};
use super::puller::{Manner, OVERSLEPT, Pulled, REOPENS};
use super::row::Row;
use super::{Stage, note};

/// How many pullers there are of each manner.
const PULLERS: u64 = 2;
/// The age under `--older-than`.
const AGE: Duration = Duration::from_secs(2);
/// The most rounds of a storm.
const MOST_ROUNDS: u64 = 16;
const PRUNE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    InPlace,
    OlderThan,
    Aside,
}

impl Strategy {
    const fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::OlderThan => "--older-than 2s",
            Self::Aside => "aside (must break)",
        }
    }

    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::InPlace => &[],
            Self::OlderThan => &["--older-than", "2s"],
            Self::Aside => &["--aside"],
        }
    }

    /// Whether a pull may break at the step.
    fn may_break(self, step: &str) -> bool {
        match self {
            Self::InPlace => step == OVERSLEPT || REOPENS.contains(&step),
            Self::OlderThan => step == OVERSLEPT,
            Self::Aside => true,
        }
    }
}

/// How long a storm goes on.
struct Target {
    pulls: u64,
    unlinks: u64,
    round: Duration,
    rounds: u64,
}

pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file_system in FileSystem::ALL {
        let path = stage.scratch.join("storm").join(file_system.name());
        let mount = mounts::mount(file_system, &path)?;
        for strategy in strategies(file_system) {
            note(&format!("storm on {}, {}", file_system.name(), strategy.name()));
            rows.push(storm(stage, file_system, &mount, strategy)?);
        }
        mount.unmount()?;
    }
    Ok(rows)
}

/// Overlay and bindfs do not record every read, whatever the mount says, so ages mean less there.
fn strategies(file_system: FileSystem) -> Vec<Strategy> {
    match file_system {
        FileSystem::Overlay | FileSystem::Bindfs => vec![Strategy::InPlace],
        FileSystem::Ext4 => vec![Strategy::InPlace, Strategy::OlderThan, Strategy::Aside],
        _ => vec![Strategy::InPlace, Strategy::OlderThan],
    }
}

fn target(stage: &Stage, file_system: FileSystem, strategy: Strategy) -> Target {
    let round = Duration::from_secs(if stage.quick { 6 } else { 15 });
    let is_main = matches!(file_system, FileSystem::Ext4 | FileSystem::Xfs);
    match (stage.quick, strategy) {
        (true, _) | (_, Strategy::Aside) => Target { pulls: 0, unlinks: 0, round, rounds: 1 },
        (false, _) if is_main => Target { pulls: 80_000, unlinks: 20_000, round, rounds: MOST_ROUNDS },
        (false, _) => Target { pulls: 20_000, unlinks: 5_000, round, rounds: 4 },
    }
}

fn storm(stage: &Stage, file_system: FileSystem, mount: &Mount, strategy: Strategy) -> anyhow::Result<Row> {
    let mut row = Row::new("storm", file_system.name(), strategy.name());
    let target = target(stage, file_system, strategy);
    for round in 0..target.rounds {
        blow(stage, mount, strategy, round, target.round, &mut row)?;
        if row.pulls >= target.pulls && row.unlinks >= target.unlinks {
            break;
        }
    }
    let (pulls, unlinks) = (row.pulls, row.unlinks);
    row.check(pulls >= target.pulls && unlinks >= target.unlinks.max(1), || {
        format!("{pulls} pulls and {unlinks} unlinks show too little")
    });
    let has_broken = !row.breaks.is_empty();
    row.check(strategy != Strategy::Aside || has_broken, || {
        "the negative control saw no break, so nothing is shown by the others".to_owned()
    });
    Ok(row)
}

/// One round.
fn blow(
    stage: &Stage,
    mount: &Mount,
    strategy: Strategy,
    round: u64,
    time: Duration,
    row: &mut Row,
) -> anyhow::Result<()> {
    let age = if strategy == Strategy::OlderThan { AGE } else { Duration::ZERO };
    let mut pullers = Vec::new();
    for (position, manner) in (0..).zip(Manner::ALL) {
        for number in 0..PULLERS {
            // No two storms on a mount share names: what one leaves is older than the next one's pulls believe.
            let id = ((strategy as u64 * MOST_ROUNDS + round) * 3 + position) * PULLERS + number + 1;
            pullers.push((manner, start_puller(stage, mount, manner, id, time, age)?));
        }
    }
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        let pruners = [Manner::Flat, Manner::Renamed]
            .map(|manner| scope.spawn(move || prune_until(stage, mount, manner, strategy, end)));
        for pruner in pruners {
            row.merge(pruner.join().map_err(|_| anyhow::anyhow!("a pruner panicked"))??);
        }
        anyhow::Ok(())
    })?;
    for (manner, puller) in pullers {
        let ended = puller.finish(time + PRUNE_LIMIT)?;
        let pulled: Pulled = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("a {} puller: {}", manner.name(), ended.story()))?;
        count(row, strategy, pulled);
    }
    Ok(())
}

fn start_puller(
    stage: &Stage,
    mount: &Mount,
    manner: Manner,
    id: u64,
    time: Duration,
    age: Duration,
) -> anyhow::Result<Running> {
    let mut command = Command::new(&stage.program);
    command.args(["torture", "--", "puller", manner.name()]).arg(manner.cache(&mount.path));
    let numbers = [u128::from(id), time.as_millis(), age.as_millis()].map(|number| number.to_string());
    process::start(command.args(numbers), None)
}

fn prune_until(
    stage: &Stage,
    mount: &Mount,
    manner: Manner,
    strategy: Strategy,
    end: Instant,
) -> anyhow::Result<Row> {
    let mut row = Row::default();
    while Instant::now() < end {
        let mut prune = command(&stage.program, "cache-prune", &manner.cache(&mount.path));
        let ended = process::run(prune.args(strategy.flags()), PRUNE_LIMIT)?;
        row.executions += 1;
        row.unlinks += ended.number("blobs_freed").unwrap_or(0);
        // Late files can keep an aside: that is told by code 1.
        let is_good = ended.code == Some(0) || strategy == Strategy::Aside && ended.code == Some(1);
        row.check(is_good, || format!("a prune: {}", ended.story()));
    }
    Ok(row)
}

fn count(row: &mut Row, strategy: Strategy, pulled: Pulled) {
    row.pulls += pulled.pulls;
    // FUSE looks a name up before it opens it: a create that runs into the removal of the same name, by
    // whatever program, is told that there is no such file, in a directory that was there all the time.
    let is_fuse = row.file_system == FileSystem::Bindfs.name();
    for (step, count) in pulled.breaks {
        let may_break = strategy.may_break(&step) || is_fuse && step == "create";
        for _ in (0..count).filter(|_| !may_break) {
            row.lose(format!("a pull broke ({step}): {}", pulled.details.join("; ")));
        }
        *row.breaks.entry(step).or_default() += count;
    }
}
