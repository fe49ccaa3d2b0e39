//! Another file replaces a blob while the prune has the blob open.
//!
//! Guarantees: the new file stays, whatever happens to the old one.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::kit::process;
use crate::torture::mode::LIMIT;
use crate::torture::sandbox::{fill, flat_name, write};
use crate::torture::strace::under_strace;
use crate::torture::surroundings::trial::{Case, Trial};

/// The exchanges.
pub(crate) const CASES: &[Case] = &[
    ("a blob is covered", |trial| exchange(trial, false, |blob, fresh, _| fs::rename(fresh, blob))),
    ("a blob with another name is covered", |trial| {
        exchange(trial, true, |blob, fresh, _| fs::rename(fresh, blob))
    }),
    ("a blob is moved away and replaced", |trial| {
        exchange(trial, false, |blob, fresh, other| {
            fs::rename(blob, other)?;
            fs::rename(fresh, blob)
        })
    }),
    ("a blob is exchanged", |trial| {
        exchange(trial, false, |blob, fresh, _| {
            Ok(renameat_with(CWD, fresh, CWD, blob, RenameFlags::EXCHANGE)?)
        })
    }),
];

/// Long enough for the exchange, and short enough for the calls before it.
const DELAY: &str = "inject=fcntl:delay_enter=150000";
const PAUSE: Duration = Duration::from_millis(1);

/// Calls `replace` with the blob, a fresh file and another name, after the blob is opened and before it is
/// removed.
fn exchange(
    trial: &mut Trial<'_>,
    has_other_name: bool,
    replace: fn(&Path, &Path, &Path) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let (cache, log) = (trial.path("cache"), trial.path("log"));
    let (blob, fresh, other) = (cache.join(flat_name(0)), trial.path("fresh"), trial.path("other"));
    fill(&cache, 1)?;
    write(&fresh, "fresh")?;
    if has_other_name {
        fs::hard_link(&blob, trial.path("linked"))?;
    }
    let prune = trial.command(&cache, &[]);
    let mut command = under_strace(&prune, &log, &["-e", "trace=fcntl,openat", "-e", DELAY]);
    let running = process::start(&mut command, None)?;
    let opened = format!("\"{}\"", flat_name(0));
    let deadline = Instant::now() + LIMIT;
    while !fs::read_to_string(&log).is_ok_and(|log| log.contains(&opened)) {
        ensure!(Instant::now() < deadline, "the prune did not open the blob");
        thread::sleep(PAUSE);
    }
    replace(&blob, &fresh, &other)?;
    let ended = running.finish(LIMIT)?;
    trial.row.executions += 1;
    let content = fs::read_to_string(&blob).unwrap_or_default();
    let report = ended.report().unwrap_or_default();
    let counts = (ended.number("blobs_freed"), report["kept"]["changed"]["blobs"].as_u64());
    trial.check((content.as_str(), counts) == ("fresh", (Some(0), Some(1))), || {
        format!("found `{content}`, {counts:?} freed and changed: {}", ended.story())
    });
    Ok(())
}
