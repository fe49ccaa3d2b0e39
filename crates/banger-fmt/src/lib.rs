//! Formats byte counts for people, in IEC units.
//!
//! Guarantees: the figure is computed in integers, so it is exact at every power of 1024. It is rounded half
//! up to one decimal. Rounding carries into the next unit, so `1024.0` of any unit is never printed. The unit
//! names are those of IEC 80000-13 (`KiB` is 1024 bytes).

/// The units above the byte, smallest first; `u64::MAX` is just under 16 EiB.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Formats a byte count with one decimal, in the largest IEC unit in which the rounded figure is at least 1.
///
/// A count below 1024 is printed in bytes, as it is. The result is monotonic: a larger count never reads as a
/// smaller figure.
///
/// ```
/// use banger_fmt::format_bytes;
///
/// assert_eq!(format_bytes(0), "0 B");
/// assert_eq!(format_bytes(1023), "1023 B");
/// assert_eq!(format_bytes(1024), "1.0 KiB");
/// assert_eq!(format_bytes(1_288_490_189), "1.2 GiB");
/// assert_eq!(format_bytes(1024 * 1024 - 1), "1.0 MiB"); // 1023.999 KiB carries
/// assert_eq!(format_bytes(u64::MAX), "16.0 EiB");
/// ```
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut unit_bytes: u128 = 1024;
    let mut tenths = round_to_tenths(bytes, unit_bytes);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        unit += 1;
        unit_bytes *= 1024;
        tenths = round_to_tenths(bytes, unit_bytes);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Tenths of the unit, rounded half up. `u128` holds ten times any count.
fn round_to_tenths(bytes: u64, unit_bytes: u128) -> u128 {
    (u128::from(bytes) * 10 + unit_bytes / 2) / unit_bytes
}

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const EIB: u64 = 1 << 60;

    #[test]
    fn boundaries() {
        let table = [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (KIB, "1.0 KiB"),
            (KIB + 51, "1.0 KiB"),
            (KIB + 52, "1.1 KiB"),
            (MIB - 52, "1023.9 KiB"),
            (MIB - 51, "1.0 MiB"),
            (MIB - 1, "1.0 MiB"),
            (MIB, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (EIB - 1, "1.0 EiB"),
            (EIB, "1.0 EiB"),
            (u64::MAX - 1, "16.0 EiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(format_bytes(bytes), expected, "{bytes} bytes");
        }
    }

    #[test]
    fn every_power_is_exact() {
        for (power, unit) in (1u32..).zip(UNITS) {
            let bytes = 1024u64.pow(power);
            assert_eq!(format_bytes(bytes), format!("1.0 {unit}"));
            assert_eq!(
                format_bytes(bytes - 1),
                if power == 1 { "1023 B".to_owned() } else { format!("1.0 {unit}") }
            );
        }
    }

    /// Parses a formatted count back, in tenths of a byte.
    fn tenths(text: &str) -> u128 {
        let (figure, unit) = text.split_once(' ').unwrap();
        let (whole, tenth) = figure.split_once('.').unwrap_or((figure, "0"));
        let power = UNITS.iter().position(|name| *name == unit).map_or(0, |index| index + 1);
        let tenths: u128 = whole.parse::<u128>().unwrap() * 10 + tenth.parse::<u128>().unwrap();
        tenths * 1024u128.pow(u32::try_from(power).unwrap())
    }

    /// Counts of all magnitudes, and counts close to each power of 1024.
    fn any_count() -> impl Strategy<Value = u64> {
        prop_oneof![
            (any::<u64>(), 0u32..64).prop_map(|(count, shift)| count >> shift),
            (1u32..=6, -2000i64..2000)
                .prop_map(|(power, offset)| 1024u64.pow(power).saturating_add_signed(offset)),
        ]
    }

    proptest! {
        #[test]
        fn monotonic_and_never_1024(left in any_count(), right in any_count()) {
            let (low, high) = (left.min(right), left.max(right));
            prop_assert!(tenths(&format_bytes(low)) <= tenths(&format_bytes(high)));
            prop_assert!(!format_bytes(low).contains("1024.0"));
        }

        #[test]
        fn within_half_a_tenth_of_the_unit(count in any_count()) {
            let text = format_bytes(count);
            let read = tenths(&text);
            let exact = u128::from(count) * 10;
            let power = UNITS.iter().position(|name| text.ends_with(name)).map_or(0, |index| index + 1);
            let half_a_tenth = 1024u128.pow(u32::try_from(power).unwrap()).div_ceil(2);
            prop_assert!(read.abs_diff(exact) <= half_a_tenth, "{text} for {count}");
        }
    }
}
