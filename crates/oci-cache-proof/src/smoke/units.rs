//! The systemd units in `docs/fleet`, run by systemd.
//!
//! Guarantees: systemd runs the units as documented, with every setting, on a machine of its own made of namespaces. Only
//! the budget is smaller, so that there is something to prune. The cache is a layout whose files belong to several users,
//! and one of its blobs is open. The prune frees the rest, gives the index back to its owner and writes its metrics; the
//! verification removes a corrupt blob. As controls, a prune without any one of its capabilities ends in another way, and
//! what the units forbid works without them. `systemd-analyze security` finds both units as safe as documented.
//!
//! What it does not guarantee: anything but the safety if it is not root who runs it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xshell::cmd;

use crate::kit::layout::problems;
use crate::kit::process;
use crate::kit::shell::{output_of, shell};
use crate::kit::workspace::workspace;
use crate::smoke::fill::fill_layout;
use crate::smoke::images::Images;
use crate::smoke::prune::Prune;
use crate::smoke::table::Row;
use crate::smoke::tally::Tally;
use oci_cache_cli::output;

/// How exposed a unit may be, in tenths: 1.4.
const MAX_EXPOSURE: &str = "14";
const PRUNE: &str = "oci-cache-prune.service";
const VERIFY: &str = "oci-cache-verify.service";
/// The prune's unit, run once more after the controls: what sets them apart is not their turn.
const AGAIN: &str = "again.service";
/// The budget in the unit, and a smaller one.
const BUDGET: (&str, &str) = ("--max-used-space 50GiB", "--max-used-space 1KiB");
/// What runs on the machine, or makes it.
const SCRIPTS: [(&str, &str); 3] = [
    ("machine.sh", include_str!("units/machine.sh")),
    ("exercise.sh", include_str!("units/exercise.sh")),
    ("probe.sh", include_str!("units/probe.sh")),
];
/// What every service waits for.
const TARGETS: [&str; 3] = ["sysinit.target", "basic.target", "shutdown.target"];
/// The owner of the layout and of its index, and the owners of its blobs.
const OWNER: u32 = 1000;
const OWNERS: [u32; 3] = [OWNER, 1001, 1002];
/// The time limit of the machine.
const LIMIT: Duration = Duration::from_secs(120);

/// What was seen of each unit: keys and values.
type Seen = BTreeMap<String, BTreeMap<String, String>>;

/// Runs the exercise in a subdirectory of `directory`.
///
/// # Errors
///
/// If it cannot run.
pub(crate) fn row(prune: &Prune, images: &Images<'_>, directory: &Path) -> anyhow::Result<Row> {
    let directory = directory.join("units");
    fs::create_dir(&directory).context("create a temporary directory")?;
    let mut tally = Tally::default();
    check_exposure(&mut tally)?;
    if rustix::process::geteuid().is_root() {
        run_units(prune, images, &directory, &mut tally)?;
    } else {
        output::complain("smoke: only root can run the systemd units, so they are not run");
    }
    Ok(Row { exercise: "systemd units", may_fail: false, tally })
}

fn check_exposure(tally: &mut Tally) -> anyhow::Result<()> {
    let shell = shell()?;
    for name in [PRUNE, VERIFY] {
        let unit = path_of(name);
        let command = cmd!(
            shell,
            "systemd-analyze security --no-pager --offline=true --threshold={MAX_EXPOSURE} {unit}"
        );
        let output = command.quiet().ignore_status().output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict = said.lines().rev().find(|line| !line.is_empty()).unwrap_or_default();
        tally.check(output.status.success(), || format!("{name} is too exposed: {verdict}"));
    }
    Ok(())
}

