//! Measures the contenders in rounds.
//!
//! Guarantees: in each round every contender runs once, and the next round reverses their order. So a machine
//! that becomes slower or faster favours nobody. Making, syncing and removing caches is not timed. The timed
//! part is from before a process starts to its end, or a loop of the benchmark's own process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::bench::caches::Cache;
use crate::bench::catalogue::{Benchmark, Kind};
use crate::bench::contenders::{Contender, Work};
use crate::bench::environment::{Environment, load_average};
use crate::bench::observe::Observer;
use crate::bench::places::{self, FileSystem, Place};
use crate::bench::record::{ContenderRecord, Record};
use crate::bench::{half_gone, original, page_cache};
use crate::kit::machine::date;
use crate::kit::process::{command, complaint, quiet};
use oci_cache_cli::output;

/// The maximum number of blobs to trace. More would take millions of calls, each stopped twice. Above it,
/// only the pruner's memory is measured, because each measurement needs a new cache.
const MOST_TRACED_BLOBS: usize = 100_000;

/// The place and the settings of all measurements.
#[derive(Debug)]
pub(crate) struct Laboratory<'a> {
    home: PathBuf,
    /// A copy of the program, so that builds do not change what is measured.
    pruner: PathBuf,
    rounds: u16,
    /// How long the machine rests before each run.
    rest: Duration,
    stop: &'a AtomicBool,
    observer: Observer,
}

/// A benchmark on its file system.
struct Session<'a> {
    laboratory: &'a Laboratory<'a>,
    benchmark: &'a Benchmark,
    place: &'a Place,
    /// The only cache of a benchmark that does not remove.
    shared: Option<Cache>,
}

impl<'a> Laboratory<'a> {
    /// Prepares to measure the program below `home`.
    pub(crate) fn open(
        home: &Path,
        program: &Path,
        rounds: u16,
        rest: Duration,
        stop: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let pruner = home.join("oci-cache");
        fs::copy(program, &pruner).with_context(|| format!("copy `{}`", program.display()))?;
        Ok(Self { home: home.to_owned(), pruner, rounds, rest, stop, observer: Observer::new() })
    }

    /// Measures all contenders of a benchmark, or records why that is impossible.
    pub(crate) fn measure(&self, benchmark: &Benchmark, environment: &Environment) -> anyhow::Result<Record> {
        let mut record = Record {
            name: benchmark.name.to_owned(),
            about: benchmark.about.to_owned(),
            cache: benchmark.recipe.description(),
            blobs: benchmark.recipe.blobs,
            file_system: String::new(),
            date: date(),
            load_average: load_average(),
            environment: environment.clone(),
            not_measured: None,
            contenders: Vec::new(),
        };
        let place = match benchmark.is_cold.then(page_cache::obstacle).flatten() {
            Some(obstacle) => Err(obstacle),
            None => places::open(benchmark.file_system, &self.home, &benchmark.recipe)?,
        };
        match place {
            Err(reason) => record.not_measured = Some(reason),
            Ok(place) => {
                record.file_system.clone_from(&place.description);
                let shared =
                    if benchmark.kind.removes() { None } else { Some(self.make_cache(benchmark, &place)?) };
                record.contenders =
                    Session { laboratory: self, benchmark, place: &place, shared }.run_all()?;
            }
        }
        Ok(record)
    }

    fn make_cache(&self, benchmark: &Benchmark, place: &Place) -> anyhow::Result<Cache> {
        // ext4 without a journal passes over inodes that were deleted within minutes, one by one, while it has them in
        // memory: making 100,000 files takes 45 s instead of 3 s. Source: `recently_deleted` in Linux's
        // `fs/ext4/ialloc.c`.
        if benchmark.file_system == FileSystem::Disk && page_cache::obstacle().is_none() {
            page_cache::drop_all()?;
        }
        benchmark.recipe.make(&place.directory, self.rest)
    }
}

