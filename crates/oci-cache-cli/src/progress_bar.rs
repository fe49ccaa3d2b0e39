//! A progress bar on stderr.
//!
//! Guarantees: it appears only if stderr is a terminal that is wide enough, and the work has run for a second. It is
//! cleared before the work's result is returned, and as soon as a signal stops the work: a second signal, which ends
//! the process at once, then leaves no bar on the screen.

mod terminal;

use std::io::{self, IsTerminal as _};
use std::ops::RangeInclusive;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use banger_fmt::format_bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike as _};
use oci_cache::{Advance, Progress};

use self::terminal::Terminal;

/// How often the bar is updated.
const TICK: Duration = Duration::from_millis(100);
/// How many updates to wait before the bar appears: one second.
const TICKS_OF_PATIENCE: u32 = 10;
/// The longest text beside a bar, in columns.
const TEXT: u16 = 62;
/// The length of a bar, at least and at most, in columns.
const LENGTHS: RangeInclusive<u16> = 10..=30;

/// What the bar measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Blobs processed.
    Blobs,
    /// Bytes read, with the rate.
    Bytes,
}

/// Runs `work`, which advances `progress`, and shows the progress.
pub(crate) fn show<T>(wanted: bool, measure: Measure, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let length = Terminal.width().saturating_sub(TEXT).min(*LENGTHS.end());
    if !wanted || !io::stderr().is_terminal() || !LENGTHS.contains(&length) {
        return work();
    }
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        let draw = move || {
            // Hidden at first, so that the rate and the time left are correct when it appears.
            let bar = bar(measure, length);
            for tick in 0.. {
                let is_over = ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout);
                if is_over || progress.is_stopped() {
                    break;
                }
                let Advance { blobs, bytes, total_blobs, total_bytes } = progress.advance();
                let (position, length) = match measure {
                    Measure::Blobs => (blobs, total_blobs),
                    Measure::Bytes => (bytes, total_bytes),
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

/// A bar of this length, in columns.
fn bar(measure: Measure, length: u16) -> ProgressBar {
    let text = match measure {
        Measure::Blobs => "{pos}/{len} blobs, {msg}, {eta} left",
        Measure::Bytes => "{msg}, {binary_bytes_per_sec}, {eta} left",
    };
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    match ProgressStyle::with_template(&format!("{{bar:{length}}} {text}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
