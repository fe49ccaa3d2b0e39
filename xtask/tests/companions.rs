//! Files that go with a blob: those of kaniko's warmer and of buildah's cache.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use support::{Cache, KIB, gone, set_age};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn name_of(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Writes an image as kaniko's warmer does: an archive that is named after the manifest beside it. Returns both paths.
fn write_warmed(cache: &Cache, number: u8) -> [PathBuf; 2] {
    let manifest = format!(r#"{{"schemaVersion":2,"layers":[],"annotations":{{"number":"{number}"}}}}"#);
    let name = name_of(manifest.as_bytes());
    let archive = cache.write_content(&name, &vec![number; 4 * KIB]);
    [archive, cache.write_content(format!("{name}.json"), manifest.as_bytes())]
}

/// Writes a layer in both forms as buildah does, with a note beside each, and an image's configuration. Returns the
/// paths: compressed, its note, uncompressed, its note, configuration.
fn write_buildahs(cache: &Cache) -> [PathBuf; 5] {
    let (compressed, plain, config) = ([1; KIB], [2; 3 * KIB], br#"{"architecture":"amd64"}"#);
    let (compressed_name, plain_name) = (name_of(&compressed), name_of(&plain));
    [
        cache.write_content(&compressed_name, &compressed),
        cache.write_content(format!("{compressed_name}.decompressed"), plain_name.as_bytes()),
        cache.write_content(&plain_name, &plain),
        cache.write_content(format!("{plain_name}.compressed"), compressed_name.as_bytes()),
        cache.write_content(format!("{}.config", name_of(config)), config),
    ]
}

fn file_names(paths: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> =
        paths.iter().map(|path| format!("oci/{}", path.file_name().unwrap().to_str().unwrap())).collect();
    names.sort_unstable();
    names
}

fn exist(paths: &[PathBuf]) -> Vec<bool> {
    paths.iter().map(|path| path.exists()).collect()
}

#[test]
fn everything_goes_and_is_counted() {
    let cache = Cache::new();
    write_warmed(&cache, 1);
    write_buildahs(&cache);
    cache.write("warmingImage.1234567890", KIB);
    cache.write("warmingManifest.987654321", 0);
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "freed 9.2 KiB across 9 blob(s) in [TMP]/oci\n"));
    assert!(cache.path().read_dir().unwrap().next().is_none());
    assert_eq!(cache.prune(&[]).exit, 0);
}

#[test]
fn a_blob_and_its_companions_have_one_age() {
    let cache = Cache::new();
    let (old, used) = (write_warmed(&cache, 1), write_warmed(&cache, 2));
    for path in old.iter().chain(&used) {
        set_age(path, 3 * DAY);
    }
    // Only the manifest was read lately.
    set_age(&used[1], DAY);
    let before = cache.tree();
    let ran = cache.prune(&["--older-than", "2d"]);
    assert_eq!((ran.exit, gone(&before, &cache.tree())), (0, file_names(&old)), "{}", ran.block());
    // A goal takes both, although the blob alone would do.
    let before = cache.tree();
    let ran = cache.prune(&["--max-used-space", "1KiB"]);
    assert_eq!((ran.exit, gone(&before, &cache.tree())), (0, file_names(&used)), "{}", ran.block());
}

#[test]
fn companions_of_an_open_blob_stay() {
    let cache = Cache::new();
    let (open, other) = (write_buildahs(&cache), write_warmed(&cache, 1));
    let reader = File::open(&open[2]).unwrap();
    let ran = cache.prune(&["--grace", "0s"]);
    assert_eq!(exist(&open), [false, false, true, true, false], "{}", ran.block());
    assert_eq!((ran.exit, exist(&other)), (0, vec![false, false]));
    assert!(ran.stderr.contains("kept 2 blobs"), "{}", ran.stderr);
    drop(reader);
    assert_eq!((cache.prune(&[]).exit, exist(&open)), (0, vec![false; 5]));
}

