//! The files for fleets, in `docs/fleet`: each is checked by the program that reads it.
//!
//! Guarantees: a prune with only the service's capabilities prunes another user's caches completely. It sees
//! which blobs are open, and makes no system call that the service's filter denies. Its metrics, the alert
//! rules and their tests pass `promtool`. The units pass `systemd-analyze verify` without a complaint. The
//! manifests pass the strict Kubernetes schemas.
//!
//! What it does not guarantee: that units start or containers run. Without root, the prune keeps its
//! capabilities.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::kit::shell::{output_of, shell};
use crate::kit::workspace::workspace;
use crate::smoke::fill::{fill_flat, fill_layout, settle};
use crate::smoke::images::Images;
use crate::smoke::prune::{Prune, report_of};
use crate::smoke::table::Row;
use crate::smoke::tally::{Failure, Tally};

/// The validator of manifests, on PyPI. It includes the schemas.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// The program's path in the units.
const INSTALLED: &str = "/usr/local/bin/oci-cache";
const UNITS: [&str; 4] = [
    "oci-cache-prune.service",
    "oci-cache-prune.timer",
    "oci-cache-verify.service",
    "oci-cache-verify.timer",
];
/// The owner of the caches. No process here runs as this user.
const OTHER_USER: u32 = 65_534;

/// What the checks need.
#[derive(Debug)]
struct Fleet<'a> {
    prune: &'a Prune,
    shell: Shell,
    /// The directory of the files.
    files: PathBuf,
    /// A temporary directory.
    directory: PathBuf,
}

/// Runs the exercise in a subdirectory of `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn row(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Row> {
    let shell = shell()?;
    let fleet =
        Fleet { prune, shell, files: workspace().join("docs/fleet"), directory: directory.join("fleet") };
    fs::create_dir(&fleet.directory).context("create a temporary directory")?;
    let mut tally = Tally::default();
    fleet.prunes_confined(images, &mut tally)?;
    fleet.check_metrics_and_alerts(&mut tally)?;
    fleet.check_units(&mut tally)?;
    fleet.check_manifests(&mut tally)?;
    Ok(Row { exercise: "fleet files", may_fail: false, tally })
}

/// Python as the exercise leaves it in a subdirectory of `directory`: with the package `yaml`, which the validator needs.
pub(crate) fn python(directory: &Path) -> PathBuf {
    directory.join("fleet/venv/bin/python")
}

impl Fleet<'_> {
    /// Prunes a layout and a flat cache, confined as the service is.
    fn prunes_confined(&self, images: &Images<'_>, tally: &mut Tally) -> anyhow::Result<()> {
        let (layout, flat) = (self.directory.join("layout"), self.directory.join("flat"));
        tally.merge(fill_layout(images, &layout));
        tally.merge(fill_flat(&flat));
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            let owner = format!("{OTHER_USER}:{OTHER_USER}");
            output_of(cmd!(self.shell, "chown --recursive {owner} {layout} {flat}"))?;
        }
        // Old enough that the open blob, which could be a pull's, does not spare the others.
        let found = "{}";
        output_of(cmd!(self.shell, "find {layout} {flat} -type f -exec touch --date=-30days {found} +"))?;
        let blob = fs::read_dir(&flat)?.next().context("the flat cache is empty")??.path();
        let in_use = File::open(&blob).with_context(|| format!("open {}", blob.display()))?;
        settle();
        self.prune_confined(&flat, 1, tally)?;
        drop(in_use);
        self.prune_confined(&layout, 0, tally)?;
        let owner = fs::metadata(layout.join("index.json")).context("the index is gone")?.uid();
        tally.check(!is_root || owner == OTHER_USER, || format!("the index now belongs to user {owner}"));
        Ok(())
    }

    fn prune_confined(&self, cache: &Path, in_use: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let service = self.read(UNITS[0])?;
        let (log, metrics) = (self.directory.join("strace.log"), self.metrics());
        let mut command = cmd!(self.shell, "strace -f -qq -e signal=none -o {log}");
        if rustix::process::geteuid().is_root() {
            let bounding_set = format!("--bounding-set={}", bounding_set(&service));
            command = command.args(["setpriv", "--no-new-privs", "--inh-caps=-all"]).arg(bounding_set);
        }
        let flags = ["--metrics-file", metrics.to_str().context("the path is not UTF-8")?];
        let report = report_of(command.args(self.prune.argv(cache, &flags)), false);
        if let Ok(report) = &report {
            let (freed, kept) = (report.blobs_freed, report.blobs_kept());
            tally.check(freed > 0 && kept == in_use, || {
                format!("confined, it freed {freed} and kept {kept} blobs, of which {in_use} were in use")
            });
        }
        tally.add_prune(report);
        let log = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        let log = String::from_utf8_lossy(&log);
        let sets = output_of(cmd!(self.shell, "systemd-analyze syscall-filter"))?;
        let (called, allowed) = (calls(&log), allowed_calls(&service, &sets));
        ensure!(called.contains("unlinkat"), "strace saw nothing of the prune of {}", cache.display());
        let denied: Vec<&str> = called.difference(&allowed).copied().collect();
        tally.check(denied.is_empty(), || format!("the service's filter denies {}", denied.join(", ")));
        Ok(())
    }

    fn check_metrics_and_alerts(&self, tally: &mut Tally) -> anyhow::Result<()> {
        let metrics = fs::read(self.metrics()).context("read the metrics")?;
        expect(cmd!(self.shell, "promtool check metrics").stdin(metrics), |_| true, tally)?;
        let (rules, tests) = (self.files.join("alerts.yml"), self.files.join("alerts.test.yml"));
        expect(cmd!(self.shell, "promtool check rules {rules}"), |_| false, tally)?;
        expect(cmd!(self.shell, "promtool test rules {tests}"), |_| false, tally)
    }

    /// Checks copies of the units that name the tested program.
    fn check_units(&self, tally: &mut Tally) -> anyhow::Result<()> {
        let mut copies = Vec::new();
        for name in UNITS {
            let unit = self.read(name)?.replace(INSTALLED, &self.prune.program().to_string_lossy());
            let copy = self.directory.join(name);
            fs::write(&copy, unit).with_context(|| format!("write {}", copy.display()))?;
            copies.push(copy);
        }
        // It also checks the machine's own units, and may complain about those.
        let command = cmd!(self.shell, "systemd-analyze verify --man=no {copies...}");
        expect(command, |line| UNITS.iter().any(|unit| line.contains(unit)), tally)
    }

    fn check_manifests(&self, tally: &mut Tally) -> anyhow::Result<()> {
        let venv = self.directory.join("venv");
        output_of(cmd!(self.shell, "python3 -m venv {venv}"))
            .context("smoke needs Python's venv; on Debian: apt-get install python3-venv")?;
        let bin = venv.join("bin");
        let install =
            cmd!(self.shell, "{bin}/pip --no-input --disable-pip-version-check --no-cache-dir install");
        output_of(install.args(["--quiet", VALIDATOR])).context("the manifests' schemas come from PyPI")?;
        let manifests = ["cronjob.yaml", "daemonset.yaml"].map(|name| self.files.join(name));
        expect(cmd!(self.shell, "{bin}/kubernetes-validate --strict {manifests...}"), |_| false, tally)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.files.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn metrics(&self) -> PathBuf {
        self.directory.join("oci_cache.prom")
    }
}

