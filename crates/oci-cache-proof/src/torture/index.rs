//! Updates of a layout's index beside prunes that change the index too.
//!
//! Guarantees: each prune finds old images, so it has to change the index. Clients add images meanwhile, in the two ways
//! of real tools, and take turns among themselves. Either strace holds the prune up at the sync of the new index, at the
//! exchange, or up to the removal of the old one; or the clients come at random moments, on a disk that two processes write
//! to without pause. When all is quiet, every image that a client added must be in the index, with its blobs. A reader
//! checks all the while that the index is there and valid. An index that clients write in place keeps its mode, its ACL and
//! its attributes. The old way to change the index must lose updates, or this proves nothing.
//!
//! What it does not guarantee: that what a client writes back stays out of the index. A client that read the index before
//! the exchange may bring an old image's entry back.

mod clients;
mod exercise;
mod layout;
pub(crate) mod naive;
mod observer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use oci_cache_cli::output;
use tempfile::TempDir;

use crate::kit::process::{self, Running};
use crate::torture::attributes;
use crate::torture::control::try_all;
use crate::torture::index::clients::{Clients, sleep_up_to};
use crate::torture::index::exercise::{Exercise, Pruner, When};
use crate::torture::index::layout::{Layout, Manner};
use crate::torture::index::observer::Observer;
use crate::torture::mounts::{self, FileSystem, Recording};
use crate::torture::row::Row;
use crate::torture::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
/// Layouts at once: a prune waits more than it works.
const THREADS: usize = 16;
/// The file that ends the load.
const ENOUGH: &str = "enough";
/// The updates that must fall into the gap in a full run, and in a quick one.
const MIN_WITHIN: [u64; 2] = [2_000, 150];

/// What all layouts of an exercise share.
struct Field<'a> {
    stage: &'a Stage,
    exercise: Exercise,
    mount: PathBuf,
    rounds: usize,
    within: AtomicU64,
    after: AtomicU64,
}

/// Runs the exercises, then the negative controls.
///
/// # Errors
///
/// If one cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    use FileSystem::{Bindfs, Btrfs, Ext4, Ext4Seconds};
    use Manner::{InPlace, Rename};
    use When::{AtRandom, HeldUp};
    let exercises = [
        Exercise::new(Ext4, Rename, HeldUp),
        Exercise::new(Ext4, InPlace, HeldUp),
        Exercise::new(Ext4, Rename, AtRandom),
        Exercise::new(Ext4, InPlace, AtRandom),
        Exercise::new(Ext4Seconds, Rename, HeldUp).short(),
        Exercise::new(Ext4Seconds, InPlace, HeldUp).short(),
        Exercise::new(Btrfs, Rename, HeldUp).short(),
        Exercise::new(Bindfs, Rename, HeldUp).short(),
        Exercise::new(Bindfs, InPlace, HeldUp).short(),
        Exercise::new(Ext4, Rename, HeldUp).the_old_way(),
        Exercise::new(Ext4, InPlace, HeldUp).the_old_way(),
    ];
    let (mut rows, mut total) = (Vec::new(), 0);
    for exercise in exercises {
        let (row, within) = practise(stage, exercise)?;
        rows.push(row);
        total += if exercise.pruner == Pruner::Tested { within } else { 0 };
    }
    let least = MIN_WITHIN[usize::from(stage.quick)];
    if let Some(row) = rows.last_mut() {
        row.check(total >= least, || format!("{total} updates in the gap are too few"));
    }
    Ok(rows)
}

/// Runs an exercise. Also returns how many updates fell into the gap.
fn practise(stage: &Stage, exercise: Exercise) -> anyhow::Result<(Row, u64)> {
    let kind = exercise.file_system;
    output::complain(&format!("torture: index on {}, {}", kind.name(), exercise.what()));
    let mount = mounts::mount(kind, &stage.scratch.join("index"), Recording::Usual)?;
    let (layouts, rounds) = exercise.extent[usize::from(stage.quick)];
    let field = Field {
        stage,
        exercise,
        mount: mount.path.clone(),
        rounds,
        within: AtomicU64::new(0),
        after: AtomicU64::new(0),
    };
    let mut row = Row::new("index", kind.name(), "");
    let load = if exercise.when == When::AtRandom { load(&mount.path)? } else { Vec::new() };
    let numbers: Vec<usize> = (0..layouts).collect();
    let tried = try_all(&numbers, THREADS, &mut row, |_| field.beside_prunes());
    fs::write(mount.path.join(ENOUGH), "").context("end the load")?;
    load.into_iter().try_for_each(|process| process.finish(LIMIT).map(drop))?;
    tried?;
    mount.unmount()?;
    let within = field.within.into_inner();
    row.strategy = exercise.name(within, field.after.into_inner());
    judge(exercise, within, &mut row);
    Ok((row, within))
}

