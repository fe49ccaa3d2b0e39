//! Limits on descriptors and threads, concurrent prunes, and outputs that fail.
//!
//! Guarantees: a prune exits with a documented code, and a prune without the limit then does the rest.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::kit::process::{self, wrapped};
use crate::kit::tree::Tree;
use crate::torture::mode::LIMIT;
use crate::torture::nobody::{as_nobody, give, give_entries};
use crate::torture::sandbox::{Sandbox, Shape, fill, flat_name, write};
use crate::torture::strace::under_strace;
use crate::torture::surroundings::trial::{Case, Trial};

/// The cases with limits and outputs.
pub(crate) const CASES: &[Case] = &[
    ("few descriptors, flat", few_descriptors_flat),
    ("few descriptors, layout", few_descriptors_layout),
    ("no thread can be started", no_threads),
    ("close_range(2) refused", close_range_refused),
    ("8 prunes at once", eight_at_once),
    ("8 prunes at once, some aside", eight_at_once_aside),
    ("stdout closed", stdout_closed),
    ("stdout full", stdout_full),
    ("stderr full", stderr_full),
];

fn limited(trial: &Trial<'_>, limit: &str, cache: &Path, flags: &[&str]) -> Command {
    wrapped(&["prlimit", limit, "--"], &trial.command(cache, flags))
}

fn few_descriptors_flat(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let flags: [&[&str]; 2] = [&[], &["--aside"]];
    let cases = flags.into_iter().flat_map(|flags| [(flags, 100, 0), (flags, 200, 30)]);
    for (flags, small, large) in cases {
        for limit in [8, 12, 16, 24, 32, 64] {
            let cache = trial.path("cache");
            fill(&cache, small)?;
            for number in 0..large {
                write(&cache.join(flat_name(number)), &"x".repeat(1 << 20))?;
            }
            let prune = limited(trial, &format!("--nofile={limit}"), &cache, flags);
            let is_enough = flags.is_empty() && limit >= 16;
            trial.run(prune, &cache, if is_enough { &[0] } else { &[0, 1, 2] })?;
            trial.prune(&cache, &[], 0)?;
            trial.expect_blobs(&cache, 0);
            let beside = fs::read_dir(trial.path(""))?.count();
            trial.check(beside == 1, || {
                format!("{flags:?}, {limit} descriptors: a leftover beside the cache")
            });
        }
    }
    Ok(())
}

fn few_descriptors_layout(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for limit in [8, 10, 12, 14, 16, 20, 24, 32, 64] {
        let sandbox = Sandbox::new(&trial.path(""), Shape::Layout)?;
        let before = sandbox.tree()?;
        let cache = sandbox.cache();
        let mut prune = limited(trial, &format!("--nofile={limit}"), &cache, &[]);
        let ended = process::run(&mut prune, LIMIT)?;
        trial.check(ended.is_documented(), || format!("{limit} descriptors: {}", ended.story()));
        trial.compare_layout(&format!("{limit} descriptors"), &sandbox, &before, &ended)?;
    }
    Ok(())
}

/// Limits on threads do not apply to root, so another user prunes.
fn no_threads(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for (blobs, flags) in [(3, &[][..]), (600, &[]), (3, &["--aside"])] {
        let cache = trial.path("parent/cache");
        fill(&cache, blobs)?;
        write(&cache.join(flat_name(0)), &"x".repeat(2 << 20))?;
        give(&trial.path("parent"))?;
        give(&cache)?;
        give_entries(&cache)?;
        let command = as_nobody(&limited(trial, "--nproc=1", &cache, flags));
        trial.run(command, &cache, &[0, 1])?;
        trial.prune(&cache, &[], 0)?;
    }
    Ok(())
}

