//! Builds the policy from the arguments.

use std::io;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use oci_cache::{Pin, Pins, Policy, escape_path, read_keep};

use crate::cli::{GraceArguments, PolicyArguments};
use crate::exit::UsageError;
use crate::input_file;

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

fn read_list(path: &Path) -> anyhow::Result<Pins> {
    let pins = if path == Path::new("-") {
        read_keep(io::stdin().lock())
    } else {
        read_keep(input_file::open(path, "pipe the list to `--keep-from -`, or name a file")?)
    };
    pins.context("parse it")
}
