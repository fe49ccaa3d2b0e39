//! What is kept by name or digest, and to which images a prune is narrowed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::image::{named, with};
use support::{Cache, KIB, flat};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layout with three images: `app:1` and `docker.io/library/tool:latest`, which share a layer, and one without a name.
struct Images {
    cache: Cache,
    /// The entry, the config, the own layer of each.
    images: [[Value; 3]; 3],
    shared: Value,
}

impl Images {
    fn new() -> Self {
        let cache = Cache::layout();
        let shared = cache.add(LAYER, b"shared");
        let image = |number: u8, layers: &[&Value]| {
            let config = cache.add(CONFIG, format!(r#"{{"number":{number}}}"#).as_bytes());
            let own = cache.add(LAYER, &[number; 100]);
            let layers: Vec<Value> = layers.iter().copied().chain([&own]).cloned().collect();
            [cache.add_manifest(&config, &layers), config, own]
        };
        let mut images = [image(1, &[&shared]), image(2, &[&shared]), image(3, &[])];
        images[0][0] = named(images[0][0].clone(), "app:1");
        images[1][0] = with(
            images[1][0].clone(),
            "annotations",
            json!({"io.containerd.image.name": "docker.io/library/tool:latest"}),
        );
        cache.write_index(&images.each_ref().map(|image| image[0].clone()));
        cache.write("blobs/sha256/not-a-blob", KIB);
        Self { cache, images, shared }
    }

    /// Which of the images are whole, by position. Panics if another is there in part.
    fn left(&self) -> Vec<usize> {
        let index: Value =
            serde_json::from_slice(&fs::read(self.cache.path().join("index.json")).unwrap()).unwrap();
        let exists = |blob: &Value| self.cache.path().join(support::image::path_of(blob)).exists();
        let mut left = Vec::new();
        for (position, image) in self.images.iter().enumerate() {
            let there = image.iter().filter(|blob| exists(blob)).count();
            let is_entered = index["manifests"].as_array().unwrap().contains(&image[0]);
            assert!(there == if is_entered { 3 } else { 0 }, "image {position}: {there}, {is_entered}");
            left.extend((there == 3).then_some(position));
        }
        assert_eq!(exists(&self.shared), left.iter().any(|position| *position < 2));
        left
    }
}

fn digest(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_name_or_any_digest_of_an_image_keeps_it_whole() {
    let hex = |descriptor: &Value| digest(descriptor).replace("sha256:", "");
    type PinOf = fn(&Images) -> String;
    let pins: [(PinOf, &[usize]); 9] = [
        (|_| "app:1".into(), &[0]),
        (|_| "tool".into(), &[1]),
        (|_| "docker.io/library/tool:latest".into(), &[1]),
        (|all| digest(&all.images[0][0]), &[0]),
        (|all| digest(&all.images[1][1]), &[1]),
        (|all| digest(&all.images[2][2]), &[2]),
        (|all| digest(&all.shared), &[0, 1]),
        (|all| format!("elsewhere/app@{}", digest(&all.images[2][0])), &[2]),
        (|all| format!("app:1@{}", digest(&all.images[2][0])), &[0, 2]),
    ];
    for (pin, expected) in pins {
        let all = Images::new();
        let pin = pin(&all);
        let ran = all.cache.prune(&["--keep", &pin]);
        assert_eq!((ran.exit, all.left()), (0, expected.to_vec()), "{pin}: {}", ran.block());
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
    let all = Images::new();
    let ran = all.cache.prune(&["--keep", &hex(&all.images[0][1])]);
    assert_eq!((ran.exit, all.left()), (0, vec![0]), "{}", ran.block());
}

#[test]
fn what_matches_nothing_is_named() {
    let all = Images::new();
    let absent = format!("sha256:{:064x}", 7);
    let arguments = ["--dry-run", "--keep", "app:2", "--keep", &absent, "--keep", "app:1"];
    let ran = all.cache.prune(&arguments);
    let warning = format!("warning: 2 names or digests match nothing here: `app:2`, `{absent}`\n");
    assert!(ran.exit == 0 && ran.stderr.contains(&warning), "{}", ran.block());
    let json = all.cache.prune(&[&arguments[..], &["--format", "json"]].concat()).json();
    assert_eq!(json["unmatched"], json!({"count": 2, "first": ["app:2", absent]}));
    // Of a name with a digest, one that matches is enough. Otherwise it is told once, by its name.
    let (half, none) = (format!("app:1@{absent}"), format!("gone:1@{absent}"));
    let ran = all.cache.prune(&["--dry-run", "--keep", &half]);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let ran = all.cache.prune(&["--dry-run", "--keep", &none, "--keep", &none]);
    assert!(
        ran.stderr.contains("warning: 1 name or digest matches nothing here: `gone:1`\n"),
        "{}",
        ran.stderr
    );
    let list = all.cache.base.path().join("list");
    fs::write(&list, &none).unwrap();
    let ran = all.cache.prune(&["--dry-run", "--keep-from", list.to_str().unwrap()]);
    assert!(
        ran.stderr.contains("warning: 1 name or digest matches nothing here: `gone:1`\n"),
        "{}",
        ran.stderr
    );
    // A flat cache has no names.
    let cache = Cache::flat(1, KIB);
    let ran = cache.prune(&["--keep", &flat(1), "--keep", "app"]);
    assert!(
        ran.stderr.contains("warning: 1 name or digest matches nothing here: `app`\n"),
        "{}",
        ran.block()
    );
    assert!(cache.path().join(flat(1)).exists());
}

#[test]
fn lists_of_tools_keep_what_they_list() {
    type ListOf = fn(&Images) -> String;
    let lists: [(ListOf, &[usize]); 8] = [
        (|all| format!("\u{feff}# used\r\napp:1\r\n{}\r\n", digest(&all.images[2][1])), &[0, 2]),
        (
            |all| {
                let image =
                    json!({"id": digest(&all.images[1][1]), "repoTags": ["gone:1"], "repoDigests": []});
                json!({"images": [image, {"id": "", "repoTags": ["app:1"], "repoDigests": []}]}).to_string()
            },
            &[0, 1],
        ),
        (
            |all| {
                let line = |image: &[Value; 3]| json!({"ID": digest(&image[1]), "Repository": "<none>", "Tag": "<none>"});
                format!("{}\r\n{}\r\n", line(&all.images[0]), line(&all.images[2]))
            },
            &[0, 2],
        ),
        (|_| json!({"ID": "", "Repository": "app", "Tag": "1"}).to_string(), &[0]),
        (|_| json!([{"Id": "", "Names": ["docker.io/library/tool:latest"]}]).to_string(), &[1]),
        (|_| json!({"Repository": "docker.io/library/tool", "Tags": ["0", "latest"]}).to_string(), &[1]),
        (
            |all| {
                json!({"Name": "x/y", "Digest": digest(&all.images[2][0]), "Layers": [digest(&all.shared)]})
                    .to_string()
            },
            &[2],
        ),
        (|all| json!({"manifests": [{"digest": digest(&all.images[0][0])}]}).to_string(), &[0]),
    ];
    for (list, expected) in lists {
        let all = Images::new();
        let path = all.cache.base.path().join("list");
        fs::write(&path, list(&all)).unwrap();
        let ran = all.cache.prune(&["--keep-from", path.to_str().unwrap()]);
        assert_eq!((ran.exit, all.left()), (0, expected.to_vec()), "{}: {}", list(&all), ran.block());
    }
    // A manifest keeps its own blobs, but no other image that shares one of them.
    let all = Images::new();
    let manifest = all.cache.path().join(support::image::path_of(&all.images[0][0]));
    let ran = all.cache.prune(&["--keep-from", manifest.to_str().unwrap()]);
    assert_eq!((ran.exit, all.left()), (0, vec![0]), "{}", ran.block());
}

#[test]
fn a_prune_can_be_narrowed_to_images() {
    type ArgumentsOf = fn(&Images) -> Vec<String>;
    let cases: [(ArgumentsOf, &[usize]); 7] = [
        (|_| vec!["--image=app:1".into()], &[1, 2]),
        (|all| vec![format!("--image={}", digest(&all.images[1][1]))], &[0, 2]),
        (|all| vec![format!("--image={}", digest(&all.images[0][0]))], &[1, 2]),
        (|_| vec!["--untagged".into()], &[0, 1]),
        (|_| vec!["--untagged".into(), "--image=tool".into()], &[0]),
        (|_| vec!["--image=app:1".into(), "--older-than=1d".into()], &[0, 1, 2]),
        (|all| vec![format!("--image={}", digest(&all.shared))], &[0, 1, 2]),
    ];
    for (arguments, expected) in cases {
        let all = Images::new();
        let stray = all.cache.add(LAYER, b"stray");
        all.cache.write("oci-put-blob42", KIB);
        let left_behind = all.cache.write(format!(".pruning-0123456789abcdef/{}", flat(1)), KIB);
        let arguments = arguments(&all);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = all.cache.prune(&arguments);
        assert_eq!((ran.exit, all.left()), (0, expected.to_vec()), "{arguments:?}: {}", ran.block());
        let stays = all.cache.path().join(support::image::path_of(&stray)).exists();
        assert!(stays && all.cache.path().join("oci-put-blob42").exists(), "{}", ran.block());
        assert!(left_behind.exists(), "{}", ran.block());
        assert!(ran.stderr.contains(": not selected\n"), "{}", ran.stderr);
    }
    let all = Images::new();
    let ran = all.cache.prune(&["--image", "app:1", "--older-than", "1s", "--dry-run", "--verbose"]);
    assert!(ran.stderr.contains(" B): selected\n"), "{}", ran.stderr);
    let ran = all.cache.prune(&["--image", "app:2"]);
    assert_eq!((ran.exit, all.left().len()), (0, 3), "{}", ran.block());
    assert!(
        ran.stderr.contains("warning: 1 name or digest matches nothing here: `app:2`\n"),
        "{}",
        ran.stderr
    );
    for with in ["--unreferenced", "--corrupt"] {
        assert_eq!(all.cache.prune(&["--untagged", with]).exit, 2);
    }
}

#[test]
fn the_digest_of_a_layer_that_is_absent_keeps_the_image_that_needs_it() {
    let all = Images::new();
    let layer = &all.images[2][2];
    let path = all.cache.path().join(support::image::path_of(layer));
    fs::rename(path, all.cache.base.path().join("away")).unwrap();
    let ran = all.cache.prune(&["--keep", &digest(layer)]);
    assert!(ran.exit == 0 && !ran.stderr.contains("warning"), "{}", ran.block());
    let exist = |blob: &Value| all.cache.path().join(support::image::path_of(blob)).exists();
    assert_eq!(
        all.images.each_ref().map(|[manifest, config, _]| (exist(manifest), exist(config)))[2],
        (true, true)
    );
    assert!(!exist(&all.images[0][0]), "{}", ran.block());
}

#[test]
fn an_image_by_name_and_digest_is_that_of_the_digest() {
    let all = Images::new();
    let absent = format!("app:1@sha256:{:064x}", 7);
    let ran = all.cache.prune(&["--image", &absent]);
    assert_eq!((ran.exit, all.left()), (0, vec![0, 1, 2]), "{}", ran.block());
    assert!(ran.stderr.contains("warning: 1 name or digest matches nothing here"), "{}", ran.stderr);
    let second = format!("app:1@{}", digest(&all.images[1][0]));
    let ran = all.cache.prune(&["--image", &second]);
    assert_eq!((ran.exit, all.left()), (0, vec![0, 2]), "{}", ran.block());
}

#[test]
fn of_two_names_of_an_image_one_can_go() {
    let all = Images::new();
    let entry = all.images[2][0].clone();
    all.cache.write_index(&[named(entry.clone(), "x"), named(entry.clone(), "y")]);
    let ran = all.cache.prune(&["--image", "x"]);
    let index = fs::read_to_string(all.cache.path().join("index.json")).unwrap();
    assert_eq!(ran.exit, 0, "{}", ran.block());
    assert!(!index.contains("\"x\"") && index.contains("\"y\""), "{index}");
    assert!(all.cache.path().join(support::image::path_of(&entry)).exists());
}

#[test]
fn corrupt_blobs_of_a_pinned_image_stay() {
    let all = Images::new();
    let layer = all.cache.path().join(support::image::path_of(&all.images[0][2]));
    all.cache.write_content(support::image::path_of(&all.images[0][2]), b"cut off");
    let ran = all.cache.prune(&["--corrupt", "--keep", "app:1"]);
    assert_eq!((ran.exit, layer.exists()), (0, true), "{}", ran.block());
    assert_eq!(all.cache.prune(&["--corrupt"]).exit, 0);
    assert!(!layer.exists());
}

/// What an image needs is unknown while its manifest cannot be read. If it must stay, any blob may be its own.
#[test]
fn nothing_goes_of_other_images_while_a_kept_one_cannot_be_read() {
    type ArgumentsOf = fn(&Images) -> String;
    let cases: [(ArgumentsOf, &[usize]); 5] = [
        (|_| "--keep=app:1".into(), &[0, 1, 2]),
        (|all| format!("--keep={}", digest(&all.images[0][1])), &[0, 1, 2]),
        (|_| "--image=tool".into(), &[0, 1, 2]),
        (|_| "--keep=tool".into(), &[0, 1]),
        (|_| "--older-than=1h".into(), &[0]),
    ];
    for (arguments, expected) in cases {
        let all = Images::new();
        let manifest = all.cache.path().join(support::image::path_of(&all.images[0][0]));
        let content = fs::read(&manifest).unwrap();
        let times = fs::metadata(&manifest).unwrap();
        let set_times = || {
            let times = fs::FileTimes::new()
                .set_accessed(times.accessed().unwrap())
                .set_modified(times.modified().unwrap());
            fs::File::options().write(true).open(&manifest).unwrap().set_times(times).unwrap();
        };
        fs::write(&manifest, &content[..content.len() - 1]).unwrap();
        set_times();
        let arguments = arguments(&all);
        let ran = all.cache.prune(&[&arguments]);
        assert_eq!(ran.exit, 1, "{}", ran.block());
        let exists = |blob: &Value| all.cache.path().join(support::image::path_of(blob)).exists();
        let whole = all.images.iter().map(|image| image.iter().all(&exists));
        let whole: Vec<usize> = whole.enumerate().filter_map(|(index, is)| is.then_some(index)).collect();
        // What no other image accounts for stays too.
        assert_eq!(whole, expected, "{arguments}: {}", ran.block());
        let is_shared_needed = expected.contains(&1);
        assert!(exists(&all.shared) == is_shared_needed, "{arguments}: {}", ran.block());
    }
}

#[test]
fn a_name_that_matches_nothing_is_told_even_to_the_quiet() {
    let cache = Cache::flat(1, KIB);
    let ran = cache.prune(&["-q", "--dry-run", "--keep", "app"]);
    assert_eq!(
        (ran.exit, ran.stderr.as_str()),
        (0, "warning: 1 name or digest matches nothing here: `app`\n")
    );
}