/// `close_range` fails always, as on an old kernel or under a filter; only the first time in each thread; or
/// from the second time on.
fn close_range_refused(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    for when in ["1+", "1", "2+"] {
        let cache = trial.path("cache");
        fill(&cache, 600)?;
        // A prune that forgets to close would run out of descriptors.
        let prune = limited(trial, "--nofile=16", &cache, &[]);
        let inject = format!("inject=close_range:error=ENOSYS:when={when}");
        let command = under_strace(&prune, &trial.path("log"), &["-e", "trace=close_range", "-e", &inject]);
        trial.run(command, &cache, &[0])?;
        trial.expect_blobs(&cache, 0);
        let refused = fs::read_to_string(trial.path("log"))?.matches("(INJECTED)").count();
        trial.check(refused > 0, || format!("close_range was not refused, {when}"));
    }
    Ok(())
}

fn eight_at_once(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    at_once(trial, &[&[], &["--older-than", "1h"]])
}

fn eight_at_once_aside(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    at_once(trial, &[&[], &["--aside"]])
}

fn at_once(trial: &mut Trial<'_>, flags: &[&[&str]]) -> anyhow::Result<()> {
    for _ in 0..5 {
        let cache = trial.path("cache");
        fill(&cache, 400)?;
        let prunes: Vec<_> = (0..8)
            .map(|number| process::start(&mut trial.command(&cache, flags[number % flags.len()]), None))
            .collect::<anyhow::Result<_>>()?;
        let mut freed = 0;
        for prune in prunes {
            let ended = prune.finish(LIMIT)?;
            trial.row.executions += 1;
            trial.check(ended.code == Some(0), || ended.story());
            freed += ended.number("blobs_freed").unwrap_or(0);
        }
        trial.check(freed == 400, || format!("they report {freed} of 400 blobs in total"));
        trial.expect_blobs(&cache, 0);
        let beside = fs::read_dir(trial.path(""))?.count();
        trial.check(beside == 1, || format!("{beside} entries in the cache's parent, not 1"));
    }
    Ok(())
}

fn stdout_closed(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    for closing in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        fill(&cache, 3)?;
        let prune = trial.command(&cache, &[]);
        let mut shell = wrapped(&["sh", "-c", &format!("\"$0\" \"$@\" {closing}")], &prune);
        let ended = process::run(&mut shell, LIMIT)?;
        trial.row.executions += 1;
        trial.check(ended.code == Some(0), || format!("{closing}: {}", ended.story()));
        trial.expect_blobs(&cache, 0);
    }
    reader_gone(trial, &cache)
}

/// The reader of the result is gone before it arrives.
fn reader_gone(trial: &mut Trial<'_>, cache: &Path) -> anyhow::Result<()> {
    fill(cache, 3)?;
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let ended = process::start(&mut trial.command(cache, &[]), Some(writer.into()))?.finish(LIMIT)?;
    trial.row.executions += 1;
    let is_quiet = !ended.stderr.contains("panicked");
    trial.check(ended.code == Some(0) && is_quiet, || format!("reader gone: {}", ended.story()));
    trial.expect_blobs(cache, 0);
    Ok(())
}

fn stdout_full(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    let full = File::options().write(true).open("/dev/full")?;
    let ended = process::start(&mut trial.command(&cache, &[]), Some(full.into()))?.finish(LIMIT)?;
    trial.row.executions += 1;
    trial.check(ended.code == Some(1), || ended.story());
    trial.expect_blobs(&cache, 0);
    Ok(())
}

/// The result does not go to stderr, so the prune succeeds.
fn stderr_full(trial: &mut Trial<'_>) -> anyhow::Result<()> {
    let cache = trial.path("cache");
    fill(&cache, 3)?;
    let before = Tree::of(&cache)?;
    let mut prune = Command::new(&trial.stage.program);
    prune.args(["prune", "--verbose", "--format", "json", "--cache-dir"]).arg(&cache);
    let mut shell = wrapped(&["sh", "-c", "exec \"$0\" \"$@\" 2> /dev/full"], &prune);
    let ended = process::run(&mut shell, LIMIT)?;
    trial.compare(&before, &cache, &ended, &[0])
}
