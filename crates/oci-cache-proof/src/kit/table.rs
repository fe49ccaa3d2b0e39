//! Tables, for terminals and for documents.
//!
//! Guarantees: pure; columns line up; the first row is the head.

use std::fmt::Write as _;

/// A Markdown table that also reads well as it is.
pub(crate) fn markdown<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.as_ref().iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A table without lines: words to the left, then numbers to the right.
pub(crate) fn plain<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.as_ref().iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// How wide each column is.
fn widths<Row: AsRef<[String]>>(rows: &[Row]) -> Vec<usize> {
    let columns = rows.first().map_or(0, |head| head.as_ref().len());
    let width = |column: usize| rows.iter().filter_map(move |row| row.as_ref().get(column));
    (0..columns).map(|column| width(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["exercise", "pulls"], ["flat", "5"], ["häufig, aside", "12345"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(plain(&rows), "exercise       pulls\nflat               5\nhäufig, aside  12345\n");
        assert_eq!(
            markdown(&rows),
            "\
| exercise      | pulls |
|---------------|-------|
| flat          | 5     |
| häufig, aside | 12345 |
"
        );
        assert_eq!(markdown::<Vec<String>>(&[]), "");
    }
}
