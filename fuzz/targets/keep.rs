//! A list of what to keep. `$1` to `$4` stand for the digests of the cache's blobs.

#![no_main]

use std::collections::BTreeSet;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oci_cache::{CacheDir, KeepError, Pins, Policy, parse_keep, select};
use oci_cache_fuzz::fixture::{self, NOW, digest};
use oci_cache_fuzz::memory::peak_of;
use tempfile::TempDir;

const BLOBS: usize = 4;
/// How much memory reading takes at most: for each byte of the list, and in any case.
const BYTES_PER_BYTE: usize = 100;
const BYTES: usize = 1 << 16;
/// More than a list in JSON may have, after a byte order mark.
const TOO_MANY: usize = (3 << 20) + 4;

fuzz_target!(|data: &[u8]| {
    let list = text(data);
    let (pins, peak) = peak_of(|| parse_keep(&list));
    assert!(peak <= BYTES + BYTES_PER_BYTE * list.len(), "{peak} bytes for {}", list.len());
    let is_json = is_json(&list);
    // Long texts are costly, so only some inputs become one.
    if is_json && data.len() % 64 == 1 {
        let mut long = list.clone();
        long.resize(TOO_MANY.max(list.len()), b' ');
        assert!(matches!(parse_keep(&long), Err(KeepError::TooLarge)));
    }
    let Ok(pins) = pins else { return };
    assert!(!pins.is_empty(), "an accepted list pins something");
    let goes = what_goes(pins);
    if !is_json {
        let pinned = digests(&list);
        assert!(goes.is_disjoint(&pinned), "of {pinned:?}, {goes:?} go");
    }
});

fn text(data: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(data) else { return data.to_vec() };
    let put = |text: String, number: usize| text.replace(&format!("${number}"), &digest(number));
    (1..=BLOBS).fold(text.to_owned(), put).into_bytes()
}

/// Whether the list is text that starts as JSON.
fn is_json(list: &[u8]) -> bool {
    let text = std::str::from_utf8(list).unwrap_or_default();
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_ascii_start().starts_with(['{', '['])
}

/// What a prune of everything removes, but for the pins.
fn what_goes(pins: Pins) -> BTreeSet<String> {
    static CACHE: OnceLock<TempDir> = OnceLock::new();
    let cache = CACHE.get_or_init(|| fixture::flat(BLOBS)).path();
    let mut policy = Policy::default();
    policy.keep = pins;
    let space = CacheDir::open(cache, &[]).and_then(|cache| cache.space()).expect("look at the space");
    let plan = select(fixture::inventory(cache), &policy, NOW, space).expect("plan");
    fixture::what_goes(&plan)
}

/// The digests that stand in a line of their own.
fn digests(list: &[u8]) -> BTreeSet<String> {
    let lines = std::str::from_utf8(list).unwrap_or_default().lines();
    let lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| (1..=BLOBS).any(|number| digest(number) == *line)).map(str::to_owned).collect()
}
