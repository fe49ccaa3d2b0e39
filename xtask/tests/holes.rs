//! Holes: what the index leads to, and is not there, or not as it is described.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};

use serde_json::{Value, json};
use support::image::{describe, named, path_of, with};
use support::layout::MANIFEST;
use support::{Cache, gone};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layout with one whole image, named `intact`, and its entry.
fn layout() -> (Cache, Value) {
    let cache = Cache::layout();
    let config = cache.add(CONFIG, b"{}");
    let layer = cache.add(LAYER, b"layer");
    let entry = named(cache.add_manifest(&config, &[layer]), "intact");
    (cache, entry)
}

fn index_of(cache: &Cache) -> Value {
    serde_json::from_slice(&fs::read(cache.path().join("index.json")).unwrap()).unwrap()
}

#[test]
fn an_entry_without_its_manifest_is_found_and_taken_out() {
    let (cache, whole) = layout();
    let dangling = named(describe(MANIFEST, b"nowhere"), "app:1");
    cache.write_index(&[dangling.clone(), whole.clone()]);
    let before = cache.tree();
    let ran = cache.run("cache-verify", &[]);
    assert_eq!((ran.exit, cache.tree()), (3, before.clone()), "{}", ran.block());
    let digest = dangling["digest"].as_str().unwrap();
    let line = format!("hole: the index has an entry `app:1`, but {digest} is not there\n");
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    assert_eq!(ran.stdout, "verified 399 B across 3 blob(s) in [TMP]/oci: 0 corrupt, 1 hole\n");
    assert_eq!(last_figure_of(&cache, "app:1"), "1");

    // A pull that is under way may be about to write the manifest.
    let open = File::open(cache.path().join(path_of(&whole))).unwrap();
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!((ran.exit, cache.tree()), (3, before), "{}", ran.block());
    drop(open);

    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!((ran.exit, index_of(&cache)["manifests"].clone()), (0, json!([whole])), "{}", ran.block());
    assert!(ran.stderr.contains("removed 1 image from"), "{}", ran.stderr);
    assert_eq!(cache.run("cache-verify", &[]).exit, 0);
}

#[test]
fn a_manifest_without_what_it_needs_is_found_and_stays() {
    let (cache, whole) = layout();
    let absent = describe(LAYER, b"absent");
    let holed = named(cache.add_manifest(&cache.add(CONFIG, b"{}"), std::slice::from_ref(&absent)), "holed");
    cache.write_index(&[holed.clone(), whole]);
    let before = cache.tree();
    for arguments in [&[][..], &["--prune"], &["--quick"]] {
        let ran = cache.run("cache-verify", arguments);
        assert_eq!((ran.exit, cache.tree()), (3, before.clone()), "{}", ran.block());
        let (manifest, layer) = (holed["digest"].as_str().unwrap(), absent["digest"].as_str().unwrap());
        let line = format!("hole: manifest {manifest} needs {layer}, which is not there\n");
        assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    }
    let json = cache.run("cache-verify", &["--format", "json"]).json();
    let hole = json!({"kind": "absent_blob", "manifest": holed["digest"], "digest": absent["digest"]});
    assert_eq!(json["holes"], json!([hole]));
    let told = ["holed", "intact"].map(|image| last_figure_of(&cache, image));
    assert_eq!(told, ["1", "ago"], "an intact image has no number of holes");
}

#[test]
fn a_size_unlike_its_descriptors_is_found() {
    let cache = Cache::layout();
    let layer = with(cache.add(LAYER, b"layer"), "size", json!(6));
    let entry = named(cache.add_manifest(&cache.add(CONFIG, b"{}"), std::slice::from_ref(&layer)), "app");
    cache.write_index(&[entry]);
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!(ran.exit, 3, "{}", ran.block());
    assert_eq!(last_figure_of(&cache, "app"), "1");
    let line =
        format!("hole: `[TMP]/oci/{}` has 5 bytes, but its descriptor says 6 bytes\n", path_of(&layer));
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    // Once it is known to be corrupt, it is not told twice.
    cache.write_content(path_of(&layer), b"lay");
    let before = cache.tree();
    let ran = cache.run("cache-verify", &[]);
    assert!(ran.exit == 3 && !ran.stderr.contains("hole"), "{}", ran.stderr);
    // Its image goes with it, from the index and from the disk.
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!((ran.exit, index_of(&cache)["manifests"].clone()), (0, json!([])), "{}", ran.block());
    let left: Vec<&str> = before.lines().filter(|line| !line.ends_with("index.json")).collect();
    let tree = cache.tree();
    let after: Vec<&str> = tree.lines().filter(|line| !line.ends_with("index.json")).collect();
    assert_eq!(gone(&left.join("\n"), &after.join("\n")), [format!("oci/{}", path_of(&layer))]);
}

