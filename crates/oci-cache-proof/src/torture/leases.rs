//! What may turn a lease against others: a scanner, a file system that is frozen, an open at the last moment.
//!
//! Guarantees: a scanner that looks at each file that is opened keeps no idle blob in the cache. While a file system is
//! frozen, at most one open of a directory's files waits for the prune, and of the files that somebody opens meanwhile,
//! at most one loses its name: the one whose removal had begun. A blob that somebody opens when the prune comes to it
//! keeps its name. Every process ends by itself.
//!
//! Source: `fanotify(7)`, "permission events"; `fsfreeze(8)`; `proc(5)`, `/proc/locks`.

mod coinciding;
mod scanner;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use rustix::process::Signal;

use crate::kit::process::{self, while_none_starts};
use crate::torture::mode::command;
use crate::torture::mounts::{self, FileSystem, Mount, Recording};
use crate::torture::row::Row;
use crate::torture::sandbox::{fill, flat_name};
use crate::torture::stage::Stage;

pub(crate) use self::scanner::scan;

const LIMIT: Duration = Duration::from_secs(120);
/// The number of blobs beside a scanner.
const SCANNED: usize = 3000;
/// The number of blobs on the frozen file system, and of those that go before it is frozen.
const FROZEN: usize = 20_000;
const BEFORE_THE_FREEZE: usize = 200;
/// The number of files that are opened meanwhile.
const READERS: usize = 16;

/// Runs the exercises.
///
/// # Errors
///
/// If one cannot run.
pub(crate) fn rows(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let path = stage.scratch.join("leases");
    let mount = mounts::mount(FileSystem::Ext4, &path, Recording::Usual)?;
    let mut rows = vec![beside_a_scanner(stage, &mount)?, frozen(stage, &mount)?];
    mount.unmount()?;
    rows.append(&mut coinciding::rows(stage)?);
    Ok(rows)
}

/// Prunes a cache whose files a scanner opens whenever anybody does.
fn beside_a_scanner(stage: &Stage, mount: &Mount) -> anyhow::Result<Row> {
    let mut row = Row::new("leases", "ext4", "beside a scanner");
    let cache = mount.path.join("scanned");
    fill(&cache, SCANNED)?;
    let events = stage.scratch.join("events");
    let mut scanner = Command::new("timeout");
    let role = stage.role("scanner");
    scanner.arg(LIMIT.as_secs().to_string()).arg(role.get_program()).args(role.get_args());
    let scanner = process::start(scanner.arg(&mount.path).arg(&events), None)?;
    wait_until(|| events.exists()).context("the scanner does not start")?;
    let ended = process::run(&mut command(&stage.program, "prune", &cache), LIMIT)?;
    scanner.signal(Signal::KILL);
    scanner.finish(LIMIT)?;
    row.executions = 1;
    row.unlinks = ended.number("blobs_freed").unwrap_or(0);
    let (left, seen) = (names(&cache)?.len(), fs::metadata(&events)?.len());
    row.check(ended.code == Some(0) && left == 0, || format!("{left} blobs stay: {}", ended.story()));
    row.check(seen >= SCANNED as u64, || {
        format!("the scanner saw {seen} opens only, so this proves nothing")
    });
    Ok(row)
}

/// Freezes the file system in the middle of a prune, for longer than the kernel lets a lease last.
fn frozen(stage: &Stage, mount: &Mount) -> anyhow::Result<Row> {
    // The kernel takes a lease away after 45 s: `/proc/sys/fs/lease-break-time`.
    let time = Duration::from_secs(if stage.quick { 3 } else { 50 });
    let mut row = Row::new("leases", "ext4", &format!("frozen for {} s", time.as_secs()));
    let cache = mount.path.join("frozen");
    fill(&cache, FROZEN)?;
    let prune = process::start(&mut command(&stage.program, "prune", &cache), None)?;
    wait_until(|| !cache.join(flat_name(BEFORE_THE_FREEZE)).exists()).context("the prune does not prune")?;
    freeze("--freeze", mount)?;
    thread::sleep(Duration::from_millis(300));
    let readers = read_while_frozen(&cache, prune.id(), time, &mut row);
    freeze("--unfreeze", mount)?;
    let opened =
        readers?.into_iter().map(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?);
    let opened: Vec<File> = opened.collect::<anyhow::Result<_>>()?;
    let ended = prune.finish(LIMIT)?;
    row.executions = 1;
    row.unlinks = ended.number("blobs_freed").unwrap_or(0);
    row.check(ended.code == Some(0), || ended.story());
    let lost =
        opened.iter().filter(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)).count();
    row.check(lost <= 1, || format!("{lost} of {} files lost their names while open", opened.len()));
    let kept = opened.len() - lost;
    let left = names(&cache)?.len();
    row.check(left == kept, || format!("{left} blobs are left, not the {kept} that were opened"));
    Ok(row)
}

type Reader = thread::JoinHandle<anyhow::Result<File>>;

/// Opens files of the frozen file system: those that are leased, and some others. Returns after `time`.
fn read_while_frozen(cache: &Path, prune: u32, time: Duration, row: &mut Row) -> anyhow::Result<Vec<Reader>> {
    let leased = leased(prune)?;
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for path in names(cache)? {
        let inode = fs::metadata(&path).with_context(|| format!("inspect {}", path.display()))?.ino();
        if leased.contains(&inode) { files.push(path) } else { others.push(path) }
    }
    ensure!(others.len() >= READERS, "the prune was done before the file system was frozen");
    row.check(files.len() <= 1, || format!("{} files were leased while frozen", files.len()));
    others.truncate(READERS.saturating_sub(files.len()));
    let waiting = files.len();
    files.append(&mut others);
    let open = |path: PathBuf| {
        thread::spawn(move || File::open(&path).with_context(|| format!("open {}", path.display())))
    };
    let readers: Vec<Reader> = files.into_iter().map(open).collect();
    thread::sleep(time.min(Duration::from_secs(1)));
    let hung = readers.iter().filter(|reader| !reader.is_finished()).count();
    row.check(hung <= waiting, || format!("{hung} opens waited, not {waiting}"));
    thread::sleep(time.saturating_sub(Duration::from_secs(1)));
    Ok(readers)
}

/// The inodes on which a process holds leases.
fn leased(process: u32) -> anyhow::Result<HashSet<u64>> {
    let locks = fs::read_to_string("/proc/locks").context("read /proc/locks")?;
    let inode_of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_lease = words.get(1) == Some(&"LEASE") && words.get(4)?.parse() == Ok(process);
        let inode = words.get(5)?.rsplit(':').next()?.parse().ok()?;
        is_lease.then_some(inode)
    };
    Ok(locks.lines().filter_map(inode_of).collect())
}

fn freeze(flag: &str, mount: &Mount) -> anyhow::Result<()> {
    process::must(Command::new("fsfreeze").arg(flag).arg(&mount.path), LIMIT).map(drop)
}

fn names(cache: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = while_none_starts(|| fs::read_dir(cache)?.collect::<std::io::Result<Vec<_>>>());
    Ok(entries.with_context(|| format!("list {}", cache.display()))?.iter().map(fs::DirEntry::path).collect())
}

fn wait_until(is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        ensure!(Instant::now() < end, "not within {} s", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
