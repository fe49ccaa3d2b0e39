//! Since when prunes of a cache have been held off, and how many in a row.
//!
//! Guarantees: a run is held off if it frees nothing although something was to go that a pull under way may count on, or
//! if another process holds the cache's lock for too long. A dry run, a run that a signal stops and one that fails for
//! another reason change nothing. What earlier runs saw is known only from their metrics file.

use std::path::Path;
use std::time::{Duration, SystemTime};

use oci_cache::{PruneReport, Timestamp};

use crate::report::Report;
use crate::text::gauges::value_in;

/// The gauge of when the first of these runs began, in seconds of Unix time; 0 if the last run was not held off.
pub(crate) const SINCE: &str = "prune_held_off_since_timestamp_seconds";
/// The gauge of their number.
pub(crate) const RUNS: &str = "prune_held_off_runs";

/// Runs in a row that were held off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldOff {
    /// When the first of them began.
    pub(crate) since: Timestamp,
    /// How many there are, with the last one.
    pub(crate) runs: u64,
}

/// Whether a run was held off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It was.
    Held,
    /// It was not.
    Free,
    /// It did not come so far.
    Unknown,
}

/// The lock could not be taken in time: exit 1.
#[derive(Debug)]
pub(crate) struct LockTimeout {
    pub(crate) message: String,
    /// The runs that were held off, with this one, if it is a prune.
    pub(crate) held_off: Option<HeldOff>,
}

impl std::fmt::Display for LockTimeout {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)?;
        match self.held_off {
            Some(held_off) if held_off.runs > 1 => write!(formatter, "; {}", held_off.in_words()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for LockTimeout {}

impl Hold {
    /// Whether a prune with this report was held off.
    pub(crate) const fn of_prune(report: &PruneReport) -> Self {
        match report.is_held_off() {
            _ if report.dry_run || report.interrupted => Self::Unknown,
            true => Self::Held,
            false => Self::Free,
        }
    }

    /// Whether a run with this result was held off.
    pub(crate) fn of(result: Result<Option<&Report>, &anyhow::Error>) -> Self {
        match result {
            Ok(Some(Report::Prune(report))) => Self::of_prune(report),
            Err(error) if error.is::<LockTimeout>() => Self::Held,
            _ => Self::Unknown,
        }
    }
}

impl HeldOff {
    /// The runs that are held off after one that began at `started`. `earlier` is the metrics file of the run before.
    pub(crate) fn after(
        hold: Hold,
        started: Timestamp,
        earlier: Option<&str>,
        cache_dir: &Path,
    ) -> Option<Self> {
        let before = earlier.and_then(|text| Self::in_metrics(text, cache_dir));
        // A time in the future is no earlier run's.
        let before = before.filter(|before| before.since <= started);
        match (hold, before) {
            (Hold::Free, _) => None,
            (Hold::Unknown, before) => before,
            (Hold::Held, None) => Some(Self { since: started, runs: 1 }),
            (Hold::Held, Some(before)) => Some(Self { runs: before.runs.saturating_add(1), ..before }),
        }
    }

    /// What a metrics file says.
    fn in_metrics(text: &str, cache_dir: &Path) -> Option<Self> {
        let since = Duration::try_from_secs_f64(value_in(text, SINCE, cache_dir)?).ok()?;
        let runs = value_in(text, RUNS, cache_dir).filter(|runs| *runs >= 1.0)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, at least 1")]
        let runs = runs as u64;
        let since = Timestamp(i64::try_from(since.as_nanos()).ok()?);
        (since.0 > 0).then_some(Self { since, runs })
    }

    /// When the first of them began, as in RFC 3339, in UTC.
    pub(crate) fn since(self) -> String {
        let since = Duration::from_nanos(u64::try_from(self.since.0).unwrap_or(0));
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
    }

    /// Since when, and how often, as a clause: nothing but `held off` of the first run.
    pub(crate) fn in_words(self) -> String {
        if self.runs <= 1 {
            return "held off".to_owned();
        }
        let since = self.since();
        let minutes = since.get(..16).unwrap_or(&since).replace('T', " ");
        format!("held off since {minutes} UTC ({} runs)", self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_in_a_row_are_counted_from_the_first() {
        let (cache, second) = (Path::new("/oci"), 1_000_000_000);
        let (first, now) = (Timestamp(1_795_489_920 * second), Timestamp(1_795_600_000 * second));
        let metrics = |since: &str, runs: &str| {
            format!(
                "oci_cache_{SINCE}{{cache_dir=\"/oci\"}} {since}\noci_cache_{RUNS}{{cache_dir=\"/oci\"}} {runs}\n"
            )
        };
        let earlier = metrics("1795489920.000", "2");
        let after = |hold, earlier: &str| HeldOff::after(hold, now, Some(earlier), cache);
        assert_eq!(after(Hold::Held, &earlier), Some(HeldOff { since: first, runs: 3 }));
        assert_eq!(after(Hold::Unknown, &earlier), Some(HeldOff { since: first, runs: 2 }));
        assert_eq!(after(Hold::Free, &earlier), None);
        let future = metrics("1895489920.000", "2");
        for earlier in
            ["", "not ours", &metrics("0.000", "0"), &metrics("-1", "-1"), &metrics("NaN", "x"), &future]
        {
            assert_eq!(after(Hold::Held, earlier), Some(HeldOff { since: now, runs: 1 }), "{earlier}");
            assert_eq!(after(Hold::Unknown, earlier), None, "{earlier}");
        }
        assert_eq!(
            HeldOff::after(Hold::Held, now, Some(&earlier), Path::new("/b")).map(|held| held.runs),
            Some(1)
        );
        let held = HeldOff { since: first, runs: 3 };
        assert_eq!(held.since(), "2026-11-24T03:12:00Z");
        assert_eq!(held.in_words(), "held off since 2026-11-24 03:12 UTC (3 runs)");
        assert_eq!(HeldOff { since: first, runs: 1 }.in_words(), "held off");
    }

    #[test]
    fn a_run_that_a_signal_stops_and_a_dry_run_say_nothing() {
        let mut report = PruneReport::default();
        assert_eq!(Hold::of_prune(&report), Hold::Free);
        report.interrupted = true;
        assert_eq!(Hold::of_prune(&report), Hold::Unknown);
        (report.interrupted, report.dry_run) = (false, true);
        assert_eq!(Hold::of_prune(&report), Hold::Unknown);
    }
}
