//! Numbers for people.
//!
//! Guarantees: times have at least three digits.

/// A time in a suitable unit, with at least three digits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds >= 10.0 => format!("{seconds:.1} s"),
        _ if seconds >= 1.0 => format!("{seconds:.2} s"),
        _ if seconds >= 0.01 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds >= 0.001 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.2} µs", seconds * 1e6),
    }
}

/// A number with thousands separators: `100,000`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a figure that was not measured is shown as.
pub(crate) fn absent() -> String {
    "–".to_owned()
}

/// A number with two decimals.
pub(crate) fn two_digits(figure: f64) -> String {
    format!("{figure:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let counts = [0, 999, 1000, 1_000_000].map(grouped);
        assert_eq!(counts, ["0", "999", "1,000", "1,000,000"]);
        let times = [12.34, 1.234, 0.1234, 0.001_234, 0.000_012_34].map(seconds);
        assert_eq!(times, ["12.3 s", "1.23 s", "123.4 ms", "1.23 ms", "12.34 µs"]);
    }
}
