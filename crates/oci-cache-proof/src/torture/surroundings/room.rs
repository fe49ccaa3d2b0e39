//! The room that a prune gains: reflinks, snapshots, compression, lower layers of overlays, and disks that are full.
//!
//! Guarantees: each case has a file system of its own. A goal of free space counts as met only if `statvfs(3)` says so
//! too, after all is on the disk. What a prune must not touch, such as a snapshot, is compared before and after.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use rustix::fs::{statvfs, syncfs};
use serde_json::Value;

use crate::kit::image;
use crate::kit::process::{self, Ended, while_none_starts};
use crate::kit::random::random;
use crate::kit::tree::Tree;
use crate::torture::mode::LIMIT;
use crate::torture::mounts::{self, overlay, run};
use crate::torture::sandbox::{Sandbox, Shape, age, digest, flat_name, hex_name, set_times};
use crate::torture::surroundings::mounts::fill_disk;
use crate::torture::surroundings::trial::{Case, Trial, blobs_in};

/// The cases with goals of free space, and with full disks.
pub(crate) const CASES: &[Case] = &[
    ("reflinks", reflinks),
    ("snapshot", snapshot),
    ("compression", compression),
    ("lower layer, to a goal", lower_layer_to_goal),
    ("lower layer, by age", lower_layer_by_age),
    ("full tmpfs, by age", full_tmpfs),
    ("full ext4, by age", full_ext4),
];

/// The size of a blob.
const BLOB_BYTES: usize = 8 << 20;
/// The size of the file systems: `mkfs.xfs` refuses smaller ones.
const IMAGE_BYTES: u64 = 512 << 20;
/// How far a figure may be from what is measured a moment later.
const NEAR_BYTES: u64 = 1 << 20;
const MEBIBYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The oldest blobs are reflinks of a file outside, so removing them frees nothing.
fn reflinks(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    image::mount("mkfs.xfs", &["-q", "-m", "reflink=1"], &mount, IMAGE_BYTES, "relatime")?;
    let (cache, outside) = (mount.join("cache"), mount.join("outside"));
    write_noise(&outside.join("file"))?;
    fs::create_dir(&cache)?;
    for number in 0..5 {
        let blob = cache.join(flat_name(number));
        let from = outside.join("file");
        run("cp", &["--reflink=always".as_ref(), from.as_os_str(), blob.as_os_str()])?;
        age(&blob)?;
    }
    for number in 5..11 {
        write_younger(&cache.join(flat_name(number)))?;
    }
    let before = Tree::of(&outside)?;
    let ended = prune_to(trial, &cache, 20 * MEBIBYTE, &[], 0)?;
    let left = blobs_in(&cache);
    // XFS frees in the background: if that takes long, one more round removes what turns out not to be needed.
    trial.check((1..=3).contains(&left), || format!("{left} blobs are left, not 3"));
    expect_said(trial, &ended, "snapshots or reflinks may hold the rest");
    let change = before.first_change(&Tree::of(&outside)?, |_| true);
    trial.check(change.is_none(), || format!("outside the cache: {change:?}"));
    image::unmount(&mount)
}

/// A snapshot has everything, so no prune gains room. All that may go has gone when the prune says so.
fn snapshot(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    image::mount("mkfs.btrfs", &["-q"], &mount, IMAGE_BYTES, "relatime")?;
    let (volume, shot) = (mount.join("volume"), mount.join("snapshot"));
    run("btrfs", &["-q".as_ref(), "subvolume".as_ref(), "create".as_ref(), volume.as_os_str()])?;
    let cache = volume.join("cache");
    for number in 0..6 {
        write_old(&cache.join(flat_name(number)))?;
    }
    let words = ["-q", "subvolume", "snapshot", "-r"].map(AsRef::as_ref);
    run("btrfs", &[&words[..], &[volume.as_os_str(), shot.as_os_str()]].concat())?;
    let before = Tree::of(&shot)?;
    let ended = prune_to(trial, &cache, 20 * MEBIBYTE, &["--keep", &digest(5)], 3)?;
    trial.expect_blobs(&cache, 1);
    expect_kept(trial, &ended, &[("pinned", 1), ("goal_met", 0), ("frees_nothing", 0)]);
    expect_said(trial, &ended, "snapshots or reflinks may hold the rest");
    expect_said(trial, &ended, "note: goal not met");
    let change = before.first_change(&Tree::of(&shot)?, |_| true);
    trial.check(change.is_none(), || format!("the snapshot: {change:?}"));
    image::unmount(&mount)
}

