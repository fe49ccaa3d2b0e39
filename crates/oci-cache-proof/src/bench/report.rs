//! Figures as text: tables, sections and the measured part of docs/benchmarks-in-detail.md.
//!
//! Guarantees: the same records give the same text. Medians and ratios are computed from raw figures, and
//! rounded only here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use banger_fmt::format_bytes;

use crate::bench::environment::Environment;
use crate::bench::numbers::{absent, seconds, two_digits};
use crate::bench::record::{ContenderRecord, Record, ratio};
use crate::kit::table;

const HOW: &str = "\
## How it is measured

From here on, everything is written by `cargo xtask bench`, which measures all of it again.

- Contenders take turns, and the order is reversed every round. Those that remove get a cache made anew each time, synced \
and left at rest. The others share one, after a round that does not count. Medians count.
- Times are wall times from before the start of the process to its end. What runs within the benchmark's own process has \
no start to include.
- Load averages before a benchmark include the making of its caches, and the benchmark before it.
- Caches are warm: they have just been written, so inodes and small contents are in memory. Before a run of a benchmark \
whose name ends in `-cold`, the caches of the whole machine are dropped. Before each run, the program is started once, so \
that it is in memory.
- As root, the caches of the whole machine are also dropped before a cache is made on the disk. Otherwise, ext4 without a \
journal would look for inodes among those that it has just freed, for most of a minute.
- Names are created in an order that has nothing to do with their hash, as pulls do it, and all files \
look an hour old; where the name says `one-fresh`, one was just written.
- The pruner runs as it does for users, lease probe included, but without cargo in front of it.
- Peak memory is that of the largest process, from a run of its own; so are the system calls, counted by \
`strace -f -c`. Under strace a removal takes so long that the pruner's threads give up their turns and probe \
again; the figure of tmpfs, where there are no turns, is nearer to what it does otherwise.
- A contender that leaves a blob behind ends the benchmark with an error.
";

/// The measured part of the document.
pub(crate) fn document(records: &[Record]) -> String {
    let mut text = format!("{HOW}\n## Where it was measured\n\n");
    for (environment, names) in environments(records) {
        text.push_str(&describe(environment, &names));
        text.push('\n');
    }
    text.push_str("## Results\n\n");
    for record in records {
        text.push_str(&section(record));
        text.push('\n');
    }
    text.push_str(&commands(records));
    text
}

/// A benchmark: what it shows, its conditions and its table.
pub(crate) fn section(record: &Record) -> String {
    let Record { name, about, cache, .. } = record;
    let mut text = format!("### {name}\n\n{about}\n\n");
    if let Some(reason) = &record.not_measured {
        let _ = writeln!(text, "{cache}: not measured, {reason} ({}).", record.date);
        return text;
    }
    let rounds = record.contenders.iter().map(|contender| contender.wall_seconds.len()).max().unwrap_or(0);
    let Record { file_system, date, load_average, .. } = record;
    let rounds = if rounds == 1 { "1 round".to_owned() } else { format!("{rounds} rounds") };
    let _ = writeln!(
        text,
        "{cache}, on {file_system}; {rounds} on {date}, load averages before: {load_average}.\n"
    );
    text.push_str(&table::markdown(&rows(record)));
    let remarks: Vec<String> =
        record.contenders.iter().filter_map(|contender| remark(record, contender)).collect();
    if !remarks.is_empty() {
        let _ = writeln!(text, "\n{}", remarks.join("\n"));
    }
    text
}

/// What does not fit into the table.
fn remark(record: &Record, contender: &ContenderRecord) -> Option<String> {
    if let Some(missing) = &contender.missing {
        return Some(format!("- {}: missing, {missing}", contender.name));
    }
    let calls = contender.frequent_calls(record.blobs);
    let calls: Vec<_> = calls.into_iter().map(|(call, per_blob)| format!("{call} {per_blob:.2}")).collect();
    (record.blobs >= FEW && !calls.is_empty())
        .then(|| format!("- {}, calls per blob: {}", contender.name, calls.join(", ")))
}

/// With fewer blobs, the calls at a program's start outweigh those for the blobs.
const FEW: usize = 1000;

/// A column: its header, and its figure for a contender.
type Column<'a> = (String, Box<dyn Fn(&ContenderRecord) -> Option<String> + 'a>);

