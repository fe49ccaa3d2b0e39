//! Caches on mounts, under mounts and next to mounts.
//!
//! Each test runs in its own user and mount namespace (`unshare --map-root-user`), so it needs no root and
//! leaves no mount behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;

use support::{Cache, needs};

/// Starts a layout on a disk of 256 KiB, and goes there. `image N` writes a config as blob N and its manifest as blob N+1, and
/// prints the entry that leads to it; `fill` leaves no room on the disk; `hex N` is the name of blob N.
const ON_A_SMALL_DISK: &str = r#"
        hex() { printf %064d "$1"; }
        image() {
            head -c 4096 /dev/zero >blobs/sha256/$(hex $1)
            m=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:%s","size":4096},"layers":[]}' $(hex $1))
            printf %s "$m" >blobs/sha256/$(hex $(($1+1)))
            printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%d}' $(hex $(($1+1))) ${#m}
        }
        fill() {
            head -c 1m /dev/zero >../filler 2>/dev/null || true
            i=0; while touch "../$i"; do i=$((i+1)); done 2>/dev/null || true
        }
        mkdir disk; mount -t tmpfs -o size=256k,nr_inodes=40 none disk
        mkdir -p disk/cache/blobs/sha256; cd disk/cache
        echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout
"#;

/// Runs a script in a new namespace. `$X` is the program, `$T` an empty directory on a tmpfs, and
/// `blob N DIR` creates a flat blob of 1 KiB. Panics with all output unless every command succeeds.
fn in_namespace(script: &str) {
    if !needs::user_namespace() {
        return;
    }
    let cache = Cache::new();
    let prelude = r#"
        set -eu
        mount -t tmpfs none "$T"
        blob() { mkdir -p "$2"; f="$2/sha256:$(printf %064d "$1")"; head -c 1024 /dev/zero >"$f"; touch -d '1 hour ago' "$f"; }
        prune() { "$X" cache-prune --cache-dir "$@"; }
        expect() { if [ "$1" != "$2" ]; then echo "expected: $2"; echo "found: $1"; exit 1; fi; }
        cd "$T"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]).arg(format!("{prelude}{script}"));
    command.env("X", env!("CARGO_BIN_EXE_xtask")).env("T", cache.path()).env("HOME", "/nonexistent");
    let output = command.output().expect("unshare, of util-linux, is needed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}\n{}{}", text(&output.stdout), text(&output.stderr));
}

/// As [`in_namespace`], after [`ON_A_SMALL_DISK`].
fn on_a_small_disk(script: &str) {
    in_namespace(&format!("{ON_A_SMALL_DISK}{script}"));
}

#[test]
fn a_mount_point() {
    in_namespace(
        r#"
        mkdir cache; mount -t tmpfs none cache; blob 1 cache; inode=$(stat -c %i cache)
        expect "$(prune cache)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        expect "$(stat -c %i cache)" "$inode"
        blob 2 cache
        if prune cache --aside 2>error; then exit 1; else expect $? 2; fi
        grep -q 'the cache is a mount point; prune in place' error
        expect "$(ls cache | wc -l)" 1
        "#,
    );
}

#[test]
fn bind_mounted_elsewhere() {
    in_namespace(
        r#"
        blob 1 cache; mkdir elsewhere; mount --bind cache elsewhere
        expect "$(prune cache)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        mkdir elsewhere/new; expect "$(ls cache)" new; rmdir elsewhere/new
        blob 2 cache
        expect "$(prune elsewhere)" "freed 1.0 KiB across 1 blob(s) in $T/elsewhere"
        "#,
    );
}

