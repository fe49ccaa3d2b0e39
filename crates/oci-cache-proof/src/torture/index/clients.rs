//! The clients of a layout, and the prunes beside them.
//!
//! Guarantees: before each prune, an old image is added, so the prune has to change the index. Held up, clients come once a
//! prune has begun to do so; every fourth prune is left alone.
//!
//! Source: `strace(1)`, "delay_enter".

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rand::RngExt as _;

use crate::kit::process::{self, Running};
use crate::kit::random::random;
use crate::torture::index::exercise::{Exercise, Pruner, When};
use crate::torture::index::layout::Layout;
use crate::torture::index::observer::Observer;
use crate::torture::mode::command;
use crate::torture::mounts::FileSystem;
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use crate::torture::strace::under_strace;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a prune may take until it changes the index.
const PATIENCE: Duration = Duration::from_secs(4);

/// The clients of one layout, and its prunes.
pub(super) struct Clients<'a> {
    pub(super) stage: &'a Stage,
    pub(super) exercise: Exercise,
    pub(super) layout: &'a Layout,
    pub(super) observer: &'a Observer,
    /// Where strace writes what it sees.
    pub(super) log: PathBuf,
}

impl Clients<'_> {
    /// Prunes so many times, and updates the index beside that.
    pub(super) fn run(&self, rounds: usize, is_over: &AtomicBool, row: &mut Row) -> anyhow::Result<()> {
        match self.exercise.when {
            When::HeldUp => (0..rounds).try_for_each(|round| self.hold_up(round as u64, row)),
            When::AtRandom => thread::scope(|scope| {
                let clients =
                    [1, 2].map(|client| scope.spawn(move || self.update_until(client << 32, is_over)));
                let ran = (0..rounds).try_for_each(|round| self.prune_at_random(round as u64, row));
                is_over.store(true, Ordering::Relaxed);
                for client in clients {
                    client.join().map_err(|_| anyhow!("a client panicked"))??;
                }
                ran
            }),
        }
    }

    /// Prunes while strace holds the prune up and clients come. Every fourth prune is left alone.
    fn hold_up(&self, round: u64, row: &mut Row) -> anyhow::Result<()> {
        self.bring_old_image(round)?;
        let count = if round % 4 == 3 { 0 } else { random().random_range(1..=3) };
        let images = (1..=count).map(|image| self.layout.write_blobs((round << 8) + image, false));
        let images = images.collect::<anyhow::Result<Vec<_>>>()?;
        let delay = Duration::from_millis(random().random_range(1..=50));
        let before = self.observer.gaps().opened;
        let prune = process::start(&mut self.delayed(delay), None)?;
        // If the prune leaves the index alone, the clients come all the same.
        if count > 0 {
            self.observer.wait_for_gap(before, PATIENCE);
        }
        let updated = images
            .iter()
            .try_for_each(|image| self.layout.update(image, self.observer, || sleep_up_to(delay)));
        self.finish(prune, row)?;
        updated
    }

    /// A prune that is held up at one or all of the calls that change the index.
    fn delayed(&self, delay: Duration) -> Command {
        let calls = ["fdatasync", "?renameat,?renameat2", "fdatasync,?renameat,?renameat2,unlinkat"];
        let calls = calls[random().random_range(0..calls.len())];
        let inject = format!("inject={calls}:delay_enter={}", delay.as_micros());
        let options = ["--seccomp-bpf", "-e", &format!("trace={calls}"), "-e", &inject];
        under_strace(&self.prune(), &self.log, &options)
    }

    fn prune_at_random(&self, round: u64, row: &mut Row) -> anyhow::Result<()> {
        self.bring_old_image(round)?;
        self.finish(process::start(&mut self.prune(), None)?, row)
    }

    fn update_until(&self, first: u64, is_over: &AtomicBool) -> anyhow::Result<()> {
        for number in first.. {
            let image = self.layout.write_blobs(number, false)?;
            sleep_up_to(Duration::from_millis(400));
            self.layout.update(&image, self.observer, || sleep_up_to(Duration::from_millis(5)))?;
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn prune(&self) -> Command {
        match self.exercise.pruner {
            Pruner::Tested => {
                let mut prune = command(&self.stage.program, "prune", self.layout.path());
                prune.args(["--older-than", "1h"]);
                if self.exercise.file_system == FileSystem::Bindfs {
                    // Nothing is ever certainly idle there, so beside pulls nothing would go.
                    prune.args(["--grace", "0s"]);
                }
                prune
            }
            Pruner::TheOldWay => {
                let mut prune = self.stage.role("old-index");
                prune.arg(self.layout.path());
                prune
            }
        }
    }

    fn finish(&self, prune: Running, row: &mut Row) -> anyhow::Result<()> {
        let started = Instant::now();
        let ended = prune.finish(LIMIT)?;
        row.executions += 1;
        row.unlinks += ended.number("blobs_freed").unwrap_or(0);
        // The scan may meet an index that a client has truncated and not yet written.
        row.check(ended.is_documented(), || {
            format!("a prune, after {:?}: {}", started.elapsed(), ended.story())
        });
        Ok(())
    }

    /// Adds an image of two days ago, for the next prune.
    fn bring_old_image(&self, round: u64) -> anyhow::Result<()> {
        let image = self.layout.write_blobs((1 << 60) + round, true)?;
        self.layout.update(&image, self.observer, || ())
    }
}

/// Sleeps for a random time.
pub(super) fn sleep_up_to(limit: Duration) {
    thread::sleep(random().random_range(Duration::ZERO..=limit));
}
