//! Every system call of a prune fails: with each error, once and from then on.
//!
//! Guarantees: after each fault the exit code is a documented one. The report matches what left the disk.
//! Nothing foreign and nothing outside the cache changed. The index names no missing blob. The next prune,
//! without a fault, leads to the same result as if there had been none.
//!
//! What it does not guarantee: anything about a failing `close`. Linux releases the descriptor whatever the
//! call returns (`close(2)`). strace can only prevent the call, which no kernel does.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;

use crate::kit::random::Random;
use crate::torture::control::try_all;
use crate::torture::mode::Mode;
use crate::torture::row::Row;
use crate::torture::stage::Stage;
use crate::torture::strace::{Point, Tampering};
use crate::torture::sweep::Course;
use oci_cache_cli::output;

const ERRORS: [&str; 8] = ["EIO", "EACCES", "EPERM", "ENOSPC", "EMFILE", "ENOMEM", "EINTR", "EROFS"];
/// The errors of starting a thread at a limit.
const THREAD_ERRORS: [&str; 3] = ["EAGAIN", "ENOMEM", "EPERM"];
/// There can be many, because most prunes spend their time waiting.
const THREADS: usize = 32;
/// The number of faults per mode in a quick run.
const SAMPLES: usize = 110;
const SEED: u64 = 0x0c1;

/// Injects faults into prunes of every mode.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mode in Mode::all(stage)? {
        let course = Course::of(mode, stage)?;
        let points = course.points.iter().filter(|point| point.call != "close");
        let mut faults: Vec<Tampering> = points.flat_map(faults_of).collect();
        if stage.quick {
            faults.shuffle(&mut Random::seed_from_u64(SEED));
            faults.truncate(SAMPLES);
        }
        output::complain(&format!("torture: {}: inject {} faults", mode.name(), faults.len()));
        let mut row = Row::new("faults", "tmpfs", mode.name());
        try_all(&faults, THREADS, &mut row, |fault| attempt(&course, stage, fault))?;
        let (happened, tried) = (row.faults, faults.len() as u64);
        // The number of calls varies from run to run where threads share the work.
        row.check(happened * 10 >= tried * 8, || format!("only {happened} of {tried} faults happened"));
        rows.push(row);
    }
    Ok(rows)
}

fn faults_of(point: &Point) -> Vec<Tampering> {
    let Point { span, call, number } = point;
    let errors = if call.starts_with("clone") { &THREAD_ERRORS[..] } else { &ERRORS };
    let mut faults = Vec::new();
    for error in errors {
        // Signals do not arrive forever: a call that is retried is interrupted a few times.
        let on = if *error == "EINTR" { format!("{number}..{}", number + 5) } else { format!("{number}+") };
        for when in [number.to_string(), on] {
            let how = format!("error={error}:when={when}");
            faults.push(Tampering { span: *span, call: call.clone(), how });
        }
    }
    faults
}

fn attempt(course: &Course, stage: &Stage, fault: &Tampering) -> anyhow::Result<Row> {
    let mut attempt = course.attempt(stage, fault)?;
    attempt.row.faults = u64::from(attempt.hits > 0);
    let is_documented = course.mode.may_end_with(&attempt.ended);
    let story = attempt.ended.story();
    attempt.check(is_documented, || format!("undocumented end: {story}"));
    // If writing fails, no report is possible.
    attempt.check_report(fault.call != "write" && attempt.ended.code.is_some());
    Ok(attempt.row)
}
