//! What an index has beside its content: its mode, an ACL, extended attributes.
//!
//! Guarantees: they are set and read by the programs that users use for that.
//!
//! Source: `acl(5)`, "correspondence between ACL entries and file permission bits"; `xattr(7)`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::kit::process;
use crate::torture::mounts::run;
use crate::torture::nobody::NOBODY;

const LIMIT: Duration = Duration::from_secs(60);

/// Gives the file an ACL by which `nobody` may read and write, and its group may not; and an attribute. Without the ACL,
/// the file's mode would let the group in. Returns what the file has then.
///
/// # Errors
///
/// If the file system has no ACLs or no attributes.
pub(crate) fn adorn(file: &Path) -> anyhow::Result<String> {
    fs::set_permissions(file, Permissions::from_mode(0o660)).context("set the mode of the index")?;
    let entries = format!("u:{NOBODY}:rw,g::---");
    run("setfacl", &["-m".as_ref(), entries.as_ref(), file.as_os_str()])?;
    let words = ["-n", "user.team", "-v", "storage"].map(AsRef::as_ref);
    run("setfattr", &[&words[..], &[file.as_os_str()]].concat())?;
    of(file)
}

/// The mode, the owner, the ACL and the attributes of a file.
///
/// # Errors
///
/// If they cannot be read.
pub(crate) fn of(file: &Path) -> anyhow::Result<String> {
    let mode = fs::metadata(file).context("inspect the index")?.permissions().mode();
    let read = |program: &str, flags: &[&str]| {
        process::must(Command::new(program).args(flags).arg(file), LIMIT).map(|ended| ended.stdout)
    };
    let acl = read("getfacl", &["--absolute-names", "--numeric"])?;
    let own = read("getfattr", &["--absolute-names", "--dump"])?;
    let lines = acl.lines().chain(own.lines()).filter(|line| !line.is_empty() && !line.starts_with("# file"));
    Ok(format!("{mode:o}, {}", lines.collect::<Vec<_>>().join(", ")))
}
