//! The example `budget`, run as a program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

fn budget(words: &[&str]) -> Output {
    Command::new(support::example("budget")).args(words).output().unwrap()
}

#[test]
fn the_least_recently_used_blobs_go_until_the_budget_is_met() {
    let base = tempfile::tempdir().unwrap();
    let blob = |number: u64| base.path().join(format!("sha256:{number:064x}"));
    for number in 1..=4 {
        fs::write(blob(number), [b'x'; 1024]).unwrap();
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number);
        let times = FileTimes::new().set_accessed(used).set_modified(used);
        File::open(blob(number)).unwrap().set_times(times).unwrap();
    }
    let path = base.path().to_str().unwrap();
    let output = budget(&[path, "2500"]);
    assert!(output.status.success(), "{output:?}");
    let expected = format!("freed 2.0 KiB across 2 blob(s) in {path}\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!([1, 2, 3, 4].map(|number| blob(number).exists()), [false, false, true, true]);
}

#[test]
fn what_is_no_cache_and_what_is_no_budget_are_refused() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("letters"), "Dear").unwrap();
    let path = base.path().to_str().unwrap();
    for words in [&[path, "0"][..], &[path, "few"], &[path], &["/", "0"]] {
        let output = budget(words);
        assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]), "{words:?}");
    }
    assert!(Path::new(path).join("letters").exists());
}
