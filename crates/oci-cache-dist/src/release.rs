//! What is released: the sources, the version, the target and the time.
//!
//! Guarantees: the time is `SOURCE_DATE_EPOCH`, or that of the last commit: never the clock's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The package of the program.
pub(crate) const PACKAGE: &str = "oci-cache-cli";
/// The program, and what it is called where it is installed.
pub(crate) const NAME: &str = "oci-cache";

/// A release for one target.
#[derive(Debug)]
pub(crate) struct Release {
    /// The directory of the sources.
    pub(crate) workspace: PathBuf,
    /// Cargo's target directory.
    pub(crate) target_directory: PathBuf,
    /// The target triple.
    pub(crate) target: String,
    /// The program's version.
    pub(crate) version: String,
    /// The time of all files, in seconds since 1970.
    pub(crate) epoch: u64,
    /// What cargo knows of the packages for this target.
    pub(crate) metadata: Metadata,
}

impl Release {
    /// Finds out what `manifest_path` releases for `target`, or for this machine.
    ///
    /// # Errors
    ///
    /// If cargo cannot read the workspace, or the time of the release is unknown.
    pub(crate) fn find(manifest_path: &Path, target: Option<&str>) -> anyhow::Result<Self> {
        let target = match target {
            Some(target) => target.to_owned(),
            None => output_of(Command::new("rustc").args(["--print", "host-tuple"]))?.trim().to_owned(),
        };
        let mut command = MetadataCommand::new();
        command.manifest_path(manifest_path);
        command.other_options(["--locked", "--filter-platform", &target].map(str::to_owned));
        let metadata = command
            .exec()
            .with_context(|| format!("read the packages of `{}` with cargo", manifest_path.display()))?;
        let workspace = metadata.workspace_root.clone().into_std_path_buf();
        let package = metadata.workspace_packages().into_iter().find(|package| *package.name == PACKAGE);
        let package = package.with_context(|| {
            format!("the workspace `{}` has no package {PACKAGE}", metadata.workspace_root)
        })?;
        Ok(Self {
            version: package.version.to_string(),
            target_directory: metadata.target_directory.clone().into_std_path_buf(),
            epoch: epoch(&workspace)?,
            workspace,
            target,
            metadata,
        })
    }

    /// The Cargo.toml of the program's package.
    pub(crate) fn package(&self) -> anyhow::Result<&Package> {
        let mut packages = self.metadata.workspace_packages().into_iter();
        packages.find(|package| *package.name == PACKAGE).context("the package of the program is gone")
    }

    /// The directory in which cargo puts what it builds for the target.
    pub(crate) fn built(&self) -> PathBuf {
        self.target_directory.join(&self.target).join("release")
    }

    /// A call of cargo in the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.workspace).env("CARGO_TARGET_DIR", &self.target_directory);
        cargo
    }
}

fn epoch(workspace: &Path) -> anyhow::Result<u64> {
    if let Some(given) = env::var_os("SOURCE_DATE_EPOCH") {
        let number = given.to_str().and_then(|text| text.parse().ok());
        return number.with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}, not a number of seconds"));
    }
    let log = output_of(Command::new("git").current_dir(workspace).args(["log", "-1", "--format=%ct"]));
    let log = log.with_context(|| {
        let place = workspace.display();
        format!("read the time of the last commit in `{place}` for the times of the files; or set SOURCE_DATE_EPOCH")
    })?;
    log.trim().parse().context("parse the time of the last commit")
}

/// What a command prints that must succeed.
pub(crate) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said.trim());
    String::from_utf8(output.stdout).with_context(|| format!("read what {command:?} printed"))
}
