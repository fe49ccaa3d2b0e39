//! A less-privileged user swaps names for links to a canary, while root prunes.
//!
//! Guarantees: the canary has the names that a prune removes, so a prune that follows a link removes from
//! it, and that is seen. Blobs, their directory, the index and leftovers are swapped, each in one atomic
//! step, and back. The swapper owns the cache; the canary is root's.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::Stage;
use super::mode::command;
use super::process;
use super::row::Row;
use super::sandbox::{flat_name, hex_name, write};
use super::snapshot::Snapshot;

/// `nobody`, and its group.
const NOBODY: u32 = 65534;
const BLOBS: usize = 24;
const PRUNE_LIMIT: Duration = Duration::from_secs(60);

/// What root does.
const STRATEGIES: [(&str, &[&str]); 4] = [
    ("in place", &[]),
    ("in place, layout", &[]),
    ("--unreferenced, layout", &["--unreferenced"]),
    ("aside", &["--aside"]),
];

pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let time = Duration::from_secs(if stage.quick { 5 } else { 25 });
    STRATEGIES.iter().map(|(name, flags)| attack(stage, name, flags, time)).collect()
}

fn attack(stage: &Stage, name: &str, flags: &[&str], time: Duration) -> anyhow::Result<Row> {
    let mut row = Row::new("attack", "tmpfs", name);
    let is_layout = name.ends_with("layout");
    let directory = tempfile::TempDir::with_prefix_in("attack-", &stage.scratch)?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
    let (cache, canary) = (directory.path().join("cache"), directory.path().join("canary"));
    for directory in [&cache, &directory.path().join("links")] {
        fs::create_dir(directory)?;
        chown(directory, Some(NOBODY), Some(NOBODY))?;
    }
    fill_canary(&canary)?;
    let before = Snapshot::of(&canary)?;

    let mut swapper = Command::new("setpriv");
    let user = NOBODY.to_string();
    swapper.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&stage.program);
    swapper.args(["torture", "--", "swapper"]).arg(directory.path()).arg(time.as_millis().to_string());
    let swapper = process::start(swapper.arg(if is_layout { "layout" } else { "flat" }), None)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let ended = process::run(command(&stage.program, "cache-prune", &cache).args(flags), PRUNE_LIMIT)?;
        row.executions += 1;
        row.unlinks += ended.number("blobs_freed").unwrap_or(0);
        row.check(ended.is_documented(), || format!("a prune: {}", ended.story()));
    }
    let swapped = swapper.finish(time + PRUNE_LIMIT)?;
    row.swaps = swapped.stdout.trim().parse().with_context(|| format!("the swapper: {}", swapped.story()))?;
    let after = Snapshot::of(&canary)?;
    let change = before.first_change(&after, |_| true);
    row.check(change.is_none(), || format!("the canary: {}", change.unwrap_or_default()));
    row.check(before.entries.len() == after.entries.len(), || "the canary has new entries".to_owned());
    let unlinks = row.unlinks;
    row.check(unlinks > 0, || "the prunes removed nothing, so nothing is shown".to_owned());
    let enough = if stage.quick { 2_000 } else { 25_000 };
    let swaps = row.swaps;
    row.check(swaps >= enough, || format!("{swaps} swaps show too little"));
    Ok(row)
}

fn fill_canary(canary: &Path) -> anyhow::Result<()> {
    for number in 0..BLOBS {
        write(&canary.join(flat_name(number)), "canary")?;
        write(&canary.join(hex_name(number)), "canary")?;
    }
    write(&canary.join("oci-put-blob1"), "canary")?;
    write(&canary.join("index.json"), r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0","size":1}]}"#)
}

/// Swaps as the words say: directory of cache, canary and links, milliseconds, what the cache is. Prints
/// how often.
pub(super) fn play(words: &[&str]) -> anyhow::Result<()> {
    let [directory, milliseconds, kind] = words else { bail!("a swapper takes three words: {words:?}") };
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let swapper = Swapper { directory: directory.into(), is_layout: *kind == "layout" };
    let mut swaps = 0_u64;
    while Instant::now() < end {
        // Root may have removed anything meanwhile, and taken the whole cache aside.
        let pairs = swapper.fill();
        // Now and then root finds all in order, and begins.
        thread::sleep(Duration::from_micros(rand::rng().random_range(0..4000)));
        for _ in 0..20 {
            for (own, link) in &pairs {
                let swapped = renameat_with(CWD, own, CWD, link, RenameFlags::EXCHANGE);
                swaps += u64::from(swapped.is_ok());
            }
        }
    }
    std::io::stdout().lock().write_all(swaps.to_string().as_bytes()).context("write to stdout")
}

struct Swapper {
    directory: PathBuf,
    is_layout: bool,
}

impl Swapper {
    /// Puts in the cache what is to be pruned, and links elsewhere. Returns the pairs to swap.
    fn fill(&self) -> Vec<(PathBuf, PathBuf)> {
        let [cache, canary, links] = ["cache", "canary", "links"].map(|name| self.directory.join(name));
        let below = cache.join("blobs/sha256");
        let leftover = cache.join(format!(".pruning-{:016x}", 9));
        // What cannot be made now may be made the next time.
        if rand::rng().random_ratio(1, 8) {
            // For a partial, which is always fresh, a prune waits.
            let _ = write(&cache.join("oci-put-blob1"), "partial");
        }
        if self.is_layout {
            let _ = write(&cache.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
            let _ = write(&cache.join("index.json"), r#"{"schemaVersion":2,"manifests":[{}]}"#);
        }
        let mut pairs = Vec::new();
        let mut pair = |own: &Path, to: &Path| {
            let link = links.join(pairs.len().to_string());
            let _ = symlink(to, &link);
            pairs.push((own.to_owned(), link));
        };
        for number in 0..BLOBS {
            let (nested, flat) = (below.join(hex_name(number)), cache.join(flat_name(number)));
            for path in [&nested, &flat, &leftover.join(flat_name(number))] {
                let _ = write(path, "blob");
            }
            if number % 6 == 0 {
                pair(&nested, &canary.join(hex_name(number)));
                pair(&flat, &canary.join(flat_name(number)));
            }
        }
        for name in ["index.json", "oci-put-blob1"] {
            pair(&cache.join(name), &canary.join(name));
        }
        for directory in [&below, &leftover, &cache.join("blobs")] {
            pair(directory, &canary);
        }
        pairs
    }
}
