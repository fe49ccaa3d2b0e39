//! Clients beside prunes without a pause: tests the rule for pulls that are under way.
//!
//! Guarantees: on each file system there are ten caches at once. Each has its own clients, from one that often rests
//! to many that never do, and its own prune in a loop, by one of several policies. No pull may break, unless the
//! client stalled with nothing open or its pull outlasted the grace. Blobs must go meanwhile: a storm in which
//! nothing goes proves nothing. The mounts record reads as usual (`relatime`). A layout has no image with a missing
//! blob at the end. The negative control removes files without the rule, and must break pulls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use oci_cache_cli::output;
use tempfile::TempDir;

use crate::kit::layout::problems;
use crate::kit::process::{self, Running};
use crate::torture::clients::{GONE, Manner, OUTLASTED, STALLED, begin};
use crate::torture::mode::command;
use crate::torture::mounts::{self, FileSystem, Mount, Recording};
use crate::torture::puller::Pulled;
use crate::torture::row::Row;
use crate::torture::stage::Stage;

/// The time limit of a prune, and of what clients do after their time.
const LIMIT: Duration = Duration::from_secs(60);
const EVERYTHING: &[&str] = &[];
const OLD: &[&str] = &["--older-than", "1h"];
const BUDGET: &[&str] = &["--max-used-space", "64kB"];
/// This also removes what the clients themselves use, once it has certainly been idle for two seconds.
const SHORT: &[&str] = &["--older-than", "1s", "--grace", "2s"];

/// A cache: how many clients it has, whether idle blobs arrive, and how it is pruned.
type Cache = (u64, bool, &'static [&'static str]);

const GAP: [Cache; 10] = [
    (1, false, EVERYTHING),
    (1, false, OLD),
    (1, false, BUDGET),
    (1, false, SHORT),
    (2, false, EVERYTHING),
    (1, true, EVERYTHING),
    (4, true, BUDGET),
    (4, false, SHORT),
    (16, true, OLD),
    (16, false, SHORT),
];
const LOOK_AHEAD: [Cache; 10] = [
    (1, false, EVERYTHING),
    (1, false, OLD),
    (1, false, BUDGET),
    (2, false, OLD),
    (2, false, EVERYTHING),
    (1, true, EVERYTHING),
    (16, true, BUDGET),
    (200, false, EVERYTHING),
    (200, true, OLD),
    (200, true, EVERYTHING),
];

/// The first three begin empty again and again, because everything goes when no pull is under way.
const LAYOUT: [Cache; 6] = [
    (1, false, EVERYTHING),
    (1, false, EVERYTHING),
    (1, true, EVERYTHING),
    (2, true, &["--unreferenced"]),
    (8, true, EVERYTHING),
    (40, true, OLD),
];

/// Who removes blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pruner {
    Tested,
    /// Removes every file by path, whoever uses it.
    WithoutTheRule,
}

/// What makes a storm more difficult.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    None,
    /// Eight processes that never rest.
    Busy,
}

/// One storm.
struct Storm {
    file_system: FileSystem,
    manner: Manner,
    pruner: Pruner,
    load: Load,
    /// The pulls and removed blobs after which it may end.
    pulls: u64,
    unlinks: u64,
}

impl Storm {
    fn name(&self) -> String {
        let manner = self.manner.name();
        match (self.pruner, self.load) {
            (Pruner::WithoutTheRule, Load::Busy) => {
                format!("{manner}, busy machine, without the rule (must break)")
            }
            (Pruner::WithoutTheRule, Load::None) => format!("{manner}, without the rule (must break)"),
            (Pruner::Tested, Load::Busy) => format!("{manner}, busy machine"),
            (Pruner::Tested, Load::None) => manner.to_owned(),
        }
    }

    const fn caches(&self) -> &'static [Cache] {
        match self.manner {
            Manner::Gap => &GAP,
            Manner::LookAhead => &LOOK_AHEAD,
            Manner::Layout => &LAYOUT,
        }
    }
}

