//! OCI image layouts: skopeo pulls into them while prunes run.
//!
//! Guarantees: each layout has one pull at a time. Two would break each other without a prune, because skopeo
//! writes `index.json` in place and without a lock. All pullers share the layouts, and half of the pulls are
//! delayed as if the registry were far away. Each layout is pruned without a pause while pulls write to it. A
//! first round without prunes shows that pulls do not fail by themselves. A layout is checked only while no
//! pull or prune changes it: after some pulls, under the shared lock that holds off prunes, and after each
//! round. A broken layout stays counted even if the next prune repairs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use xshell::cmd;

use crate::kit::layout::{problems, tags};
use crate::kit::random::random;
use crate::kit::shell::{output_of, shell};
use crate::smoke::images::Images;
use crate::smoke::prune::Prune;
use crate::smoke::registry::Way;
use crate::smoke::table::Row;
use crate::smoke::tally::{Failure, Tally};

/// The length of a round without prunes.
const ALONE: Duration = Duration::from_secs(3);
/// The number of rounds with prunes, and the length of each.
const ROUNDS: u32 = 4;
const ROUND: Duration = Duration::from_secs(5);
/// The maximum number of pulls per puller and round.
const MAX_PULLS: u32 = 500;
/// The longest pause of a puller. Pauses leave layouts idle now and then.
const MAX_PAUSE_MILLISECONDS: u64 = 600;

struct Exercise<'a> {
    prune: &'a Prune,
    images: &'a Images<'a>,
    layouts: Vec<Layout>,
    jobs: u16,
}

struct Layout {
    path: PathBuf,
    /// The problems that the last check found. The puller holds this lock.
    problems: Mutex<Vec<String>>,
}

/// Runs the rounds with layouts in `directory`.
///
/// # Errors
///
/// If they cannot run.
pub(crate) fn rows(
    prune: &Prune,
    images: &Images<'_>,
    directory: &Path,
    jobs: u16,
) -> anyhow::Result<Vec<Row>> {
    // There is one more than there are pullers, so one is always idle.
    let layouts = (0..=jobs).map(|number| Layout {
        path: directory.join(format!("layout-{number}")),
        problems: Mutex::default(),
    });
    let exercise = Exercise { prune, images, layouts: layouts.collect(), jobs };

    let alone = exercise.round(ALONE, false)?;
    let mut beside = Tally::default();
    for _ in 0..ROUNDS {
        beside.merge(exercise.round(ROUND, true)?);
    }
    beside.check(beside.blobs_freed > 0, || "the prunes freed nothing, so this proves nothing".to_owned());
    beside.merge(exercise.prune_and_pull_again()?);
    Ok(vec![
        Row { exercise: "OCI layout, no prune", may_fail: false, tally: alone },
        Row { exercise: "OCI layout, in place", may_fail: false, tally: beside },
    ])
}

impl Exercise<'_> {
    /// Pulls and prunes for `time`, then checks every layout.
    fn round(&self, time: Duration, with_prunes: bool) -> anyhow::Result<Tally> {
        let end = Instant::now() + time;
        let pruned = if with_prunes { &self.layouts[..] } else { &[] };
        let mut tally = thread::scope(|scope| {
            let pullers: Vec<_> = (0..self.jobs).map(|_| scope.spawn(|| self.pull_until(end))).collect();
            let pruners: Vec<_> = pruned
                .iter()
                .map(|layout| scope.spawn(|| self.prune.run_until(end, &layout.path, &[])))
                .collect();
            let mut tally = Tally::default();
            for worker in pullers.into_iter().chain(pruners) {
                tally.merge(worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
            }
            anyhow::Ok(tally)
        })?;
        for layout in &self.layouts {
            let mut problems = layout.problems.lock().unwrap_or_else(PoisonError::into_inner);
            tally.note_problems(&layout.path, &mut problems, problems_for_tools(&layout.path)?);
        }
        Ok(tally)
    }

    /// Pulls random images into random layouts.
    fn pull_until(&self, end: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut random = random();
        for _ in 0..MAX_PULLS {
            if Instant::now() >= end {
                break;
            }
            let layout = &self.layouts[random.random_range(0..self.layouts.len())];
            let mut problems = layout.problems.lock().unwrap_or_else(PoisonError::into_inner);
            let way = if random.random_bool(0.5) { Way::Near } else { Way::Far };
            tally.add_pull(self.images.pull(Images::any_name(), &layout.path, way));
            if random.random_ratio(1, 3) {
                match problems_between_prunes(&layout.path) {
                    Ok(found) => tally.note_problems(&layout.path, &mut problems, found),
                    Err(error) => tally.fail(Failure::Check, &format!("{error:#}")),
                }
            }
            drop(problems);
            if random.random_ratio(1, 3) {
                thread::sleep(Duration::from_millis(random.random_range(0..=MAX_PAUSE_MILLISECONDS)));
            }
        }
        tally
    }

    /// Prunes every layout once more, then pulls all images into it.
    fn prune_and_pull_again(&self) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        for layout in &self.layouts {
            let mut problems = layout.problems.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add_prune(self.prune.run(&layout.path, &[]));
            for image in Images::names() {
                tally.add_pull(self.images.pull(image, &layout.path, Way::Near));
            }
            let mut found = problems_for_tools(&layout.path)?;
            let tags = tags(&layout.path).unwrap_or_default();
            let missing = Images::names().filter(|image| !tags.iter().any(|tag| tag == image));
            found.extend(missing.map(|image| format!("{image} was pulled, but the index does not name it")));
            tally.note_problems(&layout.path, &mut problems, found);
        }
        Ok(tally)
    }
}

impl Tally {
    /// Counts a pull by skopeo.
    pub(crate) fn add_pull(&mut self, pulled: anyhow::Result<()>) {
        self.pulls += 1;
        if let Err(error) = pulled {
            self.fail(Failure::Pull("skopeo"), &format!("{error:#}"));
        }
    }

    /// Counts a layout as broken if this check found a problem that the last one did not.
    fn note_problems(&mut self, layout: &Path, last: &mut Vec<String>, found: Vec<String>) {
        let mut new = found.iter().filter(|problem| !last.contains(problem));
        if let Some(first) = new.next() {
            let more = match new.count() {
                0 => String::new(),
                count => format!("; and {count} more"),
            };
            self.fail(Failure::BrokenLayout, &format!("{}: {first}{more}", layout.display()));
        }
        *last = found;
    }
}

/// Describes what is wrong with the layout. If nothing seems wrong, umoci and skopeo check it too.
///
/// # Errors
///
/// If the current directory is unknown.
fn problems_for_tools(layout: &Path) -> anyhow::Result<Vec<String>> {
    let shell = shell()?;
    let problems = problems(layout);
    if !problems.is_empty() || !layout.join("index.json").exists() {
        return Ok(problems);
    }
    let mut answers = vec![output_of(cmd!(shell, "umoci ls --layout {layout}"))];
    for tag in tags(layout)? {
        let reference = format!("oci:{}:{tag}", layout.display());
        answers.push(output_of(cmd!(shell, "skopeo --insecure-policy inspect {reference}")));
        answers.push(output_of(cmd!(shell, "umoci stat --image {layout}:{tag}")));
    }
    Ok(answers.into_iter().filter_map(|answer| Some(format!("{:#}", answer.err()?))).collect())
}

/// Checks a layout without pulls, and holds off prunes meanwhile.
fn problems_between_prunes(layout: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("lock {}", layout.display());
    let directory = File::open(layout).with_context(context)?;
    directory.lock_shared().with_context(context)?;
    Ok(problems(layout))
}