impl Session<'_> {
    fn run_all(&self) -> anyhow::Result<Vec<ContenderRecord>> {
        let contenders = self.benchmark.kind.contenders();
        let mut records: Vec<_> = contenders.iter().map(|contender| self.entry(contender)).collect();
        if !self.benchmark.kind.removes() {
            output::complain(&format!("{}: warm-up", self.benchmark.name));
            self.take_turns(contenders, &mut records.clone(), false)?;
        }
        let rounds = self.benchmark.rounds(self.laboratory.rounds);
        for round in 0..rounds {
            output::complain(&format!("{}: round {} of {rounds}", self.benchmark.name, round + 1));
            self.take_turns(contenders, &mut records, round % 2 == 1)?;
        }
        if self.benchmark.kind.is_observed() {
            output::complain(&format!("{}: memory and system calls", self.benchmark.name));
            // The pruner comes first.
            let observed = if self.is_traced() { contenders.len() } else { 1 };
            for (contender, record) in contenders.iter().zip(&mut records).take(observed) {
                self.observe(contender, record)?;
            }
        }
        Ok(records)
    }

    fn entry(&self, contender: &Contender) -> ContenderRecord {
        ContenderRecord {
            name: contender.name.to_owned(),
            command: contender.description(),
            missing: contender.missing(&self.laboratory.pruner),
            ..ContenderRecord::default()
        }
    }

    fn take_turns(
        &self,
        contenders: &[Contender],
        records: &mut [ContenderRecord],
        reverse: bool,
    ) -> anyhow::Result<()> {
        let count = contenders.len();
        for turn in 0..count {
            let index = if reverse { count - 1 - turn } else { turn };
            let (contender, record) = (&contenders[index], &mut records[index]);
            if record.missing.is_none() {
                self.with_cache(|cache| self.run_once(contender, record, cache))
                    .with_context(|| format!("{}: {}", self.benchmark.name, contender.name))?;
            }
        }
        Ok(())
    }

    /// Runs a contender once, timed.
    fn run_once(
        &self,
        contender: &Contender,
        record: &mut ContenderRecord,
        cache: &Cache,
    ) -> anyhow::Result<()> {
        let line = contender.command_line(&self.laboratory.pruner, cache)?;
        if self.benchmark.is_cold {
            page_cache::drop_all()?;
        } else if self.benchmark.kind == Kind::Verify {
            cache.read_through()?;
        }
        // Reading the program from the disk is not what is measured.
        self.load_programs(contender)?;
        let within = match contender.work {
            Work::Loop(unlink_loop) => Some(unlink_loop.run(&cache.path())?),
            Work::Original => Some(original::run(&cache.path())?),
            Work::Own(_) | Work::Program(_) => None,
        };
        if let Some(elapsed) = within {
            record.wall_seconds.push(elapsed.as_secs_f64());
            return Ok(());
        }
        let mut command = command(&line);
        if self.benchmark.kind == Kind::HalfGone {
            let span = half_gone::watch(command, cache.blobs())?;
            record.wall_seconds.push(span.wall.as_secs_f64());
            record.half_gone_seconds.push(span.half_gone.as_secs_f64());
            return Ok(());
        }
        quiet(&mut command);
        let started = Instant::now();
        let output = command.output();
        let elapsed = started.elapsed();
        let output = output.with_context(|| format!("run {command:?}"))?;
        ensure!(output.status.success(), "{}", complaint(&command, &output));
        record.wall_seconds.push(elapsed.as_secs_f64());
        Ok(())
    }

    /// Brings the programs of a contender, and the libraries that they load, back into memory.
    fn load_programs(&self, contender: &Contender) -> anyhow::Result<()> {
        for program in contender.programs(&self.laboratory.pruner) {
            let mut command = Command::new(program);
            quiet(command.arg("--version")).output().with_context(|| format!("run {command:?}"))?;
        }
        Ok(())
    }

    const fn is_traced(&self) -> bool {
        self.benchmark.recipe.blobs <= MOST_TRACED_BLOBS
    }

    /// Measures memory and system calls in runs that are not timed.
    fn observe(&self, contender: &Contender, record: &mut ContenderRecord) -> anyhow::Result<()> {
        if record.missing.is_some() || matches!(contender.work, Work::Loop(_) | Work::Original) {
            return Ok(());
        }
        let Laboratory { pruner, observer, home, .. } = self.laboratory;
        self.with_cache(|cache| {
            record.peak_memory_bytes = observer.peak_memory(&contender.command_line(pruner, cache)?)?;
            Ok(())
        })?;
        if self.is_traced() && observer.has_strace() {
            self.with_cache(|cache| {
                record.system_calls = observer.system_calls(&contender.command_line(pruner, cache)?, home)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Runs `work` on a cache, and checks afterwards that it is done.
    fn with_cache(&self, work: impl FnOnce(&Cache) -> anyhow::Result<()>) -> anyhow::Result<()> {
        if self.laboratory.stop.load(Ordering::Relaxed) {
            bail!("interrupted by a signal");
        }
        let made;
        let (cache, expected) = match &self.shared {
            Some(shared) => (shared, shared.blobs().len()),
            None => {
                made = self.laboratory.make_cache(self.benchmark, self.place)?;
                (&made, 0)
            }
        };
        work(cache)?;
        let left = cache.blobs_left();
        ensure!(left == expected, "{left} blobs are left instead of {expected}");
        Ok(())
    }
}
