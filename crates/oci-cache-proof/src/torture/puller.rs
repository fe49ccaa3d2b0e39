//! A process that pulls. It is a role of this program.
//!
//! Guarantees: the process ends after its time. Each puller has its own blobs. With an age, a puller reuses a
//! blob only within half of that age after its last use began, so no blob that it may still want is that old.
//! Without an age, it wants any of its blobs at any time. A pull that breaks because the puller itself
//! stalled, for that age or for as long as prunes wait, is counted separately: nothing is promised for it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use oci_cache::{SETTLE, Timestamp};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::kit::counts::{Counts, keep_first};
use crate::kit::pulls::broken::Broken;
use crate::kit::pulls::flat::RemoteBlob;
use crate::kit::random::random;
use crate::kit::total::Total;
use crate::torture::age::{is_older_than, since};
use crate::torture::nested_pull::{NestedBlob, OPEN_AFTER_STAT, OVERSLEPT, Pauses};
use oci_cache_cli::clock;

/// The number of blobs of a puller without an age. Some of its pulls want one of its favourites.
const BLOBS: u64 = 768;
const FAVOURITES: u64 = 32;
/// The number of blobs that are open at once.
const HELD: usize = 16;
/// The number of recent blobs that a puller with an age remembers.
const MEMORY: usize = 256;
/// The number of breaks to keep in words.
const DETAILS: usize = 5;
/// The steps that find a blob gone that was there before.
pub(crate) const REOPENS: [&str; 3] = ["reopen", "reopen of a hit", OPEN_AFTER_STAT];
/// The step of a pull that misses a blob which is too young to be pruned.
pub(crate) const TOO_EARLY: &str = "gone too early";
/// The manner of pulling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Like go-containerregistry: under the final name, in a flat cache.
    Flat,
    /// Like skopeo: a temporary file is renamed.
    Renamed,
    /// A plain download: the directory, then the file.
    Plain,
    /// Like a build that keeps blobs open for a while.
    Held,
}

impl Manner {
    /// All manners.
    pub(crate) const ALL: [Self; 4] = [Self::Flat, Self::Renamed, Self::Plain, Self::Held];

    /// The name, as the role takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Renamed => "renamed",
            Self::Plain => "plain",
            Self::Held => "held",
        }
    }

    /// The cache for this manner, on a mount.
    pub(crate) fn cache(self, mount: &Path) -> PathBuf {
        mount.join(if self == Self::Flat { "flat" } else { "nested" })
    }
}

/// The counts of a puller.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pulled {
    pub(crate) pulls: u64,
    /// Pulls that broke, by step.
    pub(crate) breaks: Counts<String>,
    pub(crate) details: Vec<String>,
    /// The longest that an open took, where that is measured.
    #[serde(default)]
    pub(crate) worst_open: Duration,
}

impl Pulled {
    /// Adds the counts of another puller.
    pub(crate) fn merge(&mut self, other: Self) {
        self.pulls += other.pulls;
        self.breaks.merge(other.breaks);
        keep_first(&mut self.details, DETAILS, other.details);
        self.worst_open = self.worst_open.max(other.worst_open);
    }
}

/// Pulls. The arguments are the manner, the cache, the puller's number, and in milliseconds its time, its age
/// or 0, and how long it stalls between two steps.
pub(crate) fn play(words: &[&str]) -> anyhow::Result<()> {
    let [manner, cache, id, time, age, stall] = words else { bail!("a puller takes six words: {words:?}") };
    let manner = Manner::ALL.into_iter().find(|known| known.name() == *manner).context("no such manner")?;
    let milliseconds = |word: &str| word.parse().map(Duration::from_millis);
    let (id, time, age, stall): (u64, _, _, _) =
        (id.parse()?, milliseconds(time)?, milliseconds(age)?, milliseconds(stall)?);
    let wants = Wants::new(id << 32, age);
    let mut puller = Puller { manner, cache: cache.into(), stall, wants, pulled: Pulled::default() };
    let end = Instant::now() + time;
    while Instant::now() < end {
        puller.pull();
    }
    let line = serde_json::to_string(&puller.pulled)?;
    std::io::stdout().lock().write_all(line.as_bytes()).context("write to stdout")
}

struct Puller {
    manner: Manner,
    cache: PathBuf,
    stall: Duration,
    wants: Wants,
    pulled: Pulled,
}

