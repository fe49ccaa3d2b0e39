//! A progress bar on stderr.
//!
//! Guarantees: it appears only if stderr is a terminal and the work has run for a second. It is cleared
//! before the work's result is returned.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use banger_fmt::format_bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci_cache::{Advance, Progress};

/// How often the bar is updated.
const TICK: Duration = Duration::from_millis(100);
/// How many updates to wait before the bar appears: one second.
const TICKS_OF_PATIENCE: u32 = 10;

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
    if !wanted || !io::stderr().is_terminal() {
        return work();
    }
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        let draw = move || {
            // Hidden at first, so that the rate and the time left are correct when it appears.
            let bar = bar(measure);
            for tick in 0.. {
                if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
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
                    bar.set_draw_target(ProgressDrawTarget::stderr());
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

fn bar(measure: Measure) -> ProgressBar {
    let template = match measure {
        Measure::Blobs => "{bar:30} {pos}/{len} blobs, {msg}, {eta} left",
        Measure::Bytes => "{bar:30} {msg}, {binary_bytes_per_sec}, {eta} left",
    };
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
