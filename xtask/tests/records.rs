//! `--metrics-file` and `--github-summary`, of every command.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;
use support::layout::{MANIFEST, entry};
use support::{Cache, KIB, Ran, flat, nested, xtask};

/// A run with both records.
struct Recorded {
    ran: Ran,
    /// The metrics, without the help, what depends on the clock and the file system, and the cache's directory.
    metrics: String,
    summary: String,
}

fn record(cache: &Cache, command: &str, arguments: &[&str]) -> Recorded {
    let (metrics, summary) = (cache.base.path().join("metrics"), cache.base.path().join("summary"));
    fs::write(&summary, "").unwrap();
    let mut program = xtask();
    program.args([command, "--github-summary", "--metrics-file"]).arg(&metrics);
    program.arg("--cache-dir").arg(cache.path()).args(arguments).env("GITHUB_STEP_SUMMARY", &summary);
    let ran = Ran::of(&mut program, cache.base.path());
    let base = cache.base.path().to_str().unwrap();
    let metrics = fs::read_to_string(metrics).unwrap();
    let depends = ["seconds{", "available_bytes{", "disk_bytes{", "goal_reached_bytes{"];
    let is_told = |line: &&str| !line.starts_with('#') && !depends.iter().any(|name| line.contains(name));
    let lines: Vec<&str> = metrics.lines().filter(is_told).collect();
    let metrics = lines.join("\n").replace(&format!("cache_dir=\"{base}/oci\""), "…");
    let summary = fs::read_to_string(summary).unwrap().replace(base, "[TMP]");
    Recorded { ran, metrics, summary }
}