/// The oldest blobs take a fraction of their size on disk.
fn compression(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    image::mount("mkfs.btrfs", &["-q"], &mount, IMAGE_BYTES, "relatime,compress=zstd")?;
    let cache = mount.join("cache");
    for number in 0..5 {
        let blob = cache.join(flat_name(number));
        write_bytes(&blob, &vec![0; BLOB_BYTES])?;
        age(&blob)?;
    }
    for number in 5..10 {
        write_younger(&cache.join(flat_name(number)))?;
    }
    prune_to(trial, &cache, 20 * MEBIBYTE, &[], 0)?;
    let left = blobs_in(&cache);
    // Three of the blobs that do not compress free enough.
    trial.check((1..=3).contains(&left), || format!("{left} blobs are left, not 2"));
    image::unmount(&mount)
}

/// Runs a case with a cache on an overlay: four old blobs are on its lower layer, four younger ones on the upper.
fn on_overlay(
    trial: &mut Trial<'_>,
    case: impl FnOnce(&mut Trial<'_>, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let disk = trial.path("disk");
    fs::create_dir(&disk)?;
    mounts::tmpfs(&disk, "size=128m")?;
    let merged = disk.join("merged");
    let lower = disk.join("merged.lower");
    for number in 0..4 {
        write_old(&lower.join("cache").join(flat_name(number)))?;
    }
    fs::create_dir(&merged)?;
    overlay(&merged)?;
    let cache = merged.join("cache");
    for number in 4..8 {
        write_younger(&cache.join(flat_name(number)))?;
    }
    let before = Tree::of(&lower)?;
    case(trial, &cache)?;
    let change = before.first_change(&Tree::of(&lower)?, |_| true);
    trial.check(change.is_none(), || format!("the lower layer: {change:?}"));
    image::unmount(&merged)?;
    image::unmount(&disk)
}

fn lower_layer_to_goal(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_overlay(trial, |trial, cache| {
        let ended = prune_to(trial, cache, 12 * MEBIBYTE, &[], 0)?;
        trial.expect_blobs(cache, 6);
        expect_kept(trial, &ended, &[("frees_nothing", 4), ("goal_met", 2)]);
        // What is left of the upper layer is not enough.
        let ended = prune_to(trial, cache, 64 * MEBIBYTE, &[], 3)?;
        trial.expect_blobs(cache, 4);
        expect_kept(trial, &ended, &[("frees_nothing", 4), ("goal_met", 0)]);
        expect_said(trial, &ended, "note: goal not met");
        Ok(())
    })
}

fn lower_layer_by_age(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_overlay(trial, |trial, cache| {
        let before = available_bytes(cache)?;
        let ended = loud(trial, cache, &["--older-than", "12h"], 0)?;
        trial.expect_blobs(cache, 0);
        let gained = available_bytes(cache)?.saturating_sub(before);
        let told = ended.number("disk_bytes_freed").unwrap_or(0);
        let is_true = told == 4 * BLOB_BYTES as u64 && gained.abs_diff(told) <= NEAR_BYTES;
        trial.check(is_true, || format!("{told} bytes on disk reported, {gained} gained: {}", ended.story()));
        expect_said(trial, &ended, "note: 4 blobs are of a lower layer of an overlay");
        Ok(())
    })
}

fn full_tmpfs(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for alone in ["unreferenced blob", "dead download"] {
        let mount = trial.path("mount");
        fs::create_dir_all(&mount)?;
        mounts::tmpfs(&mount, "size=1m")?;
        full_by_age(trial, &mount, alone)?;
    }
    Ok(())
}

fn full_ext4(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for alone in ["unreferenced blob", "dead download"] {
        let mount = trial.path("mount");
        image::mount("mkfs.ext4", &["-q", "-m", "0", "-E", "nodiscard"], &mount, 16 << 20, "relatime")?;
        full_by_age(trial, &mount, alone)?;
    }
    Ok(())
}

/// On a full disk, one of a layout's images goes, and the other one stays. So the index must be written anew, which takes
/// the room of the one file that goes without that.
fn full_by_age(trial: &mut Trial<'_>, mount: &Path, alone: &str) -> anyhow::Result<()> {
    let sandbox = Sandbox::new(mount, Shape::Layout)?;
    let cache = sandbox.cache();
    let blobs = cache.join("blobs/sha256");
    let (unreferenced, download) = (blobs.join(hex_name(40)), cache.join("oci-put-blob1234"));
    sandbox.move_out(if alone == "dead download" { &unreferenced } else { &download })?;
    sandbox.move_out(&sandbox.leftover())?;
    fill_disk(&mount.join("filler"))?;
    // The age of a download goes by its change time too, which nothing can set.
    std::thread::sleep(Duration::from_millis(1100));
    let before = Tree::of(&cache)?;
    let ended =
        process::run(&mut trial.command(&cache, &["--older-than", "1s", "--keep", &digest(20)]), LIMIT)?;
    trial.row.executions += 1;
    // By name: the new index may get the inode of a file that is gone.
    let went = before.names_gone_from(&Tree::of(&cache)?).blobs;
    trial.row.unlinks += went;
    let is_right = ended.code == Some(0) && ended.number("blobs_freed") == Some(went) && went == 4;
    trial.check(is_right, || format!("only a {alone}: {went} went, {}", ended.story()));
    let gone = [blobs.join(hex_name(10)), blobs.join(hex_name(11)), blobs.join(hex_name(12))];
    let is_gone = |path: &Path| !path.exists();
    let all_gone = gone.iter().all(|path| is_gone(path)) && is_gone(&unreferenced) && is_gone(&download);
    trial.check(all_gone, || format!("only a {alone}: something old is left"));
    let all_stay = [3, 20, 21, 22].iter().all(|&number| blobs.join(hex_name(number)).exists());
    trial.check(all_stay, || format!("only a {alone}: a blob of the image that stays is gone"));
    let index = fs::read_to_string(cache.join("index.json")).unwrap_or_default();
    let is_new = index.contains(&digest(20)) && !index.contains(&digest(10));
    trial.check(is_new, || format!("only a {alone}: the index has {index:?}"));
    trial.check_layout(alone, &cache);
    drop(sandbox);
    image::unmount(mount)
}

/// Prunes until so much more room is there. Checks what it says against the file system.
fn prune_to(
    trial: &mut Trial<'_>,
    cache: &Path,
    more_bytes: u64,
    flags: &[&str],
    code: i32,
) -> anyhow::Result<Ended> {
    let wanted = available_bytes(cache)? + more_bytes;
    let goal = format!("{wanted}B");
    let ended = loud(trial, cache, &[&["--min-free-space", &goal], flags].concat(), code)?;
    let after = available_bytes(cache)?;
    let report = ended.report().unwrap_or_default();
    let told = &report["goals"][0];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (reached, available) = (number(&told["reached"]), number(&report["available_bytes"]));
    let is_met = told["met"] == Value::Bool(true);
    trial.check(number(&told["wanted"]) == wanted, || format!("{wanted} wanted, {told}"));
    trial.check(reached.abs_diff(after) <= NEAR_BYTES, || format!("{after} bytes are free, {told}"));
    trial.check(reached == available, || format!("{available} bytes free in the report, {told}"));
    trial.check(is_met == (reached >= wanted), || format!("{told}"));
    trial.check(is_met == (code == 0), || format!("exit code {code}, {told}"));
    Ok(ended)
}

/// Prunes, and hears the notes.
fn loud(trial: &mut Trial<'_>, cache: &Path, flags: &[&str], code: i32) -> anyhow::Result<Ended> {
    let mut prune = Command::new(&trial.stage.program);
    prune.args(["prune", "--format", "json", "--cache-dir"]).arg(cache).args(flags);
    trial.run(prune, cache, &[code])
}

fn expect_said(trial: &mut Trial<'_>, ended: &Ended, words: &str) {
    trial.check(ended.stderr.contains(words), || format!("no {words:?} in {:?}", ended.stderr));
}

fn expect_kept(trial: &mut Trial<'_>, ended: &Ended, expected: &[(&str, u64)]) {
    let kept = ended.report().unwrap_or_default()["kept"].take();
    for (reason, blobs) in expected {
        let told = kept[reason]["blobs"].as_u64();
        trial.check(told == Some(*blobs), || format!("{reason}: {told:?} blobs, not {blobs}: {kept}"));
    }
}

/// The free space, once all is on the disk.
fn available_bytes(place: &Path) -> anyhow::Result<u64> {
    while_none_starts(|| -> io::Result<()> { Ok(syncfs(File::open(place)?)?) })
        .with_context(|| format!("sync {}", place.display()))?;
    let space = statvfs(place).with_context(|| format!("read the free space of {}", place.display()))?;
    Ok(space.f_bavail * space.f_frsize)
}

/// Writes a blob that was last used two days ago.
fn write_old(path: &Path) -> anyhow::Result<()> {
    write_noise(path)?;
    age(path)
}

/// Writes a blob that was last used a day ago.
fn write_younger(path: &Path) -> anyhow::Result<()> {
    write_noise(path)?;
    set_times(path, DAY)
}

/// Writes a blob that does not compress.
fn write_noise(path: &Path) -> anyhow::Result<()> {
    let mut noise = vec![0; BLOB_BYTES];
    random().fill_bytes(&mut noise);
    write_bytes(path, &noise)
}

fn write_bytes(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    while_none_starts(|| fs::write(path, content)).with_context(|| format!("write {}", path.display()))
}
