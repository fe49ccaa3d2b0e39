//! Caches, documents and lists that are meant to do harm.
//!
//! Guarantees: each comes from a seed, so a failure can be had again. A prune of it must end in time with
//! a documented code, in bounded memory (a hard limit on its data, and a look at its peak), write one
//! line and nothing that a terminal would obey, remove nothing but what a rule of this module lets go, in
//! the cache and around it, and report just what went.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Stage;
use super::control::try_all;
use super::hostile_documents::{
    SPECIALS, Special, image_of, mutated, mutated_plan, random_document, random_keep, random_name,
};
use super::mode::command;
use super::process::{self, Ended, while_none_starts};
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
    row.check(ended.code != Some(0) || ended.report().is_some(), || {
        format!("{what}: no report: {}", ended.story())
    });
    Ok(row)
}

/// Prunes, and looks at what became of everything.
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
        .snapshot
        .gone_from(&after.snapshot, |path| before.fate(path, is_aside) == Fate::MayGo { counts: true });
    let told = (ended.number("blobs_freed"), ended.number("bytes_freed"));
    let is_told = match told {
        (Some(blobs), Some(bytes)) => (blobs, bytes) == (gone.blobs, gone.bytes),
        _ => gone.blobs == 0,
    };
    row.check(is_told, || format!("{what}: {gone:?} went: {}", ended.story()));
    Ok(ended)
}

fn random_arguments(stage: &Stage, sandbox: &Sandbox, random: &mut StdRng) -> anyhow::Result<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let file = sandbox.out("list");
    let path = file.display().to_string();
    Ok(match random.random_range(0..8) {
        0 => words(&["--unreferenced"]),
        1 if random.random_bool(0.6) => words(&["--keep", &digest(10)]),
        1 => words(&["--keep", &digest(random.random_range(1..25))]),
        2 => words(&["--max-used-space", "700", "--older-than", "1h"]),
        3 => words(&["--aside"]),
        4 | 5 => {
            let saved = ["--dry-run", "--save-plan", &path];
            // A cache that is refused has no plan: then the file is something else.
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

/// A cache that was thought up.
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
    row.check(is_plain(&ended.stdout) && is_plain(&ended.stderr), || {
        format!("{what}: control characters: {}", ended.story())
    });
    row.check(ended.stdout.lines().count() <= 1, || format!("{what}: more than a line: {}", ended.story()));
}

/// Whether a terminal shows the text as it is: no control characters, none that are not seen, and none that
/// turn the direction of what follows.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|character| {
        character.is_control() && character != '\n'
            || matches!(
                character,
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            )
    })
}

/// What may become of an entry in a prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It may be another, or gone.
    MayChange,
    /// It may be gone; whether the report then counts it.
    MayGo {
        counts: bool,
    },
}

/// Everything in a sandbox.
#[derive(Debug)]
struct State {
    snapshot: Snapshot,
    /// Of each directory the inode, the mode and the owner: its times may change.
    directories: BTreeMap<PathBuf, (u64, u32, u32, u32)>,
}

impl State {
    fn of(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let snapshot = sandbox.snapshot()?;
        let mut directories = BTreeMap::new();
        for path in snapshot.entries.keys() {
            let metadata = sandbox.path().join(path).symlink_metadata()?;
            if metadata.is_dir() {
                let identity = (metadata.ino(), metadata.mode(), metadata.uid(), metadata.gid());
                directories.insert(path.clone(), identity);
            }
        }
        Ok(Self { snapshot, directories })
    }

    /// The first entry that is not what it may be. The blobs `kept` must stay.
    fn first_change(&self, after: &Self, is_aside: bool, kept: &BTreeSet<PathBuf>) -> Option<String> {
        let changed = self.snapshot.entries.iter().find_map(|(path, entry)| {
            let must_stay = entry.is_file && kept.contains(path);
            let fate = if must_stay { Fate::Stays } else { self.fate(path, is_aside) };
            let is_same = || match (self.directories.get(path), after.directories.get(path)) {
                (None, None) => after.snapshot.entries.get(path) == Some(entry),
                (before, after) => before == after,
            };
            let is_gone = !after.snapshot.entries.contains_key(path);
            let may_be = match fate {
                Fate::Stays => is_same(),
                Fate::MayGo { .. } => is_gone || is_same(),
                Fate::MayChange => true,
            };
            let how = if is_gone { "is gone" } else { "changed" };
            (!may_be).then(|| format!("{path:?} {how}"))
        });
        let is_new = |path: &&PathBuf| !self.snapshot.entries.contains_key(*path);
        let new = || after.snapshot.entries.keys().find(is_new).map(|path| format!("{path:?} is new"));
        changed.or_else(new)
    }

    fn fate(&self, path: &Path, is_aside: bool) -> Fate {
        let parts: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        let is_leftover = |name: &[u8]| name.strip_prefix(b".pruning-").is_some_and(|hex| is_hex(hex, 16));
        match parts[..] {
            [b"cache"] if is_aside => Fate::MayChange,
            [b"cache", first, ref below @ ..]
                if is_leftover(first.strip_prefix(b"cache").unwrap_or(first)) =>
            {
                self.fate_below(path, below, true)
            }
            [b"cache", _, ..] => self.fate_below(path, &parts[1..], is_aside),
            [first, ref below @ ..] if first.strip_prefix(b"cache").is_some_and(is_leftover) => {
                self.fate_below(path, below, true)
            }
            _ => Fate::Stays,
        }
    }