/// The value of a series whose name and labels start so.
fn value(metrics: &Path, series: &str) -> Option<f64> {
    let text = fs::read_to_string(metrics).unwrap();
    let line = text.lines().find(|line| line.starts_with(series))?;
    Some(line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn a_prune_tells_of_its_goals() {
    let cache = Cache::flat(2, 2 * KIB);
    let open = [1, 2].map(|number| File::open(cache.path().join(flat(number))).unwrap());
    let unmet = record(&cache, "cache-prune", &["--max-used-space", "1KiB"]);
    assert_eq!(unmet.ran.exit, 3, "{}", unmet.ran.block());
    assert!(
        unmet.summary.contains("| goal not met: at most 1.0 KiB used | | 4.0 KiB |\n"),
        "{}",
        unmet.summary
    );
    for line in [
        "oci_cache_goal_wanted_bytes{…,goal=\"max_used_space\"} 1024",
        "oci_cache_goal_met{…,goal=\"max_used_space\"} 0",
        "oci_cache_used_bytes{…,command=\"prune\"} 4096",
        "oci_cache_exists{…,command=\"prune\"} 1",
        "oci_cache_prune_exit_status{…} 3",
    ] {
        assert!(unmet.metrics.contains(line), "{line}: {}", unmet.metrics);
    }
    let metrics = cache.base.path().join("metrics");
    assert_eq!(value(&metrics, "oci_cache_goal_reached_bytes{"), Some(4096.0));
    assert!(value(&metrics, "oci_cache_available_bytes{").unwrap() > 0.0);

    drop(open);
    let met = record(&cache, "cache-prune", &["--max-used-space", "2KiB", "--min-free-space", "1KiB"]);
    assert_eq!(met.ran.exit, 0, "{}", met.ran.block());
    assert!(met.summary.contains("| goal met: at most 2.0 KiB used | | 2.0 KiB |\n"), "{}", met.summary);
    assert!(met.summary.contains("| goal met: at least 1.0 KiB free | | "), "{}", met.summary);
    for goal in ["max_used_space", "min_free_space"] {
        assert!(
            met.metrics.contains(&format!("oci_cache_goal_met{{…,goal=\"{goal}\"}} 1")),
            "{}",
            met.metrics
        );
    }
}

#[test]
fn a_verification_tells_what_it_found_and_what_is_left() {
    let cache = Cache::layout();
    cache.write(nested(1), KIB);
    cache.write_index(&[entry(50, MANIFEST, "gone")]);
    let found = record(&cache, "cache-verify", &[]);
    assert_eq!(found.ran.exit, 3, "{}", found.ran.block());
    assert_snapshot!(found.metrics, @r#"
    oci_cache_verify_checked_blobs{…} 1
    oci_cache_verify_checked_bytes{…} 1024
    oci_cache_verify_unchecked_blobs{…,reason="in_use"} 0
    oci_cache_verify_unchecked_blobs{…,reason="changed"} 0
    oci_cache_verify_unchecked_blobs{…,reason="unread"} 0
    oci_cache_verify_corrupt_blobs{…} 1
    oci_cache_verify_corrupt_left_blobs{…} 1
    oci_cache_verify_holes{…} 1
    oci_cache_verify_holes_left{…} 1
    oci_cache_verify_quick{…} 0
    oci_cache_exists{…,command="verify"} 1
    oci_cache_verify_exit_status{…} 3
    "#);
    assert_snapshot!(found.summary, @"
    ### OCI blob cache

    | `[TMP]/oci` | blobs | size |
    |---|--:|--:|
    | verified | 1 | 1.0 KiB |
    | corrupt | 1 | 1.0 KiB |
    | holes | 1 | |
    ");
    let mended = record(&cache, "cache-verify", &["--prune"]);
    assert_eq!(mended.ran.exit, 0, "{}", mended.ran.block());
    for line in [
        "oci_cache_verify_corrupt_blobs{…} 1",
        "oci_cache_verify_corrupt_left_blobs{…} 0",
        "oci_cache_verify_holes{…} 1",
        "oci_cache_verify_holes_left{…} 0",
    ] {
        assert!(mended.metrics.contains(line), "{line}: {}", mended.metrics);
    }
    assert!(mended.summary.contains("| corrupt | 1 | 1.0 KiB |\n| holes | 1 | |\n"), "{}", mended.summary);
}

#[test]
fn a_summary_tells_what_is_left_and_what_failed() {
    let cache = Cache::flat(1, KIB);
    let open = File::open(cache.path().join(flat(1))).unwrap();
    let found = record(&cache, "cache-verify", &["--prune", "--quick"]);
    assert_eq!(found.ran.exit, 3, "{}", found.ran.block());
    for row in ["| corrupt, still there | 1 | |\n", "quickly checked"] {
        assert!(found.summary.contains(row), "{row}: {}", found.summary);
    }
    drop(open);
    cache.write("oci-put-blob1", KIB);
    cache.write(format!(".pruning-0123456789abcdef/{}", flat(7)), KIB);
    let usage = record(&cache, "cache-usage", &[]);
    for row in ["| partials | 1 | 1.0 KiB |\n", "| leftovers | 1 | 1.0 KiB |\n"] {
        assert!(usage.summary.contains(row), "{row}: {}", usage.summary);
    }
    let preview = record(&cache, "cache-prune", &["--dry-run"]);
    assert!(preview.metrics.contains("oci_cache_prune_dry_run{…} 1"), "{}", preview.metrics);
    let done = record(&cache, "cache-prune", &[]);
    assert!(done.metrics.contains("oci_cache_prune_dry_run{…} 0"), "{}", done.metrics);
}

#[test]
fn usage_tells_what_is_there_and_whether_it_is_over_budget() {
    let cache = Cache::layout();
    cache.write_manifest(10, 11, &[1, 2]);
    for blob in [2, 11, 99] {
        cache.write(nested(blob), KIB);
    }
    cache.write_index(&[entry(10, MANIFEST, "app:1")]);
    cache.write("notes.txt", 1);
    let looked = record(&cache, "cache-usage", &[]);
    assert_eq!(looked.ran.exit, 0, "{}", looked.ran.block());
    for line in [
        "oci_cache_usage_blobs{…} 4",
        "oci_cache_usage_foreign{…} 1",
        "oci_cache_usage_images{…} 1",
        "oci_cache_usage_images_with_holes{…} 1",
        "oci_cache_usage_unreferenced_blobs{…} 1",
        "oci_cache_usage_unreferenced_bytes{…} 1024",
        "oci_cache_exists{…,command=\"usage\"} 1",
        "oci_cache_usage_exit_status{…} 0",
    ] {
        assert!(looked.metrics.contains(line), "{line}: {}", looked.metrics);
    }
    assert!(!looked.metrics.contains("budget"), "{}", looked.metrics);
    assert!(looked.summary.contains("| unreferenced | 1 | 1.0 KiB |\n| used | | "), "{}", looked.summary);
    assert!(looked.summary.contains("| foreign entries | 1 | |\n| images with holes | 1 | |\n"));
    for (budget, exit, over, said) in
        [("2KiB", 3, 1, "over budget: 2.0 KiB"), ("1MiB", 0, 0, "within budget: 1.0 MiB")]
    {
        let checked = record(&cache, "cache-usage", &["--check", "--max-used-space", budget]);
        assert_eq!(checked.ran.exit, exit, "{}", checked.ran.block());
        assert!(checked.metrics.contains(&format!("oci_cache_usage_over_budget{{…}} {over}\n")));
        assert!(checked.metrics.contains(&format!("oci_cache_usage_exit_status{{…}} {exit}")));
        assert!(checked.summary.contains(&format!("| used, {said} allowed | | ")), "{}", checked.summary);
    }
}

#[test]
fn the_files_of_several_caches_and_commands_share_a_directory() {
    let base = tempfile::tempdir().unwrap();
    let (mut series, mut heads) = (BTreeSet::new(), BTreeMap::new());
    for (cache, name) in [(Cache::typical_layout(), "layout"), (Cache::flat(2, KIB), "flat")] {
        for (command, arguments) in [
            ("cache-verify", &[][..]),
            ("cache-usage", &["--check", "--max-used-space", "1GiB"]),
            ("cache-prune", &["--max-used-space", "1KiB", "--min-free-space", "1KiB"]),
        ] {
            let file = base.path().join(format!("{name}-{command}.prom"));
            cache.run(command, &[&["--metrics-file", file.to_str().unwrap()], arguments].concat());
            let text = fs::read_to_string(file).unwrap();
            for line in text.lines() {
                if let Some(head) = line.strip_prefix("# HELP ") {
                    let (metric, help) = head.split_once(' ').unwrap();
                    let same = heads.entry(metric.to_owned()).or_insert_with(|| help.to_owned());
                    assert_eq!(same, help, "{metric}");
                } else if !line.starts_with('#') {
                    let (of, _) = line.rsplit_once(' ').unwrap();
                    assert!(of.contains("cache_dir=\""), "{of}");
                    assert!(series.insert(of.to_owned()), "twice: {of}");
                }
            }
        }
    }
    assert!(heads.len() > 30 && series.len() > 2 * heads.len(), "{heads:?}");
}

#[test]
fn the_last_success_outlives_a_run_that_fails() {
    let cache = Cache::flat(1, KIB);
    let metrics = cache.base.path().join("metrics");
    let [success, run] =
        ["success", "run"].map(|what| format!("oci_cache_prune_last_{what}_timestamp_seconds{{"));
    let prune = |arguments: &[&str]| {
        let file = ["--metrics-file", metrics.to_str().unwrap()];
        let ran = cache.prune(&[&file, arguments].concat());
        (ran.exit, value(&metrics, &success).unwrap(), value(&metrics, &run).unwrap())
    };
    // Nothing succeeded yet, and what lies there is no earlier run's.
    fs::write(&metrics, "not ours").unwrap();
    let (exit, never, began) = prune(&["--unreferenced"]);
    assert_eq!((exit, never), (2, 0.0));
    assert!(began > 1e9);
    let (exit, dry, _) = prune(&["--dry-run"]);
    assert_eq!((exit, dry), (0, 0.0), "a dry run prunes nothing");
    let (exit, ended, began) = prune(&[]);
    assert_eq!(exit, 0);
    assert!(began <= ended, "{began} {ended}");
    let (exit, kept, began) = prune(&["--unreferenced"]);
    assert_eq!((exit, kept), (2, ended));
    assert!(began >= ended, "{began} {ended}");
}

#[test]
fn what_is_no_regular_file_is_neither_written_nor_read() {
    let cache = Cache::flat(1, KIB);
    let base = cache.base.path();
    let fifo = base.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = cache.tree();
    for (path, why) in [
        (fifo.as_path(), "`[TMP]/fifo` is not a regular file: name one"),
        (base, "`[TMP]` is a directory: name a file"),
        (Path::new("/dev/null"), "`/dev/null` is not a regular file"),
    ] {
        let metrics = cache.prune(&["--metrics-file", path.to_str().unwrap()]);
        let mut program = xtask();
        program.args(["cache-prune", "--github-summary", "--cache-dir"]).arg(cache.path());
        let summary = Ran::of(program.env("GITHUB_STEP_SUMMARY", path), base);
        for ran in [metrics, summary] {
            assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
            assert!(ran.stderr.contains(why), "{}", ran.block());
        }
    }
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_missing_cache_is_told_from_an_empty_one() {
    for command in ["prune", "usage", "verify"] {
        for (cache, exists) in [(Cache::missing(), 0), (Cache::new(), 1)] {
            let recorded = record(&cache, &format!("cache-{command}"), &[]);
            assert_eq!(recorded.ran.exit, 0, "{}", recorded.ran.block());
            let line = format!("oci_cache_exists{{…,command=\"{command}\"}} {exists}");
            assert!(recorded.metrics.contains(&line), "{}", recorded.metrics);
            let room = value(&cache.base.path().join("metrics"), "oci_cache_available_bytes{");
            assert_eq!(room.is_some(), exists == 1 && command != "verify", "{command}");
        }
    }
}

#[test]
fn a_refused_directory_is_recorded_by_every_command() {
    let cache = Cache::new();
    cache.write("letter.txt", 1);
    for command in ["prune", "usage", "verify"] {
        let recorded = record(&cache, &format!("cache-{command}"), &[]);
        assert_eq!((recorded.ran.exit, recorded.summary.as_str()), (2, ""), "{}", recorded.ran.block());
        let lines: Vec<String> = recorded.metrics.lines().map(str::to_owned).collect();
        let mut expected = vec![
            format!("oci_cache_exists{{…,command=\"{command}\"}} 1"),
            format!("oci_cache_{command}_exit_status{{…}} 2"),
        ];
        if command == "prune" {
            expected.push("oci_cache_prune_held_off_runs{…} 0".to_owned());
        }
        assert_eq!(lines, expected, "{command}");
    }
}

#[test]
fn nothing_is_recorded_inside_the_cache() {
    let cache = Cache::flat(1, KIB);
    let before = cache.tree();
    let inside: PathBuf = cache.path().join("metrics");
    for command in ["cache-prune", "cache-usage", "cache-verify"] {
        let ran = cache.run(command, &["--metrics-file", inside.to_str().unwrap()]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains("is inside the cache"), "{}", ran.stderr);
        let mut program = xtask();
        program.args([command, "--github-summary", "--cache-dir"]).arg(cache.path());
        let ran = Ran::of(program.env("GITHUB_STEP_SUMMARY", &inside), cache.base.path());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
    }
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_label_holds_any_path() {
    let base = tempfile::tempdir().unwrap();
    let cache = base.path().join("a\"b\\c\nd");
    fs::create_dir(&cache).unwrap();
    let metrics = base.path().join("metrics");
    let mut program = xtask();
    program.args(["cache-prune", "--metrics-file"]).arg(&metrics).arg("--cache-dir").arg(&cache);
    assert_eq!(Ran::of(&mut program, base.path()).exit, 0);
    let text = fs::read_to_string(&metrics).unwrap();
    let label = format!(r#"cache_dir="{}/a\"b\\c\nd""#, base.path().display());
    assert!(text.contains(&format!("oci_cache_prune_exit_status{{{label}}} 0\n")), "{text}");
    assert!(text.lines().all(|line| line.starts_with('#') || line.contains(&label)), "{text}");
}