#[test]
fn under_an_unwritable_parent() {
    in_namespace(
        r#"
        mkdir parent; mount -t tmpfs none parent; blob 1 parent/cache; mkdir held; mount --bind parent/cache held
        mount -o remount,ro,bind parent; mount --bind held parent/cache
        expect "$(prune parent/cache)" "freed 1.0 KiB across 1 blob(s) in $T/parent/cache"
        "#,
    );
    // Without mounts: a parent without write permission, for a process without root's capabilities.
    in_namespace(
        r#"
        blob 1 parent/cache; chmod 555 parent
        unprivileged() { setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"; }
        expect "$(unprivileged "$X" cache-prune --cache-dir parent/cache)" "freed 1.0 KiB across 1 blob(s) in $T/parent/cache"
        blob 2 parent/cache
        if unprivileged "$X" cache-prune --aside --cache-dir parent/cache 2>error; then exit 1; else expect $? 2; fi
        grep -q 'Permission denied' error
        expect "$(ls parent/cache | wc -l)" 1
        "#,
    );
}

#[test]
fn on_a_full_disk() {
    in_namespace(
        r#"
        mkdir disk; mount -t tmpfs -o size=1m,nr_inodes=20 none disk
        blob 1 disk/cache; mkdir -p disk/cache/blobs/sha256
        mv disk/cache/sha256* "disk/cache/blobs/sha256/$(printf %064d 1)"
        echo '{"imageLayoutVersion":"1.0.0"}' >disk/cache/oci-layout
        echo '{"schemaVersion":2,"manifests":[{"digest":"sha256:0"}]}' >disk/cache/index.json
        # Use up all blocks and inodes.
        head -c 2m /dev/zero >disk/filler 2>/dev/null || true
        i=0; while touch "disk/$i"; do i=$((i+1)); done 2>/dev/null || true
        touch -d '1 hour ago' disk/cache/index.json disk/cache disk/cache/blobs disk/cache/blobs/sha256
        expect "$(prune disk/cache)" "freed 1.0 KiB across 1 blob(s) in $T/disk/cache"
        if [ -e disk/cache/index.json ]; then echo 'the index names what is gone'; cat disk/cache/index.json; exit 1; fi
        expect "$(ls disk/cache)" "$(printf 'blobs\noci-layout')"
        "#,
    );
}

#[test]
fn nested_mounts_are_skipped_and_told() {
    in_namespace(
        r#"
        blob 1 cache; mkdir -p cache/blobs/sha256 cache/blobs/sha512 outside other
        touch "outside/$(printf %064d 7)" "outside/$(printf %0128d 7)"
        mount --bind outside cache/blobs/sha256; mount -t tmpfs none cache/blobs/sha512
        touch "cache/sha256:$(printf %064d 2)"; blob 8 other
        mount --bind "other/sha256:$(printf %064d 8)" "cache/sha256:$(printf %064d 2)"
        touch "cache/blobs/sha512/$(printf %0128d 8)"
        expect "$(prune cache -v 2>error)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        expect "$(grep -c 'foreign, a mount' error)" 3
        grep -q 'left 3 foreign entries alone; 3 mounts in the place of blobs not entered' error
        expect "$(ls outside | wc -l) $(ls cache/blobs/sha512 | wc -l) $(ls other | wc -l)" "2 1 1"
        "#,
    );
}

#[test]
fn an_overlay_and_its_lower_layer() {
    in_namespace(
        r#"
        blob 1 lower/cache; mkdir upper work merged
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr none merged
        if prune merged/cache --aside 2>error; then exit 1; else expect $? 2; fi
        grep -q 'prune in place' error
        expect "$(ls merged) $(ls merged/cache | wc -l)" "cache 1"
        expect "$(prune merged/cache)" "freed 1.0 KiB across 1 blob(s) in $T/merged/cache"
        expect "$(ls merged/cache | wc -l) $(ls lower/cache | wc -l)" "0 1"
        "#,
    );
}

#[test]
fn an_overlay_of_two_file_systems() {
    in_namespace(
        r#"
        mkdir a b merged; mount -t tmpfs none a; mount -t tmpfs none b; blob 1 a/cache; mkdir b/upper b/work
        mount -t overlay -o lowerdir=a,upperdir=b/upper,workdir=b/work,xino=off,userxattr none merged
        blob 2 merged/cache
        expect "$(prune merged/cache)" "freed 2.0 KiB across 2 blob(s) in $T/merged/cache"
        expect "$(ls merged/cache | wc -l) $(ls a/cache | wc -l)" "0 1"
        "#,
    );
}

#[test]
fn a_read_only_file_system() {
    in_namespace(
        r#"
        mkdir cache; mount -t tmpfs none cache; blob 1 cache; blob 2 cache; mount -o remount,ro,bind cache
        if prune cache >line 2>error; then exit 1; else expect $? 1; fi
        expect "$(cat line)" "freed 0 B across 0 blob(s) in $T/cache"
        expect "$(grep -c 'Read-only file system (os error 30): 2 entries: ' error)" 1
        if prune cache --dry-run >line 2>beforehand; then exit 1; else expect $? 1; fi
        expect "$(cat line)" "would free 0 B across 0 blob(s) in $T/cache"
        expect "$(cat beforehand)" "$(cat error)"
        "#,
    );
}

#[test]
fn without_proc_opens_cannot_be_watched_so_what_is_young_stays() {
    in_namespace(
        r#"
        note='who opens files cannot be watched here (inotify)'
        blob 1 cache; touch cache/*; prune cache 2>error
        expect "$(grep -c "$note" error)" 0
        blob 2 cache; mount -t tmpfs none /proc
        # Everything that goes is old, so nothing needs to be watched.
        blob 3 other; prune other 2>error
        expect "$(grep -c "$note" error)" 0
        touch cache/*; blob 4 cache
        expect "$(prune cache 2>error)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        expect "$(grep -c "$note" error)" 1
        expect "$(prune cache --grace 0s)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        "#,
    );
}

#[test]
fn what_needs_no_new_index_makes_room_for_one() {
    on_a_small_disk(
        r#"
        printf '{"schemaVersion":2,"manifests":[%s]}' "$(image 1)" >index.json
        head -c 8192 /dev/zero >blobs/sha256/$(hex 3)
        head -c 8192 /dev/zero >oci-put-blob1
        fill
        touch -d '3 days ago' index.json blobs/sha256/* oci-put-blob1 . blobs blobs/sha256; cd ../..
        sleep 1.1
        expect "$(prune disk/cache --older-than 1s 2>error)" "freed 20.2 KiB across 4 blob(s) in $T/disk/cache"
        expect "$(cat disk/cache/index.json)" '{"schemaVersion":2,"manifests":[]}'
        "#,
    );
}

#[test]
fn an_index_that_keeps_images_stays_on_a_full_disk() {
    on_a_small_disk(
        r#"
        printf '{"schemaVersion":2,"manifests":[%s,%s]}' "$(image 1)" "$(image 3)" >index.json; index=$(cat index.json)
        fill
        touch -d '3 days ago' index.json blobs/sha256/$(hex 1) blobs/sha256/$(hex 2) . blobs blobs/sha256; cd ../..
        if prune disk/cache --older-than 1d 2>error; then exit 1; else expect $? 1; fi
        grep -q 'No space left on device' error
        expect "$(cat disk/cache/index.json)" "$index"
        expect "$(ls disk/cache) $(ls disk/cache/blobs/sha256 | wc -l)" "$(printf 'blobs\nindex.json\noci-layout') 4"
        "#,
    );
}

#[test]
fn where_a_watch_may_not_see_every_use_none_is_made() {
    in_namespace(
        r#"
        mkdir cache; mount -t ramfs none cache; blob 1 cache; blob 2 cache
        sleep 60 <"cache/sha256:$(printf %064d 1)" & reader=$!; sleep 0.1
        expect "$(prune cache --grace 1s --watch-first)" "freed 0 B across 0 blob(s) in $T/cache"
        kill $reader; wait $reader || true
        "#,
    );
}

#[test]
fn the_root_of_the_file_system_by_another_name() {
    in_namespace(
        r#"
        mkdir again; mount --rbind / again
        if prune again 2>error; then exit 1; else expect $? 2; fi
        grep -q 'it is, or contains, the protected directory `/`' error
        "#,
    );
}

#[test]
fn what_stays_is_armed_so_the_least_recently_read_goes_first() {
    in_namespace(
        r#"
        name() { printf "cache/sha256:%064d" "$1"; }
        read_blobs() { for i in "$@"; do cat "$(name $i)" >/dev/null; sleep 0.02; done; }
        for i in 1 2 3 4 5; do blob $i cache; done
        read_blobs 5 4 3 2 1
        # From here on, a second read within a day leaves no trace, unless the blob was armed.
        prune cache --max-used-space 1GiB -v 2>error
        grep -q 'armed 5 files' error
        read_blobs 3 1 5 2 4
        prune cache --max-used-space 4KiB --dry-run -v 2>error
        if grep armed error; then exit 1; fi
        for gone in 3 1 5; do
            changed=$(stat -c %z $(name 4))
            expect "$(prune cache --max-used-space $((1024 * ($(ls cache | wc -l) - 1)))B -v 2>error)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
            if [ -e $(name $gone) ]; then ls -lu --full-time cache; exit 1; fi
        done
        # Nothing was read since, so nothing is armed again.
        expect "$(stat -c %z $(name 4))" "$changed"
        "#,
    );
}

#[test]
fn where_no_reads_are_recorded_nothing_is_certainly_idle() {
    in_namespace(
        r#"
        mkdir cache; mount -t tmpfs -o noatime none cache; blob 1 cache; blob 2 cache
        sleep 60 <"cache/sha256:$(printf %064d 1)" & reader=$!; sleep 0.1
        expect "$(prune cache --older-than 1m -v 2>error)" "freed 0 B across 0 blob(s) in $T/cache"
        grep -q 'Kept what it may count on' error; if grep armed error; then exit 1; fi
        expect "$(prune cache --older-than 1m --grace 0s)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        kill $reader; wait $reader || true
        expect "$(prune cache --older-than 1m)" "freed 1.0 KiB across 1 blob(s) in $T/cache"
        "#,
    );
}

#[test]
fn on_an_overlay_nothing_is_certainly_idle() {
    in_namespace(
        r#"
        mkdir lower upper work merged
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr,relatime none merged
        blob 1 merged/cache; blob 2 merged/cache; touch -d '3 days ago' merged/cache/*
        sleep 60 <"merged/cache/sha256:$(printf %064d 1)" & reader=$!; sleep 0.1
        expect "$(prune merged/cache --older-than 1m -v 2>error)" "freed 0 B across 0 blob(s) in $T/merged/cache"
        grep -q 'Kept what it may count on' error; if grep armed error; then exit 1; fi
        kill $reader; wait $reader || true; umount merged
        # The layer itself is on a file system that records reads.
        sleep 60 <"upper/cache/sha256:$(printf %064d 1)" & reader=$!; sleep 0.1
        expect "$(prune upper/cache --older-than 1m)" "freed 1.0 KiB across 1 blob(s) in $T/upper/cache"
        expect "$(ls upper/cache)" "sha256:$(printf %064d 1)"
        kill $reader; wait $reader || true
        "#,
    );
}
