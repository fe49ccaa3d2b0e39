//! Mounts, permissions and full disks.
//!
//! Guarantees: every mount that a case makes is unmounted by it, or disappears with the namespace.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::kit::image;
use crate::kit::process::{self, wrapped};
use crate::torture::mounts;
use crate::torture::nobody::{as_nobody, give, give_entries};
use crate::torture::sandbox::{Sandbox, Shape, fill, flat_name, hex_name, write};
use crate::torture::surroundings::trial::{Case, Trial, blobs_in};

/// The cases with mounts and permissions.
pub(crate) const CASES: &[Case] = &[
    ("symlinked root", symlinked),
    ("mount point", mount_point),
    ("bind mount in another namespace", bind_mount),
    ("nested mount", nested_mount),
    ("read-only file system", read_only),
    ("immutable file", immutable_file),
    ("immutable directory", immutable_directory),
    ("full disk", full_disk),
    ("no inodes left", no_inodes),
    ("directory without read permission", unreadable),
    ("another user's files without CAP_LEASE", without_lease),
    ("parent that cannot be written", unwritable_parent),
];

fn symlinked(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let (real, link) = (trial.path("real"), trial.path("link"));
    fill(&real, 3)?;
    symlink("real", &link)?;
    trial.prune(&link, &[], 0)?;
    trial.expect_blobs(&real, 0);
    fill(&real, 3)?;
    trial.prune(&link, &["--aside"], 0)?;
    trial.expect_blobs(&real, 0);
    let is_link = link.is_symlink() && real.is_dir();
    trial.check(is_link, || "the link or the directory behind it is gone".to_owned());
    Ok(())
}

fn mount_point(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fs::create_dir(&cache)?;
    mounts::tmpfs(&cache, "size=4m")?;
    fill(&cache, 3)?;
    trial.prune(&cache, &["--aside"], 2)?;
    trial.expect_blobs(&cache, 3);
    trial.prune(&cache, &[], 0)?;
    trial.expect_blobs(&cache, 0);
    image::unmount(&cache)
}

