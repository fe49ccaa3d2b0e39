//! A progress bar on stderr, for people who wait.
//!
//! Guarantees: it appears only if stderr is a terminal and the work has gone on for a second, and it is
//! gone before anything else is printed.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci_cache::{Progress, Tally};

/// How long work goes on before the bar appears.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Does the work, which advances `progress` up to `total`, and shows how far it is.
pub(crate) fn show<T>(wanted: bool, progress: &Progress, total: Tally, work: impl FnOnce() -> T) -> T {
    if !wanted || !io::stderr().is_terminal() {
        return work();
    }
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = bar(total);
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(progress.blobs.load(Ordering::Relaxed));
                bar.set_message(banger_fmt::format_bytes(progress.bytes.load(Ordering::Relaxed)));
            }
            bar.finish_and_clear();
        });
        let result = work();
        // Ends the other thread; the scope waits until it has cleared the bar.
        drop(done);
        result
    })
}

fn bar(total: Tally) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total.blobs), ProgressDrawTarget::stderr());
    let total = banger_fmt::format_bytes(total.bytes);
    let template = format!("{{bar:30}} {{pos}}/{{len}} blobs, {{msg}} of {total}, {{eta}} left");
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
