//! Finds the place of a file, one component at a time.
//!
//! Guarantees: every directory on the way is held open while the next component is looked up in it, and is trusted as
//! [`trust`](crate::output_file::trust) says, from the root or the working directory on. A symbolic link is followed only
//! if its owner is trusted. So nobody else can make a name lead elsewhere, neither before nor after. Nothing is opened
//! for reading or writing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow};
use oci_cache::escape_path;
use rustix::fs::{
    FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fgetxattr_query, fstat, fstatfs, open, openat, readlinkat,
};
use rustix::io::Errno;

use crate::exit::UsageError;
use crate::output_file::trust::{Owned, Trust, Verdict};

/// As many as the kernel follows; see `path_resolution(7)`.
const MAX_LINKS: usize = 40;

/// A name in a directory that is held open. A file may be there or not.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
    /// The path of the name, without links.
    path: PathBuf,
    trust: Trust,
    verdict: Verdict,
}

impl Place {
    /// Finds the place of a file.
    ///
    /// # Errors
    ///
    /// A [`UsageError`] if others could make the path lead elsewhere, or if what is there is no regular file. Errors of
    /// the file system.
    pub(crate) fn find(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(refused(path, "is the name of a directory: name a file"));
        }
        let trust = Trust::of_this_process();
        let mut walk = Walk::new(&trust, path)?;
        let name = walk.go_to_the_last(path)?;
        let Walk { directory, path, verdict, .. } = walk;
        Ok(Self { directory, path: path.join(&name), name, trust, verdict })
    }

    /// What is at the place now.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(crate) fn look(&self) -> anyhow::Result<Option<Stat>> {
        let Some(entry) = entry_of(&self.directory, &self.name, &self.path)? else { return Ok(None) };
        self.check(&fstat(entry)?)
    }

    /// Checks what is at the place: a regular file that may be replaced or written to.
    ///
    /// # Errors
    ///
    /// A [`UsageError`].
    pub(crate) fn check(&self, found: &Stat) -> anyhow::Result<Option<Stat>> {
        check_entry(&self.trust, found, self.verdict, &self.path)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => Ok(Some(*found)),
            FileType::Directory => Err(refused(&self.path, "is a directory: name a file")),
            _ => {
                Err(refused(&self.path, "is not a regular file: name one, or a file that does not exist yet"))
            }
        }
    }
}

/// A walk along a path.
struct Walk<'a> {
    trust: &'a Trust,
    directory: OwnedFd,
    /// The path of the directory.
    path: PathBuf,
    verdict: Verdict,
    /// The components that follow, the next one last.
    rest: Vec<Step>,
    links: usize,
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

impl<'a> Walk<'a> {
    fn new(trust: &'a Trust, path: &Path) -> anyhow::Result<Self> {
        let here = if path.is_absolute() { "/" } else { "." };
        let directory = open(here, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = if path.is_absolute() { "/".into() } else { std::path::absolute(".").unwrap_or_default() };
        let verdict = check_directory(trust, &directory, &path)?;
        Ok(Self { trust, directory, path, verdict, rest: Vec::new(), links: 0 })
    }

    /// Goes to the directory of the last component, which is no link then. Returns its name.
    fn go_to_the_last(&mut self, path: &Path) -> anyhow::Result<OsString> {
        self.rest = steps(path);
        while let Some(step) = self.rest.pop() {
            let name = match step {
                Step::Root => {
                    self.path = PathBuf::from("/");
                    self.enter(open(
                        "/",
                        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?)?;
                    continue;
                }
                Step::Up => {
                    let above = openat(
                        &self.directory,
                        "..",
                        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?;
                    self.path.pop();
                    self.enter(above)?;
                    continue;
                }
                Step::Down(name) => name,
            };
            if let Some(name) = self.down(name)? {
                return Ok(name);
            }
        }
        Err(refused(path, "is the name of a directory: name a file"))
    }

    /// Goes into a directory, or to where a link leads. Returns the name if it is the last one, and no link.
    fn down(&mut self, name: OsString) -> anyhow::Result<Option<OsString>> {
        let path = self.path.join(&name);
        let is_last = self.rest.is_empty();
        let Some(entry) = entry_of(&self.directory, &name, &path)? else {
            let missing = || anyhow!("`{}` does not exist", escape_path(&path));
            return if is_last { Ok(Some(name)) } else { Err(missing()) };
        };
        let found = fstat(&entry)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => self.follow(&entry, &found, &path)?,
            _ if is_last => return Ok(Some(name)),
            FileType::Directory => {
                check_entry(self.trust, &found, self.verdict, &path)?;
                self.path = path;
                self.enter(entry)?;
            }
            _ => return Err(anyhow!("`{}` is not a directory", escape_path(&path))),
        }
        Ok(None)
    }

    fn enter(&mut self, directory: OwnedFd) -> anyhow::Result<()> {
        self.verdict = check_directory(self.trust, &directory, &self.path)?;
        self.directory = directory;
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd, found: &Stat, path: &Path) -> anyhow::Result<()> {
        if !self.trust.entry(found.st_uid, self.verdict) {
            let (owner, whom) = (found.st_uid, self.trust.whom());
            let why = format!(
                "is a symbolic link of user {owner}, and only links of {whom} are followed: name the file that it leads to"
            );
            return Err(refused(path, &why));
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(io::Error::from(Errno::LOOP))
                .with_context(|| format!("follow `{}`", escape_path(path)));
        }
        let target =
            readlinkat(link, "", Vec::new()).with_context(|| format!("follow `{}`", escape_path(path)))?;
        self.rest.extend(steps(Path::new(&OsString::from_vec(target.into_bytes()))));
        Ok(())
    }
}

/// The components of a path, the first one last.
fn steps(path: &Path) -> Vec<Step> {
    let step = |component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Step::Root),
        Component::CurDir => None,
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
    };
    let mut steps: Vec<Step> = path.components().filter_map(step).collect();
    steps.reverse();
    steps
}

