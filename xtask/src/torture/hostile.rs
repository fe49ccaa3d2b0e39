//! Caches, documents and lists that are meant to do harm.
//!
//! Guarantees: each comes from a seed, so a failure can be had again. A prune of it must end in time with
//! a documented code, in bounded memory (a hard limit on its data, and a look at its peak), write one
//! line and nothing that a terminal would obey, and leave alone what is outside.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Stage;
use super::control::try_all;
use super::hostile_documents::{SPECIALS, Special, mutated, random_document, random_keep, random_name};
use super::mode::command;
use super::process::{self, Ended};
use super::row::Row;
use super::sandbox::{Sandbox, Shape, digest, hex_name};
use super::snapshot::Snapshot;

const LIMIT: Duration = Duration::from_secs(60);
const MAX_KIBIBYTES: u64 = 256 << 10;
const THREADS: usize = 8;

pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let peak = AtomicU64::new(0);
    let seeds: Vec<u64> = (0..if stage.quick { 240 } else { 4000 }).collect();
    let mut random = Row::new("hostile", "tmpfs", "random");
    try_all(&seeds, THREADS, &mut random, |seed| random_cache(stage, *seed, &peak))?;
    let mut special = Row::new("hostile", "tmpfs", "special");
    try_all(&SPECIALS, 2, &mut special, |special| special_cache(stage, special, &peak))?;
    special.strategy = format!("special; peak {} MiB", peak.into_inner() >> 10);
    Ok(vec![random, special])
}

/// A cache of random entries and documents, pruned in a random way.
fn random_cache(stage: &Stage, seed: u64, peak: &AtomicU64) -> anyhow::Result<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let shape = if random.random_bool(0.3) { Shape::Flat } else { Shape::Layout };
    let sandbox = Sandbox::new(&stage.scratch, shape)?;
    let cache = sandbox.cache();
    for _ in 0..random.random_range(0..12) {
        random_name(&mut random, &cache, &sandbox.path().join("canary"));
    }
    if shape == Shape::Layout {
        for number in [10, 20, 40] {
            if random.random_bool(0.7) {
                let path = cache.join("blobs/sha256").join(hex_name(number));
                fs::write(path, random_document(&mut random))?;
            }
        }
        let index = cache.join("index.json");
        match random.random_range(0..3) {
            0 => fs::write(index, random_document(&mut random))?,
            1 => fs::write(&index, mutated(&mut random, fs::read(&index)?))?,
            _ => {}
        }
    }
    let before = canary(&sandbox)?;
    let mut row = Row::default();
    let arguments = random_arguments(stage, &sandbox, &mut random)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = prune(stage, &cache, &arguments)?;
    look(&mut row, &format!("seed {seed} {arguments:?}"), &ended, peak);
    row.check(ended.code != Some(0) || ended.report().is_some(), || {
        format!("seed {seed} {arguments:?}: no report: {}", ended.story())
    });
    let change = before.first_change(&canary(&sandbox)?, |_| true);
    row.check(change.is_none(), || format!("seed {seed} {arguments:?}: canary {change:?}"));
    Ok(row)
}

fn random_arguments(stage: &Stage, sandbox: &Sandbox, random: &mut StdRng) -> anyhow::Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = sandbox.out("list");
    let path = file.display().to_string();
    Ok(match random.random_range(0..8) {
        0 => words(&["--unreferenced"]),
        1 => words(&["--keep", &digest(random.random_range(1..25))]),
        2 => words(&["--max-used-space", "700", "--older-than", "1h"]),
        3 => words(&["--aside"]),
        4 | 5 => {
            let saved = ["--dry-run", "--save-plan", &path];
            // A cache that is refused has no plan: then the file is something else.
            prune(stage, &sandbox.cache(), &saved)?;
            let plan = fs::read(&file).unwrap_or_else(|_| random_document(random));
            let plan = String::from_utf8_lossy(&plan).replace("blobs/sha256/", "../canary/");
            fs::write(&file, mutated(random, plan.into_bytes()))?;
            words(&["--from-plan", &path])
        }
        6 => {
            fs::write(&file, random_keep(random))?;
            words(&["--keep-from", &path])
        }
        _ => Vec::new(),
    })
}

/// A cache that was thought up.
fn special_cache(stage: &Stage, special: &Special, peak: &AtomicU64) -> anyhow::Result<Row> {
    let mut row = Row::default();
    for flags in [&["--unreferenced"][..], &["--keep", &digest(1)], &[]] {
        let sandbox = Sandbox::new(&stage.scratch, Shape::Layout)?;
        (special.fill)(&sandbox.cache())?;
        let before = canary(&sandbox)?;
        let ended = prune(stage, &sandbox.cache(), flags)?;
        look(&mut row, &format!("{} {flags:?}", special.name), &ended, peak);
        let change = before.first_change(&canary(&sandbox)?, |_| true);
        row.check(change.is_none(), || format!("{} {flags:?}: canary {change:?}", special.name));
    }
    Ok(row)
}

fn canary(sandbox: &Sandbox) -> anyhow::Result<Snapshot> {
    Snapshot::of(&sandbox.path().join("canary"))
}

/// Prunes with a limit on memory: beyond it an allocation fails, and with it the program.
fn prune(stage: &Stage, cache: &Path, arguments: &[&str]) -> anyhow::Result<Ended> {
    let prune = command(&stage.program, "cache-prune", cache);
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--data={}", MAX_KIBIBYTES << 10)).arg("--").arg(prune.get_program());
    process::run(limited.args(prune.get_args()).args(arguments), LIMIT)
}

fn look(row: &mut Row, what: &str, ended: &Ended, peak: &AtomicU64) {
    row.executions += 1;
    peak.fetch_max(ended.peak_kibibytes, Ordering::Relaxed);
    row.check(ended.is_documented(), || format!("{what}: {}", ended.story()));
    let kibibytes = ended.peak_kibibytes;
    row.check(kibibytes < MAX_KIBIBYTES, || format!("{what}: {kibibytes} KiB of memory"));
    let is_plain = |text: &str| !text.chars().any(|character| character.is_control() && character != '\n');
    row.check(is_plain(&ended.stdout) && is_plain(&ended.stderr), || {
        format!("{what}: control characters: {}", ended.story())
    });
    row.check(ended.stdout.lines().count() <= 1, || format!("{what}: more than a line: {}", ended.story()));
}
