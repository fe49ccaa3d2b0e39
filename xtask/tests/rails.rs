//! Refused directories: exit 2, nothing on stdout, the tree unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{Cache, KIB, Ran, flat, hex, xtask};

/// Prunes `directory` with `home` as the home directory, and checks that this is refused.
fn assert_refused(cache: &Cache, directory: &Path, home: &Path, why: &str) {
    let before = cache.tree();
    for extra in [&[][..], &["--aside"], &["--dry-run"]] {
        let mut program = xtask();
        program.args(["cache-prune", "--cache-dir"]).arg(directory).args(extra).env("HOME", home);
        let ran = Ran::of(&mut program, cache.base.path());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{}", ran.block());
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        assert_eq!(cache.tree(), before);
    }
}

#[test]
fn the_root_directory() {
    let cache = Cache::new();
    assert_refused(&cache, Path::new("/"), cache.base.path(), "contains, the protected directory `/`");
    assert_refused(&cache, Path::new("/usr/.."), cache.base.path(), "contains, the protected directory `/`");
    symlink("/", cache.path().join("link")).unwrap();
    assert_refused(
        &cache,
        &cache.path().join("link"),
        cache.base.path(),
        "contains, the protected directory `/`",
    );
}

#[test]
fn the_home_and_what_holds_it() {
    // The directory contains blobs, so only the protection of the home prevents the prune.
    let cache = Cache::flat(2, KIB);
    let home = cache.path().join("users/me");
    fs::create_dir_all(&home).unwrap();
    cache.write(format!("users/me/{}", flat(1)), KIB);
    for directory in [&cache.path(), &home, &home.join("../me")] {
        assert_refused(&cache, directory, &home, "contains, the protected directory `[TMP]/oci/users/me`");
    }
    let linked = cache.base.path().join("linked-home");
    symlink(&home, &linked).unwrap();
    assert_refused(&cache, &cache.path(), &linked, "contains, the protected directory `[TMP]/linked-home`");
}

#[test]
fn the_workspace_and_what_holds_it() {
    let cache = Cache::new();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for directory in [workspace, workspace.parent().unwrap()] {
        assert_refused(&cache, directory, cache.base.path(), "contains, the protected directory `");
    }
}

#[test]
fn a_file() {
    let cache = Cache::new();
    let file = cache.write("file", KIB);
    assert_refused(&cache, &file, cache.base.path(), "it is not a directory");
    assert_refused(&cache, &file.join("below"), cache.base.path(), "it is not a directory");
}

#[test]
fn an_empty_path() {
    let cache = Cache::new();
    assert_refused(&cache, Path::new(""), cache.base.path(), "a value is required");
}

#[test]
fn directories_that_only_look_like_a_cache() {
    for entries in [
        &["thesis.tex"][..],
        &["index.json", "index.html"],
        &["ingest/records.csv", "index.json"],
        &["blobs/photo.jpg", "ingest/records.csv"],
        &["notes.tmp"],
        &["oci-put-blob123", "oci-put-blob.go", ".umoci-42/notes.md"],
        &["deeper/oci-layout"],
    ] {
        let cache = Cache::new();
        for entry in entries {
            cache.write(entry, KIB);
        }
        cache.write(format!("more/{}", flat(1)), KIB);
        cache.write(format!("blobs/{}", hex(1)), KIB);
        assert_refused(&cache, &cache.path(), cache.base.path(), "in it belongs to an OCI blob cache");
    }
}

#[test]
fn an_empty_cache_on_a_file_system_of_its_own_is_no_mistake() {
    let cache = Cache::new();
    fs::create_dir(cache.path().join("lost+found")).unwrap();
    assert_eq!(cache.prune(&[]).exit, 0);
}

#[test]
fn usage_errors_touch_nothing() {
    let cache = Cache::flat(1, KIB);
    let before = cache.tree();
    for arguments in
        [&["--no-such-flag"][..], &["--wait-timeout", "soon"], &["--format", "xml"], &["-q", "-v"]]
    {
        let ran = cache.prune(arguments);
        assert_eq!((ran.exit, ran.stdout.as_str(), cache.tree()), (2, "", before.clone()), "{}", ran.block());
    }
}

