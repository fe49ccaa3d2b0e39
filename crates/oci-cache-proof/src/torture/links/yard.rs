//! The place of a trick: the user's directory, root's canary, and two names to swap.
//!
//! Guarantees: one of the two names is what a client of root expects, the other is a trap: a link to the canary, a hard link
//! of it, or a FIFO. Root mends the pair through a held directory, follows no link, and only while the swapper is stopped.
//!
//! What it does not guarantee: that a user can make every trap. Root makes them all, the hard link too, which kernels with
//! `protected_hardlinks` let no user make.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, linkat, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat,
};

use crate::kit::process::{self, Running};
use crate::kit::tree::Tree;
use crate::torture::nobody::{NOBODY, as_nobody, give};
use crate::torture::sandbox::{fill, write};
use crate::torture::stage::Stage;

/// The name of every output.
const OUT: &str = "out";
/// The name of the trap while the other name is in its place.
const TRAP: &str = "trap";

/// What is swapped, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trick {
    /// The output's directory, for a link.
    Directory,
    /// The directory above that, for a link.
    Parent,
    /// The output's directory, which is root's, in one of the user's.
    RootsDirectory,
    /// The output, for a link.
    File,
    /// The output, for a FIFO.
    Fifo,
    /// The output, for a hard link of the canary.
    HardLink,
    /// The output, for a link, where everybody may write and the sticky bit is set.
    Sticky,
    /// The output, for a link, in root's directory, where the user's group may write.
    OfGroup,
    /// The output, for a link, in root's directory, where everybody may write.
    OfAll,
}

impl Trick {
    /// All tricks.
    pub(super) const ALL: [Self; 9] = [
        Self::Directory,
        Self::Parent,
        Self::RootsDirectory,
        Self::File,
        Self::Fifo,
        Self::HardLink,
        Self::Sticky,
        Self::OfGroup,
        Self::OfAll,
    ];

    /// The name that the trap is swapped with.
    const fn own(self) -> &'static str {
        match self {
            Self::Directory | Self::RootsDirectory => "dir",
            Self::Parent => "parent",
            _ => OUT,
        }
    }

    /// The output's path in the user's directory.
    fn output(self) -> PathBuf {
        match self {
            Self::Directory | Self::RootsDirectory => Path::new("dir").join(OUT),
            Self::Parent => Path::new("parent/dir").join(OUT),
            _ => OUT.into(),
        }
    }

    /// The mode, and whether the user's directory is root's.
    const fn directory(self) -> (u32, bool) {
        match self {
            Self::Sticky => (0o1777, true),
            Self::OfGroup => (0o2775, true),
            Self::OfAll => (0o777, true),
            _ => (0o755, false),
        }
    }
}

/// A user's directory, root's canary, and root's cache.
#[derive(Debug)]
pub(super) struct Yard {
    directory: tempfile::TempDir,
    trick: Trick,
    /// The canary before the trick.
    before: Tree,
}

impl Yard {
    /// Makes a yard with both names in their places.
    ///
    /// # Errors
    ///
    /// If a file cannot be made.
    pub(super) fn new(stage: &Stage, trick: Trick) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::with_prefix_in("links-", &stage.scratch)?;
        let path = directory.path();
        fs::set_permissions(path, Permissions::from_mode(0o711))?;
        fill(&path.join("cache"), 2)?;
        for canary in [OUT.into(), Path::new("dir").join(OUT)] {
            let canary = path.join("canary").join(canary);
            write(&canary, "canary")?;
            fs::set_permissions(canary, Permissions::from_mode(0o600))?;
        }
        let (yard, (mode, is_roots)) = (path.join("yard"), trick.directory());
        fs::create_dir(&yard)?;
        match is_roots {
            true => std::os::unix::fs::chown(&yard, None, Some(NOBODY))?,
            false => give(&yard)?,
        }
        fs::set_permissions(&yard, Permissions::from_mode(mode))?;
        let before = Tree::of(&path.join("canary"))?;
        let yard = Self { directory, trick, before };
        yard.mend()?;
        Ok(yard)
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// The path that root's program gets.
    pub(super) fn output(&self) -> PathBuf {
        self.yard().join(self.trick.output())
    }

