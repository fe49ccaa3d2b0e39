//! docs/benchmarks.svg: the times of all contenders, relative to `rm -rf`.
//!
//! Guarantees: the longest bar sets the scale, so nothing is cut off. The background is transparent, and
//! there are colours for light and dark pages.

use std::fmt::Write as _;

use crate::bench::catalogue::{self, Kind};
use crate::bench::contenders::BASELINE;
use crate::bench::record::{Record, ratio};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BAR: f64 = 14.0;
const BAR_STEP: f64 = 17.0;
const GROUP_GAP: f64 = 14.0;

const STYLE: &str = "\
text { font: 12px sans-serif; fill: #1f2328 }
.title { font-weight: bold }
.pruner { fill: #1a7f37 }
.other { fill: #8c959f }
.line { stroke: #cf222e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .pruner { fill: #3fb950 }
  .other { fill: #6e7681 }
  .line { stroke: #ff7b72 }
}";

/// The bars of a benchmark.
struct Group<'a> {
    name: &'a str,
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    name: &'a str,
    is_pruner: bool,
    ratio: f64,
}

/// Draws all benchmarks in which the wall time of a removal counts.
pub(crate) fn svg(records: &[Record]) -> String {
    let groups: Vec<Group> = records.iter().filter_map(group).collect();
    let longest = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.ratio).fold(1.1, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let mut body = String::new();
    let mut y = TOP;
    for group in &groups {
        let _ = writeln!(body, r#"<text x="8" y="{:.1}">{}</text>"#, y + BAR - 3.0, escape(group.name));
        for bar in &group.bars {
            let class = if bar.is_pruner { "pruner" } else { "other" };
            let length = bar.ratio * scale;
            let _ = writeln!(
                body,
                r#"<rect class="{class}" x="{LEFT}" y="{y:.1}" width="{length:.1}" height="{BAR}"/>"#
            );
            let (x, baseline) = (LEFT + length + 6.0, y + BAR - 3.0);
            let label = format!("{:.2} {}", bar.ratio, bar.name);
            let _ = writeln!(body, r#"<text x="{x:.1}" y="{baseline:.1}">{}</text>"#, escape(&label));
            y += BAR_STEP;
        }
        y += GROUP_GAP;
    }
    let one = LEFT + scale;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0}"
 viewBox="0 0 {WIDTH} {y:.0}" role="img" aria-label="Wall time as a ratio to {BASELINE}">
<style>
{STYLE}
</style>
<text class="title" x="8" y="18">Wall time as a ratio to {BASELINE}: shorter is faster</text>
<line class="line" x1="{one:.1}" y1="{:.1}" x2="{one:.1}" y2="{:.1}"/>
<text x="{one:.1}" y="{:.1}" text-anchor="middle">1.00 {BASELINE}</text>
{body}</svg>
"#,
        TOP - 4.0,
        y - GROUP_GAP,
        TOP - 8.0,
    )
}

fn group(record: &Record) -> Option<Group<'_>> {
    let baseline = record.contender(BASELINE)?.wall()?;
    let mut benchmarks = catalogue::benchmarks().iter();
    let benchmark = benchmarks.find(|benchmark| benchmark.name == record.name);
    if benchmark.is_some_and(|benchmark| matches!(benchmark.kind, Kind::HalfGone | Kind::UnlinkLimit)) {
        return None;
    }
    let bars = record.contenders.iter().enumerate().filter(|(_, contender)| contender.name != BASELINE);
    let bars = bars.filter_map(|(index, contender)| {
        let ratio = ratio(contender.wall(), Some(baseline))?;
        Some(Bar { name: &contender.name, is_pruner: index == 0, ratio })
    });
    Some(Group { name: &record.name, bars: bars.collect() })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::samples::{contender, record};

    #[test]
    fn bars_are_measured_by_the_baseline() {
        let contenders = vec![contender("cache-prune", &[0.5]), contender(BASELINE, &[2.0])];
        let other = record("dry-run", vec![contender("cache-prune --dry-run", &[0.5])]);
        let chart = svg(&[record("small <1>", contenders), other]);
        assert!(chart.contains(">0.25 cache-prune</text>"), "{chart}");
        assert!(chart.contains("small &lt;1&gt;"), "{chart}");
        assert_eq!(chart.matches("<rect").count(), 1, "{chart}");
    }

    #[test]
    fn without_figures_there_is_still_a_chart() {
        assert!(svg(&[]).trim_end().ends_with("</svg>"));
    }
}