impl Puller {
    fn pull(&mut self) {
        if self.manner == Manner::Held {
            return self.hold();
        }
        let wanted = self.wants.next();
        let start = clock::now();
        self.pulled.pulls += 1;
        let (flat, nested) = (RemoteBlob { seed: wanted.number }, NestedBlob { number: wanted.number });
        let age = self.wants.age;
        // With an age, only recently used blobs are wanted again. A pull that misses one would fetch it again
        // and not notice.
        if let Some(used) = wanted.used
            && !self.is_there(wanted.number)
            && !is_older_than(used, age)
        {
            let detail = format!("{TOO_EARLY}, {} ms after the last use began", since(used).as_millis());
            self.broke(TOO_EARLY, &detail);
        }
        let pauses = Pauses { idle: age.max(SETTLE), stall: self.stall };
        let broken = match self.manner {
            Manner::Flat => told(flat.pull(&self.cache, &mut Total::default())),
            Manner::Renamed => told(nested.pull(&self.cache, pauses)),
            Manner::Plain | Manner::Held => told(nested.write_in_place(&self.cache)),
        };
        let used = wanted.used.unwrap_or(start);
        if let Some((step, detail)) = broken {
            let has_overslept = !age.is_zero() && is_older_than(used, age) && REOPENS.contains(&step);
            let detail = format!("{step}, {} ms after the last use began: {detail}", since(used).as_millis());
            self.broke(if has_overslept { OVERSLEPT } else { step }, &detail);
        } else {
            self.wants.used(wanted.number, start);
        }
    }

    /// Pulls blobs and keeps them open for longer than prunes wait. Their names must stay.
    fn hold(&mut self) {
        let mut held = Vec::new();
        for _ in 0..HELD {
            let nested = NestedBlob { number: self.wants.fresh() };
            self.pulled.pulls += 1;
            match nested.open_new(&self.cache) {
                Ok(file) => held.push((nested, file)),
                Err(Broken { step, cause }) => self.broke(step, &format!("{step}: {cause}")),
            }
        }
        thread::sleep(SETTLE + SETTLE / 2);
        for (nested, file) in held {
            if let Err(Broken { step, cause }) = nested.is_still(&self.cache, &file) {
                self.broke(step, &format!("{step}: {cause}"));
            }
        }
    }

    fn is_there(&self, number: u64) -> bool {
        match self.manner {
            Manner::Flat => RemoteBlob { seed: number }.path_in(&self.cache).exists(),
            _ => NestedBlob { number }.path_in(&self.cache).exists(),
        }
    }

    fn broke(&mut self, step: &str, detail: &str) {
        self.pulled.breaks.add(step.to_owned(), 1);
        keep_first(&mut self.pulled.details, DETAILS, [format!("{}, {detail}", self.manner.name())]);
    }
}

/// The step at which a pull broke, and the cause in words.
fn told(pulled: Result<(), Broken>) -> Option<(&'static str, String)> {
    pulled.err().map(|Broken { step, cause }| (step, cause.to_string()))
}

/// Chooses the next blob.
struct Wants {
    first: u64,
    age: Duration,
    /// The recently used blobs, and when their last use began.
    recent: VecDeque<(u64, Timestamp)>,
    count: u64,
}

struct Wanted {
    number: u64,
    /// If the blob was used recently, when that use began.
    used: Option<Timestamp>,
}

impl Wants {
    fn new(first: u64, age: Duration) -> Self {
        Self { first, age, recent: VecDeque::new(), count: 0 }
    }

    fn next(&mut self) -> Wanted {
        let mut random = random();
        if self.age.is_zero() {
            let wanted = if random.random_bool(0.4) { FAVOURITES } else { BLOBS };
            return Wanted { number: self.first + random.random_range(0..wanted), used: None };
        }
        self.recent.retain(|(_, used)| since(*used) < self.age / 2);
        if !self.recent.is_empty() && random.random_bool(0.6) {
            let (number, used) = self.recent[random.random_range(0..self.recent.len())];
            return Wanted { number, used: Some(used) };
        }
        Wanted { number: self.fresh(), used: None }
    }

    /// A new blob.
    fn fresh(&mut self) -> u64 {
        self.count += 1;
        self.first + self.count
    }

    fn used(&mut self, number: u64, start: Timestamp) {
        if !self.age.is_zero() {
            self.recent.retain(|(recent, _)| *recent != number);
            self.recent.push_front((number, start));
            self.recent.truncate(MEMORY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_age_only_recent_blobs_are_wanted_again() {
        let mut wants = Wants::new(100, Duration::from_millis(20));
        let first = wants.next().number;
        wants.used(first, clock::now());
        assert!((0..50).any(|_| wants.next().number == first));
        thread::sleep(Duration::from_millis(15));
        assert!((0..50).all(|_| wants.next().number != first));
        let mut any = Wants::new(100, Duration::ZERO);
        assert!((0..50).all(|_| (100..100 + BLOBS).contains(&any.next().number)));
    }
}
