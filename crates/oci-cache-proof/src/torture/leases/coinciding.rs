//! Opens that coincide with the removal of the name.
//!
//! Guarantees: each blob is opened at most once before the prune comes to it, and right then. If that open succeeds,
//! the name must still be there.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::kit::process;
use crate::torture::mode::command;
use crate::torture::mounts::{self, FileSystem, Mount, Recording};
use crate::torture::row::Row;
use crate::torture::sandbox::flat_name;
use crate::torture::stage::Stage;

const LIMIT: Duration = Duration::from_secs(120);
/// The number of blobs in a cache.
const BLOBS: usize = 20_000;
/// One blob in so many is opened.
const STEP: usize = 8;
const CLIENTS: usize = 2;
/// The number of caches on each file system, at most.
const CACHES: usize = 8;

/// How many opens succeeded, and of how many of these the name was gone then.
#[derive(Clone, Copy, Debug, Default)]
struct Opened {
    all: u64,
    lost: u64,
}

/// Prunes caches of which clients open the blobs that are about to go.
pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let kinds = [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs, FileSystem::Tmpfs];
    kinds.into_iter().map(|kind| row(stage, kind)).collect()
}

fn row(stage: &Stage, kind: FileSystem) -> anyhow::Result<Row> {
    let mut row = Row::new("leases", kind.name(), "opens that coincide");
    let mount = mounts::mount(kind, &stage.scratch.join("coinciding"), Recording::Usual)?;
    let least = if stage.quick { 1 } else { CACHES };
    for number in 0..CACHES {
        prune(stage, &mount, number, &mut row)?;
        // Whether an open coincides is chance. Where none did, there is another try.
        if number + 1 >= least && row.pulls > 0 {
            break;
        }
    }
    row.check(row.pulls > 0 && row.unlinks > 0, || "no open succeeded, so this proves nothing".to_owned());
    mount.unmount()?;
    Ok(row)
}

fn prune(stage: &Stage, mount: &Mount, number: usize, row: &mut Row) -> anyhow::Result<()> {
    let cache = mount.path.join(number.to_string());
    fs::create_dir(&cache).with_context(|| format!("make {}", cache.display()))?;
    for blob in 0..BLOBS {
        let path = cache.join(flat_name(blob));
        fs::write(&path, "").with_context(|| format!("write {}", path.display()))?;
    }
    let prune = process::start(command(&stage.program, "prune", &cache).args(["--grace", "0s"]), None)?;
    let clients = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let cache = &cache;
                    move || open_in_front(cache, client)
                })
            })
            .collect();
        let ended =
            clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        ended.collect::<anyhow::Result<Vec<Opened>>>()
    });
    let ended = prune.finish(LIMIT)?;
    for Opened { all, lost } in clients? {
        row.pulls += all;
        if lost > 0 {
            row.lose_many(lost, format!("of {all} blobs that were opened, {lost} lost their names then"));
        }
    }
    row.executions += 1;
    row.unlinks += ended.number("blobs_freed").unwrap_or(0);
    row.check(ended.code == Some(0), || ended.story());
    Ok(())
}

/// Opens one blob in so many when a blob a little before it is gone.
fn open_in_front(cache: &Path, client: usize) -> anyhow::Result<Opened> {
    let end = Instant::now() + LIMIT;
    let mut opened = Opened::default();
    for (attempt, blob) in (STEP * (client + 1)..BLOBS).step_by(STEP * CLIENTS).enumerate() {
        // Odd, so that nobody opens the blob before it, and it goes.
        let distance = 1 + 2 * (attempt % (STEP * 2));
        let before = cache.join(flat_name(blob.saturating_sub(distance).max(1)));
        let path = cache.join(flat_name(blob));
        while before.exists() {
            ensure!(Instant::now() < end, "{} does not go", before.display());
        }
        match File::open(&path) {
            Ok(_) => {
                opened.all += 1;
                opened.lost += u64::from(!path.exists());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        }
    }
    Ok(opened)
}
