//! A plain Debian in a directory.
//!
//! Guarantees: debootstrap installs what this machine's own sources of packages have. What runs there sees that directory
//! alone, has no network, and its mounts and processes end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xshell::cmd;

use crate::kit::process::{self, Ended, Running};
use crate::kit::shell::{output_of, shell};

/// What a plain Debian lacks to show pages and to complete; the shell of the image.
const PACKAGES: &str = "man-db,bash-completion,busybox-static";
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the installation may take.
const INSTALLATION: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(60);

/// A machine that is being installed.
#[derive(Debug)]
pub(super) struct Installation {
    root: PathBuf,
    debootstrap: Running,
}

/// An installed machine.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// Begins to install a machine in `root`.
    ///
    /// # Errors
    ///
    /// If this machine's sources of packages are unknown.
    pub(super) fn start(root: &Path) -> anyhow::Result<Installation> {
        let (suite, mirror) = sources()?;
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite])
            .arg(root)
            .arg(mirror);
        // In namespaces of its own: a mount that it leaves behind is gone with it.
        let mut debootstrap =
            process::wrapped(&["unshare", "--mount", "--pid", "--fork", "--kill-child"], &debootstrap);
        Ok(Installation { root: root.to_owned(), debootstrap: process::start(&mut debootstrap, None)? })
    }

    /// The path from outside.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a script by bash.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(super) fn run(&self, script: &str) -> anyhow::Result<Ended> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", self.path("proc").display())).arg("chroot").arg(&self.root);
        command.args(["env", "-i", SEARCH_PATH, "HOME=/root", "LC_ALL=C.UTF-8", "bash", "-c", script]);
        process::run(&mut command, LIMIT)
    }

    /// What a script prints that must succeed.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub(super) fn output_of(&self, script: &str) -> anyhow::Result<String> {
        let ended = self.run(script)?;
        ensure!(ended.code == Some(0), "`{script}` in a plain Debian: {}", ended.story());
        Ok(ended.stdout)
    }

    /// Copies a file to the top of the machine.
    ///
    /// # Errors
    ///
    /// If it cannot be copied.
    pub(super) fn bring(&self, file: &Path, name: &str) -> anyhow::Result<()> {
        fs::copy(file, self.path(name)).with_context(|| format!("copy {}", file.display())).map(drop)
    }
}

impl Installation {
    /// Waits until the machine is installed.
    ///
    /// # Errors
    ///
    /// If debootstrap fails.
    pub(super) fn finish(self) -> anyhow::Result<Machine> {
        let ended = self.debootstrap.finish(INSTALLATION)?;
        let last: Vec<&str> = ended.stdout.lines().rev().take(3).collect();
        ensure!(ended.code == Some(0), "debootstrap: {}; {}", ended.story(), last.join("; "));
        Ok(Machine { root: self.root })
    }
}

/// The suite of this machine, and where its packages come from.
fn sources() -> anyhow::Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release").context("find out which Debian this is")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite =
        suite.context("/etc/os-release has no VERSION_CODENAME: smoke needs Debian")?.trim_matches('"');
    let shell = shell()?;
    let format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
    let targets = output_of(cmd!(shell, "apt-get indextargets --format {format} 'Created-By: Packages'"))?;
    let start = format!("{suite} main ");
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&start));
    let mirror = mirror.with_context(|| format!("apt has no source with the suite {suite}"))?;
    Ok((suite.to_owned(), mirror_of(mirror)?))
}

/// A mirror that debootstrap can read: of a list of mirrors (`apt-transport-mirror(1)`), the first.
fn mirror_of(source: &str) -> anyhow::Result<String> {
    let Some(list) = source.strip_prefix("mirror+file:") else {
        return Ok(source.to_owned());
    };
    let mirrors = fs::read_to_string(list).with_context(|| format!("read the list of mirrors `{list}`"))?;
    let first = mirrors.lines().find_map(|line| line.split_ascii_whitespace().next());
    first.map(str::to_owned).with_context(|| format!("the list of mirrors `{list}` is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_list_the_first_mirror_is_taken() {
        let list = tempfile::NamedTempFile::new().unwrap();
        fs::write(list.path(), "\nhttp://127.0.0.1/one/\tpriority:1\nhttp://127.0.0.1/two/\n").unwrap();
        let source = format!("mirror+file:{}", list.path().display());
        assert_eq!(mirror_of(&source).unwrap(), "http://127.0.0.1/one/");
        assert_eq!(mirror_of("http://127.0.0.1/debian/").unwrap(), "http://127.0.0.1/debian/");
        assert!(mirror_of("mirror+file:/nonexistent").is_err());
    }
}