fn judge(exercise: Exercise, within: u64, row: &mut Row) {
    let (pulls, unlinks, lost) = (row.pulls, row.unlinks, row.breaks.sum());
    row.check(pulls > 0, || "no image was added, so this proves nothing".to_owned());
    if exercise.pruner == Pruner::TheOldWay {
        row.check(lost > 0, || {
            format!("of {within} updates in its gap the old way lost none: the test is blind")
        });
        return;
    }
    if lost > 0 {
        row.lose_many(lost, format!("of {pulls} updates, {lost} are lost"));
    }
    // Where names cannot be exchanged, as on bindfs, the index may stay, and so may its blobs.
    let must_remove = exercise.file_system != FileSystem::Bindfs;
    row.check(!must_remove || unlinks > 0, || "no prune removed anything, so this proves nothing".to_owned());
}

/// Two processes that write and sync without pause, until the file `enough` is there.
fn load(mount: &Path) -> anyhow::Result<Vec<Running>> {
    let start = |number: u32| {
        let file = mount.join(format!("load-{number}"));
        let script =
            "while [ ! -e \"$2\" ]; do dd if=/dev/zero of=\"$1\" bs=1M count=48 conv=fsync status=none; done";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(file).arg(mount.join(ENOUGH));
        process::start(&mut command, None)
    };
    (1..=2).map(start).collect()
}

impl Field<'_> {
    /// Updates one layout beside prunes.
    fn beside_prunes(&self) -> anyhow::Result<Row> {
        let home = TempDir::with_prefix_in("index-", &self.mount)
            .with_context(|| format!("make a directory in {}", self.mount.display()))?;
        let layout =
            Layout::begin(home.path().join("layout"), self.exercise.manner, self.exercise.file_system)?;
        let observer = Observer::start(layout.path(), home.path().join("marks"))?;
        let before = self.adorn(&layout)?;
        let (mut row, is_over) = (Row::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let observing = scope.spawn(|| observer.observe());
            let reading = scope.spawn(|| read_until(&layout, self.exercise.when, &is_over));
            let clients = Clients {
                stage: self.stage,
                exercise: self.exercise,
                layout: &layout,
                observer: &observer,
                log: home.path().join("log"),
            };
            let ran = clients.run(self.rounds, &is_over, &mut row);
            is_over.store(true, Ordering::Relaxed);
            observer.end().context("end the observation")?;
            observing.join().map_err(|_| anyhow!("the observer panicked"))??;
            let invalid = reading.join().map_err(|_| anyhow!("the reader panicked"))?;
            invalid.into_iter().for_each(|problem| row.lose(format!("a reader: {problem}")));
            // An index that a client finds broken is a loss too.
            row.check(ran.is_ok(), || format!("a client: {:#}", ran.err().unwrap_or_else(|| anyhow!("?"))));
            anyhow::Ok(())
        })?;
        row.pulls = layout.updates();
        let gaps = observer.gaps();
        self.within.fetch_add(gaps.within, Ordering::Relaxed);
        self.after.fetch_add(gaps.after, Ordering::Relaxed);
        for problem in layout.lost()? {
            row.breaks.add("update lost".to_owned(), 1);
            row.details.push(problem);
        }
        let after = before.as_ref().map(|_| attributes::of(&layout.index())).transpose()?;
        row.check(before == after, || format!("the index had {before:?}, and has {after:?}"));
        Ok(row)
    }

    /// Gives the index what must be kept, where clients keep it too. Returns what it has then.
    fn adorn(&self, layout: &Layout) -> anyhow::Result<Option<String>> {
        let Exercise { file_system, manner, pruner, .. } = self.exercise;
        if (file_system, manner, pruner) != (FileSystem::Ext4, Manner::InPlace, Pruner::Tested) {
            return Ok(None);
        }
        attributes::adorn(&layout.index()).map(Some)
    }
}

/// Reads the index again and again. Returns what was wrong with it. The pauses leave prunes time without a reader.
fn read_until(layout: &Layout, when: When, is_over: &AtomicBool) -> Vec<String> {
    let pause = Duration::from_millis(if when == When::HeldUp { 120 } else { 30 });
    let mut problems = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        problems.extend(layout.look().err().map(|error| format!("{error:#}")));
        sleep_up_to(pause);
    }
    problems
}
