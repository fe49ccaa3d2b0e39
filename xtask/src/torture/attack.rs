//! A less-privileged user swaps names for links to a canary, while root prunes.
//!
//! Guarantees: the canary has the names that a prune removes, at the ages at which it removes them without
//! a wait, so a prune that follows a link removes from it, and that is seen. One pair is swapped at a time,
//! each swap in one atomic step, as fast as the kernel does it. The swapper owns the cache; the canary is
//! root's. What root puts into the cache it puts there by descriptors and follows no link. A pruner that
//! works by path is tried too, and must lose: that shows that the detector sees.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rand::RngExt as _;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid, fchown, mkdirat, openat, renameat_with,
    statat, symlinkat, unlinkat,
};
use rustix::process::Signal;

use super::Stage;
use super::mode::command;
use super::process::{self, Running};
use super::row::Row;
use super::sandbox::{flat_name, hex_name, write};
use super::snapshot::Snapshot;

/// `nobody`, and its group.
const NOBODY: u32 = 65534;
const BLOBS: usize = 24;
const PRUNE_LIMIT: Duration = Duration::from_secs(60);
const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// The name of the link, where it is while the cache has its own.
const LINK: &str = "link";
/// What the pruner that must lose is called.
const BY_PATH: &str = "by path (must lose)";
/// The fewest swaps of a whole run.
const MIN_SWAPS: u64 = 100_000;

/// What root does.
#[derive(Debug)]
struct Strategy {
    name: &'static str,
    flags: &'static [&'static str],
    is_layout: bool,
    /// Landlock would hide that a link was followed: so once there is none.
    has_landlock: bool,
}

const STRATEGIES: [Strategy; 5] = [
    Strategy { name: "in place", flags: &[], is_layout: false, has_landlock: true },
    Strategy { name: "in place, without Landlock", flags: &[], is_layout: false, has_landlock: false },
    Strategy { name: "in place, layout", flags: &[], is_layout: true, has_landlock: true },
    Strategy {
        name: "--unreferenced, layout",
        flags: &["--unreferenced"],
        is_layout: true,
        has_landlock: true,
    },
    Strategy { name: "aside", flags: &["--aside"], is_layout: false, has_landlock: true },
];

/// What is swapped with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    Algorithm,
    Blobs,
    Leftover,
    Blob,
    Index,
    Partial,
}

impl Pair {
    const ALL: [Self; 6] =
        [Self::Algorithm, Self::Blobs, Self::Leftover, Self::Blob, Self::Index, Self::Partial];

    /// The name in the cache.
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

    /// Where the link leads, in the canary.
    fn target(self) -> PathBuf {
        match self {
            Self::Algorithm | Self::Blobs | Self::Leftover => PathBuf::new(),
            Self::Blob | Self::Index | Self::Partial => self.own(),
        }
    }
}

pub(super) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for strategy in &STRATEGIES {
        rows.push(attack(stage, strategy)?);
    }
    let mut control = control(stage)?;
    let swaps: u64 = rows.iter().map(|row| row.swaps).sum();
    control.check(stage.quick || swaps >= MIN_SWAPS, || format!("{swaps} swaps in all show too little"));
    rows.push(control);
    Ok(rows)
}

/// A strategy under attack, one pair after the other.
fn attack(stage: &Stage, strategy: &Strategy) -> anyhow::Result<Row> {
    let mut row = Row::new("attack", "tmpfs", strategy.name);
    let time = Duration::from_millis(if stage.quick { 700 } else { 3300 });
    let mut freed_something = 0;
    for pair in Pair::ALL {
        freed_something += attack_on(stage, strategy, pair, time, &mut row)?;
    }
    let Row { unlinks, swaps, executions, .. } = row;
    row.check(unlinks > 0, || "the prunes removed nothing, so nothing is shown".to_owned());
    let (least_swaps, least_prunes) = if stage.quick { (2_000, 6) } else { (25_000, 24) };
    row.check(swaps >= least_swaps, || format!("{swaps} swaps show too little"));
    row.check(executions >= least_prunes, || format!("{executions} prunes show too little"));
    // Nothing in a flat cache that the swapper does keeps all of it.
    let is_enough = strategy.is_layout || !strategy.flags.is_empty() || 2 * freed_something >= executions;
    row.check(is_enough, || format!("only {freed_something} of {executions} prunes freed something"));
    Ok(row)
}

