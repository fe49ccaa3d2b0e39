//! Builds the policy from the arguments.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{Pin, Pins, Policy, escape_path, parse_keep};
use rustix::fs::OFlags;

use crate::cli::{GraceArguments, PolicyArguments};
use crate::exit::UsageError;

/// The maximum size of a list to read. A million digests take 72 MB.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// Builds the policy. Reads the lists that the arguments name.
pub(crate) fn build(arguments: &PolicyArguments, grace: &GraceArguments) -> anyhow::Result<Policy> {
    let mut keep = Pins::default();
    keep.extend(arguments.keep.iter().cloned());
    for path in &arguments.keep_from {
        keep.extend([read_list(path).map_err(|error| {
            anyhow!(UsageError(format!("read what to keep from `{}`: {error:#}", escape_path(path))))
        })?]);
    }
    let mut policy = Policy::default();
    policy.older_than = arguments.older_than;
    policy.unreferenced = arguments.unreferenced;
    policy.corrupt = arguments.corrupt;
    policy.keep = keep;
    policy.images.extend(arguments.image.iter().cloned().map(Pin::exact));
    policy.untagged = arguments.untagged;
    policy.max_used = arguments.max_used_space.as_ref().map(|given| given.amount);
    policy.min_free = arguments.min_free_space.as_ref().map(|given| given.amount);
    policy.grace = grace.grace;
    policy.watch_first = grace.watch_first;
    Ok(policy)
}

/// Opens a file without changing its access time, if that is allowed: the file may belong to the cache.
fn open_quietly(path: &Path) -> anyhow::Result<fs::File> {
    let quietly = i32::try_from(OFlags::NOATIME.bits())?;
    match fs::File::options().read(true).custom_flags(quietly).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(fs::File::open(path)?),
        opened => Ok(opened?),
    }
}

fn read_list(path: &Path) -> anyhow::Result<Pins> {
    let mut content = Vec::new();
    let source: Box<dyn io::Read> =
        if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(open_quietly(path)?) };
    source.take(MAX_LIST_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_LIST_BYTES {
        return Err(anyhow!("it is larger than {}", banger_fmt::format_bytes(MAX_LIST_BYTES)));
    }
    parse_keep(&content).context("parse it")
}
