//! The signals that stop a prune, at any time.
//!
//! Guarantees: the prune ends soon, with the code for the signal, and its totals are correct.

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::kit::process;
use crate::kit::tree::Tree;
use crate::torture::mode::LIMIT;
use crate::torture::sandbox::{Sandbox, Shape, fill};
use crate::torture::surroundings::trial::{Case, Trial};

const SIGNALS: [(Signal, i32); 4] =
    [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::XCPU, 152)];
/// How long stopping may take.
const SOON: Duration = Duration::from_secs(2);
/// The number of points in time at which a prune is stopped.
const PARTS: u32 = 16;
/// With so many blobs a prune takes long enough for a signal to arrive.
const BLOBS: usize = 6000;

/// The cases with signals.
pub(crate) const CASES: &[Case] = &[
    ("signals, flat", |trial| flat(trial, &[])),
    ("signals, aside", |trial| flat(trial, &["--aside"])),
    ("signals, layout", layout),
    ("signals while waiting for another prune", waiting),
];

fn flat(trial: &mut Trial<'_>, flags: &[&str]) -> anyhow::Result<()> {
    // Under `nohup`, the prune would inherit that SIGHUP is ignored. What is handled is not inherited.
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default())?;
    let (cache, parent) = (trial.path("parent/cache"), trial.path("parent"));
    fill(&cache, BLOBS)?;
    let at = Instant::now();
    trial.prune(&cache, flags, 0)?;
    let whole = at.elapsed();
    let mut in_between = 0;
    for (signal, code) in SIGNALS {
        for part in 0..PARTS {
            let delay = whole * part / PARTS;
            let milliseconds = delay.as_millis();
            fill(&cache, BLOBS)?;
            let before = Tree::of(&parent)?;
            let running = process::start(&mut trial.command(&cache, flags), None)?;
            thread::sleep(delay);
            running.signal(signal);
            let at = Instant::now();
            let ended = running.finish(LIMIT)?;
            let took = at.elapsed();
            trial.check(took < SOON, || format!("{milliseconds} ms: stopping took {took:?}"));
            // A signal that arrives before the program handles it kills the program.
            let is_early = ended.code == Some(-signal.as_raw());
            if is_early {
                let gone = before.gone_from(&Tree::of(&parent)?, |_| true);
                trial.check(gone.blobs == 0, || format!("{milliseconds} ms: {gone:?} went, unreported"));
                continue;
            }
            trial.compare(&before, &parent, &ended, &[0, code])?;
            let freed = ended.number("blobs_freed").unwrap_or(0);
            in_between += u32::from(ended.code == Some(code) && (1..BLOBS as u64).contains(&freed));
        }
    }
    trial.check(in_between > 0, || "no signal arrived while blobs went, so this proves nothing".to_owned());
    trial.prune(&cache, &[], 0)?;
    let beside = std::fs::read_dir(&parent)?.count();
    trial.check(beside == 1, || format!("{beside} entries in the cache's parent, not 1"));
    Ok(())
}

fn layout(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for (signal, code) in SIGNALS {
        for milliseconds in [1, 5, 20, 200, 480, 500, 505, 510, 520, 540, 600, 900, 1000] {
            let sandbox = Sandbox::new(&trial.path(""), Shape::Layout)?;
            let before = sandbox.tree()?;
            let running = process::start(&mut trial.command(&sandbox.cache(), &[]), None)?;
            thread::sleep(Duration::from_millis(milliseconds));
            running.signal(signal);
            let ended = running.finish(SOON)?;
            // A signal that arrives before the program handles it kills the program. Then nothing is gone.
            let is_good = [0, code, -signal.as_raw()].map(Some).contains(&ended.code);
            trial.check(is_good, || format!("{milliseconds} ms: {}", ended.story()));
            trial.compare_layout(&format!("{milliseconds} ms"), &sandbox, &before, &ended)?;
        }
    }
    Ok(())
}

fn waiting(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    let holder = File::open(&cache)?;
    holder.lock_shared()?;
    for (signal, code) in SIGNALS {
        let before = Tree::of(&cache)?;
        let running = process::start(&mut trial.command(&cache, &[]), None)?;
        thread::sleep(Duration::from_millis(150));
        running.signal(signal);
        let ended = running.finish(SOON)?;
        trial.compare(&before, &cache, &ended, &[code])?;
    }
    trial.expect_blobs(&cache, 3);
    Ok(())
}
