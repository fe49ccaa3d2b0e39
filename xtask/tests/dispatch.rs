//! What `xtask` and the program's shell add to the commands: arguments passed on, workspaces refused, signals,
//! and the metrics of a run that failed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Cache, KIB, flat, set_age};

const DAY: Duration = Duration::from_secs(24 * 3600);
const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

#[test]
fn smoke_torture_and_bench_pass_everything_on() {
    let target = tempfile::tempdir().unwrap();
    for directory in ["debug", "release"] {
        fs::create_dir(target.path().join(directory)).unwrap();
    }
    let programs = target.path().join("release");
    let (own, proof) = (target.path().join("debug/xtask"), programs.join("oci-cache-proof"));
    fs::copy(XTASK, &own).unwrap();
    fs::write(&proof, "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&proof, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |name: &str, given: &[&str], cargo: &str| {
        let output = Command::new(&own).arg(name).args(given).env("CARGO", cargo).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for name in ["smoke", "torture", "bench"] {
        for given in [&[][..], &["--help"], &["-V"], &["--jobs", "4", "--only=x", "y"], &["a", "--", "b"]] {
            let passed: String = given.iter().map(|argument| format!("<{argument}>")).collect();
            let expected = format!("<--program><{}><{name}>{passed}", programs.join("oci-cache").display());
            assert_eq!(run(name, given, "/bin/true"), (Some(7), expected));
        }
    }
    assert_eq!(run("smoke", &[], "/bin/false"), (Some(1), String::new()), "the build failed");
}

#[test]
fn a_command_of_the_installed_program_is_told_by_its_name_here() {
    for (given, meant) in [("prune", "cache-prune"), ("usage", "cache-usage"), ("verify", "cache-verify")] {
        let output = Command::new(XTASK).arg(given).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("a similar subcommand exists: '{meant}'\n")), "{told}");
    }
    let help = Command::new(XTASK).args(["cache-prune", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("\n    cargo xtask cache-prune --older-than 7d\n"), "{help}");
    assert!(!help.contains("oci-cache prune"), "{help}");
}

#[test]
fn both_workspaces_are_refused_by_every_command() {
    let base = tempfile::tempdir().unwrap();
    let workspace = base.path().join("workspace");
    fs::create_dir_all(workspace.join("xtask")).unwrap();
    fs::write(workspace.join(flat(1)), "x").unwrap();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for command in ["cache-prune", "cache-usage", "cache-verify"] {
        for (directory, manifest) in [(workspace.as_path(), Some(workspace.join("xtask"))), (built, None)] {
            let mut program = Command::new(XTASK);
            program.args([command, "--cache-dir"]).arg(directory).env("HOME", base.path().join("home"));
            program.env_remove("CARGO_MANIFEST_DIR");
            program.envs(manifest.map(|manifest| ("CARGO_MANIFEST_DIR", manifest)));
            let output = program.output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command}: {told}");
            assert!(told.contains("contains, the protected directory"), "{command}: {told}");
        }
    }
    assert!(workspace.join(flat(1)).exists());
}

#[test]
fn a_signal_ends_the_wait_for_the_lock() {
    support::let_children_heed_hangups();
    let cache = Cache::flat(1, KIB);
    let lock = File::open(cache.path()).unwrap();
    lock.lock().unwrap();
    for (signal, exit) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129), ("-XCPU", 152)] {
        for command in [&["cache-prune"][..], &["cache-verify", "--prune"]] {
            let mut program = Command::new(XTASK);
            program.args(command).args(["--format", "json", "--cache-dir"]).arg(cache.path());
            program.env("HOME", "/nonexistent").stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = program.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
            assert!(line.starts_with("waiting up to 5m"), "{line}");
            let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
            assert!(sent.success());
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(exit), "{command:?}");
            if command.len() == 1 {
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!((&report["interrupted"], &report["blobs_freed"]), (&true.into(), &0.into()));
            }
        }
    }
    assert!(cache.path().join(flat(1)).exists());
}

#[test]
fn metrics_say_what_is_left_and_do_not_hide_why_the_run_failed() {
    let cache = Cache::flat(2, KIB);
    for number in [1, 2] {
        set_age(&cache.path().join(flat(number)), 2 * DAY);
    }
    let run = |metrics: &Path, extra: &[&str]| {
        let mut arguments = vec!["--metrics-file", metrics.to_str().unwrap()];
        arguments.extend_from_slice(extra);
        cache.prune(&arguments)
    };
    let lock = File::open(cache.path()).unwrap();
    lock.lock().unwrap();
    let ran = run(Path::new("/nonexistent/metrics"), &["--wait-timeout", "0s"]);
    assert!(ran.stderr.contains("holds the lock"), "{}", ran.stderr);
    lock.unlock().unwrap();
    let _open = File::open(cache.path().join(flat(1))).unwrap();
    let metrics = cache.base.path().join("metrics");
    let ran = run(&metrics, &[]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert!(fs::read_to_string(&metrics).unwrap().contains(",command=\"prune\"} 1024\n"));
}
