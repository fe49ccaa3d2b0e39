//! Reads the document of a saved plan, as a stream.
//!
//! Guarantees: memory grows only with what a plan holds: digests of images and sound entries. The first field, digest or
//! entry that no plan has ends the reading, and so do a wrong format, a later version, more than [`MAX_PLAN_BYTES`] and
//! a text of more than [`MAX_TEXT_BYTES`]. A plan as it is saved begins with its format and version, so nothing else of
//! a later one is read.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};

use crate::cache::digest::Digest;
use crate::plan::saved_entry::SavedEntry;

/// The value of the `format` field.
pub(crate) const FORMAT: &str = "oci-cache prune plan";
/// The version that is written, and the newest that can be read. Version 1 had no birth times.
pub(crate) const VERSION: u32 = 2;

/// The size of the largest plan that is read, in bytes. A plan of a million blobs takes about 350 MB.
pub const MAX_PLAN_BYTES: u64 = 1 << 30;
/// The length of the longest text in a plan, in bytes. A path is shorter, even with every byte of it escaped.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Why a saved plan cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    /// It is not a saved plan, or it is damaged.
    #[error("it is not a saved plan, or it is damaged")]
    NotAPlan(#[source] Option<serde_json::Error>),
    /// A newer version of this program wrote it.
    #[error("it has version {0}, but this program reads only versions up to {VERSION}")]
    Newer(u32),
    /// It was made for another directory.
    #[error("it was made for `{0}`, but this is another directory, or a new one at that path")]
    AnotherDirectory(String),
    /// It cannot be read to its end, or has more than may be read.
    #[error(transparent)]
    Unread(io::Error),
}

/// What a saved plan holds.
#[derive(Debug)]
pub(crate) struct PlanDocument {
    pub(crate) cache_dir: String,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) images: Vec<PlannedImage>,
    pub(crate) entries: Vec<SoundEntry>,
}

/// The digest of an image that goes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PlannedImage(pub(crate) Digest);

/// An entry that is [sound](SavedEntry::is_sound). Its path has the digest, which is not kept.
#[derive(Debug, Deserialize)]
#[serde(try_from = "SavedEntry")]
pub(crate) struct SoundEntry(pub(crate) SavedEntry);

impl PlanDocument {
    /// Reads a plan.
    pub(crate) fn read(content: impl Read) -> Result<Self, SavedPlanError> {
        let content = BufReader::with_capacity(1 << 16, Bounded::new(content));
        let mut json = serde_json::Deserializer::from_reader(content);
        let mut newer = None;
        let read = json.deserialize_map(DocumentVisitor { newer: &mut newer });
        match read.and_then(|document| json.end().map(|()| document)) {
            Ok(document) => Ok(document),
            Err(error) if error.is_io() => Err(SavedPlanError::Unread(error.into())),
            Err(error) => Err(newer.map_or(SavedPlanError::NotAPlan(Some(error)), SavedPlanError::Newer)),
        }
    }
}

impl TryFrom<String> for PlannedImage {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|_| "an image's digest is malformed".to_owned())
    }
}

impl TryFrom<SavedEntry> for SoundEntry {
    type Error = &'static str;

    fn try_from(mut entry: SavedEntry) -> Result<Self, Self::Error> {
        if !entry.is_sound() {
            return Err("the path or the digest of an entry is malformed");
        }
        entry.digest = None;
        Ok(Self(entry))
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Format,
    Version,
    CacheDir,
    Device,
    Inode,
    Images,
    Entries,
}

/// Takes the fields in the order in which they come.
struct DocumentVisitor<'a> {
    /// The version, if it is later than [`VERSION`].
    newer: &'a mut Option<u32>,
}

impl<'de> Visitor<'de> for DocumentVisitor<'_> {
    type Value = PlanDocument;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a saved plan")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<PlanDocument, M::Error> {
        let (mut format, mut version) = (None::<String>, None::<u32>);
        let (mut cache_dir, mut device, mut inode) = (None, None, None);
        let (mut images, mut entries) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Format if once(&mut map, &mut format, "format")? != FORMAT => {
                    return Err(M::Error::custom("it has another format"));
                }
                Field::Version => match *once(&mut map, &mut version, "version")? {
                    0 => return Err(M::Error::custom("there is no version 0")),
                    later if later > VERSION => {
                        *self.newer = Some(later);
                        return Err(M::Error::custom("it has a later version"));
                    }
                    _ => {}
                },
                Field::Format => {}
                Field::CacheDir => drop(once(&mut map, &mut cache_dir, "cache_dir")?),
                Field::Device => drop(once(&mut map, &mut device, "device")?),
                Field::Inode => drop(once(&mut map, &mut inode, "inode")?),
                Field::Images => drop(once(&mut map, &mut images, "images")?),
                Field::Entries => drop(once(&mut map, &mut entries, "entries")?),
            }
        }
        format.ok_or_else(|| M::Error::missing_field("format"))?;
        version.ok_or_else(|| M::Error::missing_field("version"))?;
        Ok(PlanDocument {
            cache_dir: cache_dir.ok_or_else(|| M::Error::missing_field("cache_dir"))?,
            device: device.ok_or_else(|| M::Error::missing_field("device"))?,
            inode: inode.ok_or_else(|| M::Error::missing_field("inode"))?,
            images: images.ok_or_else(|| M::Error::missing_field("images"))?,
            entries: entries.ok_or_else(|| M::Error::missing_field("entries"))?,
        })
    }
}

