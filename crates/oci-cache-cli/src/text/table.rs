//! Tables: a name, figures, and a bar for the size of each row.
//!
//! Guarantees: pure. No line is longer than the screen is wide, as long as the shortest names and one figure fit. What does
//! not fit goes in this order: the bars, the digits of digests, the figures, the least useful first, and last the middle of
//! long names. A whole table has whole names and all figures, whatever the width. A character counts as one column.

use clap::builder::styling::Style;

use crate::screen::Screen;
use crate::style::{BAR, FAINT, TITLE, paint};

/// The widths of bars, at least and at most.
const LEAST_BAR: usize = 8;
const LONGEST_BAR: usize = 30;
/// No name is cut to less than this.
const LEAST_NAME: usize = 16;
/// What separates columns.
const GAP: usize = 2;
/// How many digits of a digest are enough to tell it from others.
const DIGITS: usize = 12;
/// Bars that are an eighth to eight eighths of a column wide.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// A table of one or several sections with the same columns.
#[derive(Debug)]
pub(crate) struct Table {
    /// The heads of the figures, in the order in which they stand.
    pub(crate) heads: Vec<&'static str>,
    /// Which of the figures go where there is no room, the first of them first.
    pub(crate) spare: Vec<&'static str>,
    pub(crate) sections: Vec<Section>,
    /// Whether names may be cut.
    pub(crate) may_cut: bool,
}

/// Rows under a title; nothing is shown without rows. Bars are as long as the largest of them allows.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: Name,
    /// A figure for each head, and its style.
    pub(crate) figures: Vec<(String, Style)>,
    /// What the bar shows; none if it is not known.
    pub(crate) bytes: Option<u64>,
}

/// What a row is about.
#[derive(Debug)]
pub(crate) enum Name {
    Text(String),
    /// `<algorithm>:<digits>`.
    Digest(String),
}

impl Name {
    fn text(&self, is_short: bool) -> &str {
        match self {
            Self::Digest(digest) if is_short => {
                let end = digest.find(':').map_or(0, |colon| colon + 1) + DIGITS;
                digest.get(..end).unwrap_or(digest)
            }
            Self::Text(text) | Self::Digest(text) => text,
        }
    }
}

/// What a table shows on a screen, and how wide.
#[derive(Debug)]
struct Layout {
    are_digests_short: bool,
    name: usize,
    /// For each figure its width; `None` if it is not shown.
    figures: Vec<Option<usize>>,
    bar: Option<usize>,
}

impl Table {
    /// The lines of the table, each section after an empty line. A whole one shows everything.
    pub(crate) fn text(&self, screen: Screen, is_whole: bool) -> String {
        let layout = self.layout(screen.columns, is_whole);
        let sections = self.sections.iter().filter(|section| !section.rows.is_empty());
        sections.map(|section| section.text(&self.heads, &layout, screen)).collect()
    }

    fn layout(&self, columns: usize, is_whole: bool) -> Layout {
        let mut figures = self.widths();
        let width =
            |figures: &[Option<usize>]| figures.iter().flatten().map(|width| GAP + width).sum::<usize>();
        let mut are_digests_short = false;
        let mut name = self.name_width(are_digests_short);
        if !is_whole && name + width(&figures) > columns {
            are_digests_short = true;
            name = self.name_width(are_digests_short);
            let least = if self.may_cut { name.min(LEAST_NAME) } else { name };
            for spare in &self.spare {
                if least + width(&figures) > columns
                    && let Some(index) = self.heads.iter().position(|head| head == spare)
                {
                    figures[index] = None;
                }
            }
            name = name.min(columns.saturating_sub(width(&figures)).max(least));
        }
        let room = columns.saturating_sub(name + width(&figures) + GAP);
        Layout { are_digests_short, name, bar: (room >= LEAST_BAR).then_some(room.min(LONGEST_BAR)), figures }
    }