    /// An output where nobody but root may write.
    ///
    /// # Errors
    ///
    /// If its directory cannot be made.
    pub(super) fn peace(&self) -> anyhow::Result<PathBuf> {
        // Everybody may write to the system's directory for temporary files, but it is sticky.
        let directory = self.directory.path().join("peace");
        fs::create_dir(&directory)?;
        Ok(directory.join(OUT))
    }

    /// Starts the swapper as the user.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(super) fn swapper(&self, stage: &Stage, time: Duration) -> anyhow::Result<Running> {
        let mut swapper = as_nobody(&stage.role("swapper"));
        swapper.args([self.trick.own(), TRAP].map(|name| self.yard().join(name)));
        process::start(swapper.arg(time.as_millis().to_string()).arg("tight"), None)
    }

    /// Describes how the canary changed.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) fn change(&self) -> anyhow::Result<Option<String>> {
        let after = Tree::of(&self.directory.path().join("canary"))?;
        Ok(self.before.any_difference(&after))
    }

    /// Restores the two names while the swapper is stopped: if it swapped them meanwhile, root would give away the canary
    /// through its hard link.
    ///
    /// # Errors
    ///
    /// If the swapper does not stop.
    pub(super) fn mend_beside(&self, swapper: &Running) -> anyhow::Result<()> {
        // What fails now may succeed the next time.
        swapper.while_stopped(|| {
            let _ = self.mend();
        })
    }

    fn yard(&self) -> PathBuf {
        self.directory.path().join("yard")
    }

    /// Restores the two names, unless exactly one of them is the trap. The output is the user's in any case.
    fn mend(&self) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let yard = openat(CWD, self.yard(), flags, Mode::empty())?;
        let (yard, names) = (yard.as_fd(), [self.trick.own(), TRAP]);
        let is_trap = |name: &str| {
            statat(yard, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|status| self.is_trap(&status))
        };
        let found = names.map(is_trap);
        if ![[Some(false), Some(true)], [Some(true), Some(false)]].contains(&found) {
            // No program replaces or removes a directory.
            for name in names {
                let _ = unlinkat(yard, name, AtFlags::empty());
            }
            self.make_own(yard)?;
            self.make_trap(yard)?;
        } else if self.trick.own() == OUT {
            let own = if found[0] == Some(false) { OUT } else { TRAP };
            give_entry(yard, own)?;
        }
        Ok(())
    }

    fn is_trap(&self, status: &Stat) -> bool {
        match self.trick {
            Trick::Fifo => FileType::from_raw_mode(status.st_mode) == FileType::Fifo,
            Trick::HardLink => status.st_nlink > 1,
            _ => FileType::from_raw_mode(status.st_mode) == FileType::Symlink,
        }
    }

    fn make_own(&self, yard: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(0o755);
        match self.trick {
            Trick::Directory => mkdirat(yard, "dir", mode).and_then(|()| give_entry(yard, "dir")),
            Trick::RootsDirectory => mkdirat(yard, "dir", mode),
            Trick::Parent => {
                mkdirat(yard, "parent", mode)?;
                mkdirat(yard, "parent/dir", mode)?;
                give_entry(yard, "parent").and_then(|()| give_entry(yard, "parent/dir"))
            }
            _ => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(yard, OUT, flags, Mode::from_raw_mode(0o644)).map(drop)?;
                give_entry(yard, OUT)
            }
        }
    }

    fn make_trap(&self, yard: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let canary = self.directory.path().join("canary");
        match self.trick {
            Trick::HardLink => return linkat(CWD, canary.join(OUT), yard, TRAP, AtFlags::empty()),
            Trick::Fifo => mknodat(yard, TRAP, FileType::Fifo, Mode::from_raw_mode(0o644), 0)?,
            Trick::Directory | Trick::Parent | Trick::RootsDirectory => symlinkat(canary, yard, TRAP)?,
            _ => symlinkat(canary.join(OUT), yard, TRAP)?,
        }
        give_entry(yard, TRAP)
    }
}

/// Makes the user the owner of an entry, and follows no link.
fn give_entry(yard: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    chownat(yard, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}