/// Writes files into a directory, and checks that a prune refuses `cache` below it, with these words, and touches nothing.
fn refuses(files: &[&str], cache: &str, words: &[&str]) {
    let base = Cache::new();
    for file in files {
        base.write(file, KIB);
    }
    let before = base.tree();
    let cache = base.path().join(cache);
    for command in ["cache-prune", "cache-verify"] {
        let output = support::xtask().arg(command).arg("--cache-dir").arg(&cache).output().unwrap();
        let ran = support::Ran::from(&output, base.base.path());
        assert_eq!((ran.exit, ran.stdout.as_str(), base.tree()), (2, "", before.clone()), "{}", ran.block());
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn stores_that_keep_records_are_refused_by_name() {
    let hex = support::hex(7);
    let (nested, dashed) = (format!("blobs/sha256/{hex}"), format!("sha256-{hex}"));
    let below = |directory: &str, name: &str| format!("{directory}/{name}");
    let cases: [(&[&str], &[&str], &str, &str); 12] = [
        (
            &["io.containerd.metadata.v1.bolt/meta.db", &below("content", &nested)],
            &["", "content", "content/blobs", "content/blobs/sha256"],
            "containerd",
            "crictl rmi",
        ),
        (
            &["containerdmeta.db", &below("content", &nested)],
            &["", "content", "content/blobs", "content/blobs/sha256"],
            "BuildKit",
            "docker buildx prune",
        ),
        (&["metadata_v2.db", &below("content", &nested)], &["content"], "BuildKit", "docker buildx prune"),
        (
            &["layout.json", "models.json", &nested],
            &["", "blobs", "blobs/sha256"],
            "model runner",
            "docker model rm",
        ),
        (
            &["index.lock", "index.json", "oci-layout", &nested],
            &["", "blobs", "blobs/sha256"],
            "podman",
            "podman artifact rm",
        ),
        (
            &["repo/.uploads/x", "repo/index.json", "repo/oci-layout", &below("repo", &nested)],
            &["repo", "repo/blobs", "repo/blobs/sha256"],
            "zot",
            "regctl",
        ),
        (&["cache.db", "_trivy/db", &below("repo", &nested)], &[""], "zot", "regctl"),
        (&["cache.db", ".sync/x", &below("repo", &nested)], &[""], "zot", "regctl"),
        (
            &["repositories/x/link", &format!("blobs/sha256/00/{hex}/data")],
            &["", "blobs", "blobs/sha256"],
            "registry",
            "garbage-collect",
        ),
        (&[&format!("docker/registry/v2/blobs/sha256/00/{hex}/data")], &[""], "registry", "garbage-collect"),
        (&["manifests/x", &below("blobs", &dashed)], &["", "blobs"], "ollama", "ollama rm"),
        (
            &["overlay-images/images.json", "overlay-layers/x"],
            &[""],
            "containers/storage",
            "podman image prune",
        ),
    ];
    for (files, caches, name, command) in cases {
        for cache in caches {
            refuses(files, cache, &[name, command]);
        }
    }
}

#[test]
fn a_refusal_names_the_caches_nearby() {
    let flat = flat(7);
    let nested = support::nested(7);
    refuses(&[&format!("img/{nested}"), "bin/out"], "", &["nothing in it", "try `", "/img`"]);
    refuses(&[&format!("wasm/{flat}"), &format!("data/deep/{flat}"), "x"], "", &["/wasm`", "/data/deep`"]);
    refuses(
        &[&format!("layout/{nested}"), "layout/oci-layout", "layout/below/x"],
        "layout/below",
        &["/layout`"],
    );
    refuses(&[&format!("layout/{nested}"), "layout/below/deeper/x"], "layout/below/deeper", &["/layout`"]);
    refuses(&["empty/oci-layout", "x"], "", &["/empty`"]);
}

#[test]
fn a_flat_directory_of_other_things_is_no_cache() {
    let flat = flat(7);
    refuses(&[&flat, "thesis.tex", "thesis.pdf"], "", &["only 1 of the entries in it belongs", "2 others"]);
    // Hidden files, descriptions and notes do not count.
    let cache = Cache::flat(1, KIB);
    for name in
        [".hidden", "README.md", "CACHEDIR.TAG", "wasi-clocks-0.2.3.json", "lost+found/x", "thesis.tex"]
    {
        cache.write(name, KIB);
    }
    let ran = cache.prune(&[]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (0, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n"),
        "{}",
        ran.block()
    );
}

#[test]
fn a_prune_that_emptied_a_cache_can_be_repeated() {
    let cache = Cache::flat(2, KIB);
    for name in [".hidden", "README.md", "CACHEDIR.TAG", "wasi-clocks-0.2.3.json"] {
        cache.write(name, KIB);
    }
    for freed in ["freed 2.0 KiB across 2", "freed 0 B across 0"] {
        let ran = cache.prune(&[]);
        assert_eq!((ran.exit, ran.stdout), (0, format!("{freed} blob(s) in [TMP]/oci\n")));
    }
    // So can one that leaves an open download beside something else, even in several rounds.
    let cache = Cache::flat(2, KIB);
    cache.write("thesis.tex", KIB);
    let open = fs::File::open(cache.write("oci-put-blob42", KIB)).unwrap();
    for freed in ["freed 2.0 KiB across 2", "freed 0 B across 0"] {
        let ran = cache.prune(&["--max-used-space", "0"]);
        // The download is open, so the goal is missed.
        assert_eq!((ran.exit, ran.stdout), (3, format!("{freed} blob(s) in [TMP]/oci\n")), "{}", ran.stderr);
    }
    drop(open);
}

#[test]
fn a_link_in_the_place_of_the_blobs_is_why_nothing_was_found() {
    let cache = Cache::layout();
    cache.write("../elsewhere/sha256/x", KIB);
    fs::rename(cache.path().join("blobs"), cache.path().join("was-blobs")).ok();
    symlink(cache.base.path().join("elsewhere"), cache.path().join("blobs")).unwrap();
    let before = cache.tree();
    for command in ["cache-prune", "cache-usage", "cache-verify"] {
        let ran = cache.run(command, &[]);
        assert_eq!((ran.exit, cache.tree()), (1, before.clone()), "{}", ran.block());
        assert!(
            ran.stderr.contains("error: scan `[TMP]/oci/blobs`: it is a symbolic link, which is not entered"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_link_beside_the_blobs_does_not_fail_a_prune_that_is_repeated() {
    let cache = Cache::layout();
    cache.write(support::nested(1), KIB);
    symlink(cache.base.path(), cache.path().join("blobs/sha512")).unwrap();
    for freed in ["freed 1.0 KiB across 1", "freed 0 B across 0"] {
        let ran = cache.prune(&[]);
        assert_eq!((ran.exit, ran.stdout), (0, format!("{freed} blob(s) in [TMP]/oci\n")), "{}", ran.stderr);
        assert!(ran.stderr.contains("1 symbolic link in the place of blobs not followed"), "{}", ran.stderr);
    }
}

#[test]
fn links_in_the_place_of_blobs_are_counted() {
    let cache = Cache::layout();
    cache.write("../elsewhere", KIB);
    cache.write(support::nested(1), KIB);
    for number in [2, 3] {
        symlink(cache.base.path().join("elsewhere"), cache.path().join(support::nested(number))).unwrap();
    }
    let ran = cache.prune(&[]);
    assert_eq!(ran.stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
    let note = "note: left 2 foreign entries alone; 2 symbolic links in the place of blobs not followed\n";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
}

#[test]
fn what_is_too_far_or_behind_a_link_or_the_directory_itself_is_not_named() {
    let (flat_name, nested) = (flat(7), support::nested(7));
    let far = [format!("a/b/c/{flat_name}"), format!("a/b/c/{nested}"), flat_name.clone()];
    for (files, directory) in
        [(&far[..], ""), (&[format!("layout/{nested}"), "layout/a/b/c/x".to_owned()], "layout/a/b/c")]
    {
        let cache = Cache::new();
        files.iter().for_each(|file| drop(cache.write(file, KIB)));
        cache.write("x", KIB);
        cache.write("y", KIB);
        cache.write(format!("../elsewhere/{flat_name}"), KIB);
        symlink(cache.base.path().join("elsewhere"), cache.path().join("link")).unwrap();
        let mut program = xtask();
        program.args(["cache-prune", "--cache-dir"]).arg(cache.path().join(directory));
        let ran = Ran::of(&mut program, cache.base.path());
        assert!(ran.exit == 2 && !ran.stderr.contains("try `"), "{}", ran.block());
    }
}

#[test]
fn what_only_resembles_the_mark_of_a_store_is_none() {
    let cache = Cache::flat(2, KIB);
    for name in ["../manifests/x", "index.lock", ".uploads/x", "../metadata.db"] {
        cache.write(name, KIB);
    }
    let ran = cache.prune(&[]);
    assert_eq!(ran.stdout, "freed 2.0 KiB across 2 blob(s) in [TMP]/oci\n", "{}", ran.block());
    for files in [&["cache.db", "x"][..], &["manifests/x", "blobs/x"]] {
        refuses(files, "", &["nothing in it belongs to an OCI blob cache"]);
    }
}

#[test]
fn links_in_the_place_of_blobs_make_nothing_else_of_a_flat_cache() {
    let cache = Cache::flat(1, KIB);
    fs::create_dir(cache.path().join("blobs")).unwrap();
    for name in [flat(2), flat(3), hex(4), hex(5), "blobs/sha256".to_owned(), "blobs/sha512".to_owned()] {
        symlink(cache.base.path(), cache.path().join(name)).unwrap();
    }
    let ran = cache.prune(&[]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (0, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n"),
        "{}",
        ran.block()
    );
}

#[test]
fn a_refusal_does_not_name_a_store_as_a_cache() {
    let dashed = format!("sha256-{}", support::hex(7));
    for store in [
        &[&format!("models/blobs/{dashed}"), "models/manifests/x"][..],
        &["kit/containerdmeta.db", &format!("kit/content/{}", support::nested(7))],
        &["storage/overlay-images/x", "storage/artifacts/index.lock", "storage/artifacts/index.json"],
    ] {
        let cache = Cache::new();
        store.iter().for_each(|file| drop(cache.write(file, KIB)));
        cache.write("other", KIB);
        let ran = cache.prune(&[]);
        assert!(ran.exit == 2 && !ran.stderr.contains("try `"), "{}", ran.block());
    }
}

#[test]
fn a_file_named_repositories_makes_no_registry_of_a_layout() {
    let cache = Cache::typical_layout();
    cache.write("repositories", KIB);
    cache.write("manifest.json", KIB);
    assert_eq!(cache.prune(&["--unreferenced"]).stdout, "freed 1.0 KiB across 1 blob(s) in [TMP]/oci\n");
}
