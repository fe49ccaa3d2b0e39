//! The colours of what is printed: those in which clap prints help and errors.
//!
//! Guarantees: pure. Text without its escapes is the text that was styled. Whether a stream shows colours is decided in
//! [`crate::output`].

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Style};

const CLAP: Styles = Styles::styled();
/// What stands above a table.
pub(crate) const TITLE: Style = *CLAP.get_header();
/// What matters most in a line.
pub(crate) const STRONG: Style = Style::new().bold();
/// What only helps to read the rest.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// The bars of a table.
pub(crate) const BAR: Style = AnsiColor::Cyan.on_default();
/// What is wrong.
pub(crate) const ERROR: Style = *CLAP.get_error();
/// What is wrong, but no error.
pub(crate) const WARNING: Style = *CLAP.get_invalid();

/// How lines on stderr begin, and the style of this beginning.
const BEGINNINGS: [(&str, Style); 12] = [
    ("error:", ERROR),
    ("warning:", WARNING),
    ("note:", *CLAP.get_valid()),
    ("over budget", ERROR),
    ("corrupt ", ERROR),
    ("hole:", ERROR),
    ("failed ", ERROR),
    ("removed ", STRONG),
    ("would remove ", STRONG),
    ("keep ", FAINT),
    ("leave ", FAINT),
    ("missed ", WARNING),
];

/// The text in this style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

/// A line for stderr, with its beginning in the style of its kind.
pub(crate) fn line(line: &str) -> String {
    let beginning = BEGINNINGS.iter().find_map(|(beginning, style)| {
        let rest = line.strip_prefix(beginning)?;
        Some(format!("{}{rest}", paint(*style, beginning)))
    });
    beginning.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_known_line_has_a_style() {
        assert_eq!(line("error: open `/note:`"), "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m open `/note:`");
        assert_eq!(line("note: kept"), "\u{1b}[32mnote:\u{1b}[0m kept");
        assert_eq!(line("warning: 1 pin"), "\u{1b}[33mwarning:\u{1b}[0m 1 pin");
        for plain in ["", "a note: b", "keeper", "waiting up to 5m"] {
            assert_eq!(line(plain), plain);
        }
    }

    #[test]
    fn without_its_escapes_a_line_is_what_it_was() {
        for (beginning, _) in BEGINNINGS {
            let plain = format!("{beginning} `/höhle` (1 B)");
            assert_ne!(line(&plain), plain);
            assert_eq!(anstream::adapter::strip_str(&line(&plain)).to_string(), plain);
        }
    }
}
