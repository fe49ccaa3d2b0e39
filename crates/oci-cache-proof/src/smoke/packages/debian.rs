//! The Debian package, installed and removed.
//!
//! Guarantees: after it was purged, the machine has the files that it had before, and no other.

use std::path::Path;

use super::machine::Machine;
use crate::smoke::tally::Tally;

/// The files of the machine, but what dpkg and man-db keep for themselves.
const FILES: &str = r#"find / -xdev ! -path "/proc/*" ! -path "/var/lib/dpkg/*" ! -path "/var/log/*" ! -path "/var/cache/*" | sort"#;
/// What the package must install.
const INSTALLED: [&str; 11] = [
    "/usr/bin/oci-cache",
    "/usr/lib/systemd/system/oci-cache-prune.service",
    "/usr/lib/systemd/system/oci-cache-prune.timer",
    "/usr/lib/systemd/system/oci-cache-verify.service",
    "/usr/lib/systemd/system/oci-cache-verify.timer",
    "/usr/share/bash-completion/completions/oci-cache",
    "/usr/share/doc/oci-cache/changelog.gz",
    "/usr/share/doc/oci-cache/copyright",
    "/usr/share/doc/oci-cache/docs/faq.md",
    "/usr/share/man/man1/oci-cache-prune.1.gz",
    "/usr/share/zsh/vendor-completions/_oci-cache",
];

/// Installs the package, looks, and removes it.
///
/// # Errors
///
/// If nothing can be run on the machine.
pub(super) fn check(machine: &Machine, package: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    machine.bring(package, "oci-cache.deb")?;
    let before = machine.output_of(FILES)?;
    let mut expect = |script: &str, is_right: &dyn Fn(&str) -> bool| -> anyhow::Result<()> {
        let ended = machine.run(script)?;
        let holds = ended.code == Some(0) && is_right(&ended.stdout);
        tally.check(holds, || format!("the Debian package: `{script}`: {}", ended.story()));
        Ok(())
    };
    expect("dpkg --install /oci-cache.deb", &|_| true)?;
    expect("dpkg --verify oci-cache", &str::is_empty)?;
    expect("dpkg --listfiles oci-cache", &|files| {
        INSTALLED.iter().all(|file| files.lines().any(|line| line == *file))
    })?;
    expect("cd / && oci-cache --version && command -v oci-cache", &|said| {
        said.starts_with("oci-cache ") && said.ends_with("\n/usr/bin/oci-cache\n")
    })?;
    expect("man -w oci-cache oci-cache-prune oci-cache-usage oci-cache-verify oci-cache-dir", &|said| {
        said.lines().count() == 5
    })?;
    expect("grep -h ^ExecStart= /usr/lib/systemd/system/oci-cache-*.service | cut -d' ' -f1", &|said| {
        said == "ExecStart=/usr/bin/oci-cache\nExecStart=/usr/bin/oci-cache\n"
    })?;
    // What stops the timers when the package is removed.
    expect("dpkg-query --control-show oci-cache prerm", &|script| {
        script.contains("deb-systemd-invoke stop")
            && ["oci-cache-prune.timer", "oci-cache-verify.timer"].iter().all(|timer| script.contains(timer))
    })?;
    // Installed, but neither enabled nor started.
    expect("find /etc/systemd /run -name 'oci-cache*'", &str::is_empty)?;
    expect("! deb-systemd-helper --quiet was-enabled oci-cache-prune.timer", &|_| true)?;
    expect("dpkg --remove oci-cache && ! command -v oci-cache", &|_| true)?;
    expect("dpkg --purge oci-cache && ! dpkg-query --status oci-cache", &|_| true)?;
    let after = machine.output_of(FILES)?;
    let left: Vec<&str> = after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect();
    tally.check(before == after, || {
        format!("the Debian package, removed, leaves {left:?}, or took something along")
    });
    Ok(())
}