/// Prunes for a time while a pair is swapped. Returns how many prunes freed something.
fn attack_on(
    stage: &Stage,
    strategy: &Strategy,
    pair: Pair,
    time: Duration,
    row: &mut Row,
) -> anyhow::Result<u64> {
    let arena = Arena::new(stage, pair, strategy.is_layout)?;
    let log = arena.path().join("strace.log");
    let mut freed_something = 0;
    let mut was_without = false;
    let swapper = arena.swapper(stage, time, strategy.is_layout)?;
    let end = Instant::now() + time;
    while Instant::now() < end {
        arena.refill_beside(&swapper);
        let mut prune = command(&stage.program, "cache-prune", &arena.cache());
        prune.args(strategy.flags);
        let ended = match strategy.has_landlock {
            true => process::run(&mut prune, PRUNE_LIMIT)?,
            false => process::run(&mut without_landlock(&prune, &log), PRUNE_LIMIT)?,
        };
        was_without |= fs::read(&log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("(INJECTED)"));
        row.executions += 1;
        let freed = ended.number("blobs_freed").unwrap_or(0);
        row.unlinks += freed;
        freed_something += u64::from(freed > 0);
        row.check(ended.is_documented(), || format!("{pair:?}: a prune: {}", ended.story()));
    }
    let swaps = swaps_of(swapper)?;
    row.swaps += swaps;
    row.check(swaps > 0, || format!("{pair:?}: it was never swapped"));
    row.check(strategy.has_landlock != was_without, || format!("{pair:?}: Landlock was not as it should be"));
    let change = arena.change()?;
    row.check(change.is_none(), || format!("{pair:?}: the canary: {}", change.unwrap_or_default()));
    Ok(freed_something)
}

/// The prune, in which the kernel has no Landlock.
fn without_landlock(prune: &Command, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "--seccomp-bpf", "-e", "signal=none"]);
    strace.args(["-e", "trace=landlock_create_ruleset", "-e"]);
    strace.arg("inject=landlock_create_ruleset:error=ENOSYS").arg("-o").arg(log);
    strace.arg("--").arg(prune.get_program()).args(prune.get_args());
    strace
}

/// A pruner that works by path must lose, or the attack shows nothing.
fn control(stage: &Stage) -> anyhow::Result<Row> {
    let mut row = Row::new("attack", "tmpfs", BY_PATH);
    let time = Duration::from_secs(if stage.quick { 5 } else { 20 });
    let arena = Arena::new(stage, Pair::Algorithm, false)?;
    let swapper = arena.swapper(stage, time, false)?;
    let end = Instant::now() + time;
    let mut change = None;
    while change.is_none() && Instant::now() < end {
        arena.refill_beside(&swapper);
        let mut naive = Command::new(&stage.program);
        naive.args(["torture", "--", "naive"]).arg(arena.path());
        let ended = process::run(&mut naive, PRUNE_LIMIT)?;
        ensure!(ended.code == Some(0), "the pruner by path: {}", ended.story());
        row.executions += 1;
        change = arena.change()?;
    }
    swapper.signal(Signal::KILL);
    swapper.finish(PRUNE_LIMIT)?;
    row.check(change.is_some(), || "a pruner by path lost nothing, so the attack shows nothing".to_owned());
    Ok(row)
}

fn swaps_of(swapper: Running) -> anyhow::Result<u64> {
    let swapped = swapper.finish(PRUNE_LIMIT)?;
    swapped.stdout.trim().parse().with_context(|| format!("the swapper: {}", swapped.story()))
}

/// A cache, a canary, and a link that is swapped with something of the cache.
#[derive(Debug)]
struct Arena {
    directory: tempfile::TempDir,
    pair: Pair,
    is_layout: bool,
    /// The canary.
    before: Snapshot,
}