    /// The fate of an entry of a cache, or of a leftover, which goes as a whole: `below` are the names that
    /// lead to it from there.
    fn fate_below(&self, path: &Path, below: &[&[u8]], as_whole: bool) -> Fate {
        let is_directory = self.directories.contains_key(path);
        let is_file = self.snapshot.entries.get(path).is_some_and(|entry| entry.is_file);
        let base = path.ancestors().nth(below.len()).unwrap_or(path);
        let is_nested = || {
            let is_algorithm = |name: &str| self.directories.contains_key(&base.join("blobs").join(name));
            let layout = self.snapshot.entries.get(&base.join("oci-layout"));
            is_algorithm("sha256") || is_algorithm("sha512") || layout.is_some_and(|layout| layout.is_file)
        };
        let is_partial = match *below {
            [name] => is_partial_name(name) || is_file && name.ends_with(b".tmp"),
            [name, _] if is_partial_name(name) => true,
            [b"ingest", _] | [b"ingest", _, _] => is_nested(),
            [b"blobs", b"sha256" | b"sha512", name] => is_file && name.ends_with(b".tmp"),
            _ => false,
        };
        let is_blob = match *below {
            [name] => is_flat_digest(name),
            [b"blobs", b"sha256", name] => is_hex(name, 64),
            [b"blobs", b"sha512", name] => is_hex(name, 128),
            _ => false,
        };
        match *below {
            [] if is_directory => Fate::MayGo { counts: false },
            [b"blobs" | b"ingest"] | [b"blobs", b"sha256" | b"sha512"] if is_directory && as_whole => {
                Fate::MayGo { counts: false }
            }
            [b"index.json"] if is_file && !as_whole => Fate::MayChange,
            [b"index.json" | b"oci-layout"] if is_file && is_nested() => {
                if as_whole {
                    Fate::MayGo { counts: false }
                } else {
                    Fate::Stays
                }
            }
            _ if is_blob && is_file => Fate::MayGo { counts: true },
            _ if is_partial && self.is_whole_partial(path, base) => Fate::MayGo { counts: is_file },
            _ => Fate::Stays,
        }
    }

    /// Whether the partial that the entry is or belongs to is a file, or a directory of nothing but files.
    fn is_whole_partial(&self, path: &Path, base: &Path) -> bool {
        let is_file = |path: &Path| self.snapshot.entries.get(path).is_some_and(|entry| entry.is_file);
        let parent = path.parent().unwrap_or(path);
        let is_within = parent != base && !parent.ends_with("ingest") && !parent.ends_with("sha256");
        let partial = if is_within && !parent.ends_with("sha512") { parent } else { path };
        let mut below = self.snapshot.entries.keys().filter(|entry| entry.parent() == Some(partial));
        is_file(partial) || self.directories.contains_key(partial) && below.all(|entry| is_file(entry))
    }
}

/// The paths of the blobs that must stay for the sake of a digest: its own wherever it is, and those of the
/// image. What refers to a blob is a layout, so a flat blob beside it is none of its image's.
fn kept_for(cache: &Path, keep: &str) -> BTreeSet<PathBuf> {
    let flat = [keep.to_owned(), keep.replacen(':', "-", 1)].map(|name| Path::new("cache").join(name));
    let nested = |digest: String| Path::new("cache/blobs").join(digest.replacen(':', "/", 1));
    image_of(cache, keep).into_iter().map(nested).chain(flat).collect()
}

fn is_flat_digest(name: &[u8]) -> bool {
    let hex_of = |algorithm: &[u8]| match name.strip_prefix(algorithm)? {
        [b':' | b'-', hex @ ..] => Some(hex),
        _ => None,
    };
    hex_of(b"sha256").is_some_and(|hex| is_hex(hex, 64))
        || hex_of(b"sha512").is_some_and(|hex| is_hex(hex, 128))
}

fn is_partial_name(name: &[u8]) -> bool {
    let is_decimal = |rest: &[u8]| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit);
    name.strip_prefix(b"oci-put-blob").is_some_and(is_decimal)
        || name.strip_prefix(b".umoci-").is_some_and(is_decimal)
        || name.strip_prefix(b"index.json.pruning-").is_some_and(|hex| is_hex(hex, 16))
}

/// Exactly so many hex digits, in lower case.
fn is_hex(text: &[u8], digits: usize) -> bool {
    text.len() == digits && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let hex = hex_name(7);
        assert!(is_flat_digest(format!("sha256-{hex}").as_bytes()) && is_flat_digest(digest(7).as_bytes()));
        for other in
            [hex.clone(), format!("sha512:{hex}"), format!("sha256:{hex}0"), digest(10).to_uppercase()]
        {
            assert!(!is_flat_digest(other.as_bytes()), "{other}");
        }
        assert!(is_partial_name(b"oci-put-blob12") && is_partial_name(b".umoci-1"));
        assert!(!is_partial_name(b"oci-put-blob") && !is_partial_name(b"oci-put-blob1\x1b"));
        let kept = kept_for(Path::new("/none"), &digest(7));
        assert!(kept.contains(Path::new(&format!("cache/blobs/sha256/{hex}"))), "{kept:?}");
    }

    #[test]
    fn what_is_not_seen_is_not_plain() {
        assert!(is_plain("freed 1 B across 1 blob(s) in /h\u{f6}hle\n"));
        for text in ["\u{1b}[0m", "\u{202e}", "\u{200b}", "\u{2066}", "\u{feff}"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }
}
