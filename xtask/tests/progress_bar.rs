//! The progress bar, on a terminal of 80 columns: it shows, and nothing of it stays.
//!
//! `script(1)` provides the terminal. A terminal echoes Ctrl-C as `^C`, where the cursor is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::{Cache, flat};

const COLUMNS: usize = 80;
/// What a bar is made of.
const BAR: [char; 2] = ['░', '█'];
const CTRL_C: &[u8] = b"\x03";

/// What a terminal shows. It knows the escapes that a progress bar needs.
#[derive(Default)]
struct Screen {
    rows: Vec<String>,
    row: usize,
    column: usize,
}

impl Screen {
    fn of(output: &str) -> String {
        let mut screen = Self::default();
        let mut rest = output;
        while let Some(next) = rest.chars().next() {
            rest = &rest[next.len_utf8()..];
            match (next, rest.strip_prefix('[')) {
                ('\x1b', Some(escape)) => {
                    let end = escape.find(|character: char| character.is_ascii_alphabetic()).unwrap();
                    screen.obey(&escape[..=end]);
                    rest = &escape[end + 1..];
                }
                ('\r', _) => screen.column = 0,
                ('\n', _) => screen.row += 1,
                (shown, _) => screen.show(shown),
            }
        }
        screen.rows.join("\n")
    }

    fn obey(&mut self, escape: &str) {
        let number = || escape[..escape.len() - 1].parse().unwrap_or(1);
        match escape.as_bytes() {
            b"2K" => self.line().clear(),
            [.., b'A'] => self.row -= number(),
            [.., b'B'] => self.row += number(),
            other => panic!("unknown: {}", other.escape_ascii()),
        }
    }

    fn show(&mut self, shown: char) {
        if self.column == COLUMNS {
            (self.row, self.column) = (self.row + 1, 0);
        }
        let column = self.column;
        let line = self.line();
        let mut characters: Vec<char> = line.chars().collect();
        characters.resize(characters.len().max(column + 1), ' ');
        characters[column] = shown;
        *line = characters.into_iter().collect();
        self.column += 1;
    }

    fn line(&mut self) -> &mut String {
        self.rows.resize(self.rows.len().max(self.row + 1), String::new());
        &mut self.rows[self.row]
    }
}

/// Verifies a cache, which would take minutes, on a terminal of so many columns. Presses Ctrl-C once a bar shows, or
/// after two seconds if none is expected. Returns the whole output.
fn verify_and_stop(columns: usize, expects_bar: bool) -> String {
    let cache = Cache::new();
    for number in 0..4 {
        File::create(cache.path().join(flat(number))).unwrap().set_len(64 << 30).unwrap();
    }
    let command = format!(
        "stty cols {columns} rows 24; exec '{}' cache-verify --cache-dir '{}'",
        env!("CARGO_BIN_EXE_xtask"),
        cache.path().display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut script = support::spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (mut keyboard, mut terminal) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
    let mut is_stopped = !expects_bar;
    if is_stopped {
        sleep(Duration::from_secs(2));
        keyboard.write_all(CTRL_C).unwrap();
    }
    loop {
        let count = terminal.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            break;
        }
        output.extend_from_slice(&buffer[..count]);
        if !is_stopped && String::from_utf8_lossy(&output).contains(BAR) {
            is_stopped = true;
            keyboard.write_all(CTRL_C).unwrap();
        }
    }
    assert_eq!(script.wait().unwrap().code(), Some(130));
    assert!(is_stopped, "no bar showed");
    String::from_utf8_lossy(&output).into_owned()
}

#[test]
fn a_bar_goes_when_the_run_is_stopped() {
    let output = verify_and_stop(COLUMNS, true);
    let screen = Screen::of(&output);
    assert!(!screen.contains(BAR) && !screen.contains("GiB/s"), "{screen}\n{output:?}");
    assert!(output.ends_with("0 corrupt (interrupted: 0 of 4 blob(s))\r\n"), "{output:?}");
}

#[test]
fn on_a_narrow_terminal_no_bar_shows() {
    let output = verify_and_stop(60, false);
    assert!(!output.contains(BAR), "{output:?}");
}
