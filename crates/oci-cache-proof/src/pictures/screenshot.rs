//! One picture: a command, what it prints, and how that looks.
//!
//! Guarantees: what goes to stdout and to stderr stands in the order in which it was written. Lines that are too long break
//! where a terminal breaks them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anstyle_svg::{Palette, Term};
use anyhow::ensure;
use clap::builder::styling::{Color, RgbColor};

use crate::kit::process::run;
use crate::pictures::sample::Sample;

/// No command on a sample takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// What stands for the sample's path, and for what depends on where it is.
const CACHE: &str = "/var/cache/banger/oci";
const DISK: &str = "20.4 MiB";
const ROOM: &str = "61.3 GiB of 200.0 GiB";
const READS: &str = "last use is the later of write and read: this mount records the first read after a write, then one \
                     a day (relatime)";

/// A command whose output is drawn.
#[derive(Debug)]
pub(crate) struct Screenshot<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) arguments: &'a [&'a str],
    pub(crate) columns: usize,
    /// The exit code that is expected.
    pub(crate) exit: i32,
}

impl Screenshot<'_> {
    /// Runs the command and draws what it prints.
    pub(crate) fn take(&self, program: &Path) -> anyhow::Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(program).args(self.arguments);
        command.arg("--cache-dir").arg(self.sample.path()).env_clear().env("HOME", "/nonexistent");
        command.env("LC_ALL", "C.UTF-8").env("CLICOLOR_FORCE", "1").env("COLUMNS", self.columns.to_string());
        let ended = run(&mut command, LIMIT)?;
        ensure!(ended.code == Some(self.exit), "{command:?}: {}", ended.story());
        let printed = ended.stdout.replace(&self.sample.path().display().to_string(), CACHE);
        let shown = format!("$ oci-cache {}\n{}", self.arguments.join(" "), fixed(&printed));
        Ok(picture(&wrapped(shown.trim_end(), self.columns), self.columns))
    }
}

/// The text with fixed figures in the place of those that depend on the file system.
fn fixed(printed: &str) -> String {
    let line = |line: &str| {
        if let Some((before, _)) = line.split_once(" last use is ") {
            return format!("{before} {READS}\n");
        }
        let on_disk = line.split_once(" on disk,").map(|(_, rest)| rest);
        let room = line.strip_suffix(" free").filter(|room| room.contains(" of ") && !room.contains('('));
        match (on_disk, room) {
            (Some(""), _) => format!("{DISK} on disk,\n"),
            (Some(_), _) => format!("{DISK} on disk, {ROOM} free\n"),
            (None, Some(_)) => format!("{ROOM} free\n"),
            (None, None) => format!("{line}\n"),
        }
    };
    printed.lines().map(line).collect()
}

/// The text in lines of so many columns. Escapes take none.
fn wrapped(text: &str, columns: usize) -> String {
    let (mut wrapped, mut column, mut is_escape) = (String::new(), 0, false);
    for letter in text.chars() {
        is_escape |= letter == '\u{1b}';
        if letter == '\n' {
            column = 0;
        } else if !is_escape {
            if column == columns {
                wrapped.push('\n');
                column = 0;
            }
            column += 1;
        }
        is_escape &= letter != 'm';
        wrapped.push(letter);
    }
    wrapped
}

/// The picture of a screen of so many columns, in the colours of a light and of a dark one.
fn picture(text: &str, columns: usize) -> String {
    // A letter is 8.4 pixels wide.
    let term = Term::new().min_width_px(columns * 42 / 5);
    let light = LIGHT.of(term).render_svg(text);
    let dark = DARK.of(term).render_svg(text);
    let rules = dark.lines().filter(|line| !light.contains(line)).map(|line| format!("  {line}\n"));
    let rules: String = rules.collect();
    light.replacen(
        "  </style>\n",
        &format!("    @media (prefers-color-scheme: dark) {{\n{rules}    }}\n  </style>\n"),
        1,
    )
}

/// The colours of a screen.
struct Screen {
    text: RgbColor,
    background: RgbColor,
    /// Red, green, yellow and cyan.
    colours: [RgbColor; 4],
}

const LIGHT: Screen = Screen {
    text: RgbColor(31, 35, 40),
    background: RgbColor(246, 248, 250),
    colours: [RgbColor(207, 34, 46), RgbColor(17, 99, 41), RgbColor(127, 78, 0), RgbColor(9, 105, 218)],
};
const DARK: Screen = Screen {
    text: RgbColor(230, 237, 243),
    background: RgbColor(13, 17, 23),
    colours: [RgbColor(255, 123, 114), RgbColor(63, 185, 80), RgbColor(210, 153, 34), RgbColor(57, 197, 207)],
};

impl Screen {
    fn of(&self, term: Term) -> Term {
        let [red, green, yellow, cyan] = self.colours;
        // The program uses no other colours, in any brightness.
        let eight = [self.background, red, green, yellow, self.text, self.text, cyan, self.text];
        let mut sixteen = [self.text; 16];
        sixteen[..8].copy_from_slice(&eight);
        sixteen[8..].copy_from_slice(&eight);
        term.palette(Palette(sixteen)).fg_color(Color::Rgb(self.text)).bg_color(Color::Rgb(self.background))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_depends_on_the_file_system_is_replaced() {
        assert_eq!(fixed("5 B on disk, 1.0 GiB of 2.0 GiB free\n"), format!("{DISK} on disk, {ROOM} free\n"));
        assert_eq!(
            fixed("5 B on disk,\n1.0 GiB of 2.0 GiB free\n"),
            format!("{DISK} on disk,\n{ROOM} free\n")
        );
        assert_eq!(
            fixed("\u{1b}[32mnote:\u{1b}[0m last use is x\n"),
            format!("\u{1b}[32mnote:\u{1b}[0m {READS}\n")
        );
        let other = "26.0 MiB in /oci\na prune would free  files\n--min-free\nkeep `/a` (1 B): free\n";
        assert_eq!(fixed(other), other);
    }

    #[test]
    fn lines_break_at_the_last_column() {
        assert_eq!(wrapped("abcd\nabcde", 4), "abcd\nabcd\ne");
        assert_eq!(wrapped("\u{1b}[1mabcd\u{1b}[0me", 4), "\u{1b}[1mabcd\u{1b}[0m\ne");
    }

    #[test]
    fn a_picture_has_both_sets_of_colours_and_the_whole_text() {
        let picture = picture("\u{1b}[31merror:\u{1b}[0m <a>", 40);
        let (light, dark) = picture.split_once("@media (prefers-color-scheme: dark) {").unwrap();
        assert!(light.contains(".fg-red { fill: #CF222E }") && dark.contains(".fg-red { fill: #FF7B72 }"));
        assert!(light.contains(".bg { fill: #F6F8FA }") && dark.contains(".bg { fill: #0D1117 }"));
        assert!(
            picture.contains(">error:<")
                && picture.contains("&lt;a&gt;")
                && picture.contains("width=\"356px\"")
        );
    }
}