fn run_units(prune: &Prune, images: &Images<'_>, directory: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    let unit = read(PRUNE)?;
    let metrics = metrics_of(&unit).context("the unit has no --metrics-file")?;
    ensure!(unit.contains(BUDGET.0), "{PRUNE} has another budget");
    let unit = unit.replace(BUDGET.0, BUDGET.1);
    let controls = without_each_capability(&unit);
    let names = controls.iter().map(|(name, _)| name.as_str());
    let prunes: Vec<&str> = [PRUNE].into_iter().chain(names).chain([AGAIN]).collect();

    for name in ["root", "out", "units"] {
        fs::create_dir(directory.join(name)).with_context(|| format!("create the directory {name}"))?;
    }
    let write = |name: &str, text: &str| {
        fs::write(directory.join(name), text).with_context(|| format!("write {name}"))
    };
    SCRIPTS.iter().try_for_each(|(name, text)| write(name, text))?;
    for (name, text) in controls.iter().map(|(name, text)| (name.as_str(), text.clone())).chain([
        (PRUNE, unit.clone()),
        (AGAIN, unit.clone()),
        (VERIFY, read(VERIFY)?),
        ("confined-prune.service", running(&unit, &format!("/bin/bash /probe.sh {metrics}"))),
        ("confined-verify.service", running(&read(VERIFY)?, &format!("/bin/bash /probe.sh {metrics}"))),
        ("free.service", running("[Service]\nType=oneshot\n", &format!("/bin/bash /probe.sh {metrics}"))),
        ("exercise.service", exercise(&format!("/bin/bash /exercise.sh {metrics} {}", prunes.join(" ")))),
    ]) {
        write(&format!("units/{name}"), &text)?;
    }
    for name in TARGETS {
        write(&format!("units/{name}"), "[Unit]\nDefaultDependencies=no\n")?;
    }
    tally.merge(template(images, &directory.join("template"))?);
    fs::copy(prune.program(), directory.join("program")).context("copy the program")?;

    let mut machine = Command::new("unshare");
    machine.args(["--mount", "--propagation", "private", "bash"]).arg(directory.join("machine.sh"));
    let ended = process::run(machine.arg(directory).arg(metrics), LIMIT)?;
    let seen = fs::read_to_string(directory.join("out/seen")).unwrap_or_default();
    ensure!(ended.code == Some(0) && !seen.is_empty(), "systemd did not run: {}; {seen}", ended.story());
    check(&parse(&seen), &controls, tally)?;
    let problems = problems(&directory.join("out/pruned"));
    tally.check(problems.is_empty(), || format!("the pruned layout is broken: {}", problems.join("; ")));
    Ok(())
}

/// A layout with files of several users.
fn template(images: &Images<'_>, layout: &Path) -> anyhow::Result<Tally> {
    let tally = fill_layout(images, layout);
    let shell = shell()?;
    let owner = format!("{OWNER}:{OWNER}");
    output_of(cmd!(shell, "chown --recursive {owner} {layout}"))?;
    let blobs = layout.join("blobs/sha256");
    for (blob, owner) in fs::read_dir(&blobs).context("list the blobs")?.zip(OWNERS.iter().cycle()) {
        let path = blob.context("list the blobs")?.path();
        std::os::unix::fs::chown(&path, Some(*owner), Some(*owner)).context("give a blob to a user")?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("set a blob's mode")?;
    }
    fs::set_permissions(&blobs, Permissions::from_mode(0o700)).context("set the directory's mode")?;
    Ok(tally)
}

