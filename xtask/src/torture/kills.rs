//! A prune is killed before every system call.
//!
//! Guarantees, after each kill: the cache is valid, nothing foreign and nothing outside changed, and the
//! next prune leads to the same as if nobody had been killed, with no leftover.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::control::try_all;
use super::mode::Mode;
use super::row::Row;
use super::strace::{Point, Tampering};
use super::sweep::Course;
use super::{Stage, note};

const THREADS: usize = 12;
/// How many kills are tried of each mode, if not all.
const SAMPLES: usize = 60;
const SEED: u64 = 0x0c2;
/// The exit code of who is killed.
const KILLED: i32 = 128 + 9;

pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in Mode::all(stage)? {
        let course = Course::of(mode, stage)?;
        let kill = |point: &Point| Tampering {
            call: point.call.clone(),
            how: format!("signal=KILL:when={}", point.number),
        };
        let mut kills: Vec<Tampering> = course.points.iter().map(kill).collect();
        if stage.quick {
            kills.shuffle(&mut StdRng::seed_from_u64(SEED));
            kills.truncate(SAMPLES);
        }
        note(&format!("{} kills {}", kills.len(), mode.name()));
        let mut row = Row::new("kills", "tmpfs", mode.name());
        try_all(&kills, THREADS, &mut row, |kill| attempt(&course, stage, kill))?;
        let (killed, tried) = (row.kills, kills.len() as u64);
        row.check(killed * 10 >= tried * 9, || format!("only {killed} of {tried} were killed"));
        rows.push(row);
    }
    Ok(rows)
}

fn attempt(course: &Course, stage: &Stage, kill: &Tampering) -> anyhow::Result<Row> {
    let mut attempt = course.attempt(stage, kill)?;
    let is_killed = attempt.ended.code == Some(KILLED);
    attempt.row.kills = u64::from(is_killed);
    let story = attempt.ended.story();
    // Where threads take turns, a call may not come; then the prune ends as it should.
    let is_done = course.mode.may_end_with(&attempt.ended);
    attempt.check(is_killed || is_done, || format!("neither killed nor done: {story}"));
    Ok(attempt.row)
}
