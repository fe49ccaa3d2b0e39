//! The machine and the tools that figures are measured with.
//!
//! Guarantees: no host name, user name or path appears.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use banger_fmt::format_bytes;
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::bench::contenders::all_programs;
use crate::kit::machine::{Machine, read};
use crate::kit::programs;
use crate::kit::shell::shell;
use crate::kit::workspace::workspace;

/// The machine and the tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    /// The disk that the caches are on: its kind, file system and mount options.
    pub(crate) disk: String,
    /// The pruner's version and commit.
    pub(crate) pruner: String,
    /// A line for each installed tool.
    pub(crate) tools: Vec<String>,
}

impl Environment {
    /// Describes the machine. `directory` is where caches are made, and `pruner` is the measured program.
    pub(crate) fn look(directory: &Path, pruner: &Path) -> anyhow::Result<Self> {
        let Machine { processor, cores, memory_kibibytes, kernel } = Machine::look()?;
        let memory = memory_kibibytes.map(|kibibytes| format_bytes(kibibytes * 1024));
        Ok(Self {
            processor,
            cores,
            memory: memory.unwrap_or_else(|| "unknown".to_owned()),
            kernel,
            disk: Mount::of(directory)?.description(),
            pruner: version(pruner)?,
            tools: tools()?,
        })
    }
}

/// The load averages over 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) file_system: String,
    /// The options that bear on the figures.
    options: Vec<String>,
    /// `major:minor`
    device: String,
}

impl Mount {
    /// The file system that a path is on.
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize().with_context(|| format!("resolve `{}`", path.display()))?;
        Ok(Self::among(&read("/proc/self/mountinfo")?, &path).unwrap_or_default())
    }

    /// The last of the deepest mounts that contain the path.
    fn among(table: &str, path: &Path) -> Option<Self> {
        const TELLING: &[&str] =
            &["noatime", "relatime", "strictatime", "lazytime", "discard", "nobarrier", "sync"];
        let mounts = table.lines().filter_map(|line| {
            let (fields, rest) = line.split_once(" - ")?;
            let fields: Vec<&str> = fields.split(' ').collect();
            let rest: Vec<&str> = rest.split(' ').collect();
            let point = Path::new(*fields.get(4)?);
            let options = fields.get(5)?.split(',').chain(rest.get(2)?.split(','));
            let is_telling = |option: &&str| TELLING.contains(option) || option.starts_with("data=");
            let mount = Self {
                file_system: (*rest.first()?).to_owned(),
                options: options.filter(is_telling).map(str::to_owned).collect(),
                device: (*fields.get(2)?).to_owned(),
            };
            path.starts_with(point).then(|| (point.components().count(), mount))
        });
        mounts.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
    }

    fn description(&self) -> String {
        let options = self.options.join(", ");
        format!("{} ({options}) on {}", self.file_system, disk_kind(&self.device))
    }
}

/// The kind of a block device, from its name and from what the kernel says.
fn disk_kind(device: &str) -> &'static str {
    let place = Path::new("/sys/dev/block").join(device);
    let name = fs::read_link(&place).ok().and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    let rotates = |path: &str| fs::read_to_string(place.join(path)).ok();
    let rotates = rotates("queue/rotational").or_else(|| rotates("../queue/rotational"));
    match (name.as_deref(), rotates.as_deref().map(str::trim)) {
        (Some(name), _) if name.starts_with("vd") => "a virtio disk",
        (Some(name), _) if name.starts_with("nvme") => "an NVMe disk",
        (Some(name), Some("0")) if name.starts_with("sd") => "a solid-state disk",
        (Some(name), Some("1")) if name.starts_with("sd") => "a disk that rotates, or says so",
        _ => "a device of unknown kind",
    }
}

/// The pruner's version, and the commit that is checked out, if git knows one.
fn version(pruner: &Path) -> anyhow::Result<String> {
    let shell = shell()?;
    let said = cmd!(shell, "{pruner} --version").quiet().read();
    let said = said.with_context(|| format!("ask `{}` for its version", pruner.display()))?;
    shell.change_dir(workspace());
    let git = |arguments: &[&str]| cmd!(shell, "git {arguments...}").quiet().ignore_stderr().read().ok();
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    // Figures of earlier benchmarks change docs/.
    let changes =
        git(&["status", "--porcelain", "--", "Cargo.toml", "Cargo.lock", ".cargo", "crates", "xtask"]);
    Ok(with_commit(said, commit.as_deref(), changes.as_deref()))
}

/// A version, the commit, if git knows one, and whether git knows of changes since, or does not know.
fn with_commit(version: String, commit: Option<&str>, changes: Option<&str>) -> String {
    match (commit, changes) {
        (None, _) => version,
        (Some(commit), Some("")) => format!("{version}, commit {commit}"),
        (Some(commit), _) => format!("{version}, commit {commit}, changed since"),
    }
}

/// The versions of all installed tools.
fn tools() -> anyhow::Result<Vec<String>> {
    let shell = shell()?;
    let mut tools = Vec::new();
    for program in all_programs().into_iter().chain(["strace"]) {
        if programs::find(program).is_some() {
            let flag = if program == "openssl" { "version" } else { "--version" };
            let said = cmd!(shell, "{program} {flag}").quiet().ignore_stderr().ignore_status().read();
            let said = said.with_context(|| format!("ask `{program}` for its version"))?;
            let version = said.lines().next().unwrap_or("unknown").trim();
            tools.push(format!("{program}: {version}"));
        }
    }
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard,data=ordered
30 22 0:25 / /home/me rw,noatime - btrfs /dev/vdb rw,ssd
31 30 0:26 / /home/me rw - tmpfs tmpfs rw,size=1k
";

    #[test]
    fn the_deepest_and_then_the_last_mount_counts() {
        let file_system = |path| Mount::among(TABLE, Path::new(path)).unwrap().file_system;
        assert_eq!(file_system("/home/me/cache"), "tmpfs");
        assert_eq!(file_system("/home/mean"), "ext4");
    }

    #[test]
    fn the_commit_stands_beside_the_version() {
        let told = |commit, changes| with_commit("oci-cache 1.2.3".to_owned(), commit, changes);
        assert_eq!(told(Some("abc1234"), Some("")), "oci-cache 1.2.3, commit abc1234");
        for changes in [Some(" M Cargo.toml"), None] {
            assert_eq!(told(Some("abc1234"), changes), "oci-cache 1.2.3, commit abc1234, changed since");
        }
        // Outside a repository, or in one of another user, git says nothing.
        assert_eq!(told(None, None), "oci-cache 1.2.3");
        let shell = shell().unwrap();
        shell.change_dir(workspace());
        let knows_commit = cmd!(shell, "git rev-parse HEAD").quiet().ignore_stderr().read().is_ok();
        let version = version(Path::new("rustc")).unwrap();
        assert!(version.starts_with("rustc 1."), "{version}");
        assert_eq!(version.contains(", commit "), knows_commit, "{version}");
    }

    #[test]
    fn options_that_bear_on_the_figures_are_told() {
        let mount = Mount::among(TABLE, Path::new("/")).unwrap();
        assert_eq!(mount.options, ["relatime", "discard", "data=ordered"]);
        assert_eq!(mount.device, "254:0");
    }
}
