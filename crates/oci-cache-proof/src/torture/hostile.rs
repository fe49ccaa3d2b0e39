//! Caches, documents and lists that are made to do harm.
//!
//! Guarantees: each comes from a seed, so a failure can be reproduced. A prune must end in time with a
//! documented code. Its memory is bounded, by a hard limit and a check of its peak. It writes at most one
//! line, and nothing that controls a terminal. It removes only what an independent rule allows, inside the
//! cache and around it, and reports exactly what it removed.

mod documents;
mod image;
mod rule;
mod special;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use crate::kit::process::{self, Ended, while_none_starts};
use crate::kit::random::Random;
use crate::torture::control::try_all;
use crate::torture::hostile::documents::{mutated, mutated_plan, random_document, random_keep, random_name};
use crate::torture::hostile::rule::{Fate, State, kept_for};
use crate::torture::hostile::special::{SPECIALS, Special};
use crate::torture::mode::command;
use crate::torture::row::Row;
use crate::torture::sandbox::{Sandbox, Shape, digest, hex_name};
use crate::torture::stage::Stage;

const LIMIT: Duration = Duration::from_secs(60);
const MAX_KIBIBYTES: u64 = 256 << 10;
const THREADS: usize = 8;

/// Prunes random and special caches.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let peak = AtomicU64::new(0);
    let seeds: Vec<u64> = (0..if stage.quick { 240 } else { 4000 }).collect();
    let mut random = Row::new("hostile", "tmpfs", "random");
    try_all(&seeds, THREADS, &mut random, |seed| random_cache(stage, *seed, &peak))?;
    let mut special = Row::new("hostile", "tmpfs", "special");
    try_all(&SPECIALS, 2, &mut special, |special| special_cache(stage, special, &peak))?;
    special.strategy = format!("special; peak {} MiB", peak.into_inner() >> 10);
    Ok(vec![random, special])
}

/// Prunes a cache of random entries and documents with random arguments.
fn random_cache(stage: &Stage, seed: u64, peak: &AtomicU64) -> anyhow::Result<Row> {
    let mut random = Random::seed_from_u64(seed);
    let shape = match random.random_range(0..10) {
        0 => Shape::Pure,
        1..=3 => Shape::Flat,
        _ => Shape::Layout,
    };
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
    let before = State::of(&sandbox)?;
    let arguments = random_arguments(stage, &sandbox, &mut random)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let what = format!("seed {seed} {arguments:?}");
    let mut row = Row::default();
    let ended = try_prune(stage, &sandbox, &before, &arguments, &what, &mut row, peak)?;
    row.check(!matches!(ended.code, Some(0 | 3)) || ended.report().is_some(), || {
        format!("{what}: no report: {}", ended.story())
    });
    Ok(row)
}

/// Prunes, and checks what became of every entry.
fn try_prune(
    stage: &Stage,
    sandbox: &Sandbox,
    before: &State,
    arguments: &[&str],
    what: &str,
    row: &mut Row,
    peak: &AtomicU64,
) -> anyhow::Result<Ended> {
    let keep = arguments.iter().skip_while(|word| **word != "--keep").nth(1);
    let kept = keep.map(|keep| while_none_starts(|| kept_for(&sandbox.cache(), keep))).unwrap_or_default();
    let ended = prune(stage, &sandbox.cache(), arguments)?;
    look(row, what, &ended, peak);
    let after = State::of(sandbox)?;
    let is_aside = arguments.contains(&"--aside");
    let change = before.first_change(&after, is_aside, &kept);
    row.check(change.is_none(), || format!("{what}: {}: {}", change.unwrap_or_default(), ended.story()));
    let gone = before
        .tree
        .gone_from(&after.tree, |path| before.fate(path, is_aside) == Fate::MayGo { counts: true });
    let told = (ended.number("blobs_freed"), ended.number("bytes_freed"));
    let is_told = match told {
        (Some(blobs), Some(bytes)) => (blobs, bytes) == (gone.blobs, gone.bytes),
        _ => gone.blobs == 0,
    };
    row.check(is_told, || format!("{what}: {gone:?} went: {}", ended.story()));
    Ok(ended)
}

