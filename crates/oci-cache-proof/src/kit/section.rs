//! The measured section of a document, between `<!-- measured -->` and `<!-- /measured -->`. A section with a name has it in
//! its marks: `<!-- measured: fuzz -->`.
//!
//! Guarantees: text outside the marks never changes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

const BEGIN: &str = "<!-- measured -->";
const END: &str = "<!-- /measured -->";

/// Replaces the section in a file.
///
/// # Errors
///
/// If the file has no section, or cannot be read or written.
pub(crate) fn write(path: &Path, measured: &str) -> anyhow::Result<()> {
    rewrite(path, |document| replace(document, measured))
}

/// Replaces the section of this name in a file.
///
/// # Errors
///
/// If the file has no such section, or cannot be read or written.
pub(crate) fn write_named(path: &Path, name: &str, measured: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- measured: {name} -->"), format!("<!-- /measured: {name} -->"));
    rewrite(path, |document| replace_between(document, &begin, &end, measured))
}

fn rewrite(path: &Path, change: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let context = || format!("write the figures to `{}`", path.display());
    let document = fs::read_to_string(path).with_context(context)?;
    fs::write(path, change(&document).with_context(context)?).with_context(context)
}

/// Returns the document with `measured` as its section.
///
/// # Errors
///
/// If the document has no section.
pub(crate) fn replace(document: &str, measured: &str) -> anyhow::Result<String> {
    replace_between(document, BEGIN, END, measured)
}

fn replace_between(document: &str, begin: &str, end: &str, measured: &str) -> anyhow::Result<String> {
    let (before, rest) = document.split_once(begin).with_context(|| format!("no {begin}"))?;
    ensure!(!before.contains(end), "{end} before {begin}");
    let (_, after) = rest.split_once(end).with_context(|| format!("no {end} after {begin}"))?;
    Ok(format!("{before}{begin}\n{measured}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_outside_the_marks_stays() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let replaced = replace(&document, "new\n").unwrap();
        assert_eq!(replaced, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace(&replaced, "new\n").unwrap(), replaced);

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("page.md");
        fs::write(&path, &document).unwrap();
        write(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), replaced);
    }

    #[test]
    fn sections_with_names_are_apart() {
        let document = |plain: &str, named: &str| {
            format!("{BEGIN}\n{plain}{END}\n<!-- measured: fuzz -->\n{named}<!-- /measured: fuzz -->\n")
        };
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("page.md");
        fs::write(&path, document("a\n", "b\n")).unwrap();
        write(&path, "c\n").unwrap();
        write_named(&path, "fuzz", "d\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), document("c\n", "d\n"));
        assert!(write_named(&path, "other", "").is_err());
    }

    #[test]
    fn marks_that_do_not_match_are_an_error() {
        let documents = [
            "by hand\n".to_owned(),
            BEGIN.to_owned(),
            END.to_owned(),
            format!("{END}{BEGIN}"),
            format!("{END}{BEGIN}{END}"),
        ];
        for document in documents {
            assert!(replace(&document, "").is_err(), "{document}");
        }
    }
}