/// The rows of a benchmark's table. Columns without figures are left out.
fn rows(record: &Record) -> Vec<Vec<String>> {
    let pruner = record.pruner();
    let first = pruner.map_or("", |pruner| &pruner.name);
    let pruner_wall = pruner.and_then(ContenderRecord::wall);
    let mut columns: Vec<Column> = vec![
        ("median".to_owned(), Box::new(|it| it.wall().map(seconds))),
        ("range".to_owned(), Box::new(|it| range(&it.wall_seconds))),
        (format!("{first} ÷ it"), Box::new(move |it| ratio(pruner_wall, it.wall()).map(two_digits))),
        ("half-gone, share of wall time".to_owned(), Box::new(|it| it.half_gone_share().map(two_digits))),
        ("peak memory".to_owned(), Box::new(|it| it.peak_memory_bytes.map(format_bytes))),
        ("system calls per blob".to_owned(), Box::new(|it| it.calls_per_blob(record.blobs).map(two_digits))),
    ];
    columns.retain(|(_, figure)| record.contenders.iter().any(|contender| figure(contender).is_some()));
    let heads = columns.iter().map(|(head, _)| head.clone());
    let mut rows = vec![std::iter::once("contender".to_owned()).chain(heads).collect()];
    for contender in &record.contenders {
        let figures = columns.iter().map(|(_, figure)| figure(contender).unwrap_or_else(absent));
        let mut row: Vec<String> = std::iter::once(contender.name.clone()).chain(figures).collect();
        if contender.missing.is_some() && row.len() > 1 {
            row[1] = "missing".to_owned();
        }
        rows.push(row);
    }
    rows
}

/// The commands of all contenders.
fn commands(records: &[Record]) -> String {
    let mut commands = BTreeMap::new();
    for contender in records.iter().flat_map(|record| &record.contenders) {
        commands.insert(&contender.name, &contender.command);
    }
    let heads = vec!["contender".to_owned(), "command".to_owned()];
    let rows = commands.into_iter().map(|(name, command)| vec![name.clone(), format!("`{command}`")]);
    let table = table::markdown(&std::iter::once(heads).chain(rows).collect::<Vec<_>>());
    format!(
        "### What is run\n\n`DIR` is the cache, `FILES` is every blob, `LIST` is a file that lists them, \
         `CORES` is the number of cores.\n\n{table}\n\
         Repeat all with `cargo xtask bench`, one with `cargo xtask bench --only NAME`. The figures of \
         every run are in [benchmarks.json](benchmarks.json).\n"
    )
}

/// The environments, each with the benchmarks that were measured in it.
fn environments(records: &[Record]) -> Vec<(&Environment, Vec<&str>)> {
    let mut environments: Vec<(&Environment, Vec<&str>)> = Vec::new();
    for record in records {
        let known = environments.iter_mut().find(|(known, _)| **known == record.environment);
        match known {
            Some((_, names)) => names.push(&record.name),
            None => environments.push((&record.environment, vec![&record.name])),
        }
    }
    environments
}

fn describe(environment: &Environment, names: &[&str]) -> String {
    let Environment { processor, cores, memory, kernel, disk, pruner, tools } = environment;
    let (names, tools) = (names.join(", "), tools.join("; "));
    format!(
        "{names}:\n\n- {cores} cores of {processor}, {memory} of memory\n- Linux {kernel}\n- disk: {disk}\n\
         - {pruner}; {tools}\n"
    )
}

/// The lowest and the highest figure.
fn range(figures: &[f64]) -> Option<String> {
    let lowest = figures.iter().copied().min_by(f64::total_cmp)?;
    let highest = figures.iter().copied().max_by(f64::total_cmp)?;
    Some(format!("{} to {}", seconds(lowest), seconds(highest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::{contender, record};

    #[test]
    fn a_section_compares_the_pruner_with_each() {
        let mut absent = contender("rmz", &[]);
        absent.missing = Some("`rmz` is not installed".to_owned());
        let contenders =
            vec![contender("cache-prune", &[0.5]), contender("rm -rf", &[2.0, 1.0, 3.0]), absent];
        let text = section(&record("small", contenders));
        assert!(text.contains("| rm -rf      | 2.00 s "), "{text}");
        assert!(text.contains("| 1.00 s to 3.00 s     | 0.25 "), "{text}");
        assert!(text.contains("| rmz         | missing  |"), "{text}");
        assert!(text.contains("- rmz: missing, `rmz` is not installed\n"), "{text}");
        assert!(!text.contains("memory"), "{text}");
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let mut record = record("small", Vec::new());
        record.not_measured = Some("no tmpfs".to_owned());
        assert!(section(&record).contains("10 blobs: not measured, no tmpfs (2026-01-01)."));
    }

    #[test]
    fn machines_are_told_apart() {
        let mut other = record("other", Vec::new());
        other.environment.cores = 64;
        let records = [record("one", Vec::new()), other, record("two", Vec::new())];
        let names: Vec<_> = environments(&records).into_iter().map(|(_, names)| names).collect();
        assert_eq!(names, [vec!["one", "two"], vec!["other"]]);
    }
}
