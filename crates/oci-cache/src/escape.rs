//! Escapes names from the disk for printing.
//!
//! Guarantees: the result is one line of printable text, whatever bytes the name holds. A plain name is
//! not changed. Different names never give the same result.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Escapes control and other unprintable characters (`\n`, `\u{1b}`), backslashes (`\\`), and bytes
/// that are not UTF-8 (`\xff`).
#[must_use]
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' | '"' => text.push(character),
                _ => text.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Escapes a path: control and other unprintable characters (`\n`, `\u{1b}`), backslashes (`\\`), and bytes
/// that are not UTF-8 (`\xff`).
#[must_use]
pub fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_comes_out() {
        let table: [(&[u8], &str); 6] = [
            (b"/var/cache/it's \"here\"", "/var/cache/it's \"here\""),
            ("/tmp/höhle".as_bytes(), "/tmp/höhle"),
            (b"a\nfreed 9 GiB", "a\\nfreed 9 GiB"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"\xff\\", "\\xff\\\\"),
            ("\u{202e}txt".as_bytes(), "\\u{202e}txt"),
        ];
        for (bytes, expected) in table {
            assert_eq!(escape(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn one_printable_line_and_no_two_alike(left in any::<Vec<u8>>(), right in any::<Vec<u8>>()) {
            prop_assert!(!escape(&left).chars().any(char::is_control));
            prop_assert_eq!(escape(&left) == escape(&right), left == right);
        }
    }
}
