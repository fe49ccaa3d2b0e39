//! A prune is stopped before every system call, by SIGKILL or by a signal that it handles.
//!
//! Guarantees: after each stop the cache is valid, and nothing foreign and nothing outside changed. The next
//! prune leads to the same result as if nothing had been stopped, and leaves no leftover. A prune that
//! handles its signal also reports truthfully what it did, and exits with the code for the signal or with
//! that of a finished prune.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;

use crate::kit::random::Random;
use crate::torture::control::try_all;
use crate::torture::mode::Mode;
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use crate::torture::strace::Tampering;
use crate::torture::sweep::Course;
use oci_cache_cli::output;

const THREADS: usize = 32;
/// The number of stops per mode in a quick run.
const SAMPLES: usize = 40;
const SEED: u64 = 0x0c2;

/// The ways to stop a prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Kill,
    Interrupt,
    Terminate,
}

impl Stop {
    const ALL: [Self; 3] = [Self::Kill, Self::Interrupt, Self::Terminate];

    const fn signal(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }

    /// The exit code of a stopped prune, or the negated signal.
    const fn code(self) -> i32 {
        match self {
            Self::Kill => -9,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Stops prunes of every mode.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in Mode::all(stage)? {
        let course = Course::of(mode, stage)?;
        for stop in Stop::ALL {
            let stops = course.points.iter().map(|point| Tampering {
                span: point.span,
                call: point.call.clone(),
                how: format!("signal={}:when={}", stop.signal(), point.number),
            });
            let mut stops: Vec<Tampering> = stops.collect();
            if stage.quick {
                stops.shuffle(&mut Random::seed_from_u64(SEED));
                stops.truncate(if stop == Stop::Kill { SAMPLES } else { SAMPLES / 4 });
            }
            output::complain(&format!(
                "torture: {}: send {} {} times",
                mode.name(),
                stop.signal(),
                stops.len()
            ));
            let mut row = Row::new("kills", "tmpfs", &format!("{}: {}", stop.signal(), mode.name()));
            try_all(&stops, THREADS, &mut row, |how| attempt(&course, stage, stop, how))?;
            let (stopped, tried) = (row.kills, stops.len() as u64);
            // A signal at the very end finds the prune done.
            let enough = if stop == Stop::Kill { tried * 9 } else { tried * 5 };
            row.check(stopped * 10 >= enough, || format!("only {stopped} of {tried} were stopped"));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn attempt(course: &Course, stage: &Stage, stop: Stop, how: &Tampering) -> anyhow::Result<Row> {
    let mut attempt = course.attempt(stage, how)?;
    let is_stopped = attempt.ended.code == Some(stop.code());
    attempt.row.kills = u64::from(is_stopped);
    let story = attempt.ended.story();
    // Where threads share the work, a call may not occur. Then the prune ends normally.
    let is_done = course.mode.may_end_with(&attempt.ended);
    attempt.check(is_stopped || is_done, || format!("neither stopped nor done: {story}"));
    if stop != Stop::Kill {
        // A second signal ends the program at once, before it reports.
        let is_first = attempt.hits < 2;
        attempt.check_report(is_first);
    }
    Ok(attempt.row)
}
