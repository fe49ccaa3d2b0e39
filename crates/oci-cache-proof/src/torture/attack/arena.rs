//! The place of an attack: the swapper's cache, root's canary, and a link to swap.
//!
//! Guarantees: the canary has names that a prune removes, with ages at which it removes them without waiting.
//! So a prune that follows a link removes from the canary, and that is seen. Root fills the cache through
//! descriptors and follows no link.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat, statat, symlinkat, unlinkat,
};

use crate::kit::process::{self, Running};
use crate::kit::tree::Tree;
use crate::torture::nobody::{NOBODY, as_nobody, give};
use crate::torture::sandbox::{flat_name, hex_name, old, write};
use crate::torture::stage::Stage;

const BLOBS: usize = 24;
/// The link's name while it is outside the cache.
const LINK: &str = "link";

/// The entry that is swapped with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    Algorithm,
    Blobs,
    Leftover,
    Blob,
    Index,
    Partial,
}

impl Pair {
    /// All pairs.
    pub(crate) const ALL: [Self; 6] =
        [Self::Algorithm, Self::Blobs, Self::Leftover, Self::Blob, Self::Index, Self::Partial];

    /// The entry's name in the cache.
    fn own(self) -> PathBuf {
        match self {
            Self::Algorithm => "blobs/sha256".into(),
            Self::Blobs => "blobs".into(),
            Self::Leftover => format!(".pruning-{:016x}", 9).into(),
            Self::Blob => flat_name(0).into(),
            Self::Index => "index.json".into(),
            Self::Partial => "oci-put-blob1".into(),
        }
    }

    /// The link's target, within the canary.
    fn target(self) -> PathBuf {
        match self {
            Self::Algorithm | Self::Blobs | Self::Leftover => PathBuf::new(),
            Self::Blob | Self::Index | Self::Partial => self.own(),
        }
    }
}

/// A cache, a canary, and a link that is swapped with an entry of the cache.
#[derive(Debug)]
pub(crate) struct Arena {
    directory: tempfile::TempDir,
    pair: Pair,
    is_layout: bool,
    /// The canary before the attack.
    before: Tree,
}