fn check(seen: &Seen, controls: &[(String, String)], tally: &mut Tally) -> anyhow::Result<()> {
    let of = |unit: &str| seen.get(unit).with_context(|| format!("{unit} was not seen to run"));
    let whole = of(PRUNE)?;
    let number = |key: &str| whole.get(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let is_right = has(whole, "result", "success")
        && has(whole, "open", "yes")
        && has(whole, "other", "no")
        && whole.get("index").is_some_and(|index| index.starts_with(&format!("{OWNER}:{OWNER}:")));
    tally.check(is_right && number("freed") > 0, || format!("the unit's prune: {whole:?}"));
    tally.prunes += 1;
    tally.blobs_freed += number("freed");
    let again = of(AGAIN)?;
    tally.check(again == whole, || format!("the unit's prune, once more: {again:?}"));
    for (name, _) in controls {
        let other = of(name)?;
        tally.check(other != whole, || format!("{name} prunes as well as with all capabilities: {other:?}"));
    }
    let verify = of(VERIFY)?;
    let is_right =
        has(verify, "result", "success") && has(verify, "corrupt", "1") && has(verify, "other", "no");
    tally.check(is_right && has(verify, "open", "yes"), || format!("the unit's verification: {verify:?}"));
    for (unit, works) in
        [("confined-prune.service", "no"), ("confined-verify.service", "no"), ("free.service", "yes")]
    {
        let tried = of(unit)?.iter().filter(|(key, _)| !["result", "status"].contains(&key.as_str()));
        let (right, wrong): (Vec<_>, Vec<_>) = tried.partition(|(_, value)| *value == works);
        tally.check(right.len() > 10 && wrong.is_empty(), || format!("in {unit}: {wrong:?}"));
    }
    Ok(())
}

fn has(seen: &BTreeMap<String, String>, key: &str, value: &str) -> bool {
    seen.get(key).is_some_and(|seen| seen == value)
}

/// The lines `NAME KEY=VALUE ...`.
fn parse(seen: &str) -> Seen {
    let line = |line: &str| {
        let (name, pairs) = line.split_once(' ')?;
        let pairs = pairs.split_whitespace().filter_map(|pair| pair.split_once('='));
        Some((name.to_owned(), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    };
    seen.lines().filter_map(line).collect()
}

/// The unit without each of its capabilities, with a name for each.
fn without_each_capability(unit: &str) -> Vec<(String, String)> {
    let sets = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let without = |name: &str| {
        let unit_name = format!("without-{}.service", name.to_lowercase().replace('_', "-"));
        (unit_name, format!("{}\nCapabilityBoundingSet=~{name}\n", unit.trim_end()))
    };
    sets.flat_map(str::split_whitespace).map(without).collect()
}

/// The unit with another program.
fn running(unit: &str, program: &str) -> String {
    let mut is_within = false;
    let lines = unit.lines().filter(|line| {
        let is_program = is_within || line.starts_with("ExecStart=");
        is_within = is_program && line.ends_with('\\');
        !is_program
    });
    format!("{}\nExecStart={program}\n", lines.collect::<Vec<_>>().join("\n"))
}

fn exercise(program: &str) -> String {
    "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\nFailureAction=exit-force\n\n[Service]\nType=oneshot\n"
        .to_owned()
        + &format!("StandardOutput=file:/out/seen\nStandardError=file:/out/errors\nExecStart={program}\n")
}

/// The directory of the unit's metrics.
fn metrics_of(unit: &str) -> Option<&str> {
    let path = unit.split_once("--metrics-file ")?.1.split_whitespace().next()?;
    Path::new(path).parent()?.to_str()
}

fn path_of(name: &str) -> PathBuf {
    workspace().join("docs/fleet").join(name)
}

fn read(name: &str) -> anyhow::Result<String> {
    let path = path_of(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "\
[Service]
ExecStart=/oci-cache prune \\
    --metrics-file /a/b.prom
CapabilityBoundingSet=CAP_LEASE CAP_CHOWN
PrivateTmp=yes
";

    #[test]
    fn units_are_varied() {
        assert_eq!(metrics_of(UNIT), Some("/a"));
        let other = running(UNIT, "/true");
        assert_eq!(
            other,
            "[Service]\nCapabilityBoundingSet=CAP_LEASE CAP_CHOWN\nPrivateTmp=yes\nExecStart=/true\n"
        );
        let controls = without_each_capability(UNIT);
        let names: Vec<&str> = controls.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["without-cap-lease.service", "without-cap-chown.service"]);
        assert!(controls[0].1.ends_with("PrivateTmp=yes\nCapabilityBoundingSet=~CAP_LEASE\n"));
    }

    #[test]
    fn what_was_seen_is_parsed() {
        let seen = parse("a.service result=success freed=\nb.service x=yes y=no\n\n");
        assert!(has(&seen["a.service"], "freed", "") && has(&seen["b.service"], "y", "no"));
        assert_eq!(seen.len(), 2);
    }
}
