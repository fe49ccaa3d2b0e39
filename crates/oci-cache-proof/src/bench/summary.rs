//! docs/benchmarks.md for readers, and the table in the README: times and ratios.
//!
//! Guarantees: the same records give the same text. Every figure is computed from raw figures, and a figure that was not
//! measured is a dash.

use std::fmt::Write as _;

use banger_fmt::format_bytes;

use crate::bench::catalogue::{self, Benchmark, Kind};
use crate::bench::contenders::{BASELINE, CAT, OPENSSL};
use crate::bench::environment::Environment;
use crate::bench::numbers::{absent, seconds, two_digits};
use crate::bench::record::{ContenderRecord, Record, ratio};
use crate::kit::table;

/// A table of the document: its heading, what it shows, and the benchmarks in it.
struct Group {
    heading: &'static str,
    about: &'static str,
    holds: fn(&Benchmark) -> bool,
}

const GROUPS: &[Group] = &[
    Group {
        heading: "Removing an idle cache",
        about: "Nothing in it was used within the last hour.",
        holds: |benchmark| is_removal(benchmark) && !benchmark.recipe.last_is_fresh,
    },
    Group {
        heading: "Removing a cache in use",
        about: "One blob was just written, so the pruner looks for pulls before it removes anything: half a second at least.",
        holds: |benchmark| is_removal(benchmark) && benchmark.recipe.last_is_fresh,
    },
    Group {
        heading: "Counting",
        about: "The dry run, beside tools that report disk usage.",
        holds: |benchmark| benchmark.kind == Kind::DryRun,
    },
    Group {
        heading: "Showing what is there",
        about: "`cache-usage`, which also says what common policies would free, beside the dry run of one.",
        holds: |benchmark| benchmark.kind == Kind::Usage,
    },
    Group {
        heading: "Verifying",
        about: "`cat` only reads, and one file after the other: it does not show what the disk could give.",
        holds: |benchmark| benchmark.kind == Kind::Verify,
    },
];

const fn is_removal(benchmark: &Benchmark) -> bool {
    matches!(benchmark.kind, Kind::Prune | Kind::PruneBesideBaseline | Kind::Alone)
}

/// The measured part of the readers' document.
pub(crate) fn document(records: &[Record]) -> String {
    let mut text = String::new();
    let newest = records.iter().max_by(|one, other| one.date.cmp(&other.date));
    if let Some(Record { environment, date, .. }) = newest {
        let Environment { processor, cores, memory, kernel, disk, .. } = environment;
        let others = records.iter().filter(|record| record.environment != *environment).count();
        let _ = write!(
            text,
            "Measured on {date}, on {cores} cores of {processor} with {memory} of memory, Linux {kernel}, {disk}"
        );
        let _ = match others {
            0 => writeln!(text, "."),
            _ => writeln!(text, "; {others} of the benchmarks on another machine or with another version."),
        };
    }
    text.push_str("\nIn the chart, each tool is compared with `rm -rf`, which is the line at 1.00.\n");
    text.push_str("\n![Wall time of each contender as a ratio to rm -rf](benchmarks.svg)\n");
    for group in GROUPS {
        let rows = rows(group, records);
        if rows.len() > 1 {
            let _ = write!(text, "\n## {}\n\n{}\n\n{}", group.heading, group.about, table::markdown(&rows));
        }
    }
    text.push_str(&half_gone(records));
    text
}

/// The table of the README.
pub(crate) fn short(records: &[Record]) -> String {
    let wanted = [
        ("remove 47 blobs of 1.2 GiB together", "typical", BASELINE),
        ("remove 10,000 small blobs", "small-10k", BASELINE),
        ("count 100,000 blobs", "dry-run-100k", "du -sb"),
        ("verify 3 GiB in memory", "verify", OPENSSL),
        ("verify 3 GiB from the disk", "verify-cold", CAT),
    ];
    let rows = wanted.into_iter().filter_map(|(what, name, beside)| {
        let record = find(records, name)?;
        let ratio = ratio_to(record, beside)?;
        Some(vec![what.to_owned(), wall(record.pruner()), format!("{} of `{beside}`", two_digits(ratio))])
    });
    let heads = ["to", "takes", "which is"].map(str::to_owned).to_vec();
    table::markdown(&std::iter::once(heads).chain(rows).collect::<Vec<_>>())
}