impl Arena {
    /// Makes a new arena with a filled cache.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn new(stage: &Stage, pair: Pair, is_layout: bool) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::with_prefix_in("attack-", &stage.scratch)?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        for name in ["cache", "links"] {
            let path = directory.path().join(name);
            fs::create_dir(&path)?;
            give(&path)?;
        }
        let canary = directory.path().join("canary");
        fill_canary(&canary)?;
        let before = Tree::of(&canary)?;
        let arena = Self { directory, pair, is_layout, before };
        arena.refill().context("fill a cache")?;
        Ok(arena)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Starts the swapper as the cache's owner. It pauses if a prune would spare whatever changes.
    pub(crate) fn swapper(&self, stage: &Stage, time: Duration, pauses: bool) -> anyhow::Result<Running> {
        let mut swapper = as_nobody(&stage.role("swapper"));
        swapper.arg(self.cache().join(self.pair.own())).arg(self.path().join("links").join(LINK));
        swapper.arg(time.as_millis().to_string());
        process::start(swapper.arg(if pauses { "pauses" } else { "tight" }), None)
    }

    /// Describes how the canary changed.
    pub(crate) fn change(&self) -> anyhow::Result<Option<String>> {
        let after = Tree::of(&self.path().join("canary"))?;
        Ok(self.before.any_difference(&after))
    }

    /// Refills the cache while the swapper is stopped. Otherwise most attempts would fail.
    ///
    /// # Errors
    ///
    /// If the swapper does not stop.
    pub(crate) fn refill_beside(&self, swapper: &Running) -> anyhow::Result<()> {
        // What fails now may succeed the next time.
        swapper.while_stopped(|| {
            let _ = self.refill();
        })
    }

    /// Fills the cache with what a prune removes. The swapper may be running, so no link is followed.
    fn refill(&self) -> rustix::io::Result<()> {
        let cache = open_directory(CWD, &self.cache())?;
        let links = open_directory(CWD, &self.path().join("links"))?;
        let (cache, links) = (cache.as_fd(), links.as_fd());
        for number in 0..BLOBS {
            if number > 0 || self.pair != Pair::Blob {
                create(cache, flat_name(number), "blob");
            }
        }
        if self.is_layout {
            create(cache, "oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
            if self.pair != Pair::Index {
                create(cache, "index.json", INDEX);
            }
        }
        if matches!(self.pair, Pair::Blob | Pair::Index | Pair::Partial) {
            let content = if self.pair == Pair::Index { INDEX } else { "blob" };
            let name = self.pair.own();
            self.mend(cache, &name, links, || create(cache, &name, content))?;
        }
        let blobs = self.directory(Pair::Blobs, cache, "blobs", links)?;
        let algorithm = self.directory(Pair::Algorithm, blobs.as_fd(), "sha256", links)?;
        for number in 0..BLOBS {
            create(algorithm.as_fd(), hex_name(number), "blob");
        }
        if self.pair == Pair::Leftover {
            let leftover = self.directory(self.pair, cache, self.pair.own(), links)?;
            for number in 0..BLOBS {
                create(leftover.as_fd(), flat_name(number), "blob");
            }
        }
        Ok(())
    }

    /// Opens the directory of this name, and creates it if it is missing. If it is the swapped entry, it may
    /// be at the link's place.
    fn directory(
        &self,
        pair: Pair,
        parent: BorrowedFd<'_>,
        name: impl AsRef<Path>,
        links: BorrowedFd<'_>,
    ) -> rustix::io::Result<OwnedFd> {
        let name = name.as_ref();
        if self.pair != pair {
            make_directory(parent, name);
            return open_directory(parent, name);
        }
        self.mend(parent, name, links, || make_directory(parent, name))?;
        open_directory(parent, name).or_else(|_| open_directory(links, Path::new(LINK)))
    }

    /// Restores what a prune removed of the pair: its own entry, with `make`, or the link.
    fn mend(
        &self,
        parent: BorrowedFd<'_>,
        name: &Path,
        links: BorrowedFd<'_>,
        make: impl Fn(),
    ) -> rustix::io::Result<()> {
        let kind = |directory: BorrowedFd<'_>, name: &Path| {
            let status = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(FileType::from_raw_mode(status.st_mode))
        };
        let link = Path::new(LINK);
        let target = self.path().join("canary").join(self.pair.target());
        let (own, other) = (kind(parent, name), kind(links, link));
        if own.is_none() && other.is_some_and(|other| other != FileType::Symlink) {
            return symlinkat(&target, parent, name);
        }
        if own != Some(FileType::Symlink) && other != Some(FileType::Symlink) {
            // A new index has replaced the link.
            let _ = unlinkat(links, link, AtFlags::empty());
            symlinkat(&target, links, link)?;
        }
        if own == Some(FileType::Symlink) && other == own {
            unlinkat(parent, name, AtFlags::empty())?;
            make();
        }
        if own.is_none() {
            make();
        }
        Ok(())
    }
}

/// An index without images.
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

fn fill_canary(canary: &Path) -> anyhow::Result<()> {
    for number in 0..BLOBS {
        write(&canary.join(flat_name(number)), "canary")?;
        write(&canary.join(hex_name(number)), "canary")?;
        write(&canary.join("sha256").join(hex_name(number)), "canary")?;
    }
    write(&canary.join("oci-put-blob1"), "canary")?;
    write(&canary.join("index.json"), r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0","size":1}]}"#)
}

fn open_directory(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Creates a directory that the swapper owns, unless the name is taken.
fn make_directory(parent: BorrowedFd<'_>, name: &Path) {
    let user = (Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)));
    let made = mkdirat(parent, name, Mode::from_raw_mode(0o755)).and_then(|()| open_directory(parent, name));
    // Whatever is in its place now is no link, so it belongs to the swapper in any case.
    let _ = made.and_then(|made| fchown(made, user.0, user.1));
}

/// Creates a file that seems two days old, unless the name is taken.
fn create(parent: BorrowedFd<'_>, name: impl AsRef<Path>, content: &str) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = name.as_ref().as_os_str().as_bytes();
    let Ok(file) = openat(parent, name, flags, Mode::from_raw_mode(0o644)) else { return };
    let mut file = File::from(file);
    let _ = file.write_all(content.as_bytes());
    let _ = file.set_times(old());
}
