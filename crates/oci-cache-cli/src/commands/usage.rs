//! `usage`: what is in the cache, and what common policies would free.

use std::path::PathBuf;
use std::time::Duration;

use oci_cache::{
    CacheDir, Inventory, Policy, References, Space, Tally, Timestamp, Usage, read_references, scan, select,
    usage,
};
use serde::Serialize;

use crate::cli::{Format, UsageArguments};
use crate::exit::Exit;
use crate::{clock, location, output, text};

/// The command's result.
#[derive(Debug, Serialize)]
pub(crate) struct UsageReport {
    /// The directory, absolute and escaped.
    pub(crate) cache_dir: String,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// What would go under common policies.
    pub(crate) would_free: Vec<WouldFree>,
}

/// What a policy would free.
#[derive(Debug, Serialize)]
pub(crate) struct WouldFree {
    /// The flags of `prune`; empty for a prune of everything.
    pub(crate) flags: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

/// Does all of it. Beside the home, the directories in `protected` are never a cache, nor is what holds them.
///
/// # Errors
///
/// What kept it from coming to a result, to be told.
pub fn run(arguments: &UsageArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let directory = location::cache_dir(&arguments.cache.location)?;
    let cache = CacheDir::open(&directory, &location::protected(protected))?;
    let now = clock::now();
    let space = cache.space()?;
    let inventory = scan(&cache)?;
    let references = read_references(&inventory);
    let usage = usage(&inventory, &references, now, space);
    let problems = inventory.failures().iter().chain(&references.problems);
    let problems: Vec<String> = problems.map(text::failure).collect();
    output::complain_all(problems.iter().cloned());
    let would_free = common_policies(inventory, references, now, space);
    let report = UsageReport { cache_dir: oci_cache::escape_path(cache.path()), usage, would_free };
    let printed = output::print(&match arguments.cache.format {
        Format::Human => text::usage::result(&report),
        Format::Json => format!("{}\n", serde_json::to_string(&report)?),
    })?;
    if let Some(limit) = arguments.max_used_space.filter(|limit| report.usage.used_bytes > *limit) {
        output::complain(&text::usage::over(report.usage.used_bytes, limit));
        return Ok(Exit::Found);
    }
    Ok(if problems.is_empty() { printed } else { Exit::Incomplete })
}

fn common_policies(
    mut inventory: Inventory,
    mut references: References,
    now: Timestamp,
    space: Space,
) -> Vec<WouldFree> {
    let day = Duration::from_secs(24 * 3600);
    let half = inventory.used_bytes() / 2;
    let mut policies = vec![
        (String::new(), Policy::default()),
        ("--older-than 7d".to_owned(), Policy { older_than: Some(7 * day), ..Policy::default() }),
        ("--older-than 30d".to_owned(), Policy { older_than: Some(30 * day), ..Policy::default() }),
        (format!("--max-used-space {half}"), Policy { max_used_bytes: Some(half), ..Policy::default() }),
    ];
    if references.has_index {
        policies.push(("--unreferenced".to_owned(), Policy { unreferenced: true, ..Policy::default() }));
    }
    let mut would_free = Vec::new();
    for (flags, policy) in policies {
        let plan = select(inventory, references, &policy, now, space);
        let report = plan.preview();
        let tally = Tally { blobs: report.blobs_freed, bytes: report.bytes_freed };
        would_free.push(WouldFree { flags, tally });
        (inventory, references) = plan.into_parts();
    }
    would_free
}