#[test]
fn a_pin_holds_the_unit() {
    let cache = Cache::new();
    let (pinned, other) = (write_warmed(&cache, 1), write_warmed(&cache, 2));
    let digest = pinned[0].file_name().unwrap().to_str().unwrap();
    let ran = cache.prune(&["--keep", digest]);
    assert_eq!((ran.exit, exist(&pinned), exist(&other)), (0, vec![true; 2], vec![false; 2]));
}

#[test]
fn a_companion_without_its_blob_is_a_blob() {
    let cache = Cache::new();
    let [archive, manifest] = write_warmed(&cache, 1);
    std::fs::rename(archive, cache.base.path().join("elsewhere")).unwrap();
    assert_eq!(cache.run("cache-verify", &[]).exit, 0);
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, manifest.exists()), (0, false), "{}", ran.block());
}

#[test]
fn an_archive_is_judged_by_its_manifest() {
    let cache = Cache::new();
    write_warmed(&cache, 1);
    write_buildahs(&cache);
    let before = cache.tree();
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!((ran.exit, cache.tree()), (0, before), "{}", ran.block());
    assert!(ran.stdout.contains("verified 4.1 KiB across 4 blob(s)"), "{}", ran.stdout);
}

#[test]
fn what_hashes_to_no_name_is_corrupt_and_goes_whole() {
    let cache = Cache::new();
    let warmed = write_warmed(&cache, 1);
    let good = write_warmed(&cache, 2);
    let buildahs = write_buildahs(&cache);
    truncate(&warmed[1]);
    truncate(&buildahs[0]);
    truncate(&buildahs[4]);
    let before = cache.tree();
    let ran = cache.run("cache-verify", &[]);
    assert_eq!((ran.exit, cache.tree()), (3, before.clone()), "{}", ran.block());
    let ran = cache.run("cache-verify", &["--prune"]);
    let doomed = [&warmed[..], &buildahs[..2], &buildahs[4..]].concat();
    assert_eq!((ran.exit, gone(&before, &cache.tree())), (0, file_names(&doomed)), "{}", ran.block());
    assert_eq!(exist(&good), [true, true]);
}

/// Cuts a file in half. Its times stay.
fn truncate(path: &Path) {
    let content = std::fs::read(path).unwrap();
    std::fs::write(path, &content[..content.len() / 2]).unwrap();
    set_age(path, Duration::from_secs(3600));
}

#[test]
fn a_saved_plan_names_companions_and_keeps_units_whole() {
    let cache = Cache::new();
    let (unchanged, changed) = (write_warmed(&cache, 1), write_warmed(&cache, 2));
    let plan = cache.base.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    assert_eq!(cache.prune(&["--dry-run", "--save-plan", plan]).exit, 0);
    truncate(&changed[1]);
    let ran = cache.prune(&["--from-plan", plan]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert_eq!((exist(&unchanged), exist(&changed)), (vec![false; 2], vec![true; 2]), "{}", ran.block());
}

#[test]
fn a_unit_that_goes_makes_up_for_one_that_is_open() {
    let cache = Cache::new();
    let warmed = [1, 2, 3].map(|number| write_warmed(&cache, number));
    for (paths, days) in warmed.iter().zip([3, 2, 1]) {
        paths.iter().for_each(|path| set_age(path, days * DAY));
    }
    let open = File::open(&warmed[0][0]).unwrap();
    let ran = cache.prune(&["--max-used-space", "9KiB", "--grace", "0s"]);
    let exist = warmed.each_ref().map(|paths| exist(paths));
    assert_eq!(exist, [vec![true; 2], vec![false; 2], vec![true; 2]], "{}", ran.block());
    drop(open);
}

#[test]
fn while_a_pull_is_under_way_a_blob_stays_whose_companion_was_used_lately() {
    let cache = Cache::new();
    let (used, idle) = (write_warmed(&cache, 1), write_warmed(&cache, 2));
    used.iter().chain(&idle).for_each(|path| set_age(path, DAY));
    set_age(&used[1], Duration::from_secs(60));
    let pull = File::open(cache.write("oci-put-blob42", KIB)).unwrap();
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, exist(&used), exist(&idle)), (0, vec![true; 2], vec![false; 2]), "{}", ran.block());
    drop(pull);
}

