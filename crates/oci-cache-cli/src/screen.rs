//! What the place can show where text is printed: how many columns, and whether more than ASCII.
//!
//! Guarantees: the columns are `$COLUMNS` if that is a number, else those of the terminal, else 80: what is written into a
//! file or a pipe does not depend on the terminal. The first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set and not empty
//! says whether it takes UTF-8, as POSIX has it.

use std::io::{self, IsTerminal as _};

use rustix::termios::tcgetwinsize;

/// The columns of what is no terminal, or of one that does not tell.
const USUAL_COLUMNS: usize = 80;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// How many characters fit in a line.
    pub(crate) columns: usize,
    /// Whether it shows more than ASCII.
    pub(crate) is_utf8: bool,
}

impl Screen {
    /// What stdout can show.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        Self::of(&variable, size.map(|size| usize::from(size.ws_col)))
    }

    /// `terminal` is the columns of the terminal, if it is one.
    fn of(variable: &dyn Fn(&str) -> Option<String>, terminal: Option<usize>) -> Self {
        let given = variable("COLUMNS").and_then(|columns| columns.trim().parse().ok());
        let columns = given.into_iter().chain(terminal).find(|columns| *columns > 0);
        Self { columns: columns.unwrap_or(USUAL_COLUMNS), is_utf8: is_utf8(variable) }
    }
}

/// Whether the locale is one of UTF-8.
pub(crate) fn takes_utf8() -> bool {
    is_utf8(&variable)
}

fn is_utf8(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.iter().find_map(|name| variable(name).filter(|locale| !locale.is_empty()));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(variables: &[(&str, &str)], terminal: Option<usize>) -> Screen {
        let variable = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        Screen::of(&variable, terminal)
    }

    #[test]
    fn the_columns() {
        for (given, terminal, columns) in [
            (None, None, 80),
            (None, Some(40), 40),
            (None, Some(0), 80),
            (Some("100"), Some(40), 100),
            (Some("100"), None, 100),
            (Some("0"), Some(40), 40),
            (Some("wide"), Some(40), 40),
            (Some(""), None, 80),
        ] {
            let variables: Vec<_> = given.map(|given| ("COLUMNS", given)).into_iter().collect();
            assert_eq!(screen(&variables, terminal).columns, columns, "{given:?} {terminal:?}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_decides_on_utf8() {
        for (variables, is_utf8) in [
            (&[][..], false),
            (&[("LANG", "en_GB.UTF-8")], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LANG", "C")], false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")], true),
            (&[("LC_ALL", "POSIX"), ("LANG", "C.UTF-8")], false),
            (&[("LC_CTYPE", "de_DE@euro"), ("LANG", "C.UTF-8")], false),
        ] {
            assert_eq!(screen(variables, None).is_utf8, is_utf8, "{variables:?}");
        }
    }
}