/// Reads the value of a field, which must not come twice.
fn once<'a, 'de, M: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut M,
    field: &'a mut Option<T>,
    name: &'static str,
) -> Result<&'a T, M::Error> {
    if field.is_some() {
        return Err(M::Error::duplicate_field(name));
    }
    Ok(field.insert(map.next_value()?))
}

/// Reads JSON, and fails once there is too much of it, or too long a text in it.
struct Bounded<R> {
    inner: R,
    /// How many more bytes may be read.
    left: u64,
    /// The length of the text so far; none outside texts.
    text_bytes: Option<u64>,
    /// Whether the byte before was a backslash that escapes this one.
    is_escaped: bool,
}

impl<R> Bounded<R> {
    const fn new(inner: R) -> Self {
        Self { inner, left: MAX_PLAN_BYTES, text_bytes: None, is_escaped: false }
    }

    /// Follows the texts; whether they are short enough.
    fn follow(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            self.text_bytes = match (self.text_bytes, byte) {
                (None, b'"') => Some(0),
                (Some(_), b'"') if !self.is_escaped => None,
                (Some(MAX_TEXT_BYTES), _) => return false,
                (length, _) => length.map(|length| length + 1),
            };
            self.is_escaped = self.text_bytes.is_some() && byte == b'\\' && !self.is_escaped;
        }
        true
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(length as u64) else {
            return Err(io::Error::other("it is larger than 1 GiB: plan a part, as with --older-than"));
        };
        self.left = left;
        if !self.follow(&buffer[..length]) {
            return Err(io::Error::other("it is not a saved plan: a text in it is longer than 64 KiB"));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str =
        r#"{"format":"oci-cache prune plan","version":1,"cache_dir":"x","device":[0,1],"inode":2,"#;

    const OUTSIDE: &str =
        r#"{"kind":"partial","path":"../x","size_bytes":1,"device":[0,1],"inode":3,"modified":1}"#;

    /// Fails once more than this many bytes are read.
    struct Until(u64);

    impl Read for Until {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buffer.len() as u64).expect("it read on");
            buffer.fill(b'0');
            Ok(buffer.len())
        }
    }

    /// Reads what begins so, and goes on far longer than a part of it is to be read.
    fn refused(start: &str) -> String {
        let endless = Until(MAX_TEXT_BYTES * 16);
        let error = PlanDocument::read(start.as_bytes().chain(endless)).expect_err(start);
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    #[test]
    fn what_is_no_plan_is_refused_where_it_shows() {
        for (start, why) in [
            (r#"{"a":["#.to_owned(), "unknown field `a`"),
            (r#"{"format":"other","x":"#.to_owned(), "it has another format"),
            (r#"{"format":"oci-cache prune plan","version":7,"more":"#.to_owned(), "it has version 7, but"),
            (r#"{"format":"oci-cache prune plan","version":0,"#.to_owned(), "there is no version 0"),
            (format!(r#"{START}"images":["","","#), "an image's digest is malformed"),
            (format!(r#"{START}"images":[],"images":["#), "duplicate field `images`"),
            (format!(r#"{START}"entries":[{{}},"#), "missing field `kind`"),
            (format!(r#"{START}"entries":[{OUTSIDE},"#), "the path or the digest of an entry is malformed"),
            (format!(r#"{START}"entries":[{{"kind":"blob","path":""#), "a text in it is longer than 64 KiB"),
            (format!(r#"{START}"images":[""#), "a text in it is longer than 64 KiB"),
        ] {
            let told = refused(&start);
            assert!(told.contains(why), "{start} {told}");
        }
    }

    #[test]
    fn texts_are_told_from_what_is_between_them() {
        let text = "t".repeat(60 << 10);
        for (json, is_short) in [
            (format!(r#"["{text}","{text}",{text}{text}]"#), true),
            (format!(r#"["{text}\"","{text}"]"#), true),
            (format!(r#"["{text}\"{text}"]"#), false),
            (format!(r#"["{text}\\","{text}"]"#), true),
        ] {
            assert_eq!(Bounded::new(io::empty()).follow(json.as_bytes()), is_short);
        }
    }

    #[test]
    fn a_plan_is_whole_and_nothing_follows_it() {
        let plan = format!(r#"{START}"images":[],"entries":[]}}"#);
        assert!(PlanDocument::read(plan.as_bytes()).is_ok());
        for (broken, why) in [
            (format!("{plan} {{}}"), "trailing characters"),
            (plan.replace(r#""format":"oci-cache prune plan","#, ""), "missing field `format`"),
            (plan.replace(r#""version":1,"#, ""), "missing field `version`"),
        ] {
            let error = PlanDocument::read(broken.as_bytes()).expect_err(&broken);
            let SavedPlanError::NotAPlan(Some(source)) = error else { panic!("{error:?}") };
            assert!(source.to_string().starts_with(why), "{source}");
        }
    }

    #[test]
    fn a_plan_that_cannot_be_read_to_its_end_is_no_damaged_one() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let error = PlanDocument::read(START.as_bytes().chain(Broken)).expect_err("it ends early");
        assert!(matches!(error, SavedPlanError::Unread(_)), "{error:?}");
        let mut bounded = Bounded { left: 10, ..Bounded::new(START.as_bytes()) };
        assert!(bounded.read(&mut [0; 10]).is_ok() && bounded.read(&mut [0; 1]).is_err());
    }
}