/// Opens an entry without following it; `None` if there is none.
fn entry_of(directory: &OwnedFd, name: &OsStr, path: &Path) -> anyhow::Result<Option<OwnedFd>> {
    match openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(entry) => Ok(Some(entry)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("look at `{}`", escape_path(path))),
    }
}

/// Refuses an entry that another user has made in a sticky directory.
fn check_entry(trust: &Trust, found: &Stat, directory: Verdict, path: &Path) -> anyhow::Result<()> {
    if directory != Verdict::Sticky {
        return Ok(());
    }
    // With `protected_hardlinks` off, others can make one of any file; see `proc_sys_fs(5)`.
    if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_nlink > 1 {
        return Err(refused(
            path,
            "has other names, in a directory where others can make links: choose another name",
        ));
    }
    if trust.entry(found.st_uid, directory) {
        return Ok(());
    }
    let owner = found.st_uid;
    Err(refused(
        path,
        &format!(
            "belongs to user {owner}, in a directory where others can create files: choose another name"
        ),
    ))
}

/// Refuses a directory in which others can replace entries.
fn check_directory(trust: &Trust, directory: &OwnedFd, path: &Path) -> anyhow::Result<Verdict> {
    if fstatfs(directory)?.f_type == PROC_SUPER_MAGIC {
        return Err(refused(path, "has no regular files to write: name the file itself"));
    }
    let found = fstat(directory)?;
    let owned = Owned { user: found.st_uid, group: found.st_gid, mode: found.st_mode };
    let shown = escape_path(path);
    let whom = trust.whom();
    let why = match trust.directory(owned) {
        Verdict::OwnGroup if has_access_list(directory) => format!(
            "lets others write by an access control list: run `setfacl -b {shown}`, or name a file where only {whom} can write"
        ),
        Verdict::Foreign => format!(
            "belongs to user {}, who can replace what is in it: name a file in directories of {whom} only",
            owned.user
        ),
        Verdict::GroupWritable => format!(
            "can be written by group {}: run `chmod g-w {shown}`, or name a file where only {whom} can write",
            owned.group
        ),
        Verdict::WritableByAll => format!(
            "can be written by everybody: run `chmod o-w {shown}`, or name a file where only {whom} can write"
        ),
        trusted @ (Verdict::Own | Verdict::OwnGroup | Verdict::Sticky) => return Ok(trusted),
    };
    Err(refused(path, &why))
}

/// Whether the directory has an access control list, or if that cannot be known.
fn has_access_list(directory: &impl AsFd) -> bool {
    // Attributes cannot be read from a descriptor that is only a path.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = openat(directory, ".", flags, Mode::empty())
        .and_then(|directory| fgetxattr_query(directory, "system.posix_acl_access"));
    !matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

fn refused(path: &Path, why: &str) -> anyhow::Error {
    anyhow!(UsageError(format!("`{}` {why}", escape_path(path))))
}
