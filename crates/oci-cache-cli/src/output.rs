//! What is printed, and what happens if it can't be.
//!
//! Guarantees: nothing here panics. Results go to stdout; a reader that went away (`EPIPE`) is no error,
//! a result that cannot be written otherwise, as on a full disk, is one: exit 1, after the work was done.
//! Everything else goes to stderr, and is dropped if that cannot be written.

use std::io::{self, Write};

use crate::exit::Exit;

/// Prints a result on stdout.
///
/// # Errors
///
/// None: how it went is in what is returned.
pub fn print(text: &str) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("error: write the result to stdout: {error}"));
            Ok(Exit::Incomplete)
        }
        _ => Ok(Exit::Done),
    }
}

/// Prints a line on stderr.
pub fn complain(line: &str) {
    complain_all([line.to_owned()]);
}

/// Prints lines on stderr.
pub fn complain_all(lines: impl IntoIterator<Item = String>) {
    let mut stderr = io::BufWriter::new(io::stderr().lock());
    for line in lines {
        if writeln!(stderr, "{line}").is_err() {
            return;
        }
    }
    // Nowhere is left to tell of it.
    let _ = stderr.flush();
}