/// Counts a command as failed if it exits with a code other than 0, or complains on stderr.
fn expect(command: Cmd<'_>, is_complaint: impl Fn(&str) -> bool, tally: &mut Tally) -> anyhow::Result<()> {
    let command = command.quiet().ignore_status();
    let output = command.output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() || stderr.lines().any(is_complaint) {
        let said: Vec<&str> = stderr.lines().chain(stdout.lines()).take(5).collect();
        tally.fail(Failure::Check, &format!("`{command}` ended with {}: {}", output.status, said.join("; ")));
    }
    Ok(())
}

/// The values of `key` in a unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}

/// The service's capabilities, as `setpriv` wants them.
fn bounding_set(service: &str) -> String {
    let names = values(service, "CapabilityBoundingSet").flat_map(str::split_whitespace);
    names.fold("-all".to_owned(), |set, name| {
        format!("{set},+{}", name.strip_prefix("CAP_").unwrap_or(name).to_lowercase())
    })
}

/// The system calls in strace's log since the last `execve`.
fn calls(log: &str) -> BTreeSet<&str> {
    let name = |line| {
        let (name, _) = str::split_once(str::split_whitespace(line).nth(1)?, '(')?;
        name.starts_with(|first: char| first.is_ascii_lowercase()).then_some(name)
    };
    let mut calls = BTreeSet::new();
    for name in log.lines().filter_map(name) {
        if name == "execve" {
            calls.clear();
        } else {
            calls.insert(name);
        }
    }
    calls
}

/// The system calls that the service's filter allows. `sets` is systemd's list of sets.
fn allowed_calls<'a>(service: &'a str, sets: &'a str) -> BTreeSet<&'a str> {
    let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut set = "";
    for line in sets.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if line.starts_with('@') {
            set = line.trim();
        } else if !line.trim().is_empty() {
            members.entry(set).or_default().push(line.trim());
        }
    }
    let mut allowed = BTreeSet::new();
    // systemd.exec(5): the first set is allowed. Later sets are added, or removed if they begin with ~.
    for value in ["@default"].into_iter().chain(values(service, "SystemCallFilter")) {
        let (is_taken, names) = value.strip_prefix('~').map_or((false, value), |names| (true, names));
        let mut names: Vec<&str> = names.split_whitespace().collect();
        while let Some(name) = names.pop() {
            names.extend(members.get(name).into_iter().flatten());
            if is_taken {
                allowed.remove(name)
            } else {
                allowed.insert(name)
            };
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_of_a_unit() {
        let service = "[Service]\nCapabilityBoundingSet=CAP_LEASE CAP_CHOWN\nCapability=CAP_KILL\n";
        assert_eq!(bounding_set(service), "-all,+lease,+chown");
        assert_eq!(bounding_set(""), "-all");
    }

    #[test]
    fn the_calls_of_the_last_program() {
        let log = "\
1 execve(\"/usr/bin/setpriv\") = 0
1 capset(1) = 0
1 execve(\"/oci-cache\") = 0
1 openat(3) = 4
2 <... futex resumed>) = 0
2 unlinkat(3 <unfinished ...>
2 +++ exited with 0 +++
";
        assert_eq!(calls(log), BTreeSet::from(["openat", "unlinkat"]));
    }

    #[test]
    fn filters_add_and_take_away() {
        let sets = "\
@default
    # What always works
    exit

@service
    @files
    read
@files
    openat
    chown
@privileged
    chown
";
        let service = "SystemCallFilter=@service\nSystemCallFilter=~@privileged\n";
        assert_eq!(
            allowed_calls(service, sets),
            BTreeSet::from(["@default", "@files", "@service", "exit", "openat", "read"])
        );
        let again = format!("{service}SystemCallFilter=chown\n");
        assert!(allowed_calls(&again, sets).contains("chown"));
        assert_eq!(allowed_calls("", sets), BTreeSet::from(["@default", "exit"]));
    }
}
