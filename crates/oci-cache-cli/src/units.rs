//! Parses sizes, ages and percentages as people write them.
//!
//! Guarantees: an accepted value is exact to the byte. A number without a unit is refused, except 0, and so is a unit that could
//! mean two things. The error for a refused value says what is accepted.

use std::time::Duration;

use banger_fmt::format_bytes;
use oci_cache::Amount;

const SIZES: &str = "a size such as 5GiB, 500MB, 1.5TiB, 5G (which is 5GB) or 100B";
const AGES: &str = "an age such as 90m, 12h, 7d or 2w, or a sum such as 1d 12h";

/// An amount of space, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenAmount {
    pub(crate) amount: Amount,
    text: String,
}

impl GivenAmount {
    /// The amount as it was written; a percentage also says how much that is.
    pub(crate) fn in_words(&self, bytes: u64) -> String {
        match self.amount {
            Amount::Bytes(_) => self.text.clone(),
            Amount::Percent(_) => format!("{} ({})", self.text, format_bytes(bytes)),
        }
    }
}

/// The largest round size that is at most so many bytes, as it is written and in bytes; none below a byte.
pub(crate) fn round_size(at_most: u64) -> Option<(String, u64)> {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().zip(0..);
    let sizes = units.flat_map(|(unit, power)| {
        [1, 2, 5, 10, 20, 50, 100, 200, 500].map(|number: u64| (number, unit, 1024u64.pow(power)))
    });
    let sizes = sizes
        .filter_map(|(number, unit, bytes)| Some((format!("{number}{unit}"), number.checked_mul(bytes)?)));
    sizes.take_while(|(_, bytes)| *bytes <= at_most).last()
}

/// Parses an amount of space: a size, or a percentage of the file system.
pub(crate) fn amount(text: &str) -> Result<GivenAmount, String> {
    let amount = match text.strip_suffix('%') {
        Some(percent) => match percent.trim().parse() {
            Ok(percent) if percent <= 100 => Amount::Percent(percent),
            _ => return Err(format!("expected a whole number from 0% to 100%, or {SIZES}")),
        },
        None => Amount::Bytes(size(text).map_err(|error| format!("{error}, or a percentage such as 10%"))?),
    };
    Ok(GivenAmount { amount, text: text.trim().to_owned() })
}

/// Parses a size in bytes. Decimal units (`kB`, `MB`, `G`, …) are powers of 1000, binary ones (`KiB`, …) are
/// powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let bytes = parse_size::parse_size(text).map_err(|error| format!("{error}; expected {SIZES}"))?;
    let unit = text.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
    match unit {
        _ if bytes == 0 && text.contains(|digit: char| ('1'..='9').contains(&digit)) => {
            Err(format!("it is less than a byte; expected {SIZES}"))
        }
        "" if bytes > 0 => Err(format!("it needs a unit, such as {text}B or {text}MB; expected {SIZES}")),
        // Elsewhere in the command line, a minute.
        "m" => Err(format!("`m` is a minute: write MB or MiB for a size; expected {SIZES}")),
        _ if text.ends_with(|last: char| last.is_ascii_alphabetic()) || bytes == 0 => Ok(bytes),
        // A number such as 1e9.
        _ => Err(format!("it needs a unit; expected {SIZES}")),
    }
}

/// Parses an age.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    if text.split(|letter: char| !letter.is_ascii_alphabetic()).any(|unit| unit == "M") {
        return Err(format!(
            "`M` could mean minutes or months: write m for minutes, and 30d for a month; expected {AGES}"
        ));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; expected {AGES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("0B", 0),
            ("1234B", 1234),
            ("1b", 1),
            ("5GiB", 5 << 30),
            ("5Gi", 5 << 30),
            ("5G", 5_000_000_000),
            ("1M", 1_000_000),
            ("500MB", 500_000_000),
            ("500 MB", 500_000_000),
            ("1.5TiB", 3 << 39),
            ("2kB", 2000),
            ("2k", 2000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "GiB", "-1", "5 apples", "16EiB", "1e99", "1e9", "5%", "50", "1_000", "1.5", "1m", "5 m"]
        {
            assert!(size(text).unwrap_err().contains("expected a size such as 5GiB"), "{text}");
        }
        assert!(size("50").unwrap_err().starts_with("it needs a unit, such as 50B or 50MB;"));
        assert!(size("1m").unwrap_err().contains("write MB or MiB"));
    }

    #[test]
    fn round_sizes_mean_what_they_say() {
        let size_of = |at_most| round_size(at_most).map(|(text, _)| text);
        for (at_most, text) in [
            (1, "1B"),
            (499, "200B"),
            (500, "500B"),
            (1023, "500B"),
            (1024, "1KiB"),
            ((5 << 30) - 1, "2GiB"),
            (5 << 30, "5GiB"),
            (u64::MAX, "10EiB"),
        ] {
            let (found, bytes) = round_size(at_most).unwrap();
            assert_eq!((found.as_str(), size(&found)), (text, Ok(bytes)), "{at_most}");
        }
        assert_eq!(size_of(0), None);
    }

    #[test]
    fn ages() {
        let hours = |hours: u64| Ok(Duration::from_secs(hours * 3600));
        assert_eq!(age("0"), Ok(Duration::ZERO));
        assert_eq!(age("0s"), Ok(Duration::ZERO));
        assert_eq!(age("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(age("90m"), Ok(Duration::from_secs(90 * 60)));
        assert_eq!(age("12h"), hours(12));
        assert_eq!(age("7d"), hours(7 * 24));
        assert_eq!(age("1d 12h"), hours(36));
        assert_eq!(age("2w"), hours(14 * 24));
        for text in ["", "7", "yesterday", "-1d", "1M", "1 M", "1d 2M"] {
            assert!(age(text).unwrap_err().contains("expected an age such as 90m"), "{text}");
        }
        assert!(age("1M").unwrap_err().contains("m for minutes, and 30d for a month"));
    }

    #[test]
    fn shares() {
        let amount_of = |text| amount(text).map(|given| given.amount);
        assert_eq!(amount_of("10%"), Ok(Amount::Percent(10)));
        assert_eq!(amount_of("0%"), Ok(Amount::Percent(0)));
        assert_eq!(amount_of("100%"), Ok(Amount::Percent(100)));
        assert_eq!(amount_of("1GB"), Ok(Amount::Bytes(1_000_000_000)));
        for text in ["101%", "%", "-1%", "1.5%", "much", "10"] {
            assert!(amount_of(text).unwrap_err().contains("expected"), "{text}");
        }
    }

    #[test]
    fn an_amount_is_told_as_it_was_given() {
        assert_eq!(amount("1M").unwrap().in_words(1_000_000), "1M");
        assert_eq!(amount(" 1000 kB ").unwrap().in_words(1_000_000), "1000 kB");
        assert_eq!(amount("20%").unwrap().in_words(2048), "20% (2.0 KiB)");
    }
}
