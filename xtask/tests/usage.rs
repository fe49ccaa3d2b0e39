//! What `cache-usage` shows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;
use support::{Cache, KIB, Ran, flat, nested, set_age};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The block, without what depends on the file system: free space and disk usage.
fn stable(ran: &Ran) -> String {
    let mut lines: Vec<String> = ran.block().lines().map(str::to_owned).collect();
    if let Some(line) = lines.iter_mut().find(|line| line.contains(" on disk, ")) {
        *line = "[DISK] on disk, [ROOM] free".to_owned();
    }
    lines.join("\n")
}

#[test]
fn a_flat_cache() {
    let cache = Cache::flat(3, 10 * KIB);
    cache.write(flat(4), 1000 * KIB);
    cache.write(flat(5), 300 * KIB);
    cache.write("oci-put-blob1", 4 * KIB);
    cache.write("notes.txt", 1);
    std::os::unix::fs::symlink("notes.txt", cache.path().join("link")).unwrap();
    cache.write(format!("../oci.pruning-0123456789abcdef/{}", flat(9)), KIB);
    for (number, age) in [(1, DAY * 3), (2, DAY * 20), (4, DAY * 100), (5, Duration::from_secs(60))] {
        set_age(&cache.path().join(flat(number)), age);
    }
    let before = cache.tree();
    assert_snapshot!(stable(&cache.run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    1.3 MiB in [TMP]/oci
    [DISK] on disk, [ROOM] free

    kind                     files        size
    blobs                        5     1.3 MiB  ##############################
    partials                     1     4.0 KiB  #
    leftovers                    1     1.0 KiB  #

    last use                 files        size
    within the hour              2   304.0 KiB  ##########
    within a day                 1    10.0 KiB  #
    within a week                1    10.0 KiB  #
    within 30 days               1    10.0 KiB  #
    older                        1  1000.0 KiB  ##############################

    a prune would free       files        size
    everything                   7     1.3 MiB  ##############################
    --older-than 7d              3  1011.0 KiB  #######################
    --older-than 30d             2  1001.0 KiB  #######################
    --max-used-space 500KiB      2  1001.0 KiB  #######################

    not the cache's          files        size
    files                        1         1 B
    other entries                1

    largest blobs              size  last use
    sha256:000000000000  1000.0 KiB  100d ago  ##############################
    sha256:000000000000   300.0 KiB    1m ago  #########
    sha256:000000000000    10.0 KiB    3d ago  #
    sha256:000000000000    10.0 KiB   20d ago  #
    sha256:000000000000    10.0 KiB    1h ago  #
    --- stderr
    [EOF]
    ");
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    assert_eq!(json["blobs"], json!({"blobs": 5, "bytes": 1330 * KIB}));
    assert_eq!(json["partials"], json!({"blobs": 1, "bytes": 4 * KIB}));
    assert_eq!(json["leftovers"], json!({"blobs": 1, "bytes": KIB}));
    assert_eq!((&json["foreign"], &json["foreign_files"]), (&json!(2), &json!({"blobs": 1, "bytes": 1})));
    assert_eq!(json["used_bytes"], 1334 * KIB);
    assert_eq!(json["largest"][0]["bytes"], 1000 * KIB);
    assert_eq!(json["would_free"][1], json!({"flags": "--older-than 7d", "blobs": 3, "bytes": 1011 * KIB}));
    assert_eq!(cache.tree(), before);
}

#[test]
fn a_layout() {
    let cache = Cache::typical_layout();
    assert_snapshot!(stable(&cache.run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    9.3 KiB in [TMP]/oci
    [DISK] on disk, [ROOM] free

    kind                   files     size
    blobs                     12  9.3 KiB  ##############################
    unreferenced blobs         1  1.0 KiB  ####

    last use               files     size
    within a day              12  9.3 KiB  ##############################

    a prune would free     files     size
    everything                12  9.3 KiB  ##############################
    --max-used-space 5KiB      7  5.8 KiB  ###################
    --unreferenced             1  1.0 KiB  ####

    image     size      own  last use
    app:1  3.4 KiB  2.4 KiB    1h ago  ##############################
    app:2  3.4 KiB  2.4 KiB    1h ago  ##############################
    multi  2.5 KiB  2.5 KiB    1h ago  #######################

    largest blobs           size  last use
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000  1.0 KiB    1h ago  ##############################
    sha256:000000000000    391 B    1h ago  ############
    sha256:000000000000    391 B    1h ago  ############
    --- stderr
    [EOF]
    ");
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    assert_eq!(json["images"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["unreferenced"], json!({"blobs": 1, "bytes": KIB}));
}

#[test]
fn what_an_image_has_of_its_own_goes_with_it() {
    let cache = Cache::typical_layout();
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    let images = json["images"].as_array().cloned().unwrap_or_default();
    assert_eq!(images.len(), 3);
    for image in images {
        let arguments = ["--dry-run", "--format", "json", "--image", image["name"].as_str().unwrap()];
        let freed = cache.prune(&arguments).json();
        let went = (&freed["blobs_freed"], &freed["bytes_freed"]);
        assert_eq!((&image["own_blobs"], &image["own_bytes"]), went, "{image}");
        let idle = image["idle_seconds"].as_u64().unwrap();
        assert!((3600..3700).contains(&idle), "{image}");
    }
}

/// What `cache-usage` shows of a layout with such variables in its environment.
fn shown(cache: &Cache, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut program = support::xtask();
    program
        .args(["cache-usage", "--cache-dir"])
        .arg(cache.path())
        .args(arguments)
        .envs(variables.iter().copied());
    let ran = Ran::of(&mut program, cache.base.path());
    assert_eq!(ran.exit, 0, "{}", ran.block());
    ran.stdout
}

#[test]
fn it_fits_the_screen() {
    let cache = Cache::typical_layout();
    let long = "registry.example.com/platform/payments/api-gateway:2026.11.3";
    cache.write_index(&[support::layout::entry(10, support::layout::MANIFEST, long)]);
    for columns in ["40", "60", "80", "120"] {
        for locale in ["C", "C.UTF-8"] {
            let text = shown(&cache, &[("COLUMNS", columns), ("LC_ALL", locale)], &[]);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns.parse().unwrap(), "{columns}: {text}");
            assert_eq!(text.is_ascii(), locale == "C", "{text}");
            assert_eq!(text.contains(long), columns == "120", "{text}");
        }
    }
    let text = shown(&cache, &[("COLUMNS", "40")], &["-v"]);
    assert!(text.contains(long) && text.contains(&flat(1)), "{text}");
}

#[test]
fn colours_show_only_where_they_are_wanted() {
    let cache = Cache::typical_layout();
    let plain = shown(&cache, &[], &[]);
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = shown(&cache, &[("CLICOLOR_FORCE", "1")], &[]);
    assert!(coloured.contains("\x1b[1m9.3 KiB\x1b[0m in [TMP]/oci\n"), "{coloured}");
    for variables in [&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")][..], &[("CLICOLOR", "1")]] {
        let text = shown(&cache, variables, &[]);
        assert!(!text.contains('\x1b'), "{variables:?}: {text}");
    }
    assert!(!shown(&cache, &[("CLICOLOR_FORCE", "1")], &["--format", "json"]).contains('\x1b'));
    let mut prune = support::xtask();
    prune.args(["cache-prune", "--cache-dir"]).arg(cache.path()).args(["--dry-run", "--keep", "no:1"]);
    let ran = Ran::of(prune.env("CLICOLOR_FORCE", "1"), cache.base.path());
    assert_eq!(ran.stdout, "\x1b[1mwould free 9.3 KiB\x1b[0m across 12 blob(s) in [TMP]/oci\n");
    let warning = "\x1b[33mwarning:\x1b[0m 1 name or digest matches nothing here: `no:1`\n";
    let note = "\x1b[32mnote:\x1b[0m would remove 3 images from `[TMP]/oci/index.json`\n";
    assert_eq!(ran.stderr, format!("{warning}{note}"));
    let refused = Ran::of(
        support::xtask().args(["cache-usage", "--cache-dir", "/"]).env("CLICOLOR_FORCE", "1"),
        cache.base.path(),
    );
    assert!(refused.stderr.starts_with("\x1b[1m\x1b[31merror:\x1b[0m "), "{}", refused.stderr);
}

/// What `cache-usage` shows on a terminal of 40 columns with such variables.
fn shown_on_a_terminal(cache: &Cache, variables: &[(&str, &str)]) -> String {
    let (program, path) = (env!("CARGO_BIN_EXE_xtask"), cache.path());
    let command =
        format!("stty cols 40 rows 24; exec '{program}' cache-usage --cache-dir '{}'", path.display());
    let mut script = support::on_a_terminal(&command);
    let ran = Ran::of(script.envs(variables.iter().copied()), cache.base.path());
    assert_eq!(ran.exit, 0, "{}", ran.block());
    ran.stdout.replace('\r', "")
}

#[test]
fn a_terminal_says_how_wide_it_is_and_whether_it_has_colours() {
    let cache = Cache::typical_layout();
    let coloured = shown_on_a_terminal(&cache, &[]);
    assert!(coloured.contains("\x1b[1m9.3 KiB\x1b[0m in [TMP]/oci\n"), "{coloured}");
    for variable in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let plain = shown_on_a_terminal(&cache, &[variable]);
        let widest = plain.lines().map(str::len).max();
        assert!(!plain.contains('\x1b') && widest <= Some(40), "{variable:?}: {plain}");
        assert!(!plain.contains('#'), "there is no room for bars: {plain}");
    }
}

#[test]
fn each_stream_has_colours_only_if_it_is_a_terminal() {
    let cache = Cache::typical_layout();
    let file = cache.base.path().join("printed");
    for (redirection, is_stdout_shown) in [("> ", false), ("2> ", true)] {
        let command = format!(
            "exec '{}' cache-prune --dry-run --keep no:1 --cache-dir '{}' {redirection}'{}'",
            env!("CARGO_BIN_EXE_xtask"),
            cache.path().display(),
            file.display(),
        );
        let shown = Ran::of(&mut support::on_a_terminal(&command), cache.base.path()).stdout;
        let printed = std::fs::read_to_string(&file).unwrap();
        let (result, warning) = ("would free 9.3 KiB\x1b[0m", "\x1b[33mwarning:\x1b[0m");
        assert!(shown.contains(if is_stdout_shown { result } else { warning }), "{shown}");
        let rest = if is_stdout_shown { "warning: " } else { "would free 9.3 KiB across" };
        assert!(printed.contains(rest) && !printed.contains('\x1b'), "{printed}");
    }
}

#[test]
fn what_is_not_known_of_an_image_is_told() {
    let cache = Cache::layout();
    // Neither is a manifest. The second has another size than the index says.
    cache.write(nested(10), KIB);
    cache.write(nested(20), 5);
    cache.write_index(&[
        support::layout::entry(10, support::layout::MANIFEST, "a\x1b[31m"),
        support::layout::entry(20, support::layout::MANIFEST, "b"),
    ]);
    let text = cache.run("cache-usage", &[]).stdout;
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).expect(&text);
    assert!(row("a\\").contains("  unknown") && row("b ").contains("  1 or more"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn an_empty_and_a_missing_cache() {
    assert_snapshot!(stable(&Cache::new().run("cache-usage", &[])), @"
    exit: 0
    --- stdout
    0 B in [TMP]/oci
    [DISK] on disk, [ROOM] free
    --- stderr
    [EOF]
    ");
    assert_eq!(Cache::missing().run("cache-usage", &[]).exit, 0);
}

#[test]
fn a_check_of_the_budget() {
    let cache = Cache::flat(3, KIB);
    assert_eq!(cache.run("cache-usage", &["--check", "--max-used-space", "3KiB"]).exit, 0);
    let over = cache.run("cache-usage", &["--check", "--max-used-space", "3071B"]);
    assert_eq!(over.exit, 3);
    assert_eq!(over.stderr, "over budget by 1 B: 3.0 KiB used, 3071B allowed\n");
    // A share of the file system.
    for (share, exit) in [("0%", 3), ("100%", 0)] {
        let ran = cache.run("cache-usage", &["--check", "--max-used-space", share]);
        assert_eq!(ran.exit, exit, "{}", ran.block());
    }
    let over = cache.run("cache-usage", &["--check", "--max-used-space", "0%"]);
    assert_eq!(over.stderr, "over budget by 3.0 KiB: 3.0 KiB used, 0% (0 B) allowed\n");
    assert_eq!(cache.run("cache-usage", &["--check"]).exit, 2);
    assert_eq!(cache.run("cache-usage", &["--check", "--max-used-space", "50"]).exit, 2);
    assert_eq!(cache.run("cache-usage", &["--max-used-space", "1B"]).exit, 2);
}

#[test]
fn what_policies_would_free_is_what_they_free() {
    let cache = Cache::flat(4, KIB);
    set_age(&cache.path().join(flat(1)), DAY * 40);
    let json = cache.run("cache-usage", &["--format", "json"]).json();
    for policy in json["would_free"].as_array().cloned().unwrap_or_default() {
        let flags = policy["flags"].as_str().unwrap_or_default().split_whitespace();
        let arguments: Vec<&str> = flags.chain(["--dry-run", "--format", "json"]).collect();
        assert_eq!(cache.prune(&arguments).json()["bytes_freed"], policy["bytes"], "{policy}");
    }
}
