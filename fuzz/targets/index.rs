//! The rewritten `index.json`: without some of its entries, and without any.
//!
//! The first byte says which entries go; the rest is the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_cache::fuzzing::{emptied_index, index_without};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The text of the list, as it stands in the file.
#[derive(Deserialize)]
struct Spans<'a> {
    #[serde(borrow)]
    manifests: &'a RawValue,
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, before)) = data.split_first() else { return };
    // What is not read of an index may be anything, so it need not be a value.
    let list = span(before).map(|(_, _, list)| list);
    let count = list.and_then(entries).map_or(0, |entries| entries.len());
    let (go, stay): (Vec<usize>, Vec<usize>) = (0..count).partition(|entry| which >> (entry % 8) & 1 == 1);
    match index_without(before, &go) {
        None => assert_eq!(count, 0, "an index is refused"),
        Some(None) => assert!(go.is_empty(), "entries stay"),
        Some(Some(after)) => check(before, &after, &stay),
    }
    match emptied_index(before) {
        None => assert!(list.is_none_or(|list| list == "null" || count == 0), "entries stay"),
        Some(after) if list.is_some() => check(before, &after, &[]),
        Some(after) => assert_eq!(parsed(&after)["manifests"], Value::Array(Vec::new())),
    }
});

/// Checks that of the list only the entries at `stay` are left, and that all else is as it was.
fn check(before: &[u8], after: &[u8], stay: &[usize]) {
    let Ok(index) = serde_json::from_slice::<Value>(before) else { return bytes_stay(before, after, stay) };
    let mut expected = index.clone();
    expected["manifests"] = stay.iter().map(|&entry| index["manifests"][entry].clone()).collect();
    assert_eq!(parsed(after), expected);
    bytes_stay(before, after, stay);
}

/// Checks that each byte outside the list, and each entry that stays, is as it was.
fn bytes_stay(before: &[u8], after: &[u8], stay: &[usize]) {
    let (old, new) = (span(before).expect("an index"), span(after).expect("an index"));
    assert_eq!((old.0, old.1), (new.0, new.1), "bytes outside the list");
    let (old, new) = (entries(old.2).unwrap_or_default(), entries(new.2).expect("a list"));
    let kept: Vec<&str> = stay.iter().map(|&entry| old[entry]).collect();
    assert_eq!(new, kept, "entries");
}

/// What stands before the list, after it, and the list; none if it is no index, or has the field twice.
fn span(index: &[u8]) -> Option<(&[u8], &[u8], &str)> {
    if !index.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let list = serde_json::from_slice::<Spans<'_>>(index).ok()?.manifests.get();
    let start = list.as_ptr() as usize - index.as_ptr() as usize;
    Some((&index[..start], &index[start + list.len()..], list))
}

fn entries(list: &str) -> Option<Vec<&str>> {
    let entries: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    Some(entries.into_iter().map(RawValue::get).collect())
}

fn parsed(index: &[u8]) -> Value {
    serde_json::from_slice(index).expect("the new index is JSON")
}
