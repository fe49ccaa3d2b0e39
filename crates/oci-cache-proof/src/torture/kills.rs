//! A prune is stopped before every system call: killed, or asked to stop by a signal that it minds.
//!
//! Guarantees, after each: the cache is valid, nothing foreign and nothing outside changed, and the next prune
//! leads to the same as if nobody had been stopped, with no leftover. Who is asked to stop also says truly
//! what it did, and ends with the code for the signal, or was done.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::torture::control::try_all;
use crate::torture::mode::Mode;
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use crate::torture::strace::Tampering;
use crate::torture::sweep::Course;
use oci_cache_cli::output;

const THREADS: usize = 32;
/// How many stops are tried of each mode, if not all.
const SAMPLES: usize = 40;
const SEED: u64 = 0x0c2;

/// How to stop a prune.
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

    /// The exit code, or below zero the signal, of who is stopped.
    const fn code(self) -> i32 {
        match self {
            Self::Kill => -9,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

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
                stops.shuffle(&mut StdRng::seed_from_u64(SEED));
                stops.truncate(if stop == Stop::Kill { SAMPLES } else { SAMPLES / 4 });
            }
            output::complain(&format!("torture: {} times {} {}", stops.len(), stop.signal(), mode.name()));
            let mut row = Row::new("kills", "tmpfs", &format!("{}: {}", stop.signal(), mode.name()));
            try_all(&stops, THREADS, &mut row, |how| attempt(&course, stage, stop, how))?;
            let (stopped, tried) = (row.kills, stops.len() as u64);
            // One that comes at the very end finds the prune done.
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
    // Where threads take turns, a call may not come; then the prune ends as it should.
    let is_done = course.mode.may_end_with(&attempt.ended);
    attempt.check(is_stopped || is_done, || format!("neither stopped nor done: {story}"));
    if stop != Stop::Kill {
        attempt.check_report(true);
    }
    Ok(attempt.row)
}
