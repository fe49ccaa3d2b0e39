//! A flat cache is poisoned by killed pulls, and healed.
//!
//! Guarantees: the layers come from the registry over HTTP, and are written under their final names as in
//! go-containerregistry's cache. A pull is killed with SIGKILL while a layer arrives and another pull runs.
//! The exercise fails unless the truncated layer makes every later pull fail, `verify --prune` removes
//! exactly that layer, and pulls succeed afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use xshell::cmd;

use crate::kit::process::{self, Running};
use crate::kit::shell::{output_of, shell};
use crate::smoke::images::Images;
use crate::smoke::prune::Prune;
use crate::smoke::table::Row;
use crate::smoke::tally::{Failure, Tally};

/// The image to pull. At this rate its largest layer takes two seconds.
const IMAGE: &str = "large";
const BYTES_A_SECOND: u64 = 6 << 20;
/// The number of pulls after the poisoning, and again after the healing.
const PULLS: u64 = 10;
/// How long a pull may take to start writing.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time limit of a pull.
const PULL_LIMIT: Duration = Duration::from_secs(120);

/// A pull: fetches each missing layer under its final name, then unpacks all layers.
const PULL: &str = r#"
set -eu
mkdir -p "$CACHE"
for digest in $LAYERS; do
    file="$CACHE/$digest"
    [ -e "$file" ] || curl --silent --fail --limit-rate "$RATE" --output "$file" "$BLOBS/$digest"
done
for digest in $LAYERS; do
    gzip --decompress --stdout "$CACHE/$digest" | tar --list >"$CACHE.list"
done
"#;

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    size: u64,
}

/// The checked part of what `verify` reports.
#[derive(Deserialize)]
struct Verified {
    corrupt: Vec<Corrupt>,
}

#[derive(Deserialize)]
struct Corrupt {
    path: PathBuf,
}

/// Runs the exercise with a cache in `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn row(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Row> {
    let exercise = Exercise {
        cache: directory.join("poisoned"),
        blobs: images.blobs_url(IMAGE),
        manifest: images.manifest(IMAGE)?,
    };
    let mut tally = Tally::default();
    let truncated = exercise.poison()?;
    let failed = exercise.pulls(&mut tally)?;
    tally.check(failed == PULLS, || {
        format!("{failed} of {PULLS} pulls failed with a truncated layer in the cache")
    });

    let found = verify(prune, &exercise.cache, &[])?;
    tally.check(found == truncated, || format!("verify found {found:?} corrupt, which are {truncated:?}"));
    let before = names(&exercise.cache)?;
    verify(prune, &exercise.cache, &["--prune"])?;
    tally.prunes += 1;
    let gone: Vec<PathBuf> = before.into_iter().filter(|path| !path.exists()).collect();
    tally.check(gone == truncated, || format!("verify --prune removed {gone:?}, not {truncated:?}"));
    tally.blobs_freed += gone.len() as u64;

    for _ in 0..exercise.pulls(&mut tally)? {
        tally.fail(Failure::Pull("after the healing"), "a layer cannot be unpacked");
    }
    Ok(Row { exercise: "flat cache, poisoned and healed", may_fail: false, tally })
}

struct Exercise {
    cache: PathBuf,
    blobs: String,
    manifest: Manifest,
}

impl Exercise {
    /// Kills a pull while its largest layer arrives. Returns the truncated layers.
    fn poison(&self) -> anyhow::Result<Vec<PathBuf>> {
        let largest = self.manifest.layers.iter().max_by_key(|layer| layer.size).context("no layers")?;
        let file = self.cache.join(&largest.digest);
        let pull = self.start(BYTES_A_SECOND)?;
        let started = Instant::now();
        let is_half_there = || fs::metadata(&file).is_ok_and(|data| data.len() > largest.size / 8);
        while !is_half_there() {
            ensure!(started.elapsed() < PATIENCE, "the pull wrote nothing to {}", file.display());
            thread::sleep(Duration::from_millis(5));
        }
        // Another pull runs at the same time, and trusts what it finds.
        let beside = self.start(u64::MAX)?;
        pull.signal(Signal::KILL);
        pull.finish(PULL_LIMIT)?;
        beside.finish(PULL_LIMIT)?;
        let size = fs::metadata(&file).with_context(|| format!("inspect {}", file.display()))?.len();
        ensure!(size < largest.size, "the pull finished before it was killed");
        Ok(vec![file])
    }

    /// Pulls several times. Returns the number of failures.
    fn pulls(&self, tally: &mut Tally) -> anyhow::Result<u64> {
        let mut failed = 0;
        for _ in 0..PULLS {
            let ended = self.start(u64::MAX)?.finish(PULL_LIMIT)?;
            let code = ended.code.context("a pull hangs")?;
            tally.pulls += 1;
            failed += u64::from(code != 0);
        }
        Ok(failed)
    }

    fn start(&self, bytes_a_second: u64) -> anyhow::Result<Running> {
        let layers: Vec<&str> = self.manifest.layers.iter().map(|layer| layer.digest.as_str()).collect();
        let mut pull = Command::new("sh");
        pull.args(["-c", PULL]).env("CACHE", &self.cache).env("LAYERS", layers.join(" "));
        pull.env("BLOBS", &self.blobs).env("RATE", bytes_a_second.min(1 << 40).to_string());
        process::start(&mut pull, None)
    }
}

/// Verifies the cache. Returns the corrupt blobs.
fn verify(prune: &Prune, cache: &Path, flags: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let shell = shell()?;
    let command = shell.cmd(prune.program()).args(["verify", "--format", "json", "--cache-dir"]);
    let command = command.arg(cache).args(flags).quiet().ignore_status().ignore_stderr();
    let line = command.read()?;
    let verified: Verified = serde_json::from_str(&line).with_context(|| format!("verify wrote {line:?}"))?;
    Ok(verified.corrupt.into_iter().map(|corrupt| corrupt.path).collect())
}

fn names(cache: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("list {}", cache.display());
    let entries = fs::read_dir(cache).with_context(context)?;
    entries.map(|entry| Ok(entry.with_context(context)?.path())).collect()
}

impl Images<'_> {
    /// The manifest of an image in the registry.
    fn manifest(&self, name: &str) -> anyhow::Result<Manifest> {
        let shell = shell()?;
        let reference = self.reference(name);
        let raw = output_of(cmd!(shell, "skopeo inspect --raw --tls-verify=false {reference}"))?;
        serde_json::from_str(&raw).with_context(|| format!("the manifest of {name} is {raw:?}"))
    }
}
