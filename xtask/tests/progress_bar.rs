//! The progress bar, on terminals of 80 and 40 columns: it says what is going on, and nothing of it stays.
//!
//! `script(1)` provides the terminal. A terminal echoes Ctrl-C as `^C`, where the cursor is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{File, FileTimes};
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use support::{Cache, flat, needs, set_age};

/// What a bar is made of.
const BAR: [char; 3] = ['░', '█', '#'];
const CTRL_C: &[u8] = b"\x03";

/// What a terminal shows. It knows the escapes that a progress bar needs.
struct Screen {
    columns: usize,
    rows: Vec<String>,
    row: usize,
    column: usize,
}

impl Screen {
    fn of(columns: usize, output: &str) -> String {
        let mut screen = Self { columns, rows: Vec::new(), row: 0, column: 0 };
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
        if self.column == self.columns {
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

/// Runs a command on a terminal of so many columns, and presses Ctrl-C once `until` shows, or after two seconds if nothing is
/// expected. Returns the exit code and the whole output.
fn run_and_stop(
    command: &str,
    (columns, locale): (usize, &str),
    until: Option<&str>,
) -> (Option<i32>, String) {
    let command = format!("stty cols {columns} rows 24; exec '{}' {command}", env!("CARGO_BIN_EXE_xtask"));
    let mut script = support::on_a_terminal(&command);
    let mut script = support::spawn(script.env("LC_ALL", locale).env("NO_COLOR", "1").stdout(Stdio::piped()));
    let (mut keyboard, mut terminal) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
    let mut is_stopped = until.is_none();
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
        if !is_stopped && until.is_some_and(|text| String::from_utf8_lossy(&output).contains(text)) {
            is_stopped = true;
            keyboard.write_all(CTRL_C).unwrap();
        }
    }
    assert!(is_stopped, "this did not show: {until:?}");
    (script.wait().unwrap().code(), String::from_utf8_lossy(&output).into_owned())
}

/// Verifies a cache, which would take minutes, and stops it.
fn verify_and_stop(columns: usize, locale: &str, until: Option<&str>) -> String {
    let cache = Cache::new();
    for number in 0..4 {
        File::create(cache.path().join(flat(number))).unwrap().set_len(64 << 30).unwrap();
    }
    let command = format!("cache-verify --cache-dir '{}'", cache.path().display());
    let (exit, output) = run_and_stop(&command, (columns, locale), until);
    assert_eq!(exit, Some(130), "{output:?}");
    output
}

#[test]
fn a_bar_goes_when_the_run_is_stopped() {
    for (columns, locale, bar) in
        [(80, "C.UTF-8", "hashing ░"), (40, "C.UTF-8", "hashing ░"), (40, "C", "hashing -")]
    {
        let output = verify_and_stop(columns, locale, Some(bar));
        let screen = Screen::of(columns, &output);
        assert!(!screen.contains("hashing") && !screen.contains(BAR), "{screen}\n{output:?}");
        assert!(!output.contains("\x1b[1A"), "it took more than one line: {output:?}");
        assert!(output.ends_with("0 corrupt (interrupted: 0 of 4 blob(s))\r\n"), "{output:?}");
    }
}

#[test]
fn on_a_terminal_without_room_no_bar_shows() {
    let output = verify_and_stop(15, "C.UTF-8", None);
    assert!(!output.contains(BAR) && !output.contains("hashing"), "{output:?}");
}

#[test]
fn a_prune_says_that_it_looks_for_pulls() {
    if !needs::recorded_reads() {
        return;
    }
    let cache = Cache::typical_layout();
    // A pull may just have read it, so the prune looks for five seconds.
    let index = cache.path().join("index.json");
    set_age(&index, Duration::from_secs(60));
    let now = FileTimes::new().set_accessed(now());
    File::options().write(true).open(&index).unwrap().set_times(now).unwrap();
    let before = cache.tree();
    let command = format!("cache-prune --cache-dir '{}'", cache.path().display());
    let (exit, output) = run_and_stop(&command, (40, "C.UTF-8"), Some("looking for pulls"));
    assert_eq!(exit, Some(130), "{output:?}");
    assert_eq!(cache.tree(), before);
    assert!(!Screen::of(40, &output).contains("looking"), "{output:?}");
}

#[expect(clippy::disallowed_methods, reason = "a test's files need an age")]
fn now() -> SystemTime {
    SystemTime::now()
}