#[test]
fn of_units_of_the_same_age_the_larger_as_a_whole_goes_first() {
    let cache = Cache::new();
    let units = [(6, 0), (1, 6)].map(|(of_blob, of_note)| {
        let content = vec![of_note; of_blob * KIB];
        let blob = cache.write_content(name_of(&content), &content);
        let note = cache
            .write_content(format!("{}.compressed", name_of(&content)), &vec![0; usize::from(of_note) * KIB]);
        [blob, note]
    });
    let time = std::time::SystemTime::UNIX_EPOCH + DAY;
    let times = std::fs::FileTimes::new().set_accessed(time).set_modified(time);
    units.iter().flatten().for_each(|path| File::open(path).unwrap().set_times(times).unwrap());
    let ran = cache.prune(&["--max-used-space", "7KiB"]);
    assert_eq!(units.each_ref().map(|unit| exist(unit)), [vec![true; 2], vec![false; 2]], "{}", ran.block());
}

#[test]
fn a_configuration_has_no_companions() {
    let cache = Cache::new();
    let name = name_of(b"{}");
    let config = cache.write_content(format!("{name}.config"), b"{}");
    let note = cache.write_content(format!("{name}.compressed"), b"x");
    let open = File::open(&config).unwrap();
    let ran = cache.prune(&["--grace", "0s"]);
    assert_eq!(exist(&[config, note]), [true, false], "{}", ran.block());
    drop(open);
}

/// As root, the blobs are another user's, and this verification may not read them without a trace.
#[test]
fn what_the_verification_itself_reads_is_not_in_use() {
    let cache = Cache::new();
    let [archive, manifest] = write_warmed(&cache, 1);
    truncate(&manifest);
    for path in [&archive, &manifest] {
        // Fails for any user but root, whose blobs they then are.
        let _ = std::os::unix::fs::chown(path, Some(65534), None);
    }
    let ran = cache.run_unprivileged("cache-verify", &["--prune", "--grace", "0s"]);
    assert_eq!((ran.exit, exist(&[archive, manifest])), (0, vec![false; 2]), "{}", ran.block());
}

#[test]
fn a_blob_stays_whose_companion_is_open() {
    let cache = Cache::new();
    let warmed = write_warmed(&cache, 1);
    warmed.iter().for_each(|path| set_age(path, 3 * DAY));
    let open = File::open(&warmed[1]).unwrap();
    for arguments in [&[][..], &["--grace", "0s"], &["--older-than", "1d"]] {
        let ran = cache.prune(arguments);
        assert_eq!((ran.exit, exist(&warmed)), (0, vec![true, true]), "{}", ran.block());
        assert!(ran.stderr.contains("kept 2 blobs"), "{}", ran.block());
    }
    drop(open);
    assert_eq!((cache.prune(&[]).exit, exist(&warmed)), (0, vec![false; 2]));
}

#[test]
fn what_was_just_written_goes_whole() {
    let cache = Cache::new();
    let files = [&write_warmed(&cache, 1)[..], &write_buildahs(&cache)].concat();
    files.iter().for_each(|path| set_age(path, Duration::from_secs(60)));
    let ran = cache.prune(&[]);
    assert_eq!((ran.exit, exist(&files)), (0, vec![false; 7]), "{}", ran.block());
}

#[test]
fn companions_that_go_make_up_for_no_corrupt_blob_that_stays() {
    let cache = Cache::new();
    let [compressed, _, plain, ..] = write_buildahs(&cache);
    truncate(&compressed);
    truncate(&plain);
    let open = File::open(&plain).unwrap();
    let ran = cache.run("cache-verify", &["--prune", "--grace", "0s"]);
    assert_eq!((ran.exit, compressed.exists(), plain.exists()), (3, false, true), "{}", ran.block());
    drop(open);
    assert_eq!(cache.run("cache-verify", &["--prune"]).exit, 0);
}
