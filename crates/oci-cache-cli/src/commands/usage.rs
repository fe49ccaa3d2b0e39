//! `usage`: shows what is in the cache, and what common policies would free.

use std::path::PathBuf;
use std::time::Duration;

use oci_cache::{CacheDir, Inventory, Policy, Space, Tally, Timestamp, read_references, scan, select, usage};

use crate::cli::{Format, UsageArguments};
use crate::exit::Exit;
use crate::report::usage::{UsageReport, WouldFree};
use crate::{clock, location, output, text};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &UsageArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    let directory = location::cache_dir(&arguments.cache.location)?;
    let cache = CacheDir::open(&directory, &location::protected(protected))?;
    let space = cache.space()?;
    let mut inventory = scan(&cache)?;
    let now = clock::now();
    read_references(&mut inventory);
    let usage = usage(&inventory, now, space);
    let problems = inventory.failures().iter().chain(&inventory.references().problems);
    let problems: Vec<String> = problems.map(text::failure).collect();
    output::complain_all(problems.iter().cloned());
    let would_free = common_policies(inventory, now, space)?;
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

fn common_policies(mut inventory: Inventory, now: Timestamp, space: Space) -> anyhow::Result<Vec<WouldFree>> {
    let policy = |set: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::default();
        set(&mut policy);
        policy
    };
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    let half = inventory.used_bytes() / 2;
    let mut policies = vec![
        (String::new(), Policy::default()),
        ("--older-than 7d".to_owned(), policy(&|policy| policy.older_than = days(7))),
        ("--older-than 30d".to_owned(), policy(&|policy| policy.older_than = days(30))),
        (format!("--max-used-space {half}"), policy(&|policy| policy.max_used_bytes = Some(half))),
    ];
    if inventory.references().has_index {
        policies.push(("--unreferenced".to_owned(), policy(&|policy| policy.unreferenced = true)));
    }
    let mut would_free = Vec::new();
    for (flags, policy) in policies {
        let plan = select(inventory, &policy, now, space)?;
        let report = plan.preview();
        let tally = Tally { blobs: report.blobs_freed, bytes: report.bytes_freed };
        would_free.push(WouldFree { flags, tally });
        inventory = plan.into_inventory();
    }
    Ok(would_free)
}
