//! The benchmarks: they measure the pruner and other tools, and write the results to docs/.
//!
//! Guarantees: every figure is measured in this run or taken from docs/benchmarks.json. Contenders take
//! turns, those that remove each on a new copy of the cache that is synced before the clock starts. Their order is reversed
//! every round. A contender that leaves a blob behind ends the run with an error instead of a figure. All
//! caches are in temporary directories. These are removed at the end, also after the first SIGINT or SIGTERM.
//!
//! What it does not guarantee: an idle machine. The load average before each benchmark is recorded.

mod aims;
mod caches;
mod catalogue;
mod chart;
mod contenders;
mod environment;
mod half_gone;
mod measure;
mod numbers;
mod observe;
mod original;
mod page_cache;
mod places;
mod publish;
mod record;
mod report;
#[cfg(test)]
mod samples;
mod summary;
mod unlink_loop;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use tempfile::TempDir;

use crate::bench::catalogue::Benchmark;
use crate::bench::environment::Environment;
use crate::bench::measure::Laboratory;
use crate::bench::publish::Publication;
use crate::bench::record::Record;
use crate::kit::workspace::workspace;
use oci_cache_cli::exit::Exit;
use oci_cache_cli::output;
use oci_cache_cli::signals::Signals;

/// The arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// Small caches and 3 rounds, to see that everything runs; writes nothing into docs/.
    #[arg(long)]
    quick: bool,
    /// How often each contender runs: 5 times, 3 with --quick; at most 2 with a million blobs. Without --quick, some
    /// benchmarks with short runs have three times as many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only the benchmark of this name; can be given several times.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(catalogue::names()))]
    only: Vec<String>,
    /// Where the caches are made; without it, in the workspace's target directory.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl BenchArguments {
    fn wants(&self, benchmark: &Benchmark) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == benchmark.name)
    }

    fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// How long the machine rests before each run.
    fn rest(&self) -> Duration {
        Duration::from_millis(if self.quick { 20 } else { 700 })
    }
}

/// Runs the benchmarks one after the other. The document grows with each.
pub(crate) fn run(arguments: &BenchArguments, program: &Path) -> anyhow::Result<Exit> {
    let stop = Arc::new(AtomicBool::new(false));
    let signals = Signals::watch(&stop).context("watch for signals")?;
    let done = run_until(arguments, program, &stop);
    match (signals.exit(), done) {
        (Some(exit), Err(error)) => {
            output::complain(&format!("stopped: {error:#}"));
            Ok(exit)
        }
        (_, done) => done,
    }
}

fn run_until(arguments: &BenchArguments, program: &Path, stop: &AtomicBool) -> anyhow::Result<Exit> {
    let home = home(arguments)?;
    let laboratory = Laboratory::open(home.path(), program, arguments.rounds(), arguments.rest(), stop)?;
    let environment = Environment::look(home.path(), program)?;
    let mut publication =
        if arguments.quick { None } else { Some(Publication::open(&workspace().join("docs"))?) };
    let started = Instant::now();
    for benchmark in catalogue::benchmarks().iter().filter(|benchmark| arguments.wants(benchmark)) {
        let benchmark = if arguments.quick { &benchmark.quick() } else { benchmark };
        output::complain(&format!("{}: {}", benchmark.name, benchmark.recipe.description()));
        let record = laboratory.measure(benchmark, &environment)?;
        print(&record)?;
        if let Some(publication) = &mut publication {
            publication.add(record)?;
        }
    }
    output::complain(&format!("done after {}", numbers::seconds(started.elapsed().as_secs_f64().round())));
    Ok(Exit::Done)
}

/// The directory for everything that is made. It is removed at the end.
fn home(arguments: &BenchArguments) -> anyhow::Result<TempDir> {
    let parent = arguments.directory.clone().unwrap_or_else(|| workspace().join("target"));
    fs::create_dir_all(&parent).with_context(|| format!("create `{}`", parent.display()))?;
    let parent = parent.canonicalize().with_context(|| format!("resolve `{}`", parent.display()))?;
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("create a temporary directory in `{}`", parent.display()))
}

/// Prints a result at once.
fn print(record: &Record) -> anyhow::Result<Exit> {
    output::print(&format!("{}\n", report::section(record)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: BenchArguments,
    }

    fn parse(line: &[&str]) -> Result<BenchArguments, clap::Error> {
        Line::try_parse_from([&["bench"], line].concat()).map(|line| line.arguments)
    }

    #[test]
    fn rounds_have_a_default_for_each_size() {
        assert_eq!(parse(&[]).unwrap().rounds(), 5);
        assert_eq!(parse(&["--quick"]).unwrap().rounds(), 3);
        assert_eq!(parse(&["--quick", "--rounds", "1"]).unwrap().rounds(), 1);
        assert!(parse(&["--rounds", "0"]).is_err());
    }

    #[test]
    fn only_what_is_named_is_measured() {
        let arguments = parse(&["--only", "million", "--only", "verify"]).unwrap();
        let wanted = catalogue::benchmarks().iter().filter(|benchmark| arguments.wants(benchmark));
        assert_eq!(wanted.map(|benchmark| benchmark.name).collect::<Vec<_>>(), ["million", "verify"]);
        assert!(parse(&["--only", "nothing"]).is_err());
    }
}