/// Runs a storm for every file system and manner.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file_system in FileSystem::ALL.into_iter().chain([FileSystem::Ext4Seconds]) {
        let path = stage.scratch.join("beside").join(file_system.name());
        let mount = mounts::mount(file_system, &path, Recording::Usual)?;
        for storm in storms(stage, file_system) {
            output::complain(&format!("torture: beside on {}, {}", file_system.name(), storm.name()));
            rows.push(blow(stage, &mount, &storm, rows.len())?);
        }
        mount.unmount()?;
    }
    Ok(rows)
}

fn storms(stage: &Stage, file_system: FileSystem) -> Vec<Storm> {
    let storm = |manner, pulls, unlinks| {
        let (pulls, unlinks) = if stage.quick { (1, 1) } else { (pulls, unlinks) };
        Storm { file_system, manner, pruner: Pruner::Tested, load: Load::None, pulls, unlinks }
    };
    let unlinks = match file_system {
        // Reads are not recorded as usual, or leases do not work, so nothing that was read is certainly idle.
        FileSystem::Overlay | FileSystem::Bindfs => 1,
        _ => 3000,
    };
    if file_system == FileSystem::Ext4Seconds {
        return vec![storm(Manner::Gap, 10_000, unlinks)];
    }
    let mut storms = vec![storm(Manner::Gap, 18_000, unlinks), storm(Manner::LookAhead, 18_000, unlinks)];
    if file_system == FileSystem::Ext4 {
        storms.push(storm(Manner::Layout, 500, unlinks));
        storms.push(Storm { load: Load::Busy, ..storm(Manner::Gap, 1000, 1) });
        // `find` does not tell what it removes.
        let without = |manner| Storm { pruner: Pruner::WithoutTheRule, unlinks: 0, ..storm(manner, 1, 0) };
        storms.push(Storm { load: Load::Busy, ..without(Manner::Gap) });
        storms.extend([Manner::Gap, Manner::LookAhead].map(without));
    }
    storms
}

fn blow(stage: &Stage, mount: &Mount, storm: &Storm, number: usize) -> anyhow::Result<Row> {
    /// The maximum number of rounds.
    const MOST_ROUNDS: u32 = 40;
    let round = Duration::from_secs(if stage.quick { 7 } else { 20 });
    let mut row = Row::new("beside", storm.file_system.name(), &storm.name());
    let mut details = Vec::new();
    let busy = busy(storm.load, round * MOST_ROUNDS)?;
    for turn in 0..MOST_ROUNDS {
        let home = TempDir::with_prefix_in(format!("{number}-{turn}-"), &mount.path)
            .with_context(|| format!("make a directory in {}", mount.path.display()))?;
        details.extend(one_round(stage, home.path(), storm, round, &mut row)?);
        // The file system is small, and has few inodes.
        home.close().context("remove the caches of a round")?;
        if row.pulls >= storm.pulls && row.unlinks >= storm.unlinks {
            break;
        }
    }
    for process in busy {
        process.signal(rustix::process::Signal::KILL);
        process.finish(LIMIT)?;
    }
    judge(storm, &mut row);
    if row.lost > 0 {
        row.details.append(&mut details);
    }
    Ok(row)
}

fn judge(storm: &Storm, row: &mut Row) {
    let (pulls, unlinks) = (row.pulls, row.unlinks);
    row.check(pulls >= storm.pulls && unlinks >= storm.unlinks, || {
        format!("{pulls} pulls and {unlinks} unlinks are too few")
    });
    let broke =
        |step: &str| row.breaks.iter().filter(|(kind, _)| *kind == step).map(|(_, count)| count).sum::<u64>();
    if storm.pruner == Pruner::WithoutTheRule {
        let gone = broke(GONE);
        row.check(gone > 0, || {
            "the negative control broke no pull, so the other storms prove nothing".to_owned()
        });
        return;
    }
    for (step, count) in
        row.breaks.clone().iter().filter(|(step, _)| ![STALLED, OUTLASTED].contains(&step.as_str()))
    {
        row.lose_many(count, format!("{count} pulls broke ({step})"));
    }
}