#[test]
fn what_a_tool_keeps_of_no_image_is_no_hole_unless_the_image_has_a_name() {
    for (keeps_config, name, holes) in
        [(true, None, false), (false, None, false), (true, Some("app"), true), (false, Some("app"), true)]
    {
        let cache = Cache::layout();
        let (config, layer) = (describe(CONFIG, b"{}"), describe(LAYER, b"layer"));
        let kept = if keeps_config { cache.add(CONFIG, b"{}") } else { cache.add(LAYER, b"layer") };
        let entry = cache.add_manifest(&config, std::slice::from_ref(&layer));
        cache.write_index(&[name.map_or(entry.clone(), |name| named(entry, name))]);
        let ran = cache.run("cache-verify", &[]);
        assert_eq!(ran.exit, if holes { 3 } else { 0 }, "{kept} {name:?} {}", ran.block());
    }
    // Most images have their configs, so the layout keeps configs.
    let cache = Cache::layout();
    let layer = cache.add(LAYER, b"layer");
    let image = |config: &Value| cache.add_manifest(config, std::slice::from_ref(&layer));
    let whole = [image(&cache.add(CONFIG, b"{}")), image(&cache.add(CONFIG, b"{ }"))];
    let holed = image(&describe(CONFIG, b"{\"lost\":1}"));
    cache.write_index(&[&whole[..], &[holed]].concat());
    let ran = cache.run("cache-verify", &[]);
    assert_eq!(ran.exit, 3, "{}", ran.block());
    assert!(ran.stdout.ends_with("0 corrupt, 1 hole\n"), "{}", ran.stdout);
}

#[test]
fn what_a_link_stands_for_is_not_missed_and_may_lead_to_anything() {
    let (cache, entry) = layout();
    cache.write_index(std::slice::from_ref(&entry));
    let stray = cache.add(LAYER, b"stray");
    let manifest = cache.path().join(path_of(&entry));
    fs::rename(&manifest, cache.base.path().join("manifest")).unwrap();
    std::os::unix::fs::symlink(cache.base.path().join("manifest"), &manifest).unwrap();
    let before = cache.tree();
    for arguments in [&["--prune"][..], &[]] {
        let ran = cache.run("cache-verify", arguments);
        assert_eq!((ran.exit, cache.tree()), (0, before.clone()), "{}", ran.block());
        assert!(!ran.stderr.contains("not there"), "{}", ran.stderr);
    }
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.tree()), (0, before), "{}", ran.block());
    assert!(cache.path().join(path_of(&stray)).exists());
}

#[test]
fn what_need_not_be_there_is_no_hole() {
    let (cache, whole) = layout();
    let config = cache.add(CONFIG, b"{}");
    let elsewhere = with(describe(LAYER, b"elsewhere"), "urls", json!(["https://example.com/layer"]));
    let embedded = with(describe(LAYER, b"embedded"), "data", json!("ZW1iZWRkZWQ="));
    let foreign = describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"foreign");
    let kept = describe("application/vnd.oci.image.layer.nondistributable.v1.tar", b"kept");
    let image = cache.add_manifest(&config, &[elsewhere, embedded, foreign, kept]);
    // Of this platform only the manifest was pulled, and of the last not even that.
    let sparse = cache.add_manifest(&describe(CONFIG, b"far"), &[describe(LAYER, b"away")]);
    let index = cache.add_index(&[image, sparse, describe(MANIFEST, b"never pulled")]);
    cache.write_index(&[named(index, "all"), whole]);
    let ran = cache.run("cache-verify", &[]);
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert!(!ran.stderr.contains("hole") && !ran.stdout.contains("hole"), "{}", ran.block());
    assert!(!cache.run("cache-usage", &[]).stdout.contains("hole"));
}

#[test]
fn a_size_above_or_below_its_descriptors_is_found() {
    for size in [4, 6] {
        let cache = Cache::layout();
        let layer = with(cache.add(LAYER, b"layer"), "size", json!(size));
        cache.write_index(&[named(cache.add_manifest(&cache.add(CONFIG, b"{}"), &[layer]), "app")]);
        let ran = cache.run("cache-verify", &[]);
        assert_eq!(ran.exit, 3, "{}", ran.block());
        let line = format!("has 5 bytes, but its descriptor says {size} bytes\n");
        assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    }
    // So is one in the index itself.
    let (cache, entry) = layout();
    cache.write_index(&[with(entry, "size", json!(1))]);
    assert_eq!(cache.run("cache-verify", &[]).exit, 3);
}

#[test]
fn what_is_needed_twice_is_missed_once_and_is_not_found_beside_the_layout() {
    let (cache, _) = layout();
    let absent = describe(LAYER, b"absent");
    let layers = [absent.clone(), absent.clone()];
    cache.write_index(&[named(cache.add_manifest(&cache.add(CONFIG, b"{}"), &layers), "app")]);
    // A blob of a flat cache is none of the layout's.
    cache.write_content(absent["digest"].as_str().unwrap(), b"absent");
    let ran = cache.run("cache-verify", &[]);
    assert!(ran.exit == 3 && ran.stdout.ends_with("0 corrupt, 1 hole\n"), "{}", ran.block());
}