fn rows(group: &Group, records: &[Record]) -> Vec<Vec<String>> {
    let records: Vec<&Record> = catalogue::benchmarks()
        .iter()
        .filter(|benchmark| (group.holds)(benchmark))
        .filter_map(|benchmark| find(records, benchmark.name))
        .collect();
    let mut others: Vec<&str> = Vec::new();
    for contender in records.iter().flat_map(|record| record.contenders.iter().skip(1)) {
        if !others.contains(&contender.name.as_str()) {
            others.push(&contender.name);
        }
    }
    let heads = ["benchmark", "cache", "takes", "memory"].map(str::to_owned).into_iter();
    let mut rows = vec![heads.chain(others.iter().map(|other| format!("of `{other}`"))).collect()];
    for record in records {
        let memory = record.pruner().and_then(|pruner| pruner.peak_memory_bytes);
        let cache = match &record.not_measured {
            Some(reason) => format!("not measured: {reason}"),
            None => format!("{}, on {}", record.cache, record.file_system),
        };
        let fixed =
            [record.name.clone(), cache, wall(record.pruner()), memory.map_or_else(absent, format_bytes)];
        let ratios = others.iter().map(|other| ratio_to(record, other).map_or_else(absent, two_digits));
        rows.push(fixed.into_iter().chain(ratios).collect());
    }
    rows
}

/// How long a cache is visible with some names gone and others still there.
fn half_gone(records: &[Record]) -> String {
    let Some(record) = find(records, "half-gone") else { return String::new() };
    let share = |contender: &ContenderRecord| contender.half_gone_share().map_or_else(absent, two_digits);
    let rows = record.contenders.iter();
    let rows = rows.map(|contender| vec![contender.name.clone(), wall(Some(contender)), share(contender)]);
    let heads = ["contender", "takes", "share of it with the cache half-gone"].map(str::to_owned).to_vec();
    let table = table::markdown(&std::iter::once(heads).chain(rows).collect::<Vec<_>>());
    format!("\n## A cache half-gone\n\n{}\n\n{table}", record.about)
}

/// The record of this name.
pub(crate) fn find<'a>(records: &'a [Record], name: &str) -> Option<&'a Record> {
    records.iter().find(|record| record.name == name)
}

/// The ratio of the pruner's wall time to that of another contender.
pub(crate) fn ratio_to(record: &Record, other: &str) -> Option<f64> {
    ratio(record.pruner()?.wall(), record.contender(other)?.wall())
}

fn wall(contender: Option<&ContenderRecord>) -> String {
    contender.and_then(ContenderRecord::wall).map_or_else(absent, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::{contender, record};

    fn small(wall: f64) -> Record {
        record("small-100k", vec![contender("cache-prune", &[wall]), contender(BASELINE, &[10.0])])
    }

    #[test]
    fn each_table_compares_with_all_contenders_of_its_benchmarks() {
        let text = document(&[small(5.0), record("million", vec![contender("cache-prune", &[60.0])])]);
        assert!(text.contains("| of `rm -rf` |"), "{text}");
        assert!(text.contains("| 5.00 s | –      | 0.50        |"), "{text}");
        assert!(text.contains("| 60.0 s | –      | –           |"), "{text}");
        assert!(!text.contains("## Counting"), "{text}");
    }

    #[test]
    fn the_short_table_has_what_was_measured() {
        let text = short(&[Record { name: "small-10k".to_owned(), ..small(5.0) }]);
        assert!(text.contains("| remove 10,000 small blobs | 5.00 s | 0.50 of `rm -rf` |"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
