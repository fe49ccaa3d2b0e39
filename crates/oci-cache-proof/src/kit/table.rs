//! Tables for terminals and documents.
//!
//! Guarantees: columns line up. The first row is the header.

use std::fmt::Write as _;

/// Renders a Markdown table that is also readable as plain text.
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

/// Renders a table without lines: the first column is aligned left, all others right.
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

/// The width of each column.
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
