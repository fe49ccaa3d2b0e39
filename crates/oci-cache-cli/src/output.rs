//! Prints results and messages, and handles failures to print.
//!
//! Guarantees: nothing here panics. Results go to stdout. If the reader has gone away (`EPIPE`), that is not
//! an error. Any other failure to write the result, such as a full disk, means exit 1, after the work was
//! done. Everything else goes to stderr, and is dropped if stderr cannot be written. Colours show where clap shows its own:
//! on a terminal, unless `NO_COLOR`, `CLICOLOR=0` or `TERM=dumb` forbids it, and everywhere with `CLICOLOR_FORCE`.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};

use crate::exit::Exit;
use crate::style;

/// Whether this process has printed a result.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has printed a result.
pub(crate) fn has_printed() -> bool {
    HAS_PRINTED.load(Ordering::Relaxed)
}

/// Prints a result on stdout, as it is.
///
/// # Errors
///
/// None: the returned exit says whether printing worked.
pub fn print(text: &str) -> anyhow::Result<Exit> {
    HAS_PRINTED.store(true, Ordering::Relaxed);
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("error: write the result to stdout: {error}"));
            Ok(Exit::Incomplete)
        }
        _ => Ok(Exit::Done),
    }
}

/// Prints a styled result on stdout, without its colours where these do not show.
///
/// # Errors
///
/// As [`print()`].
pub fn print_styled(text: &str) -> anyhow::Result<Exit> {
    let shows_colours = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    print(&if shows_colours { Cow::Borrowed(text) } else { Cow::Owned(plain(text)) })
}

/// Styled text without its styles.
pub(crate) fn plain(text: &str) -> String {
    strip_str(text).to_string()
}

/// Prints a line on stderr.
pub fn complain(line: &str) {
    complain_all([line.to_owned()]);
}

/// Prints lines on stderr.
pub fn complain_all(lines: impl IntoIterator<Item = String>) {
    let stderr = io::stderr().lock();
    let shows_colours = AutoStream::choice(&stderr) != ColorChoice::Never;
    let mut stderr = io::BufWriter::new(stderr);
    for line in lines {
        let line = if shows_colours { style::line(&line) } else { line };
        if writeln!(stderr, "{line}").is_err() {
            return;
        }
    }
    // There is nowhere left to report a failure.
    let _ = stderr.flush();
}
