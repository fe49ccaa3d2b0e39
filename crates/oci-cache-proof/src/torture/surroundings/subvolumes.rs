//! Subvolumes of btrfs: in a cache, and as one.
//!
//! Guarantees: each case has a file system of its own, and unmounts it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::kit::image;
use crate::torture::mounts::run;
use crate::torture::sandbox::{fill, hex_name, write};
use crate::torture::surroundings::trial::{Case, Trial};

/// The cases with subvolumes.
pub(crate) const CASES: &[Case] = &[
    ("subvolume in the place of blobs", in_the_place_of_blobs),
    ("subvolume in the place of blobs/sha256", in_the_place_of_an_algorithm),
    ("cache that is a subvolume", cache),
];

/// The smallest that `mkfs.btrfs` takes.
const IMAGE_BYTES: u64 = 128 << 20;

fn on_btrfs(
    trial: &mut Trial<'_>,
    case: impl FnOnce(&mut Trial<'_>, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    image::mount("mkfs.btrfs", &["-q"], &mount, IMAGE_BYTES, "relatime")?;
    let done = case(trial, &mount.join("cache"));
    image::unmount(&mount)?;
    done
}

fn create(subvolume: &Path) -> anyhow::Result<()> {
    let words = ["-q", "subvolume", "create"].map(OsStr::new);
    run("btrfs", &[&words[..], &[subvolume.as_os_str()]].concat())
}

fn in_the_place_of_blobs(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_btrfs(trial, |trial, cache| nested(trial, cache, "blobs"))
}

fn in_the_place_of_an_algorithm(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_btrfs(trial, |trial, cache| nested(trial, cache, "blobs/sha256"))
}

/// A subvolume is not entered. If it may have all the blobs, the prune fails and names it; if there are others, a note
/// counts it. None moves aside.
fn nested(trial: &mut Trial<'_>, cache: &Path, name: &str) -> anyhow::Result<()> {
    let subvolume = cache.join(name);
    fs::create_dir_all(subvolume.parent().unwrap_or(cache))?;
    create(&subvolume)?;
    write(&cache.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let blob = cache.join("blobs/sha256").join(hex_name(1));
    write(&blob, "blob")?;
    trial.prune(cache, &["--aside"], 2)?;
    for beside in [false, true] {
        if beside {
            fill(cache, 3)?;
        }
        let mut prune = Command::new(&trial.stage.program);
        prune.args(["prune", "--format", "json", "--cache-dir"]).arg(cache);
        let ended = trial.run(prune, cache, &[i32::from(!beside)])?;
        let words = if beside {
            "1 subvolume in the place of blobs not entered"
        } else {
            "it is a subvolume, which is not entered"
        };
        trial.check(ended.stderr.contains(words), || format!("no {words:?} in {}", ended.story()));
        trial.check(blob.exists(), || format!("what is in {name} is gone"));
    }
    trial.expect_blobs(cache, 0);
    Ok(())
}

/// In place, it stays a subvolume. Moved aside, it would not, so that is refused.
fn cache(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_btrfs(trial, |trial, cache| {
        create(cache)?;
        fill(cache, 3)?;
        let ended = trial.prune(cache, &["--aside"], 2)?;
        trial.check(ended.stderr.contains("is a btrfs subvolume"), || ended.story());
        trial.expect_blobs(cache, 3);
        trial.prune(cache, &[], 0)?;
        trial.expect_blobs(cache, 0);
        let is_subvolume = fs::metadata(cache)?.ino() == 256;
        trial.check(is_subvolume, || "the cache is no subvolume any more".to_owned());
        Ok(())
    })
}
