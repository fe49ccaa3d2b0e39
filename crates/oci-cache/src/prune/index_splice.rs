//! Takes entries out of the text of an OCI image layout's `index.json`.
//!
//! Guarantees: pure. Only the list of manifests changes; every other byte stays as it was, and so do the entries that
//! stay: numbers, the order of the keys, and the layout of the text. An index that is none is replaced as a whole, and
//! only if nothing of it is to stay.
//!
//! Source: OCI image specification, `image-index.md`.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::plan::IndexChange;
use crate::scan::document::starts_as_object;

/// What an index without images is, if nothing of the old one can be kept.
const EMPTY: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// The text is no index, so that no entry can be taken out of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoIndex;

/// The list of manifests, as text. `null` is read as absent.
#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
}

/// The index after the change; `None` if it stays as it is. Emptying an index that is none gives a new one.
pub(crate) fn spliced(content: &[u8], change: &IndexChange) -> Result<Option<Vec<u8>>, NoIndex> {
    match (change, read(content)) {
        (IndexChange::Drop(positions), _) if positions.is_empty() => Ok(None),
        (IndexChange::Drop(_), Err(NoIndex)) => Err(NoIndex),
        (IndexChange::Empty, Err(NoIndex)) => Ok(Some(EMPTY.to_vec())),
        // It leads to nothing.
        (_, Ok(None)) => Ok(None),
        (IndexChange::Empty, Ok(Some(list))) => Ok(list.emptied()),
        (IndexChange::Drop(positions), Ok(Some(list))) => list.without(positions),
    }
}

/// Whether the index has no entry.
pub(crate) fn is_empty(content: &[u8]) -> bool {
    read(content).is_ok_and(|list| list.is_none_or(|list| list.emptied().is_none()))
}

/// What stands for the list of manifests, within a text.
struct List<'a> {
    text: &'a [u8],
    /// Where it is, with its brackets.
    place: Range<usize>,
    /// Where each entry is; none if it is no list.
    entries: Option<Vec<Range<usize>>>,
}

/// Finds the list of manifests; `None` within if there is none.
fn read(content: &[u8]) -> Result<Option<List<'_>>, NoIndex> {
    // A derived struct would also be read from an array.
    if !starts_as_object(content) {
        return Err(NoIndex);
    }
    // What is not the list needs not even be text.
    let index: Index<'_> = serde_json::from_slice(content).map_err(|_| NoIndex)?;
    let Some(list) = index.manifests else { return Ok(None) };
    let place = |value: &RawValue| {
        let start = value.get().as_ptr().addr() - content.as_ptr().addr();
        start..start + value.get().len()
    };
    let entries: Option<Vec<&RawValue>> = serde_json::from_str(list.get()).ok();
    let entries = entries.map(|entries| entries.into_iter().map(place).collect());
    Ok(Some(List { text: content, place: place(list), entries }))
}

