//! An index with an ACL and an extended attribute.
//!
//! Guarantees: after a prune that changes the index, whoever could read it by the ACL still can, and its group has gained
//! nothing. An index that is copied with its mode only must show the opposite: then the mode's group bits, which were the
//! ACL's mask, let the group in.
//!
//! Source: `acl(5)`, "correspondence between ACL entries and file permission bits".

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::kit::process;
use crate::torture::attributes;
use crate::torture::mode::LIMIT;
use crate::torture::mounts::{FileSystem, Recording, mount};
use crate::torture::nobody::NOBODY;
use crate::torture::sandbox::{Sandbox, Shape, digest};
use crate::torture::surroundings::trial::{Case, Trial};

/// The file systems.
pub(crate) const CASES: &[Case] = &[
    ("ACL, ext4", |trial| on(trial, FileSystem::Ext4)),
    ("ACL, xfs", |trial| on(trial, FileSystem::Xfs)),
    ("ACL, btrfs", |trial| on(trial, FileSystem::Btrfs)),
];

/// A user and group that the ACL does not name. The group is the index's.
const STAFF: u32 = 65533;
/// Who may read the index: the user of the ACL, and nobody of its group.
const AS_GIVEN: [bool; 2] = [true, false];

fn on(trial: &mut Trial<'_>, kind: FileSystem) -> anyhow::Result<()> {
    let point = trial.path("mount");
    let mounted = mount(kind, &point, Recording::Usual)?;
    let sandbox = Sandbox::new(&point, Shape::Layout)?;
    let cache = sandbox.cache();
    for directory in [sandbox.path(), &cache] {
        fs::set_permissions(directory, Permissions::from_mode(0o755)).context("let others in")?;
    }
    let index = cache.join("index.json");
    chown(&index, None, Some(STAFF)).context("give the index to a group")?;
    let before = attributes::adorn(&index)?;
    let found = readers(&index)?;
    trial.check(found == AS_GIVEN, || format!("before the prune, {found:?} may read the index"));

    let text = fs::read_to_string(&index)?;
    let tree = sandbox.tree()?;
    let ended = process::run(&mut trial.command(&cache, &["--keep", &digest(10)]), LIMIT)?;
    trial.row.executions += 1;
    // By name: the new index may get the inode of a file that is gone.
    let went = tree.names_gone_from(&sandbox.tree()?).blobs;
    trial.row.unlinks += went;
    let is_told = ended.code == Some(0) && ended.number("blobs_freed") == Some(went);
    trial.check(is_told, || format!("{went} went, {}", ended.story()));
    let is_changed = fs::read_to_string(&index)? != text;
    trial.check(is_changed, || "the prune did not change the index, so this proves nothing".to_owned());
    let (after, found) = (attributes::of(&index)?, readers(&index)?);
    trial.check(after == before, || format!("the index had {before}; it has {after}"));
    trial.check(found == AS_GIVEN, || format!("after the prune, {found:?} may read the index"));

    copy_mode_only(&index).context("copy the index")?;
    let (after, found) = (attributes::of(&index)?, readers(&index)?);
    trial.check(after != before && found == [false, true], || {
        format!("with the mode only, {found:?} may read the index, so this proves nothing: {after}")
    });
    drop(sandbox);
    mounted.unmount()
}

/// Whether the user of the ACL may read the file, and whether a member of its group may.
fn readers(file: &Path) -> anyhow::Result<[bool; 2]> {
    let may_read = |user: u32| -> anyhow::Result<bool> {
        let user = user.to_string();
        let mut read = Command::new("setpriv");
        read.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "cat"]).arg(file);
        Ok(process::run(&mut read, LIMIT)?.code == Some(0))
    };
    Ok([may_read(NOBODY)?, may_read(STAFF)?])
}

/// Replaces the file by a copy with its owner and mode, and with nothing else.
fn copy_mode_only(file: &Path) -> std::io::Result<()> {
    let copy = file.with_extension("copy");
    fs::write(&copy, fs::read(file)?)?;
    chown(&copy, None, Some(STAFF))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o660))?;
    fs::rename(copy, file)
}
