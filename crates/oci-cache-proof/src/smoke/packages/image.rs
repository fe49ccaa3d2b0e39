//! The image of `docs/fleet/Containerfile`, and in it the commands of the manifests.
//!
//! Guarantees: buildah builds the image on the unpacked archive, without a network: the base has Debian's busybox, as the
//! one that the Containerfile names. Each manifest's command runs in it as the manifest has it. Once more, with a smaller
//! budget, it frees what the cache has. The image of the program alone runs too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use xshell::{Cmd, Shell, cmd};

use super::machine::Machine;
use crate::kit::process;
use crate::kit::shell::{output_of, shell};
use crate::kit::tree::Tree;
use crate::kit::workspace::workspace;
use crate::smoke::fill::fill_flat;
use crate::smoke::tally::Tally;

/// Prints what a manifest runs, as JSON.
const READER: &str = r#"
import json, sys, yaml
def containers(node):
    if isinstance(node, dict):
        yield from node.get("containers", [])
        for value in node.values(): yield from containers(value)
container, = containers(yaml.safe_load(open(sys.argv[1])))
print(json.dumps({"image": container["image"], "command": container["command"]}))
"#;
/// The budget of the manifests, and a smaller one.
const BUDGET: (&str, &str) = ("50GiB", "1KiB");
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What a manifest runs.
#[derive(Debug, Deserialize)]
struct Container {
    image: String,
    command: Vec<String>,
}

/// A run of a manifest's command.
#[derive(Debug)]
struct Run<'a> {
    image: &'a str,
    command: &'a [String],
    /// Whether the command ends by itself.
    is_job: bool,
    /// Whether the blobs of the cache are old enough to go.
    are_old: bool,
    /// Whether they must go.
    go: bool,
}

/// Where the image is built and run.
#[derive(Debug)]
struct Images {
    shell: Shell,
    directory: PathBuf,
}

/// Builds the image, and runs the manifests' commands in it.
///
/// # Errors
///
/// If an image cannot be built, or a manifest not be read.
pub(super) fn check(
    machine: &Machine,
    archive: &Path,
    python: &Path,
    directory: &Path,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let images = Images { shell: shell()?, directory: directory.join("images") };
    let unpacked = images.directory.join("unpacked");
    fs::create_dir_all(&unpacked).context("create a temporary directory")?;
    output_of(cmd!(images.shell, "tar -xf {archive} --strip-components=1 -C {unpacked}"))?;
    images.base(&machine.path("bin/busybox"))?;
    images.build(&unpacked, "scratch", "alone")?;
    let alone = images.from("alone")?;
    let said = images.run(&alone, &[]).args(["/usr/local/bin/oci-cache", "--version"]);
    let said = output_of(said);
    tally
        .check(said.as_ref().is_ok_and(|said| said.starts_with("oci-cache ")), || format!("alone: {said:?}"));

    for name in ["cronjob.yaml", "daemonset.yaml"] {
        let manifest = workspace().join("docs/fleet").join(name);
        let told = output_of(cmd!(images.shell, "{python} -c {READER} {manifest}"))?;
        let container: Container = serde_json::from_str(&told).context("parse what a manifest runs")?;
        images.build(&unpacked, "localhost/base", &container.image)?;
        let is_job = name == "cronjob.yaml";
        let smaller: Vec<String> =
            container.command.iter().map(|word| word.replace(BUDGET.0, BUDGET.1)).collect();
        ensure!(smaller != container.command, "{name} has another budget");
        // Whether the blobs are old enough to go, and whether they do.
        for (run, command, are_old, go) in [
            ("as it is", &container.command, true, false),
            ("with a smaller budget", &smaller, true, true),
            ("with a budget out of reach", &smaller, false, false),
        ] {
            let run_of = Run { image: &container.image, command, is_job, are_old, go };
            let problem = images.run_manifest(&run_of, tally)?;
            tally.check(problem.is_none(), || format!("{name}, {run}: {}", problem.unwrap_or_default()));
        }
    }
    Ok(())
}

