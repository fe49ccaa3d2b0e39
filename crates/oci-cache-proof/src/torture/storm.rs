//! Pulls in separate processes, beside prunes without a pause.
//!
//! Guarantees: every file system has pulls of four manners at once. A pull that breaks is counted by its
//! step, and not retried. Where every read is recorded, a prune with a grace removes only what has been idle for
//! that long. No pull may break, except that a few may look up an idle blob with `stat(2)` alone, which nobody
//! sees, and find it gone when they open it. With a grace of zero, no pull may break because of a missing
//! directory, a lost temporary file or wrong content; a few may find a blob gone when they reopen it. A few pulls may
//! stall until their file is old enough to be removed; these are counted separately. An open blob stays where leases
//! work. The negative controls are prunes aside and an age that is too low: each must break pulls in its own way.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::kit::process::{self, Running};
use crate::torture::mode::command;
use crate::torture::mounts::{self, FileSystem, Mount, Recording};
use crate::torture::nested_pull::{LOST_WHILE_OPEN, OPEN_AFTER_STAT, OVERSLEPT};
use crate::torture::puller::{Manner, Pulled, REOPENS, TOO_EARLY};
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use oci_cache_cli::output;

/// The number of pullers per manner.
const PULLERS: u64 = 2;
const MOST_PULLERS: u64 = 32;
/// The age for `--older-than`.
const AGE: Duration = Duration::from_secs(2);
/// This many breaks are always few. Above that, one in a thousand pulls is few.
const FEW: u64 = 10;
/// The maximum number of rounds.
const MOST_ROUNDS: u64 = 16;
const PRUNE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Removes what has been idle for a second; every read is recorded.
    InPlace,
    /// Removes whatever is not in use.
    NoGrace,
    /// As with no grace; the pulls stall for longer than a prune looks.
    Stalled,
    OlderThan,
    /// The age is far below that within which pulls use blobs.
    TooYoung,
    Aside,
}

impl Strategy {
    const fn name(self) -> &'static str {
        match self {
            Self::InPlace => "--grace 1s",
            Self::NoGrace => "--grace 0s",
            Self::Stalled => "--grace 0s, pulls stall for 0.7 s",
            Self::OlderThan => "--older-than 2s --grace 2s",
            Self::TooYoung => "--older-than 100ms --grace 100ms (must break)",
            Self::Aside => "aside (must break)",
        }
    }

    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::InPlace => &["--grace", "1s"],
            Self::NoGrace | Self::Stalled => &["--grace", "0s"],
            Self::OlderThan => &["--older-than", "2s", "--grace", "2s"],
            Self::TooYoung => &["--older-than", "100ms", "--grace", "100ms"],
            Self::Aside => &["--aside"],
        }
    }

    /// The age within which pulls use blobs. Zero if they use any blob at any time.
    const fn age(self) -> Duration {
        match self {
            Self::OlderThan | Self::TooYoung => AGE,
            _ => Duration::ZERO,
        }
    }

    fn pullers(self, manner: Manner) -> u64 {
        match self {
            // Pulls that stall do little, so there are many.
            Self::Stalled => {
                if manner == Manner::Renamed {
                    MOST_PULLERS
                } else {
                    0
                }
            }
            _ => PULLERS,
        }
    }

    const fn stall(self) -> Duration {
        match self {
            Self::Stalled => Duration::from_millis(700),
            _ => Duration::ZERO,
        }
    }

    /// How many of `pulls` pulls may break at this step.
    fn most_breaks(self, step: &str, is_fuse: bool, pulls: u64) -> u64 {
        let few = FEW.max(pulls / 1000);
        match self {
            Self::Stalled | Self::TooYoung | Self::Aside => u64::MAX,
            _ if step == OVERSLEPT => few,
            // A lookup without an open leaves no trace, and the blob has been idle for the grace.
            Self::InPlace if step == OPEN_AFTER_STAT => few,
            Self::NoGrace if REOPENS.contains(&step) => few,
            // FUSE looks a name up before it opens it. A create that races with the removal of the same name
            // fails with "no such file", whichever program removes it, although the directory always exists.
            _ if is_fuse && step == "create" => few,
            // FUSE has no leases.
            _ if is_fuse && step == LOST_WHILE_OPEN => u64::MAX,
            _ => 0,
        }
    }

    /// Whether a break at this step proves that the negative control works.
    fn is_shown_by(self, step: &str) -> bool {
        match self {
            Self::Aside => matches!(step, "mkdir" | "create" | "rename"),
            _ => step == TOO_EARLY,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Aside | Self::TooYoung)
    }
}

/// When a storm may end.
struct Target {
    pulls: u64,
    unlinks: u64,
    round: Duration,
    rounds: u64,
}

/// Runs a storm for every file system and strategy.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file_system in FileSystem::ALL {
        let path = stage.scratch.join("storm").join(file_system.name());
        let mount = mounts::mount(file_system, &path, Recording::Every)?;
        for strategy in strategies(file_system) {
            output::complain(&format!("torture: storm on {}, {}", file_system.name(), strategy.name()));
            rows.push(storm(stage, file_system, &mount, strategy)?);
        }
        mount.unmount()?;
    }
    Ok(rows)
}