/// In another mount namespace, the cache is bound elsewhere and one of its blobs is open.
fn bind_mount(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let (cache, ready, go) = (trial.path("cache"), trial.path("ready"), trial.path("go"));
    fill(&cache, 3)?;
    fs::create_dir(trial.path("bound"))?;
    let script = format!(
        "mount --bind cache bound && exec 9< bound/{} && : > ready && \
         for i in $(seq 200); do [ -e go ] && break; sleep 0.1; done && \
         echo more > bound/after && cat <&9",
        flat_name(1)
    );
    let mut holder = Command::new("unshare");
    holder.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(trial.path(""));
    let holder = process::start(&mut holder, None)?;
    for _ in 0..200 {
        if ready.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ended = trial.prune(&cache, &[], 0)?;
    let in_use = ended.report().map(|report| report["kept"]["in_use"]["blobs"].clone());
    trial.check(in_use == Some(1.into()), || format!("in use: {in_use:?}"));
    trial.expect_blobs(&cache, 1);
    File::create(go)?;
    let held = holder.finish(crate::torture::mode::LIMIT)?;
    let is_good = held.stdout == "blob" && cache.join("after").exists();
    trial.check(is_good, || format!("the bind mount: {}", held.story()));
    Ok(())
}

fn nested_mount(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    let below = cache.join("blobs/sha256");
    fs::create_dir_all(&below)?;
    mounts::tmpfs(&below, "size=4m")?;
    write(&below.join("0".repeat(64)), "another file system's")?;
    // A file can be a mount point too.
    let bound = trial.path("bound");
    fs::write(&bound, "mounted")?;
    let blob = cache.join(flat_name(0));
    mounts::run("mount", &["--bind".as_ref(), bound.as_os_str(), blob.as_os_str()])?;
    let ended = trial.prune(&cache, &[], 0)?;
    trial.check(below.join("0".repeat(64)).exists(), || "a nested mount was entered".to_owned());
    let foreign = ended.number("foreign");
    trial.check(foreign == Some(2), || format!("foreign: {foreign:?}, not 2"));
    trial.expect_blobs(&cache, 1);
    trial.prune(&cache, &["--aside"], 2)?;
    image::unmount(&blob)?;
    image::unmount(&below)
}

fn read_only(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    fs::create_dir(&mount)?;
    mounts::tmpfs(&mount, "size=4m")?;
    for name in ["cache", "other"] {
        fill(&mount.join(name), 3)?;
    }
    mounts::run("mount", &["-o".as_ref(), "remount,ro".as_ref(), mount.as_os_str()])?;
    trial.prune(&mount.join("cache"), &[], 1)?;
    trial.expect_blobs(&mount.join("cache"), 3);
    trial.prune(&mount.join("other"), &["--aside"], 2)?;
    trial.expect_blobs(&mount.join("other"), 3);
    image::unmount(&mount)
}

/// Runs a case with a cache on ext4, which has file attributes.
fn on_ext4(
    trial: &mut Trial<'_>,
    case: impl FnOnce(&mut Trial<'_>, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    image::mount("mkfs.ext4", &["-q", "-E", "nodiscard"], &mount, 16 << 20, "relatime")?;
    let cache = mount.join("cache");
    fill(&cache, 3)?;
    let done = case(trial, &cache);
    image::unmount(&mount)?;
    done
}

fn immutable_file(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_ext4(trial, |trial, cache| {
        let blob = cache.join(flat_name(1));
        mounts::run("chattr", &["+i".as_ref(), blob.as_os_str()])?;
        trial.prune(cache, &[], 1)?;
        trial.expect_blobs(cache, 1);
        trial.prune(cache, &["--aside"], 1)?;
        mounts::run("chattr", &["-R".as_ref(), "-i".as_ref(), cache.with_file_name("").as_os_str()])?;
        trial.prune(cache, &[], 0)?;
        let left = fs::read_dir(cache.with_file_name(""))?.count();
        trial.check(left == 2, || format!("{left} entries are left, not lost+found and the cache"));
        Ok(())
    })
}

fn immutable_directory(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    on_ext4(trial, |trial, cache| {
        mounts::run("chattr", &["+i".as_ref(), cache.as_os_str()])?;
        trial.prune(cache, &[], 1)?;
        trial.prune(cache, &["--aside"], 2)?;
        trial.expect_blobs(cache, 3);
        mounts::run("chattr", &["-i".as_ref(), cache.as_os_str()])?;
        trial.prune(cache, &[], 0).map(drop)
    })
}

/// Fills a file system completely.
pub(crate) fn fill_disk(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    for size in [1 << 16, 1 << 12, 1] {
        while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
    Ok(())
}

fn full_disk(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for flags in [&[][..], &["--keep", &crate::torture::sandbox::digest(10)]] {
        let mount = trial.path("mount");
        fs::create_dir_all(&mount)?;
        mounts::tmpfs(&mount, "size=1m")?;
        let sandbox = Sandbox::new(&mount, Shape::Layout)?;
        let cache = sandbox.cache();
        // If an image stays, and nothing goes that needs no new index, that cannot be written. Then the layout stays, and
        // the prune says so.
        let stays = !flags.is_empty();
        if stays {
            sandbox.move_out(&cache.join("blobs/sha256").join(hex_name(40)))?;
            sandbox.move_out(&cache.join("oci-put-blob1234"))?;
            sandbox.move_out(&sandbox.leftover())?;
        }
        fill_disk(&mount.join("filler"))?;
        let before = fs::read_dir(cache.join("blobs/sha256"))?.count();
        trial.prune(&cache, flags, i32::from(stays))?;
        let left = fs::read_dir(cache.join("blobs/sha256"))?.count();
        let is_right = if stays { left == before } else { left < 8 };
        trial.check(is_right, || format!("{left} entries of {before} are left"));
        trial.check_layout("full disk", &cache);
        if stays {
            let has_index = cache.join("index.json").exists();
            trial.check(has_index, || "the index of the image that stays is gone".to_owned());
        }
        drop(sandbox);
        image::unmount(&mount)?;
    }
    Ok(())
}

fn no_inodes(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let mount = trial.path("mount");
    fs::create_dir(&mount)?;
    mounts::tmpfs(&mount, "nr_inodes=40")?;
    let cache = mount.join("cache");
    fill(&cache, 3)?;
    let mut number = 0;
    while File::create(mount.join(format!("filler{number}"))).is_ok() {
        number += 1;
    }
    trial.prune(&cache, &["--aside"], 2)?;
    trial.expect_blobs(&cache, 3);
    trial.prune(&cache, &[], 0)?;
    trial.expect_blobs(&cache, 0);
    image::unmount(&mount)
}

fn unreadable(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    fs::create_dir_all(cache.join("blobs/sha256"))?;
    for path in [cache.join("blobs/sha256"), cache.join("blobs"), cache.clone()] {
        give(&path)?;
    }
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set(&cache, 0o300)?;
    trial.run(as_nobody(&trial.command(&cache, &[])), &cache, &[1])?;
    trial.expect_blobs(&cache, 3);
    set(&cache, 0o700)?;
    set(&cache.join("blobs"), 0o000)?;
    trial.run(as_nobody(&trial.command(&cache, &[])), &cache, &[1])?;
    trial.expect_blobs(&cache, 0);
    Ok(())
}

fn without_lease(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    give_entries(&cache)?;
    let reader = File::open(cache.join(flat_name(1)))?;
    crate::torture::sandbox::age(&cache.join(flat_name(1)))?;
    let prune = trial.command(&cache, &[]);
    let words = ["capsh", "--drop=cap_lease", "--", "-c", "exec \"$0\" \"$@\""];
    let command = wrapped(&words, &prune);
    trial.run(command, &cache, &[0])?;
    let content = std::io::read_to_string(reader)?;
    trial.check(content == "blob", || "an open blob lost its content".to_owned());
    trial.expect_blobs(&cache, 0);
    Ok(())
}

fn unwritable_parent(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("parent/cache");
    fill(&cache, 3)?;
    give(&cache)?;
    give_entries(&cache)?;
    trial.run(as_nobody(&trial.command(&cache, &["--aside"])), &cache, &[2])?;
    trial.check(blobs_in(&cache) == 3, || "something went".to_owned());
    trial.run(as_nobody(&trial.command(&cache, &[])), &cache, &[0])?;
    trial.expect_blobs(&cache, 0);
    Ok(())
}
