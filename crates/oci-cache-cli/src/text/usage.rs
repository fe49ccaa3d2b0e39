//! The cache's content as text: tables with bars.
//!
//! Guarantees: pure; names from the disk are escaped. Nothing that is not there has a row. Lines fit the screen, but for the
//! cache's path, which stays whole, and with `-v`, which shows digests and names whole.

use std::path::Path;

use banger_fmt::format_bytes;
use clap::builder::styling::Style;
use oci_cache::{ImageUsage, Tally, Usage, escape_path};

use crate::report::usage::UsageReport;
use crate::screen::Screen;
use crate::style::{STRONG, WARNING, paint};
use crate::text::table::{Name, Row, Section, Table};
use crate::units::GivenAmount;

/// The whole report, styled.
pub(crate) fn result(report: &UsageReport, screen: Screen, is_whole: bool) -> String {
    let usage = &report.usage;
    let tables = [amounts(report), images(usage), largest(usage)];
    let tables = tables.iter().map(|table| table.text(screen, is_whole));
    format!("{}{}", head(report, screen), tables.collect::<String>())
}

/// What the cache uses, where it is, and the room on its file system.
fn head(report: &UsageReport, screen: Screen) -> String {
    let usage = &report.usage;
    let used = paint(STRONG, &format_bytes(usage.used_bytes));
    let mut facts = vec![format!("{} on disk", format_bytes(usage.disk_bytes))];
    if let (Some(available), Some(all)) = (usage.available_bytes, usage.file_system_bytes) {
        facts.push(format!("{} of {} free", format_bytes(available), format_bytes(all)));
    }
    let line = facts.join(", ");
    let facts = if line.chars().count() <= screen.columns { line } else { facts.join(",\n") };
    format!("{used} in {}\n{facts}\n", report.cache_dir)
}

/// What there is by kind and by age, and what would go.
fn amounts(report: &UsageReport) -> Table {
    let usage = &report.usage;
    let others = usage.foreign.saturating_sub(usage.foreign_files.blobs);
    let kinds = [
        ("blobs", Some(usage.blobs)),
        ("unreferenced blobs", usage.unreferenced),
        ("partials", Some(usage.partials)),
        ("leftovers", Some(usage.leftovers)),
    ];
    let kinds = kinds.into_iter().filter_map(|(kind, tally)| Some((kind, tally?)));
    let ages = usage.by_age.iter().map(|class| (age_class(class.last_used), class.tally));
    let policies = report.would_free.iter().map(|policy| {
        let flags = if policy.flags.is_empty() { "everything" } else { &policy.flags };
        (flags, policy.tally)
    });
    let mut foreign = rows([("files", usage.foreign_files)]);
    foreign.extend((others > 0).then(|| amount("other entries", others, None)));
    // No share of anything.
    foreign.iter_mut().for_each(|row| row.bytes = None);
    Table {
        heads: vec!["files", "size"],
        spare: vec!["files"],
        sections: vec![
            Section { title: "kind", rows: rows(kinds) },
            Section { title: "last use", rows: rows(ages) },
            Section { title: "a prune would free", rows: rows(policies) },
            Section { title: "not the cache's", rows: foreign },
        ],
        may_cut: false,
    }
}

/// A row for each tally of something.
fn rows<'a>(tallies: impl IntoIterator<Item = (&'a str, Tally)>) -> Vec<Row> {
    let tallies = tallies.into_iter().filter(|(_, tally)| tally.blobs > 0);
    tallies.map(|(name, tally)| amount(name, tally.blobs, Some(tally.bytes))).collect()
}

fn amount(name: &str, files: u64, bytes: Option<u64>) -> Row {
    let size = bytes.map_or_else(String::new, format_bytes);
    Row { name: Name::Text(name.to_owned()), figures: vec![plain(files.to_string()), plain(size)], bytes }
}

fn images(usage: &Usage) -> Table {
    let row = |image: &ImageUsage| Row {
        name: image.name.as_ref().map_or_else(
            || Name::Digest(image.digest.to_string()),
            |name| Name::Text(escape_path(Path::new(name))),
        ),
        figures: vec![
            plain(format_bytes(image.tally.bytes)),
            plain(format_bytes(image.own_bytes)),
            plain(image.idle_seconds.map_or_else(String::new, ago)),
            (holes(image), WARNING),
        ],
        bytes: Some(image.tally.bytes),
    };
    Table {
        heads: vec!["size", "own", "last use", "holes"],
        spare: vec!["last use", "size", "holes"],
        sections: vec![Section { title: "image", rows: usage.images.iter().map(row).collect() }],
        may_cut: true,
    }
}

/// How many holes an image has, as far as that is known.
fn holes(image: &ImageUsage) -> String {
    match (image.is_complete, image.holes) {
        (true, 0) => String::new(),
        (true, holes) => holes.to_string(),
        (false, 0) => "unknown".to_owned(),
        (false, holes) => format!("{holes} or more"),
    }
}

fn largest(usage: &Usage) -> Table {
    let rows = usage.largest.iter().map(|blob| Row {
        name: Name::Digest(blob.digest.to_string()),
        figures: vec![plain(format_bytes(blob.bytes)), plain(ago(blob.idle_seconds))],
        bytes: Some(blob.bytes),
    });
    Table {
        heads: vec!["size", "last use"],
        spare: vec!["last use"],
        sections: vec![Section { title: "largest blobs", rows: rows.collect() }],
        may_cut: true,
    }
}

/// The message for a cache over budget.
pub(crate) fn over(used_bytes: u64, limit: u64, given: &GivenAmount) -> String {
    let over = format_bytes(used_bytes.saturating_sub(limit));
    format!("over budget by {over}: {} used, {} allowed", format_bytes(used_bytes), given.in_words(limit))
}

const fn plain(text: String) -> (String, Style) {
    (text, Style::new())
}

fn age_class(name: &str) -> &str {
    match name {
        "hour" => "within the hour",
        "day" => "within a day",
        "week" => "within a week",
        "month" => "within 30 days",
        older => older,
    }
}

/// An age in its largest unit.
fn ago(seconds: u64) -> String {
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(|| "just now".to_owned(), |(length, name)| format!("{}{name} ago", seconds / length))
}
