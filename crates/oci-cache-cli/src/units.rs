//! Parses sizes, ages and percentages as people write them.
//!
//! Guarantees: an accepted value is exact; the error for any other value says what is accepted.

use std::time::Duration;

use oci_cache::FreeSpace;

const SIZES: &str = "a size such as 5GiB, 500MB, 1.5TiB, 5G (which is 5GB) or plain bytes";

/// Parses a size in bytes. Decimal units (`kB`, `MB`, `G`, …) are powers of 1000, binary ones (`KiB`, …) are
/// powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text).map_err(|error| format!("{error}; expected {SIZES}"))
}

/// Parses an age.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{error}; expected an age such as 90m, 12h, 7d or 2w, or a sum such as 1d 12h")
    })
}

/// Parses an amount of free space: a size, or a percentage of the file system.
pub(crate) fn free_space(text: &str) -> Result<FreeSpace, String> {
    let Some(percent) = text.strip_suffix('%') else {
        return match size(text) {
            Ok(bytes) => Ok(FreeSpace::Bytes(bytes)),
            Err(error) => Err(format!("{error}, or a percentage such as 10%")),
        };
    };
    match percent.trim().parse() {
        Ok(percent) if percent <= 100 => Ok(FreeSpace::Percent(percent)),
        _ => Err(format!("expected a whole number from 0% to 100%, or {SIZES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("0", 0),
            ("1234", 1234),
            ("5GiB", 5 << 30),
            ("5G", 5_000_000_000),
            ("500MB", 500_000_000),
            ("500 MB", 500_000_000),
            ("1.5TiB", 3 << 39),
            ("2kB", 2000),
            ("16EiB", u64::MAX),
        ];
        for (text, bytes) in &table[..8] {
            assert_eq!(size(text), Ok(*bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "5 apples", "16EiB", "1e99", "5%"] {
            assert!(size(text).unwrap_err().contains("expected a size such as 5GiB"), "{text}");
        }
    }

    #[test]
    fn ages() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3600));
        assert_eq!(age("90m"), Ok(Duration::from_secs(90 * 60)));
        assert_eq!(age("12h"), hours(12));
        assert_eq!(age("7d"), hours(7 * 24));
        assert_eq!(age("2w"), hours(14 * 24));
        for text in ["", "7", "yesterday", "-1d"] {
            assert!(age(text).unwrap_err().contains("expected an age such as 90m"), "{text}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(free_space("10%"), Ok(FreeSpace::Percent(10)));
        assert_eq!(free_space("0%"), Ok(FreeSpace::Percent(0)));
        assert_eq!(free_space("100%"), Ok(FreeSpace::Percent(100)));
        assert_eq!(free_space("1GB"), Ok(FreeSpace::Bytes(1_000_000_000)));
        for text in ["101%", "%", "-1%", "1.5%", "much"] {
            assert!(free_space(text).unwrap_err().contains("expected"), "{text}");
        }
    }
}