#[test]
fn a_layer_among_the_manifests_of_an_index_is_missed() {
    let (cache, _) = layout();
    let (here, absent) = (cache.add(LAYER, b"here"), describe(LAYER, b"absent"));
    cache.write_index(&[named(cache.add_index(&[here, absent]), "cache")]);
    let ran = cache.run("cache-verify", &[]);
    assert!(ran.exit == 3 && ran.stdout.ends_with("0 corrupt, 1 hole\n"), "{}", ran.block());
}

#[test]
fn a_link_in_the_place_of_a_layer_hides_nothing_and_one_in_that_of_a_manifest_keeps_what_lists_it() {
    let link = |cache: &Cache, blob: &Value| {
        let (path, away) = (cache.path().join(path_of(blob)), cache.base.path().join("away"));
        fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(away, path).unwrap();
    };
    let cache = Cache::layout();
    let layer = cache.add(LAYER, b"layer");
    let manifest = cache.add_manifest(&cache.add(CONFIG, b"{}"), std::slice::from_ref(&layer));
    cache.write_index(&[named(manifest, "app")]);
    let stray = cache.add(LAYER, b"stray");
    link(&cache, &layer);
    assert_eq!(cache.run("cache-verify", &[]).exit, 0);
    let before = cache.tree();
    let ran = cache.prune(&["--unreferenced"]);
    let gone = gone(&before, &cache.tree());
    assert_eq!((ran.exit, gone), (0, vec![format!("oci/{}", path_of(&stray))]), "{}", ran.block());

    let (cache, manifest) = layout();
    cache.write_index(&[named(cache.add_index(std::slice::from_ref(&manifest)), "all")]);
    link(&cache, &manifest);
    let before = cache.tree();
    let ran = cache.prune(&["--older-than", "1s"]);
    assert_eq!((ran.exit, cache.tree()), (0, before), "{}", ran.block());
}

#[test]
fn where_not_all_can_be_seen_nothing_is_missed() {
    let (cache, entry) = layout();
    cache.write_index(&[entry]);
    let blobs = cache.path().join("blobs/sha256");
    fs::rename(&blobs, cache.base.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(cache.base.path().join("elsewhere"), &blobs).unwrap();
    let before = cache.tree();
    let ran = cache.run("cache-verify", &["--prune"]);
    assert_eq!((ran.exit, cache.tree()), (1, before), "{}", ran.block());
    assert!(!ran.stderr.contains("hole") && !ran.stdout.contains("hole"), "{}", ran.block());
}

#[test]
fn what_a_descriptor_embeds_may_lead_to_anything() {
    let (cache, entry) = layout();
    let manifest = cache.path().join(path_of(&entry));
    fs::rename(&manifest, cache.base.path().join("manifest")).unwrap();
    cache.write_index(&[with(entry, "data", json!("e30="))]);
    let before = cache.tree();
    for (command, arguments) in [("cache-prune", &["--unreferenced"][..]), ("cache-verify", &["--prune"])] {
        let ran = cache.run(command, arguments);
        assert_eq!((ran.exit, cache.tree()), (0, before.clone()), "{}", ran.block());
    }
}

#[test]
fn a_blob_that_is_a_layer_and_a_manifest_is_read() {
    let (cache, entry) = layout();
    let index = cache.add_index(&[entry.clone(), with(entry, "mediaType", json!("application/x"))]);
    cache.write_index(&[index]);
    let before = cache.tree();
    let ran = cache.prune(&["--unreferenced"]);
    assert_eq!((ran.exit, cache.tree()), (0, before), "{}", ran.block());
}

#[test]
fn what_cannot_be_read_is_told() {
    let (cache, entry) = layout();
    for index in ["{\"manifests\": [{", "{\"manifests\": [{\"digest\": \"x\"}]}"] {
        cache.write_content("index.json", index.as_bytes());
        let ran = cache.run("cache-verify", &[]);
        assert_eq!(ran.exit, 1, "{}", ran.block());
        assert!(ran.stderr.contains("error: read "), "{}", ran.stderr);
    }
    // Of a corrupt manifest it is enough to say that.
    cache.write_index(std::slice::from_ref(&entry));
    cache.write_content(path_of(&entry), b"{");
    let ran = cache.run("cache-verify", &[]);
    assert!(ran.exit == 3 && !ran.stderr.contains("error"), "{}", ran.block());
}

/// What `cache-usage` says last of an image, before its bar: how many holes it has, if any, else its last use.
fn last_figure_of(cache: &Cache, image: &str) -> String {
    let usage = cache.run("cache-usage", &[]).stdout;
    let line = usage.lines().find(|line| line.split(' ').next() == Some(image)).expect(&usage);
    line.trim_end_matches(['#', ' ']).rsplit(' ').next().unwrap().to_owned()
}