impl List<'_> {
    /// The text with an empty list; `None` if it has one.
    fn emptied(&self) -> Option<Vec<u8>> {
        let is_empty = self.entries.as_ref().is_some_and(Vec::is_empty);
        (!is_empty).then(|| [&self.text[..self.place.start], b"[]", &self.text[self.place.end..]].concat())
    }

    /// The text without the entries at these positions; `None` if none is there.
    fn without(&self, positions: &[usize]) -> Result<Option<Vec<u8>>, NoIndex> {
        let entries = self.entries.as_ref().ok_or(NoIndex)?;
        let is_left = |position: &usize| positions.binary_search(position).is_err();
        let left: Vec<usize> = (0..entries.len()).filter(is_left).collect();
        let (Some(first), Some(last), true) = (entries.first(), entries.last(), left.len() < entries.len())
        else {
            return Ok(None);
        };
        if left.is_empty() {
            return Ok(self.emptied());
        }
        let mut spliced = self.text[..first.start].to_vec();
        for (nth, &position) in left.iter().enumerate() {
            // What stood before it stays before it: the comma, and how the text is laid out.
            let from = if nth == 0 { entries[position].start } else { entries[position - 1].end };
            spliced.extend_from_slice(&self.text[from..entries[position].end]);
        }
        spliced.extend_from_slice(&self.text[last.end..]);
        Ok(Some(spliced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn dropped(text: &str, positions: &[usize]) -> Option<String> {
        let spliced = spliced(text.as_bytes(), &IndexChange::Drop(positions.to_vec())).unwrap();
        spliced.map(|text| String::from_utf8(text).unwrap())
    }

    fn emptied(text: &str) -> Option<String> {
        spliced(text.as_bytes(), &IndexChange::Empty).unwrap().map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_the_list_changes() {
        let text = r#"{ "x-serial":123456789012345678901234567890,"pi":3.14159265358979323846, "b":1,"a":"é",
  "manifests": [
    {"size":1e999},
    null,
    {"z":1,"a":2}
  ],
  "schemaVersion": 2 }
"#;
        let (before, after) = (&text[..text.find('[').unwrap()], &text[text.find(']').unwrap() + 1..]);
        for (positions, list) in [
            (&[0][..], "[\n    null,\n    {\"z\":1,\"a\":2}\n  ]"),
            (&[1], "[\n    {\"size\":1e999},\n    {\"z\":1,\"a\":2}\n  ]"),
            (&[1, 2], "[\n    {\"size\":1e999}\n  ]"),
            (&[0, 1, 2], "[]"),
        ] {
            assert_eq!(dropped(text, positions).unwrap(), format!("{before}{list}{after}"));
        }
        assert_eq!(emptied(text).unwrap(), format!("{before}[]{after}"));
        assert_eq!((dropped(text, &[]), dropped(text, &[3])), (None, None));
    }

    #[test]
    fn an_index_without_entries_stays_as_it_is() {
        for text in [r#"{"manifests":[]}"#, r#"{"manifests": [ ] }"#, r#"{"manifests":null}"#, "{}"] {
            assert_eq!((emptied(text), dropped(text, &[0]), is_empty(text.as_bytes())), (None, None, true));
        }
        assert!(!is_empty(br#"{"manifests":[null]}"#) && !is_empty(b"{"));
    }

    #[test]
    fn what_is_no_index_is_only_replaced_as_a_whole() {
        let twice = br#"{"manifests":[1],"manifests":[2]}"#;
        for broken in [&b""[..], b"[]", b"[[1]]", b"{", b"\xff", twice, b"{} {}"] {
            assert_eq!(spliced(broken, &IndexChange::Drop(vec![0])), Err(NoIndex));
            assert_eq!(spliced(broken, &IndexChange::Empty), Ok(Some(EMPTY.to_vec())));
        }
    }

    #[test]
    fn what_is_no_list_is_replaced_but_loses_no_entry() {
        let text = r#"{"a":1,"manifests": {"x":[]} }"#;
        assert_eq!(spliced(text.as_bytes(), &IndexChange::Drop(vec![0])), Err(NoIndex));
        assert_eq!(emptied(text).unwrap(), r#"{"a":1,"manifests": [] }"#);
    }

    proptest! {
        #[test]
        fn what_stays_is_what_was_not_dropped(
            entries in prop::collection::vec("[a-z\"\\\\,\\[\\]{}]{0,6}", 0..8),
            goes in prop::collection::vec(any::<bool>(), 8),
            pretty in any::<bool>(),
        ) {
            let index = json!({"annotations": {"manifests": [1]}, "manifests": entries, "z": [[]]});
            let text = if pretty { format!("{index:#}") } else { index.to_string() };
            let positions: Vec<usize> = (0..entries.len()).filter(|&position| goes[position]).collect();
            let left: Vec<&String> = (0..entries.len()).filter(|&at| !goes[at]).map(|at| &entries[at]).collect();
            let mut expected = index.clone();
            expected["manifests"] = json!(left);
            let spliced = dropped(&text, &positions).unwrap_or_else(|| text.clone());
            prop_assert_eq!(serde_json::from_str::<Value>(&spliced).unwrap(), expected);
            prop_assert_eq!(is_empty(spliced.as_bytes()), left.is_empty());
        }
    }
}
