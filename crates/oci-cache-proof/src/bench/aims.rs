//! The table of the aims in docs/benchmarks-in-detail.md.
//!
//! Guarantees: an aim counts as met by the figure that is shown. What was not measured is not met.

use banger_fmt::format_bytes;

use crate::bench::catalogue::{self, Aim, Benchmark};
use crate::bench::numbers::{absent, two_digits};
use crate::bench::record::{Record, ratio};
use crate::bench::summary::{find, ratio_to};
use crate::kit::table;

/// The table of the aims.
pub(crate) fn table(records: &[Record]) -> String {
    table::markdown(&rows(records))
}

fn rows(records: &[Record]) -> Vec<Vec<String>> {
    let mut rows = vec![["what", "beside", "aim, at most", "measured", ""].map(str::to_owned).to_vec()];
    let row = |what: &str, beside: &str, aim: String, measured: Option<(String, bool)>| {
        let (measured, is_met) =
            measured.map_or_else(|| (absent(), None), |(text, is_met)| (text, Some(is_met)));
        let verdict = is_met.map_or("not measured", |is_met| if is_met { "met" } else { "**missed**" });
        vec![what.to_owned(), beside.to_owned(), aim, measured, verdict.to_owned()]
    };
    for Benchmark { name, aims, .. } in catalogue::benchmarks() {
        for Aim { beside, ratio } in *aims {
            let measured = find(records, name).and_then(|record| ratio_to(record, beside));
            let measured = measured.map(|measured| (two_digits(measured), rounded(measured) <= *ratio));
            rows.push(row(name, &format!("`{beside}`"), two_digits(*ratio), measured));
        }
    }
    let per_blob = |name| find(records, name).and_then(Record::pruner_seconds_per_blob);
    let growth = ratio(per_blob("million"), per_blob("small-100k"));
    let growth = growth.map(|growth| (two_digits(growth), rounded(growth) <= GROWTH));
    rows.push(row("million, time per blob", "small-100k", two_digits(GROWTH), growth));
    let memory = find(records, "million").and_then(|record| record.pruner()?.peak_memory_bytes);
    let memory = memory.map(|memory| (format_bytes(memory), memory <= MILLION_BYTES));
    rows.push(row("million, memory", "", format_bytes(MILLION_BYTES), memory));
    rows
}

/// How much more time a blob may take among a million than among 100,000.
const GROWTH: f64 = 1.1;
/// The memory that a prune of a million blobs may take.
const MILLION_BYTES: u64 = 110 << 20;

/// As the document shows it: a ratio of 0.354 meets an aim of 0.35.
fn rounded(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contenders::BASELINE;
    use crate::bench::samples::{contender, record};

    fn small(wall: f64) -> Record {
        record("small-100k", vec![contender("cache-prune", &[wall]), contender(BASELINE, &[10.0])])
    }

    #[test]
    fn an_aim_is_met_as_it_is_shown() {
        for (wall, verdict) in [(3.54, "met"), (3.56, "**missed**")] {
            let rows = rows(&[small(wall)]);
            let row = rows.iter().find(|row| row[0] == "small-100k").unwrap();
            assert_eq!(row[4], verdict, "{row:?}");
        }
        assert!(rows(&[]).iter().skip(1).all(|row| row[3] == "–" && row[4] == "not measured"));
    }

    #[test]
    fn growth_is_time_per_blob() {
        let many = Record { blobs: 100, ..record("million", vec![contender("cache-prune", &[44.0])]) };
        let rows = rows(&[small(4.0), many]);
        let row = rows.iter().find(|row| row[0] == "million, time per blob").unwrap();
        assert_eq!((&*row[3], &*row[4]), ("1.10", "met"));
    }
}
