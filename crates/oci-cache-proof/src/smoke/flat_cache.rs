//! Flat caches, as go-containerregistry writes them: pulls run beside prunes, in place and aside.
//!
//! Guarantees: each puller has its own blobs. It wants a few of them often and most of them rarely, so some
//! are always in use and some idle. All pullers rest at the same time now and then, so that prunes free what is young, and
//! pulls begin while they do. Beside prunes in place, no step may fail, and the totals must match to
//! the byte: what was written is what is left plus what the prunes report as freed. Prunes aside are the
//! counter-test: there, the same pulls do fail.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::kit::pulls::flat::RemoteBlob;
use crate::kit::random::random;
use crate::kit::total::Total;
use crate::kit::tree::Tree;
use crate::smoke::damage::blobs;
use crate::smoke::prune::Prune;
use crate::smoke::table::Row;
use crate::smoke::tally::Tally;

const IN_PLACE: Duration = Duration::from_secs(10);
const ASIDE: Duration = Duration::from_secs(4);
/// The maximum number of pulls per puller.
const MAX_PULLS: u32 = 200_000;
/// The number of blobs per puller. Half of the pulls want one of its favourites.
const BLOBS: u64 = 2048;
const FAVOURITES: u64 = 32;
/// How long all pullers pull, and then rest: for longer than a prune looks for pulls.
const AT_WORK: Duration = Duration::from_millis(1500);
const AT_REST: Duration = Duration::from_millis(1000);

/// Runs the exercise with caches in `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(prune: &Prune, directory: &Path, jobs: u16) -> anyhow::Result<Vec<Row>> {
    let cache = directory.join("flat-in-place");
    let (mut in_place, written) = run(prune, &cache, jobs, IN_PLACE, &[])?;
    let freed = Total { blobs: in_place.blobs_freed, bytes: in_place.bytes_freed };
    let left = blobs(&Tree::of(&cache)?);
    let mut accounted_for = freed;
    accounted_for += left;
    in_place.check(written == accounted_for, || {
        format!("{written:?} were written and {left:?} are left, but the prunes report {freed:?} freed")
    });
    in_place.check(freed.blobs > 0, || "the prunes freed nothing, so this proves nothing".to_owned());
    in_place.add_prune(prune.run(&cache, &[]));
    let start = Instant::now();
    in_place.merge(pull_until(&cache, 0, start, start + Duration::from_millis(500)).0);

    let (aside, _) = run(prune, &directory.join("flat-aside"), jobs, ASIDE, &["--aside"])?;
    Ok(vec![
        Row { exercise: "flat cache, in place", may_fail: false, tally: in_place },
        Row { exercise: "flat cache, aside (counter-test)", may_fail: true, tally: aside },
    ])
}

/// Pulls and prunes for `time`. Also returns what the pulls wrote.
fn run(
    prune: &Prune,
    cache: &Path,
    jobs: u16,
    time: Duration,
    flags: &[&str],
) -> anyhow::Result<(Tally, Total)> {
    let start = Instant::now();
    let end = start + time;
    thread::scope(|scope| {
        let pullers: Vec<_> =
            (0..jobs).map(|puller| scope.spawn(move || pull_until(cache, puller, start, end))).collect();
        let pruners: Vec<_> =
            (0..jobs.div_ceil(2)).map(|_| scope.spawn(|| prune.run_until(end, cache, flags))).collect();
        let (mut tally, mut written) = (Tally::default(), Total::default());
        for puller in pullers {
            let (pulled, by_puller) = puller.join().map_err(|_| anyhow::anyhow!("a puller panicked"))?;
            tally.merge(pulled);
            written += by_puller;
        }
        for pruner in pruners {
            tally.merge(pruner.join().map_err(|_| anyhow::anyhow!("a pruner panicked"))?);
        }
        Ok((tally, written))
    })
}

/// Sleeps if it is time for a rest.
fn rest(since_start: Duration) {
    let period = AT_WORK + AT_REST;
    let into_period = since_start.as_millis() % period.as_millis();
    if into_period >= AT_WORK.as_millis() {
        thread::sleep(AT_REST);
    }
}

/// Pulls blobs of one puller from `start` until `end`. Also returns what it wrote.
fn pull_until(cache: &Path, puller: u16, start: Instant, end: Instant) -> (Tally, Total) {
    let (mut tally, mut written) = (Tally::default(), Total::default());
    let mut random = random();
    for _ in 0..MAX_PULLS {
        let now = Instant::now();
        if now >= end {
            break;
        }
        rest(now.duration_since(start));
        let wanted = if random.random_bool(0.5) { FAVOURITES } else { BLOBS };
        let blob = RemoteBlob { seed: u64::from(puller) * BLOBS + random.random_range(0..wanted) };
        tally.pull_blob(blob, cache, &mut written);
    }
    (tally, written)
}
