//! Mounts in this run's mount namespace.
//!
//! Guarantees: they disappear with the namespace, if nothing unmounts them before.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use std::process::Command;

use crate::kit::image;
use crate::kit::process::{self, Running};

const LIMIT: Duration = Duration::from_secs(60);

/// A kind of file system to prune on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    /// With inodes of 128 bytes, whose times are whole seconds.
    Ext4Seconds,
    Xfs,
    Btrfs,
    Tmpfs,
    Overlay,
    Bindfs,
}

impl FileSystem {
    /// The kinds that most parts need.
    pub(crate) const ALL: [Self; 6] =
        [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs, Self::Overlay, Self::Bindfs];

    /// The name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4Seconds => "ext4, times of 1 s",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Overlay => "overlay",
            Self::Bindfs => "bindfs",
        }
    }
}

/// A mount, with its server or image.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) path: PathBuf,
    server: Option<Running>,
    image: Option<PathBuf>,
}

impl Mount {
    /// Unmounts it and frees its space.
    pub(crate) fn unmount(self) -> anyhow::Result<()> {
        image::unmount(&self.path)?;
        if let Some(server) = self.server {
            server.finish(LIMIT)?;
        }
        if let Some(image) = self.image {
            // Empty the image to free its space. The file itself disappears with the scratch directory.
            File::create(&image).with_context(|| format!("empty {}", image.display()))?;
        }
        Ok(())
    }
}

/// How a mount records reads, where the file system can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    /// Every read.
    Every,
    /// As mounts usually do (`relatime`).
    Usual,
}

/// Makes a file system and mounts it at `path`.
pub(crate) fn mount(kind: FileSystem, path: &Path, recording: Recording) -> anyhow::Result<Mount> {
    let option = match recording {
        Recording::Every => "strictatime",
        Recording::Usual => "relatime",
    };
    fs::create_dir_all(path)?;
    let mut mount = Mount { path: path.to_owned(), server: None, image: None };
    let image =
        |make, flags: &[&str], mebibytes: u64| image::mount(make, flags, path, mebibytes << 20, option);
    match kind {
        FileSystem::Ext4 => mount.image = Some(image("mkfs.ext4", &["-q", "-E", "nodiscard"], 512)?),
        FileSystem::Ext4Seconds => {
            mount.image = Some(image("mkfs.ext4", &["-q", "-E", "nodiscard", "-I", "128"], 512)?);
        }
        FileSystem::Xfs => mount.image = Some(image("mkfs.xfs", &["-q"], 512)?),
        FileSystem::Btrfs => mount.image = Some(image("mkfs.btrfs", &["-q"], 768)?),
        FileSystem::Tmpfs => tmpfs(path, &format!("{option},size=1g"))?,
        FileSystem::Overlay => overlay(path)?,
        FileSystem::Bindfs => mount.server = Some(bindfs(path)?),
    }
    Ok(mount)
}

/// Mounts a tmpfs.
pub(crate) fn tmpfs(path: &Path, options: &str) -> anyhow::Result<()> {
    let words = ["-t", "tmpfs", "-o", options, "tmpfs"].map(AsRef::as_ref);
    run("mount", &[&words[..], &[path.as_os_str()]].concat())
}

/// Mounts an overlay. Its layers are beside it: `<path>.lower`, which may be there already, and `<path>.upper`.
pub(crate) fn overlay(path: &Path) -> anyhow::Result<()> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| path.with_extension(name));
    for directory in [&lower, &upper, &work] {
        fs::create_dir_all(directory)?;
    }
    let (lower, upper, work) = (lower.display(), upper.display(), work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let words = ["-t", "overlay", "-o", &options, "overlay"].map(AsRef::as_ref);
    run("mount", &[&words[..], &[path.as_os_str()]].concat())
}

/// Mounts a directory through FUSE.
fn bindfs(path: &Path) -> anyhow::Result<Running> {
    let behind = path.with_extension("behind");
    fs::create_dir_all(&behind)?;
    let mut command = Command::new("bindfs");
    command.arg("-f").arg(&behind).arg(path);
    let server = process::start(&mut command, None)?;
    let device =
        |path: &Path| fs::metadata(path).map(|metadata| std::os::unix::fs::MetadataExt::dev(&metadata));
    let end = Instant::now() + Duration::from_secs(10);
    while device(path)? == device(&behind)? {
        ensure!(Instant::now() < end, "bindfs did not mount {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

/// Copies a program to where any user can run it and no build replaces it.
pub(crate) fn copy_for_all(program: &Path, scratch: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = scratch.join(name);
    fs::copy(program, &copy).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).context("make the copy executable")?;
    Ok(copy)
}

/// Runs a program that must exit with 0.
pub(crate) fn run(program: &str, words: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    process::must(Command::new(program).args(words), LIMIT).map(drop)
}
