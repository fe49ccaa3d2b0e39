//! The program `oci-cache`: its help and completions use its own name, it has no other commands, and it
//! contains nothing of the workspace and the machine that built it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

const PROGRAM: &str = env!("CARGO_BIN_EXE_oci-cache");

/// Runs the program in an empty environment. Returns the exit code, stdout and stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(PROGRAM).args(arguments).env_clear().stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The stdout of a run that must exit with 0 and print nothing on stderr.
fn stdout(arguments: &[&str]) -> String {
    let (exit, stdout, stderr) = run(arguments);
    assert_eq!((exit, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn the_help() {
    assert_snapshot!(stdout(&["--help"]), @"
    Prune, inspect and verify a local cache of OCI layer blobs

    Usage: oci-cache [COMMAND]

    Commands:
      prune        Free space in the cache, and report in one line what was freed
      usage        Show what is in the cache, by kind, age and size, and what common policies would free
      verify       Hash every blob, and list those whose content does not match their digest
      dir          Print the cache directory that the other commands would use
      completions  Print shell completions
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Exit codes:
      0         done, even if there was nothing to do
      1         not all could be done; what was done is reported
      2         wrong usage, or the directory is refused; the cache was not touched
      3         done, and what was asked about is not so:
                a goal not met, corrupt or missing blobs, over budget
      128 + N   interrupted by signal N:
                SIGHUP (129), SIGINT (130), SIGTERM (143), SIGXCPU (152); what was done is reported
    ");
    assert_eq!(stdout(&[]), stdout(&["--help"]));
    assert_eq!(stdout(&["--version"]), "oci-cache 0.1.0\n");
}

#[test]
fn each_command_s_usage_and_what_it_is_about() {
    let mut heads = String::new();
    for command in ["prune", "usage", "verify", "dir", "completions"] {
        let help = stdout(&[command, "--help"]);
        let (about, rest) = help.split_once("\n\nUsage: ").unwrap();
        heads.push_str(&format!("{}: {about}\n", rest.lines().next().unwrap()));
    }
    assert_snapshot!(heads, @"
    oci-cache prune [OPTIONS]: Free space in the cache: remove blobs and unfinished downloads that nobody uses, and report in one
    line what was freed.

    Without flags, all that is not in use goes. Filters narrow that down; all of them must match. Goals
    stop the prune early: the least recently used goes first. Last use is the later of the last write
    and the last read that the mount recorded.

    While a pull is under way, only what has certainly been idle for --grace goes; the rest stays, and
    the prune says what shows the pull.
    oci-cache usage [OPTIONS]: Show what is in the cache, by kind, age and size, and what common policies would free.

    Of an image, `size` is what it needs, `own` is what goes if only this image is removed, and `holes`
    is how much of it is missing. Partials are unfinished downloads; unreferenced blobs are those that
    no image needs.
    oci-cache verify [OPTIONS]: Hash every blob, and list those whose content does not match their digest
    oci-cache dir [OPTIONS]: Print the cache directory that the other commands would use
    oci-cache completions <SHELL>: Print shell completions
    ");
}

#[test]
fn the_help_of_prune_is_in_groups_and_has_examples() {
    let help = stdout(&["help", "prune"]);
    let headings: Vec<&str> =
        help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    let expected =
        ["Options", "What goes", "When to stop", "Safety", "Output", "Cache", "Examples", "Exit codes"];
    assert_eq!(headings, expected.map(|heading| format!("{heading}:")));
    assert!(help.starts_with("Free space in the cache: "), "{help}");
    assert!(help.contains("\n    oci-cache prune --older-than 7d\n"), "{help}");
    assert_eq!(stdout(&["prune", "--help"]), help);
    assert!(!stdout(&["prune", "-h"]).contains("Examples:"));
}

#[test]
fn each_flag_of_prune_is_in_its_group() {
    let help = stdout(&["prune", "-h"]);
    let mut groups = String::new();
    for line in help.lines() {
        // A description starts further to the right.
        let flag = line.get(..8).and_then(|start| Some(&line[start.find("--")? + 2..]));
        if let Some(name) = flag.and_then(|flag| flag.split(' ').next()) {
            groups.push_str(&format!(" {name}"));
        } else if line.ends_with(':') && !line.starts_with(' ') {
            groups.push_str(&format!("\n{line}"));
        }
    }
    assert_snapshot!(groups.trim_start(), @"
    Options: help
    What goes: older-than unreferenced corrupt image untagged keep keep-from from-plan aside
    When to stop: max-used-space min-free-space
    Safety: dry-run grace watch-first strict
    Output: save-plan github-summary metrics-file format quiet verbose
    Cache: cache-dir wait-timeout
    Exit codes:
    ");
}

#[test]
fn every_help_ends_with_the_exit_codes() {
    let ending = format!("\n\n{}\n", oci_cache_cli::exit::help());
    for command in ["prune", "usage", "verify", "dir", "completions"] {
        for help in ["--help", "-h"] {
            let help = stdout(&[command, help]);
            assert!(help.ends_with(&ending), "{command}: {help}");
        }
    }
    assert!(stdout(&["--help"]).ends_with(&ending));
}

#[test]
fn what_is_wrong_is_told_under_its_name() {
    let told = |arguments: &[&str]| {
        let (exit, stdout, stderr) = run(arguments);
        assert_eq!((exit, stdout.as_str()), (2, ""), "{arguments:?}");
        stderr
    };
    assert_snapshot!(told(&["melt"]), @"
    error: unrecognized subcommand 'melt'

      tip: a similar subcommand exists: 'completions'

    Usage: oci-cache [COMMAND]

    For more information, try '--help'.
    ");
    let tip = |arguments: &[&str]| {
        let told = told(arguments);
        told.lines().find_map(|line| line.strip_prefix("  tip: ")).map(str::to_owned).expect(&told)
    };
    for (arguments, expected) in [
        (&["cache-prune"][..], "a similar subcommand exists: 'prune'"),
        (&["cache-usage"], "a similar subcommand exists: 'usage'"),
        (&["purne"], "a similar subcommand exists: 'prune'"),
        (&["prune", "--dryrun"], "a similar argument exists: '--dry-run'"),
        (&["prune", "--max-used"], "a similar argument exists: '--max-used-space'"),
        (&["gc"], "a similar subcommand exists: 'prune'"),
        (&["ls"], "a similar subcommand exists: 'usage'"),
        (&["prune", "--max-size", "5GB"], "a similar argument exists: '--max-used-space'"),
        (&["prune", "--max-size=5GB"], "a similar argument exists: '--max-used-space'"),
        (&["usage", "--json"], "a similar argument exists: '--format json'"),
        (&["prune", "./cache"], "a similar argument exists: '--cache-dir'"),
    ] {
        assert_eq!(tip(arguments), expected, "{arguments:?}");
    }
    // What frees the whole cache is advised to nobody.
    for near in ["--asid", "--a-side", "--side"] {
        let told = told(&["prune", near]);
        assert!(told.starts_with("error: unexpected argument") && !told.contains("--aside"), "{told}");
    }
    assert_snapshot!(told(&["usage", "--check"]), @"
    error: the following required arguments were not provided:
      --max-used-space <SIZE|PERCENT%>

    Usage: oci-cache usage --check --max-used-space <SIZE|PERCENT%>

    For more information, try '--help'.
    ");
    for command in ["smoke", "torture", "bench", "ci", "cli-docs", "markdown", "cache-prune"] {
        assert!(told(&[command]).starts_with("error: unrecognized subcommand"), "{command}");
    }
}

#[test]
fn completions_are_for_its_name() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("oci-cache") && script.contains("older-than"), "{shell}");
        assert!(!script.contains("xtask") && !script.contains("cache-prune"), "{shell}");
    }
    assert!(stdout(&["completions", "zsh"]).starts_with("#compdef oci-cache\n"));
    for (words, expected) in [
        (&["oci-cache", "ver"][..], "verify"),
        (&["oci-cache", "prune", "--older"], "--older-than"),
        (&["oci-cache", "verify", "--qui"], "--quick --quiet"),
        (&["oci-cache", "completions", "zs"], "zsh"),
    ] {
        assert_eq!(completed_by_bash(words), expected, "{words:?}");
    }
}

/// What bash offers for the last of the words.
fn completed_by_bash(words: &[&str]) -> String {
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let script = format!(
        "source <(\"$PROGRAM\" completions bash); COMP_WORDS=({}); COMP_CWORD={}; _oci__cache oci-cache '{last}' '{before}'; \
         echo \"${{COMPREPLY[*]}}\"",
        words.join(" "),
        words.len() - 1,
    );
    let output = Command::new("bash").args(["-c", &script]).env("PROGRAM", PROGRAM).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_prune_frees_the_blobs_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let cache = base.path().join("oci");
    fs::create_dir_all(cache.join("notes")).unwrap();
    for number in 1..=3 {
        fs::write(cache.join(format!("sha256:{number:064x}")), "x".repeat(1000)).unwrap();
    }
    fs::write(cache.join("notes/read-me"), "mine").unwrap();
    fs::write(base.path().join("beside"), "mine").unwrap();
    let before = tree(base.path());
    let directory = cache.to_str().unwrap();

    let line = stdout(&["prune", "--dry-run", "--quiet", "--cache-dir", directory]);
    assert_eq!(line, format!("would free 2.9 KiB across 3 blob(s) in {directory}\n"));
    assert_eq!(tree(base.path()), before);

    let line = stdout(&["prune", "--quiet", "--cache-dir", directory]);
    assert_eq!(line, format!("freed 2.9 KiB across 3 blob(s) in {directory}\n"));
    let is_left = |entry: &String| !entry.starts_with("oci/sha256:");
    assert_eq!(tree(base.path()), before.into_iter().filter(is_left).collect::<Vec<_>>());
}

#[test]
fn the_home_and_what_holds_it_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let home = base.path().join("oci/me");
    fs::create_dir_all(&home).unwrap();
    fs::write(base.path().join("oci").join(format!("sha256:{:064x}", 1)), "x").unwrap();
    let before = tree(base.path());
    for directory in [home.as_path(), home.parent().unwrap()] {
        for command in ["prune", "usage", "verify"] {
            let mut program = Command::new(PROGRAM);
            program.args([command, "--cache-dir"]).arg(directory).env("HOME", &home);
            let output = program.output().unwrap();
            assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{command}");
        }
    }
    assert_eq!(tree(base.path()), before);
}

#[test]
fn it_names_nothing_of_the_workspace() {
    let program = fs::read(PROGRAM).unwrap();
    assert!(has(&program, "completions"), "the program is not read");
    for word in
        ["xtask", "torture", "cache-prune", "cache-verify", "CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")]
    {
        assert!(!has(&program, word), "{word}");
    }
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Each entry below the directory: path, mode, inode, and for a file its size.
fn tree(base: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(base).sort_by_file_name().into_iter().map(|entry| {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        let size = if data.is_dir() { 0 } else { data.size() };
        let path = entry.path().strip_prefix(base).unwrap().display().to_string();
        format!("{path} {:o} {} {size}", data.mode(), data.ino())
    });
    entries.collect()
}