/// Overlay and bindfs do not record every read, whatever the mount options, so ages mean less there.
fn strategies(file_system: FileSystem) -> Vec<Strategy> {
    match file_system {
        FileSystem::Overlay | FileSystem::Bindfs => vec![Strategy::NoGrace],
        FileSystem::Ext4 => vec![
            Strategy::InPlace,
            Strategy::NoGrace,
            Strategy::Stalled,
            Strategy::OlderThan,
            Strategy::TooYoung,
            Strategy::Aside,
        ],
        _ => vec![Strategy::InPlace, Strategy::OlderThan],
    }
}

fn target(stage: &Stage, file_system: FileSystem, strategy: Strategy) -> Target {
    let round = Duration::from_secs(if stage.quick { 6 } else { 15 });
    let is_main = matches!(file_system, FileSystem::Ext4 | FileSystem::Xfs);
    match (stage.quick, strategy) {
        (true, _) | (_, Strategy::Aside | Strategy::TooYoung | Strategy::Stalled) => {
            Target { pulls: 0, unlinks: 0, round, rounds: 1 }
        }
        (false, _) if is_main => Target { pulls: 80_000, unlinks: 20_000, round, rounds: MOST_ROUNDS },
        (false, _) => Target { pulls: 20_000, unlinks: 5_000, round, rounds: 4 },
    }
}

fn storm(stage: &Stage, file_system: FileSystem, mount: &Mount, strategy: Strategy) -> anyhow::Result<Row> {
    let mut row = Row::new("storm", file_system.name(), strategy.name());
    let target = target(stage, file_system, strategy);
    let mut details = Vec::new();
    for round in 0..target.rounds {
        details.extend(blow(stage, mount, strategy, round, target.round, &mut row)?);
        if row.pulls >= target.pulls && row.unlinks >= target.unlinks {
            break;
        }
    }
    let (pulls, unlinks) = (row.pulls, row.unlinks);
    row.check(pulls >= target.pulls && unlinks >= target.unlinks.max(1), || {
        format!("{pulls} pulls and {unlinks} unlinks are too few")
    });
    let has_shown = row.breaks.iter().any(|(step, _)| strategy.is_shown_by(step));
    row.check(!strategy.is_control() || has_shown, || {
        "the negative control saw no such break, so the other storms prove nothing".to_owned()
    });
    let is_fuse = file_system == FileSystem::Bindfs;
    for (step, count) in row.breaks.clone().iter() {
        let most = strategy.most_breaks(step, is_fuse, pulls);
        if count > most {
            row.lose_many(count - most, format!("{count} pulls broke ({step}), {most} may"));
        }
    }
    if row.lost > 0 {
        row.details.append(&mut details);
    }
    Ok(row)
}

/// Runs one round. Returns what broken pulls reported.
fn blow(
    stage: &Stage,
    mount: &Mount,
    strategy: Strategy,
    round: u64,
    time: Duration,
    row: &mut Row,
) -> anyhow::Result<Vec<String>> {
    let mut pullers = Vec::new();
    for (position, manner) in (0..).zip(Manner::ALL) {
        for number in 0..strategy.pullers(manner) {
            // Storms on the same mount use different names. Blobs of an earlier storm are older than the
            // pulls of the next one assume.
            let storms = strategy as u64 * MOST_ROUNDS + round;
            let id = (storms * Manner::ALL.len() as u64 + position) * MOST_PULLERS + number + 1;
            pullers.push((manner, start_puller(stage, mount, manner, id, time, strategy)?));
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
    let mut details = Vec::new();
    for (manner, puller) in pullers {
        let ended = puller.finish(time + PRUNE_LIMIT)?;
        let pulled: Pulled = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("a {} puller: {}", manner.name(), ended.story()))?;
        details.extend(row.add(pulled));
    }
    Ok(details)
}

fn start_puller(
    stage: &Stage,
    mount: &Mount,
    manner: Manner,
    id: u64,
    time: Duration,
    strategy: Strategy,
) -> anyhow::Result<Running> {
    let mut command = stage.role("puller");
    command.arg(manner.name()).arg(manner.cache(&mount.path));
    let times = [time, strategy.age(), strategy.stall()].map(|time| time.as_millis());
    let numbers = [u128::from(id)].into_iter().chain(times).map(|number| number.to_string());
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
        let mut prune = command(&stage.program, "prune", &manner.cache(&mount.path));
        let ended = process::run(prune.args(strategy.flags()), PRUNE_LIMIT)?;
        row.executions += 1;
        row.unlinks += ended.number("blobs_freed").unwrap_or(0);
        // A late file can keep what was taken aside. Code 1 reports that.
        let is_good = ended.code == Some(0) || strategy == Strategy::Aside && ended.code == Some(1);
        row.check(is_good, || format!("a prune: {}", ended.story()));
    }
    Ok(row)
}