/// Processes that never rest; they end by themselves after `time`.
fn busy(load: Load, time: Duration) -> anyhow::Result<Vec<Running>> {
    const PROCESSES: usize = 8;
    let processes = if load == Load::Busy { PROCESSES } else { 0 };
    let start = |_| {
        let mut command = Command::new("timeout");
        command.arg(time.as_secs().to_string()).args(["sh", "-c", "while :; do :; done"]);
        process::start(&mut command, None)
    };
    (0..processes).map(start).collect()
}

/// Runs one round. Returns what broken pulls reported.
fn one_round(
    stage: &Stage,
    home: &Path,
    storm: &Storm,
    time: Duration,
    row: &mut Row,
) -> anyhow::Result<Vec<String>> {
    let caches: Vec<(PathBuf, Cache)> = storm
        .caches()
        .iter()
        .enumerate()
        .map(|(number, cache)| (home.join(number.to_string()), *cache))
        .collect();
    let mut clients = Vec::new();
    for (number, (path, (count, is_fed, flags))) in (1u64..).zip(&caches) {
        std::fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
        // Otherwise the first pull begins it, and ends it with the index, as skopeo's does.
        if storm.manner == Manner::Layout && *is_fed {
            begin(path).with_context(|| format!("begin a layout in {}", path.display()))?;
        }
        let mut role = stage.role("clients");
        role.arg(storm.manner.name()).arg(path).args([number, *count].map(|number| number.to_string()));
        let grace = if *flags == SHORT { Duration::from_secs(2) } else { Duration::from_secs(3600) };
        role.args([time, grace].map(|time| time.as_millis().to_string()));
        role.arg(if *is_fed { "fed" } else { "alone" });
        clients.push(process::start(&mut role, None)?);
    }
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        let prune = |(path, (_, _, flags)): &'_ (PathBuf, Cache)| {
            let (path, flags) = (path.clone(), *flags);
            scope.spawn(move || prune_until(stage, &path, storm.pruner, flags, end))
        };
        let pruners: Vec<_> = caches.iter().map(prune).collect();
        for pruner in pruners {
            row.merge(pruner.join().map_err(|_| anyhow::anyhow!("a pruner panicked"))??);
        }
        anyhow::Ok(())
    })?;
    let mut details = Vec::new();
    for client in clients {
        let ended = client.finish(time + LIMIT)?;
        let pulled: Pulled =
            serde_json::from_str(&ended.stdout).with_context(|| format!("clients: {}", ended.story()))?;
        details.extend(row.add(pulled));
    }
    if storm.manner == Manner::Layout {
        let problems = caches.iter().flat_map(|(path, _)| problems(path));
        problems.for_each(|problem| row.lose(format!("an image has a hole: {problem}")));
    }
    Ok(details)
}

fn prune_until(
    stage: &Stage,
    cache: &Path,
    pruner: Pruner,
    flags: &[&str],
    end: Instant,
) -> anyhow::Result<Row> {
    let mut row = Row::default();
    while Instant::now() < end {
        if pruner == Pruner::WithoutTheRule {
            let mut find = Command::new("find");
            process::run(find.arg(cache).args(["-type", "f", "-delete"]), LIMIT)?;
            row.executions += 1;
            continue;
        }
        let mut prune = command(&stage.program, "prune", cache);
        let ended = process::run(prune.args(flags), LIMIT)?;
        row.executions += 1;
        row.unlinks += ended.number("blobs_freed").unwrap_or(0);
        // 3: what the clients use is more than the budget.
        let is_done = ended.code == Some(0) || flags == BUDGET && ended.code == Some(3);
        row.check(is_done, || format!("a prune: {}", ended.story()));
    }
    Ok(row)
}