impl Arena {
    fn new(stage: &Stage, pair: Pair, is_layout: bool) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::with_prefix_in("attack-", &stage.scratch)?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        for name in ["cache", "links"] {
            let path = directory.path().join(name);
            fs::create_dir(&path)?;
            chown(&path, Some(NOBODY), Some(NOBODY))?;
        }
        let canary = directory.path().join("canary");
        fill_canary(&canary)?;
        let before = Snapshot::of(&canary)?;
        let arena = Self { directory, pair, is_layout, before };
        arena.refill().context("fill a cache")?;
        Ok(arena)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Starts to swap, as a user who owns the cache. Where a prune spares what changes, with pauses.
    fn swapper(&self, stage: &Stage, time: Duration, pauses: bool) -> anyhow::Result<Running> {
        let user = NOBODY.to_string();
        let mut swapper = Command::new("setpriv");
        swapper.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&stage.program);
        swapper.args(["torture", "--", "swapper"]).arg(self.cache().join(self.pair.own()));
        swapper.arg(self.path().join("links").join(LINK)).arg(time.as_millis().to_string());
        process::start(swapper.arg(if pauses { "pauses" } else { "tight" }), None)
    }

    /// How the canary changed.
    fn change(&self) -> anyhow::Result<Option<String>> {
        let after = Snapshot::of(&self.path().join("canary"))?;
        let new = after.entries.keys().find(|path| !self.before.entries.contains_key(*path));
        let new = new.map(|path| format!("{} is new", path.display()));
        Ok(self.before.first_change(&after, |_| true).or(new))
    }

    /// Refills while the swapper rests: then most of it comes to something.
    fn refill_beside(&self, swapper: &Running) {
        swapper.signal(Signal::STOP);
        // What cannot be made now may be made the next time.
        let _ = self.refill();
        swapper.signal(Signal::CONT);
    }

    /// Puts in the cache what is to be pruned. The swapper may still be at it, so no link is followed.
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

    /// The directory of this name, made if it is not there. If it is what is swapped, it may be elsewhere.
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

    /// Makes anew what a prune took of the pair: its own half by `make`, or the link.
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
            // A new index has taken the place of the link.
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

/// An index of no image.
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

/// Makes a directory of the swapper's, unless something has its name.
fn make_directory(parent: BorrowedFd<'_>, name: &Path) {
    let user = (Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)));
    let made = mkdirat(parent, name, Mode::from_raw_mode(0o755)).and_then(|()| open_directory(parent, name));
    // Whatever has come into its place: it is no link, so it is the swapper's in any case.
    let _ = made.and_then(|made| fchown(made, user.0, user.1));
}

/// Makes a file of two days ago, unless something has its name.
fn create(parent: BorrowedFd<'_>, name: impl AsRef<Path>, content: &str) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = name.as_ref().as_os_str().as_bytes();
    let Ok(file) = openat(parent, name, flags, Mode::from_raw_mode(0o644)) else { return };
    let mut file = File::from(file);
    let now = u64::try_from(crate::clock::now().0).unwrap_or_default();
    let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(now).saturating_sub(TWO_DAYS);
    let _ = file.write_all(content.as_bytes());
    let _ = file.set_times(FileTimes::new().set_modified(then).set_accessed(then));
}

/// Swaps as the words say: the two names, milliseconds, whether to pause. Prints how often.
pub(super) fn play(words: &[&str]) -> anyhow::Result<()> {
    let [own, link, milliseconds, manner] = words else { bail!("a swapper takes four words: {words:?}") };
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let mut swaps = 0_u64;
    while Instant::now() < end {
        let burst_end = match *manner {
            "pauses" => end.min(Instant::now() + Duration::from_millis(rand::rng().random_range(1..40))),
            _ => end,
        };
        while Instant::now() < burst_end {
            for _ in 0..64 {
                swaps += u64::from(renameat_with(CWD, *own, CWD, *link, RenameFlags::EXCHANGE).is_ok());
            }
        }
        // A prune of a layout waits for half a second, and goes on if nothing moved.
        let rest = end.saturating_duration_since(Instant::now());
        thread::sleep(rest.min(Duration::from_millis(rand::rng().random_range(0..700))));
    }
    std::io::stdout().lock().write_all(swaps.to_string().as_bytes()).context("write to stdout")
}

/// Removes by path what is in the cache of an attack, as a prune must not.
pub(super) fn play_naive(words: &[&str]) -> anyhow::Result<()> {
    let [directory] = words else { bail!("it takes one word: {words:?}") };
    let directory = Path::new(directory);
    let name = directory.file_name().unwrap_or_default();
    let is_arena = name.as_bytes().starts_with(b"attack-") && directory.join("canary").is_dir();
    ensure!(is_arena, "{} is not the directory of an attack", directory.display());
    remove_by_path(&directory.join("cache"));
    Ok(())
}

fn remove_by_path(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => remove_by_path(&path),
            Ok(metadata) if metadata.is_file() => drop(unlinkat(CWD, &path, AtFlags::empty())),
            _ => {}
        }
    }
}
