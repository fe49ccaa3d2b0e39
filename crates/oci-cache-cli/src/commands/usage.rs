//! `usage`: shows what is in the cache, and what common policies would free.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_cache::{
    Amount, CacheDir, Failure, Inventory, Policy, Space, Timestamp, estimate, read_references, scan, usage,
};

use crate::cli::UsageArguments;
use crate::exit::Exit;
use crate::record::{self, Done};
use crate::report::Report;
use crate::report::usage::{UsageReport, WouldFree};
use crate::screen::Screen;
use crate::{answer, clock, location, output, text, units};

/// Runs the command. It refuses the home directory, the directories in `protected`, and every directory that
/// contains one of these.
///
/// # Errors
///
/// Whatever prevents a result. The caller prints it.
pub fn run(arguments: &UsageArguments, protected: &[PathBuf]) -> anyhow::Result<Exit> {
    answer::or_problem(&arguments.cache, |started| {
        record::run("usage", &arguments.record, &arguments.cache.location, || {
            look(arguments, protected, started)
        })
    })
}

fn look(arguments: &UsageArguments, protected: &[PathBuf], started: Instant) -> anyhow::Result<Done> {
    let directory = location::cache_dir(&arguments.cache.location)?;
    let cache = CacheDir::open(&directory, &location::protected(protected))?;
    let space = cache.space()?;
    let mut inventory = scan(&cache)?;
    let now = clock::now();
    read_references(&mut inventory);
    let usage = usage(&inventory, now, space);
    let mut failures = inventory.failures().clone();
    failures.extend(inventory.references().problems.iter().map(Failure::duplicate));
    output::complain_all(text::failures::failures(&failures));
    let would_free = common_policies(inventory, now, space)?;
    let budget = arguments.max_used_space.as_ref();
    let budget_bytes = budget.map(|budget| budget.amount.bytes_of(space));
    let (cache_dir, exists) = (oci_cache::escape_path(cache.path()), cache.exists());
    let report = UsageReport { cache_dir, exists, usage, would_free, failures, budget_bytes };
    if !arguments.cache.quiet {
        output::complain_all(location::absence(&cache));
    }
    let text = || text::usage::result(&report, Screen::of_stdout(), arguments.cache.verbose);
    let printed = answer::print(arguments.cache.format, started, &report, text)?;
    let mut exit = if report.failures.is_empty() { printed } else { Exit::Incomplete };
    if let (Some(given), Some(bytes)) = (budget, budget_bytes.filter(|_| report.is_over_budget())) {
        output::complain(&text::usage::over(report.usage.used_bytes, bytes, given));
        exit = Exit::Found;
    }
    Ok(Done { exit, report: Some(Report::Usage(Box::new(report))) })
}

fn common_policies(mut inventory: Inventory, now: Timestamp, space: Space) -> anyhow::Result<Vec<WouldFree>> {
    let policy = |set: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::default();
        set(&mut policy);
        policy
    };
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    let mut policies = vec![
        (String::new(), Policy::default()),
        ("--older-than 7d".to_owned(), policy(&|policy| policy.older_than = days(7))),
        ("--older-than 30d".to_owned(), policy(&|policy| policy.older_than = days(30))),
    ];
    // A round size of about two thirds of the cache.
    if let Some((size, bytes)) = units::round_size(inventory.used_bytes() / 3 * 2) {
        let policy = policy(&|policy| policy.max_used = Some(Amount::Bytes(bytes)));
        policies.push((format!("--max-used-space {size}"), policy));
    }
    if inventory.references().has_index {
        policies.push(("--unreferenced".to_owned(), policy(&|policy| policy.unreferenced = true)));
    }
    let mut would_free = Vec::new();
    for (flags, policy) in policies {
        let plan = estimate(inventory, &policy, now, space)?;
        would_free.push(WouldFree { flags, tally: plan.would_free() });
        inventory = plan.into_inventory();
    }
    Ok(would_free)
}