fn random_arguments(stage: &Stage, sandbox: &Sandbox, random: &mut Random) -> anyhow::Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = sandbox.out("list");
    let path = file.display().to_string();
    Ok(match random.random_range(0..8) {
        0 => words(&["--unreferenced"]),
        1 if random.random_bool(0.6) => words(&["--keep", &digest(10)]),
        1 => words(&["--keep", &digest(random.random_range(1..25))]),
        2 => words(&["--max-used-space", "700B", "--older-than", "1h"]),
        3 => words(&["--aside"]),
        4 | 5 => {
            let saved = ["--dry-run", "--save-plan", &path];
            // A refused cache has no plan. Then the file gets a random document.
            prune(stage, &sandbox.cache(), &saved)?;
            let plan = fs::read(&file).unwrap_or_else(|_| random_document(random));
            let plan = if random.random_bool(0.5) {
                mutated_plan(random, &plan, &sandbox.path().join("canary"))
            } else {
                let plan = String::from_utf8_lossy(&plan).replace("blobs/sha256/", "../canary/");
                mutated(random, plan.into_bytes())
            };
            fs::write(&file, plan)?;
            words(&["--from-plan", &path])
        }
        6 => {
            fs::write(&file, random_keep(random))?;
            words(&["--keep-from", &path])
        }
        _ => Vec::new(),
    })
}

/// Prunes a special cache in several ways.
fn special_cache(stage: &Stage, special: &Special, peak: &AtomicU64) -> anyhow::Result<Row> {
    let mut row = Row::default();
    let keep = [10, 100].map(digest);
    for flags in [&["--unreferenced"][..], &["--keep", &keep[0]], &["--keep", &keep[1]], &[]] {
        let sandbox = Sandbox::new(&stage.scratch, Shape::Layout)?;
        (special.fill)(&sandbox.cache())?;
        let before = State::of(&sandbox)?;
        let what = format!("{} {flags:?}", special.name);
        try_prune(stage, &sandbox, &before, flags, &what, &mut row, peak)?;
    }
    Ok(row)
}

/// Prunes under a memory limit. Beyond it, allocations fail and the program aborts.
fn prune(stage: &Stage, cache: &Path, arguments: &[&str]) -> anyhow::Result<Ended> {
    let prune = command(&stage.program, "prune", cache);
    let mut limited =
        process::wrapped(&["prlimit", &format!("--data={}", MAX_KIBIBYTES << 10), "--"], &prune);
    process::run(limited.args(arguments), LIMIT)
}

fn look(row: &mut Row, what: &str, ended: &Ended, peak: &AtomicU64) {
    row.executions += 1;
    peak.fetch_max(ended.peak_kibibytes, Ordering::Relaxed);
    row.check(ended.is_documented(), || format!("{what}: {}", ended.story()));
    let kibibytes = ended.peak_kibibytes;
    row.check(kibibytes < MAX_KIBIBYTES, || format!("{what}: {kibibytes} KiB of memory"));
    row.check(is_plain(&ended.stdout) && is_plain(&ended.stderr), || {
        format!("{what}: control characters: {}", ended.story())
    });
    row.check(ended.stdout.lines().count() <= 1, || format!("{what}: more than one line: {}", ended.story()));
}

/// Whether a terminal shows the text as it is, without control characters, invisible characters or changes of
/// direction.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|character| {
        character.is_control() && character != '\n'
            || matches!(
                character,
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_not_plain() {
        assert!(is_plain("freed 1 B across 1 blob(s) in /h\u{f6}hle\n"));
        for text in ["\u{1b}[0m", "\u{202e}", "\u{200b}", "\u{2066}", "\u{feff}"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }
}