    fn name_width(&self, is_short: bool) -> usize {
        let sections = self.sections.iter().filter(|section| !section.rows.is_empty());
        let widths = sections.flat_map(|section| {
            let names = section.rows.iter().map(|row| row.name.text(is_short));
            names.chain([section.title]).map(width)
        });
        widths.max().unwrap_or(0)
    }

    /// The width of each figure; `None` if no row has it.
    fn widths(&self) -> Vec<Option<usize>> {
        let rows = || self.sections.iter().flat_map(|section| &section.rows);
        let heads = self.heads.iter().enumerate();
        let widths = heads.map(|(index, head)| {
            let widest = rows().map(|row| width(&row.figures[index].0)).max().filter(|width| *width > 0)?;
            Some(widest.max(width(head)))
        });
        widths.collect()
    }
}

impl Section {
    fn text(&self, heads: &[&str], layout: &Layout, screen: Screen) -> String {
        let most = self.rows.iter().filter_map(|row| row.bytes).max().unwrap_or(0);
        let heads: Vec<(String, Style)> = heads.iter().map(|head| ((*head).to_owned(), FAINT)).collect();
        let title = line((self.title, TITLE), &heads, layout);
        let mut text = format!("\n{}\n", title.trim_end());
        for row in &self.rows {
            let name = cut(row.name.text(layout.are_digests_short), layout.name, screen.is_utf8);
            let mut shown = line((&name, Style::new()), &row.figures, layout);
            if let (Some(width), Some(bytes)) = (layout.bar, row.bytes) {
                shown.push_str("  ");
                shown.push_str(&paint(BAR, &bar(bytes, most, width, screen.is_utf8)));
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A name and its figures, without a bar.
fn line((name, style): (&str, Style), figures: &[(String, Style)], layout: &Layout) -> String {
    let mut line = format!("{}{}", paint(style, name), blanks(layout.name, name));
    for ((figure, style), shown) in figures.iter().zip(&layout.figures) {
        if let Some(columns) = shown {
            line.push_str(&blanks(GAP + columns, figure));
            line.push_str(&paint(*style, figure));
        }
    }
    line
}

/// What fills the text up to so many columns.
fn blanks(columns: usize, text: &str) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text in so many columns: a longer one without its middle.
fn cut(text: &str, columns: usize, is_utf8: bool) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mark = if is_utf8 { "…" } else { "..." };
    if characters.len() <= columns {
        return text.to_owned();
    }
    let left = columns.saturating_sub(width(mark));
    let (start, end) = (left / 2, characters.len() - left.div_ceil(2));
    let (start, end): (String, String) =
        (characters[..start].iter().collect(), characters[end..].iter().collect());
    format!("{start}{mark}{end}")
}

/// A bar whose length is to `columns` as `bytes` to `most`; something of it shows unless `bytes` is 0.
fn bar(bytes: u64, most: u64, columns: usize, is_utf8: bool) -> String {
    let steps = if is_utf8 { EIGHTHS.len() } else { 1 };
    let whole = (columns * steps) as u128;
    let length = (u128::from(bytes) * whole).div_ceil(u128::from(most.max(1))).min(whole);
    let length = usize::try_from(length).unwrap_or(0);
    if !is_utf8 {
        return "#".repeat(length);
    }
    let mut bar = EIGHTHS[steps - 1].to_string().repeat(length / steps);
    bar.extend((length % steps).checked_sub(1).map(|rest| EIGHTHS[rest]));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "registry.example.com/team/application:2026-11-27";

    fn table(names: &[&str], may_cut: bool) -> Table {
        let row = |(index, name): (usize, &&str)| Row {
            name: match name.split_once(':') {
                Some(("sha256", _)) => Name::Digest((*name).to_owned()),
                _ => Name::Text((*name).to_owned()),
            },
            figures: ["1.0 KiB", "512 B", "3d ago", ""].map(|text| (text.to_owned(), Style::new())).into(),
            bytes: Some(1 << index),
        };
        let rows = names.iter().enumerate().map(row).collect();
        let sections = vec![Section { title: "image", rows }, Section { title: "nothing", rows: Vec::new() }];
        let heads = vec!["size", "own", "last use", "holes"];
        Table { heads, spare: vec!["last use", "size"], sections, may_cut }
    }

    fn shown(table: &Table, columns: usize, is_utf8: bool, is_whole: bool) -> String {
        let text = table.text(Screen { columns, is_utf8 }, is_whole);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn what_does_not_fit_goes_the_least_useful_first() {
        let digest = format!("sha256:{:064x}", 7);
        let table = table(&["app:1", LONG, &digest], true);
        insta::assert_snapshot!(shown(&table, 130, true, false), @"

        image                                                                       size    own  last use
        app:1                                                                    1.0 KiB  512 B    3d ago  ███████▌
        registry.example.com/team/application:2026-11-27                         1.0 KiB  512 B    3d ago  ███████████████
        sha256:0000000000000000000000000000000000000000000000000000000000000007  1.0 KiB  512 B    3d ago  ██████████████████████████████
        ");
        insta::assert_snapshot!(shown(&table, 80, true, false), @"

        image                                                size    own  last use
        app:1                                             1.0 KiB  512 B    3d ago
        registry.example.com/team/application:2026-11-27  1.0 KiB  512 B    3d ago
        sha256:000000000000                               1.0 KiB  512 B    3d ago
        ");
        insta::assert_snapshot!(shown(&table, 40, true, false), @"

        image                        size    own
        app:1                     1.0 KiB  512 B
        registry.ex…n:2026-11-27  1.0 KiB  512 B
        sha256:000000000000       1.0 KiB  512 B
        ");
        insta::assert_snapshot!(shown(&table, 30, false, false), @"

        image                      own
        app:1                    512 B
        registry.e...2026-11-27  512 B
        sha256:000000000000      512 B
        ");
        insta::assert_snapshot!(shown(&table, 40, true, true), @"

        image                                                                       size    own  last use
        app:1                                                                    1.0 KiB  512 B    3d ago
        registry.example.com/team/application:2026-11-27                         1.0 KiB  512 B    3d ago
        sha256:0000000000000000000000000000000000000000000000000000000000000007  1.0 KiB  512 B    3d ago
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let digest = format!("sha256:{:064x}", 7);
        for (names, may_cut, least) in [
            (vec!["app:1", LONG, &digest], true, LEAST_NAME + GAP + "512 B".len()),
            (vec!["--max-used-space 500MiB"], false, "--max-used-space 500MiB  512 B".len()),
        ] {
            let table = table(&names, may_cut);
            for columns in least..200 {
                for is_utf8 in [true, false] {
                    let text = shown(&table, columns, is_utf8, false);
                    let widest = text.lines().map(width).max().unwrap();
                    assert!(widest <= columns && text.contains("512 B"), "{columns}: {text}");
                    assert!(is_utf8 || text.is_ascii(), "{columns}: {text}");
                }
            }
        }
    }

    #[test]
    fn a_bar_in_eighths_and_in_whole_columns() {
        for (bytes, most, utf8, ascii) in [
            (0, 10, "", ""),
            (1, 1000, "▏", "#"),
            (500, 1000, "█████", "#####"),
            (510, 1000, "█████▏", "######"),
            (999, 1000, "██████████", "##########"),
            (u64::MAX, u64::MAX, "██████████", "##########"),
            (0, 0, "", ""),
        ] {
            assert_eq!(bar(bytes, most, 10, true), utf8, "{bytes} of {most}");
            assert_eq!(bar(bytes, most, 10, false), ascii, "{bytes} of {most}");
        }
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        assert_eq!(cut("application", 11, true), "application");
        assert_eq!(cut("application", 10, true), "appl…ation");
        assert_eq!(cut("application", 10, false), "app...tion");
        assert_eq!(cut("höhlenforscher", 5, true), "hö…er");
    }
}
