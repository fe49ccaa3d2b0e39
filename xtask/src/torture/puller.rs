//! A process that pulls: one of the roles of this program.
//!
//! Guarantees: it ends after its time. Each puller has blobs of its own. With an age, it uses a blob again
//! only for half of that age since it used it last, so no blob that it may still want is ever as old;
//! without, it wants any of its blobs at any time.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::nested_pull::{Broken, NestedBlob};
use crate::smoke::flat_pull::RemoteBlob;
use crate::smoke::tally::Tally;
use crate::smoke::tree::Total;

/// How many blobs a puller has that wants any of them, and how many it wants half of the time.
const BLOBS: u64 = 768;
const FAVOURITES: u64 = 32;
/// How many blobs a puller with an age keeps in mind.
const MEMORY: usize = 256;

/// How a puller goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As go-containerregistry: in place, under the final name, in a flat cache.
    Flat,
    /// As skopeo: a temporary file that is renamed.
    Renamed,
    /// The directory, then the file.
    Plain,
}

impl Manner {
    pub(super) const ALL: [Self; 3] = [Self::Flat, Self::Renamed, Self::Plain];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Renamed => "renamed",
            Self::Plain => "plain",
        }
    }

    /// The cache that it pulls into, below a mount.
    pub(super) fn cache(self, mount: &Path) -> PathBuf {
        mount.join(if self == Self::Flat { "flat" } else { "nested" })
    }
}

/// What a puller counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Pulled {
    pub(super) pulls: u64,
    /// Pulls that broke, by the step.
    pub(super) breaks: BTreeMap<String, u64>,
    pub(super) details: Vec<String>,
}

/// Pulls as the words say: manner, cache, number of the puller, milliseconds, age in milliseconds or 0.
pub(super) fn play(words: &[&str]) -> anyhow::Result<()> {
    let [manner, cache, id, time, age] = words else { bail!("a puller takes five words: {words:?}") };
    let manner = Manner::ALL.into_iter().find(|known| known.name() == *manner).context("no such manner")?;
    let milliseconds = |word: &str| word.parse().map(Duration::from_millis);
    let (id, time, age): (u64, _, _) = (id.parse()?, milliseconds(time)?, milliseconds(age)?);
    let mut puller =
        Puller { manner, cache: cache.into(), wants: Wants::new(id << 32, age), pulled: Pulled::default() };
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
    wants: Wants,
    pulled: Pulled,
}

impl Puller {
    fn pull(&mut self) {
        let number = self.wants.next();
        self.pulled.pulls += 1;
        let nested = NestedBlob { number };
        match self.manner {
            Manner::Flat => self.pull_flat(number),
            Manner::Renamed => self.count(nested.pull(&self.cache)),
            Manner::Plain => self.count(nested.write_in_place(&self.cache)),
        }
        self.wants.used(number);
    }

    fn pull_flat(&mut self, seed: u64) {
        let mut tally = Tally::default();
        tally.pull_blob(RemoteBlob { seed }, &self.cache, &mut Total::default());
        let steps: Vec<_> = tally.failed_steps().collect();
        for (step, _) in steps {
            self.broke(step, tally.details().join("; "));
        }
    }

    fn count(&mut self, pulled: Result<(), Broken>) {
        if let Err((step, error)) = pulled {
            self.broke(step, error.to_string());
        }
    }

    fn broke(&mut self, step: &str, detail: String) {
        *self.pulled.breaks.entry(step.to_owned()).or_default() += 1;
        if self.pulled.details.len() < 5 {
            self.pulled.details.push(format!("{}, {step}: {detail}", self.manner.name()));
        }
    }
}

/// Which blob a puller wants next.
struct Wants {
    first: u64,
    age: Duration,
    /// The blobs used of late, and when last.
    recent: VecDeque<(u64, Instant)>,
    count: u64,
}

impl Wants {
    fn new(first: u64, age: Duration) -> Self {
        Self { first, age, recent: VecDeque::new(), count: 0 }
    }

    fn next(&mut self) -> u64 {
        let mut random = rand::rng();
        if self.age.is_zero() {
            let wanted = if random.random_bool(0.4) { FAVOURITES } else { BLOBS };
            return self.first + random.random_range(0..wanted);
        }
        self.recent.retain(|(_, used)| used.elapsed() < self.age / 2);
        if !self.recent.is_empty() && random.random_bool(0.6) {
            return self.recent[random.random_range(0..self.recent.len())].0;
        }
        self.count += 1;
        self.first + self.count
    }

    fn used(&mut self, number: u64) {
        if !self.age.is_zero() {
            self.recent.retain(|(recent, _)| *recent != number);
            self.recent.push_back((number, Instant::now()));
            self.recent.truncate(MEMORY);
        }
    }
}

/// Does now and then what a pull does between two calls: computes a digest, waits for the network.
pub(super) fn think() {
    let mut random = rand::rng();
    if random.random_ratio(1, 8) {
        thread::sleep(Duration::from_micros(random.random_range(0..3000)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_an_age_only_recent_blobs_are_wanted_again() {
        let mut wants = Wants::new(100, Duration::from_millis(20));
        let first = wants.next();
        wants.used(first);
        thread::sleep(Duration::from_millis(15));
        assert!((0..50).all(|_| wants.next() != first));
        let mut any = Wants::new(100, Duration::ZERO);
        assert!((0..50).all(|_| (100..100 + BLOBS).contains(&any.next())));
    }
}
