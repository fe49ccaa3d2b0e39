//! A progress bar on stderr, which says what is going on.
//!
//! Guarantees: it appears only if stderr is a terminal that is wide enough, and the work has run for a second. It takes one
//! line: the narrower the terminal, the less it tells, and below 20 columns nothing. It is
//! cleared before the work's result is returned, and as soon as a signal stops the work: a second signal, which ends
//! the process at once, then leaves no bar on the screen.

mod terminal;

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use banger_fmt::format_bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike as _};
use oci_cache::{Advance, Progress, Stage};

use self::terminal::Terminal;
use crate::screen;

/// How often the bar is updated.
const TICK: Duration = Duration::from_millis(100);
/// How many updates to wait before the bar appears: one second.
const TICKS_OF_PATIENCE: u32 = 10;
/// The lengths of bars, at least and at most, in columns.
const SHORTEST: usize = 6;
const LONGEST: usize = 30;

/// Runs `work`, which advances `progress`, and shows the progress.
pub(crate) fn show<T>(wanted: bool, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let columns = usize::from(Terminal.width());
    let is_possible =
        io::stderr().is_terminal() && terminal::obeys() && template(Stage::Removing, columns).is_some();
    if !wanted || !is_possible {
        return work();
    }
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        let draw = move || {
            // Hidden at first, so that the rate and the time left are correct when it appears.
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            let mut shown = None;
            for tick in 0.. {
                let is_over = ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout);
                if is_over || progress.is_stopped() {
                    break;
                }
                let stage = progress.stage();
                if shown.replace(stage) != Some(stage) {
                    begin(&bar, stage, columns);
                }
                let Advance { blobs, bytes, total_blobs, total_bytes } = progress.advance();
                let (position, length) = match stage {
                    Stage::Hashing => (bytes, total_bytes),
                    _ => (blobs, total_blobs),
                };
                bar.set_length(length);
                bar.set_position(position);
                bar.set_message(format!("{} of {}", format_bytes(bytes), format_bytes(total_bytes)));
                if tick == TICKS_OF_PATIENCE {
                    bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(Terminal)));
                }
            }
            bar.finish_and_clear();
        };
        // If no thread can be started, there is no bar.
        let _ = thread::Builder::new().spawn_scoped(scope, draw);
        let result = work();
        // This ends the other thread. The scope waits until that thread has cleared the bar.
        drop(done);
        result
    })
}

/// Turns the bar to another stage.
fn begin(bar: &ProgressBar, stage: Stage, columns: usize) {
    let style = template(stage, columns).and_then(|template| ProgressStyle::with_template(&template).ok());
    if let Some(style) = style {
        bar.set_style(style.progress_chars(if screen::takes_utf8() { "█░" } else { "#-" }));
    }
    bar.reset_eta();
    bar.reset_elapsed();
}

/// What shows in so many columns: the first form that fits.
fn template(stage: Stage, columns: usize) -> Option<String> {
    let what = match stage {
        Stage::Waiting => "starting",
        Stage::Hashing => "hashing",
        Stage::Watching => "watching what is used",
        Stage::Looking => "looking for pulls",
        Stage::Removing => "pruning",
    };
    // Each with the width of its longest text.
    let forms: &[(usize, &str)] = match stage {
        Stage::Waiting | Stage::Watching | Stage::Looking => {
            let forms = [format!("{what}, {{elapsed}}"), what.to_owned()];
            return forms.into_iter().zip([4, 0]).find_map(|(form, elapsed)| {
                (what.len() + 2 * usize::from(elapsed > 0) + elapsed <= columns).then_some(form)
            });
        }
        Stage::Hashing => &[
            (51, "{msg}, {binary_bytes_per_sec}, {eta} left"),
            (35, "{msg}, {eta} left"),
            (15, "{percent}%, {eta} left"),
        ],
        Stage::Removing => &[
            (62, "{pos} of {len} blobs, {msg}, {eta} left"),
            (35, "{msg}, {eta} left"),
            (15, "{percent}%, {eta} left"),
        ],
    };
    let with_bar = forms.iter().find_map(|(text, form)| {
        let length = columns.checked_sub(what.len() + 2 + text)?.min(LONGEST);
        (length >= SHORTEST).then(|| format!("{what} {{bar:{length}}} {form}"))
    });
    let without = || (columns >= what.len() + " 100%".len()).then(|| format!("{what} {{percent}}%"));
    with_bar.or_else(without)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template with the longest that each part can become.
    fn longest(template: &str) -> String {
        let bar = template.split_once("{bar:").and_then(|(_, rest)| rest.split_once('}')?.0.parse().ok());
        let bar: usize = bar.unwrap_or(0);
        [
            (format!("{{bar:{bar}}}").as_str(), "#".repeat(bar).as_str()),
            ("{pos} of {len}", "9999999 of 9999999"),
            ("{msg}", "1023.9 KiB of 1023.9 KiB"),
            ("{binary_bytes_per_sec}", "1023.99 KiB/s"),
            ("{eta}", "59m"),
            ("{elapsed}", "59m"),
            ("{percent}", "100"),
        ]
        .into_iter()
        .fold(template.to_owned(), |text, (part, longest)| text.replace(part, longest))
    }

    #[test]
    fn no_bar_is_wider_than_the_terminal() {
        for stage in [Stage::Waiting, Stage::Hashing, Stage::Watching, Stage::Looking, Stage::Removing] {
            for columns in 0..200 {
                let Some(template) = template(stage, columns) else {
                    assert!(columns < 21, "{stage:?} shows nothing in {columns} columns");
                    continue;
                };
                let text = longest(&template);
                assert!(!text.contains('{') && text.len() <= columns, "{columns}: {template}: {text}");
            }
        }
    }

    #[test]
    fn a_narrower_terminal_is_told_less() {
        // Terminals of 100, 80, 40, 30 and 20 columns, less what stays free.
        let forms = [92, 72, 32, 22, 12].map(|columns| template(Stage::Removing, columns).unwrap());
        assert_eq!(
            forms,
            [
                "pruning {bar:21} {pos} of {len} blobs, {msg}, {eta} left",
                "pruning {bar:28} {msg}, {eta} left",
                "pruning {bar:8} {percent}%, {eta} left",
                "pruning {percent}%",
                "pruning {percent}%",
            ]
        );
        assert_eq!(template(Stage::Removing, 11), None);
        let hashing = [92, 32].map(|columns| template(Stage::Hashing, columns).unwrap());
        assert!(hashing[0].ends_with("{binary_bytes_per_sec}, {eta} left"), "{hashing:?}");
        assert!(hashing[1].ends_with(" {percent}%, {eta} left"), "{hashing:?}");
        assert_eq!(template(Stage::Watching, 32).unwrap(), "watching what is used, {elapsed}");
    }
}