impl Images {
    /// An image with busybox, as the base that the Containerfile names.
    fn base(&self, busybox: &Path) -> anyhow::Result<()> {
        let container = output_of(self.buildah().args(["from", "scratch"]))?;
        let container = container.trim();
        output_of(self.buildah().args(["copy", "--quiet", container]).arg(busybox).arg("/bin/busybox"))?;
        output_of(self.run(container, &[]).args(["/bin/busybox", "--install", "-s", "/bin"]))?;
        output_of(self.buildah().args(["commit", "--quiet", "--rm", container, "base"])).map(drop)
    }

    /// Builds the Containerfile of the archive.
    fn build(&self, unpacked: &Path, base: &str, tag: &str) -> anyhow::Result<()> {
        let build = self.buildah().args(["bud", "--quiet", "--isolation", "chroot", "--pull-never"]);
        let build = build.args(["--build-arg", &format!("BASE={base}"), "--tag", tag, "--file"]);
        let file = unpacked.join("share/doc/oci-cache/docs/fleet/Containerfile");
        output_of(build.arg(file).arg(unpacked)).map(drop)
    }

    /// A container of an image.
    fn from(&self, image: &str) -> anyhow::Result<String> {
        let container = output_of(self.buildah().args(["from", "--pull-never", image]))?;
        Ok(container.trim().to_owned())
    }

    /// Runs a command on a cache. Returns what is wrong.
    fn run_manifest(&self, asked: &Run<'_>, tally: &mut Tally) -> anyhow::Result<Option<String>> {
        let volumes = tempfile::TempDir::new_in(&self.directory).context("create a temporary directory")?;
        let (parent, metrics) = (volumes.path().join("banger"), volumes.path().join("metrics"));
        let cache = parent.join("oci");
        fs::create_dir_all(&metrics).context("create a directory")?;
        fs::create_dir_all(&cache).context("create a cache")?;
        tally.merge(fill_flat(&cache));
        if asked.are_old {
            let found = "{}";
            output_of(cmd!(self.shell, "find {cache} -type f -exec touch --date=-30days {found} +"))?;
        }
        let before = Tree::of(&cache)?;
        let mounts = [(parent.as_path(), "/var/cache/banger"), (&metrics, "/var/lib/oci-cache/metrics")];
        let container = self.from(asked.image)?;
        let mut run = Command::from(self.run(&container, &mounts).args(asked.command));
        let running = process::start(&mut run, None)?;
        let file = metrics.join("oci_cache.prom");
        if !asked.is_job {
            // It never ends by itself: it sleeps once it has pruned.
            let end = Instant::now() + LIMIT;
            while !file.exists() && Instant::now() < end {
                thread::sleep(POLL);
            }
            running.signal(Signal::TERM);
        }
        let ended = running.finish(LIMIT)?;
        let metrics = fs::read_to_string(&file).unwrap_or_default();
        let gone = before.names_gone_from(&Tree::of(&cache)?);
        tally.prunes += 1;
        let is_right = ended.code == Some(0) || !asked.is_job && ended.code.is_some();
        let succeeded = metrics.lines().any(|line| {
            line.starts_with("oci_cache_prune_exit_status{")
                && [" 0", " 3"].iter().any(|end| line.ends_with(end))
        });
        let is_gone = gone.blobs > 0;
        let problem = (!is_right || !succeeded || is_gone != asked.go)
            .then(|| format!("{}; {} blobs are gone; metrics: {metrics:?}", ended.story(), gone.blobs));
        Ok(problem)
    }

    fn run(&self, container: &str, mounts: &[(&Path, &str)]) -> Cmd<'_> {
        let mut run = self.buildah().args(["run", "--isolation", "chroot"]);
        for (outside, inside) in mounts {
            run = run.arg("--volume").arg(format!("{}:{inside}", outside.display()));
        }
        run.args([container, "--"])
    }

    fn buildah(&self) -> Cmd<'_> {
        let storage = |name: &str| self.directory.join(name);
        let command = self.shell.cmd("buildah").arg("--root").arg(storage("storage"));
        command.arg("--runroot").arg(storage("run")).args(["--storage-driver", "vfs"])
    }
}
