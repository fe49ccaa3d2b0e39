//! The terminal that a progress bar is drawn on: stderr.
//!
//! Guarantees: the cursor stays on the bar's line, [`SPARE`] columns before its end. So what the terminal echoes of
//! Ctrl-C stands on that line too, and goes with the bar.

use std::io::{self, Write as _};

use indicatif::TermLike;
use rustix::termios::tcgetwinsize;

/// The columns left free at the end of a line: for `^C`, a few times.
const SPARE: u16 = 8;
/// The size of a terminal that does not tell it.
const USUAL: (u16, u16) = (80, 24);

/// The terminal.
#[derive(Debug)]
pub(crate) struct Terminal;

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        size().0.saturating_sub(SPARE)
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, rows: usize) -> io::Result<()> {
        move_cursor(rows, 'A')
    }

    fn move_cursor_down(&self, rows: usize) -> io::Result<()> {
        move_cursor(rows, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        move_cursor(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        move_cursor(columns, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{line}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether the terminal can go back to the start of a line and clear it.
pub(crate) fn obeys() -> bool {
    std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Columns and rows.
fn size() -> (u16, u16) {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => USUAL,
    }
}

fn move_cursor(by: usize, direction: char) -> io::Result<()> {
    if by == 0 { Ok(()) } else { write!(io::stderr(), "\x1b[{by}{direction}") }
}
