//! Digests, and the file names that spell them.
//!
//! Guarantees: a name parses only if it is exactly one of the spellings that tools write, in lower case
//! and of full length. A digest therefore always formats back to the name it was parsed from. Nothing
//! here touches the file system.
//!
//! Source: OCI image specification, `descriptor.md`, "Digests" (registered algorithms `sha256` and
//! `sha512`, lower-case hex), and `image-layout.md`, "Blobs" (`blobs/<alg>/<encoded>`).

use std::ffi::CStr;
use std::fmt;
use std::str::FromStr;

/// A registered digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Algorithm {
    /// SHA-256: 32 bytes, 64 hex digits.
    Sha256,
    /// SHA-512: 64 bytes, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// All supported algorithms.
    pub(crate) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The registered name, as used in digests and in a layout's `blobs/` directory.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hex digits in an encoded digest.
    #[must_use]
    pub(crate) const fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest: an algorithm and the bytes of the hash.
///
/// Digests are ordered by algorithm, then by bytes. SHA-512 digests are boxed because they are rare:
/// this halves the memory that a cache of a million SHA-256 blobs needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// The algorithm.
    #[must_use]
    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The bytes of the hash.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes.as_slice(),
        }
    }

    /// The algorithm and how the digest begins, as a number that is not 0. Digests are ordered by this first.
    pub(crate) fn start(&self) -> u64 {
        let start = self.as_bytes().first_chunk().map_or(0, |start| u64::from_be_bytes(*start));
        let rank = match self {
            Self::Sha256(_) => 1,
            Self::Sha512(_) => 2,
        };
        rank << 62 | start >> 2
    }

    /// Parses the encoded part: exactly the algorithm's number of hex digits, in lower case.
    #[must_use]
    pub(crate) fn from_hex(algorithm: Algorithm, encoded: &[u8]) -> Option<Self> {
        // The decoder also accepts upper case, which the specification forbids. It also strips a `0x`,
        // but then too few digits are left and it fails. The `hex` crate would take a tenth of a scan's
        // time here.
        if encoded.len() != algorithm.hex_digits() || encoded.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        match algorithm {
            Algorithm::Sha256 => {
                let mut bytes = [0; 32];
                const_hex::decode_to_slice(encoded, &mut bytes).ok()?;
                Some(Self::Sha256(bytes))
            }
            Algorithm::Sha512 => {
                let mut bytes = Box::new([0; 64]);
                const_hex::decode_to_slice(encoded, bytes.as_mut_slice()).ok()?;
                Some(Self::Sha512(bytes))
            }
        }
    }

    /// Parses a file name of a flat cache: `sha256:<hex>`, perhaps with an ending, or `sha256-<hex>` as written on
    /// Windows.
    #[must_use]
    pub(crate) fn from_flat_name(name: &[u8]) -> Option<(Self, Spelling)> {
        Algorithm::ALL.into_iter().find_map(|algorithm| {
            let (separator, rest) = name.strip_prefix(algorithm.name().as_bytes())?.split_first()?;
            let (encoded, ending) = rest.split_at_checked(algorithm.hex_digits())?;
            let is_its = |spelling: &Spelling| {
                (spelling.separator(), spelling.ending().as_bytes()) == (Some(*separator), ending)
            };
            let spelling = Spelling::ALL.into_iter().find(is_its)?;
            Some((Self::from_hex(algorithm, encoded)?, spelling))
        })
    }

    /// The file name that spells this digest.
    #[must_use]
    pub(crate) fn file_name(&self, spelling: Spelling) -> BlobName {
        let mut name = BlobName { bytes: [0; BlobName::CAPACITY], length: 0 };
        if let Some(separator) = spelling.separator() {
            name.push(self.algorithm().name().as_bytes());
            name.push(&[separator]);
        }
        let digits = self.algorithm().hex_digits();
        // The buffer fits the longest name, so the digits always fit.
        if const_hex::encode_to_slice(self.as_bytes(), &mut name.bytes[name.length..name.length + digits])
            .is_ok()
        {
            name.length += digits;
        }
        name.push(spelling.ending().as_bytes());
        name
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.file_name(Spelling::Colon).as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Serializes a digest as a string.
pub(crate) fn serialize<S: serde::Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(digest.file_name(Spelling::Colon).as_str())
}

/// A text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a digest: expected sha256:<64 hex digits> or sha512:<128 hex digits>, in lower case", .0.escape_debug())]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::from_flat_name(text.as_bytes()) {
            Some((digest, Spelling::Colon)) => Ok(digest),
            _ => Err(ParseDigestError(text.to_owned())),
        }
    }
}

/// How a blob's file name spells its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Spelling {
    /// `<hex>`, in a directory named after the algorithm.
    Nested,
    /// `sha256:<hex>`, in a flat cache.
    Colon,
    /// `sha256-<hex>`, in a flat cache written on Windows.
    Dash,
    /// `sha256:<hex>.config`: an image's configuration, in buildah's cache. It hashes to its digest as any other blob.
    Config,
    /// `sha256:<hex>.json`: the manifest of the image whose archive `sha256:<hex>` is, in the cache of kaniko's warmer.
    Json,
    /// `sha256:<hex>.compressed`: which blob is the compressed form, in buildah's cache.
    Compressed,
    /// `sha256:<hex>.decompressed`: which blob is the uncompressed form, in buildah's cache.
    Decompressed,
}

impl Spelling {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nested,
        Self::Colon,
        Self::Dash,
        Self::Config,
        Self::Json,
        Self::Compressed,
        Self::Decompressed,
    ];

    /// Whether the file of this name only goes with the blob of the same digest.
    pub(crate) const fn is_companion(self) -> bool {
        matches!(self, Self::Json | Self::Compressed | Self::Decompressed)
    }

    const fn separator(self) -> Option<u8> {
        match self {
            Self::Nested => None,
            Self::Dash => Some(b'-'),
            _ => Some(b':'),
        }
    }

    const fn ending(self) -> &'static str {
        match self {
            Self::Nested | Self::Colon | Self::Dash => "",
            Self::Config => ".config",
            Self::Json => ".json",
            Self::Compressed => ".compressed",
            Self::Decompressed => ".decompressed",
        }
    }
}

/// A blob's file name, stored without an allocation and ready for a system call.
#[derive(Clone)]
pub(crate) struct BlobName {
    /// The name, then only zero bytes.
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl BlobName {
    /// Length of the longest name, `sha512:`, 128 digits and an ending, plus the terminating zero byte.
    const CAPACITY: usize =
        "sha512:".len() + Algorithm::Sha512.hex_digits() + Spelling::Decompressed.ending().len() + 1;

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    /// The name as text; always ASCII.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// The name as a C string.
    #[must_use]
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_small() {
        assert_eq!(size_of::<Digest>(), 40);
    }

    #[test]
    fn digests_are_ordered_by_their_start_first() {
        let sha256 = |first: u8, second: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[7]) = (first, second);
            Digest::Sha256(bytes)
        };
        let sha512 = |first: u8| Digest::Sha512(Box::new([first; 64]));
        let ascending = [
            sha256(0, 0),
            sha256(0, 1),
            sha256(0, 255),
            sha256(1, 0),
            sha256(127, 9),
            sha256(255, 255),
            sha512(0),
            sha512(255),
        ];
        assert!(ascending.is_sorted() && ascending.is_sorted_by_key(Digest::start));
        assert!(ascending.iter().all(|digest| digest.start() > 0));
    }

    #[test]
    fn only_exact_names_parse() {
        let accepted = [
            format!("sha256:{HEX}"),
            format!("sha256-{HEX}"),
            format!("sha512:{HEX}{HEX}"),
            format!("sha512-{HEX}{HEX}"),
            format!("sha256:{HEX}.config"),
            format!("sha256:{HEX}.json"),
            format!("sha256:{HEX}.compressed"),
            format!("sha512:{HEX}{HEX}.decompressed"),
        ];
        for name in accepted {
            let (digest, spelling) = Digest::from_flat_name(name.as_bytes()).unwrap();
            assert_eq!(digest.file_name(spelling).as_str(), name);
            assert_eq!(digest.file_name(spelling).as_c_str().to_bytes(), name.as_bytes());
        }
        let refused = [
            String::new(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            HEX.to_owned(),
            format!("sha256_{HEX}"),
            format!("sha256:{}", HEX.to_uppercase()),
            format!("SHA256:{HEX}"),
            format!("sha256:{HEX}0"),
            format!("sha256:{HEX}.txt"),
            format!("sha256:{HEX}.json.json"),
            format!("sha256-{HEX}.json"),
            format!("{HEX}.json"),
            format!("sha256:{}", &HEX[1..]),
            format!("sha256:{}g", &HEX[1..]),
            format!("sha256:{HEX}\n"),
            format!(" sha256:{HEX}"),
            format!("sha256:0x{}", &HEX[2..]),
            format!("sha256:0x{HEX}"),
            format!("sha256:../{}", &HEX[3..]),
            format!("sha512:{HEX}"),
            format!("md5:{}", &HEX[..32]),
        ];
        for name in refused {
            assert_eq!(Digest::from_flat_name(name.as_bytes()), None, "{name:?}");
        }
    }

    #[test]
    fn text_is_the_colon_spelling_only() {
        assert_eq!(format!("sha256:{HEX}").parse::<Digest>().unwrap().to_string(), format!("sha256:{HEX}"));
        for other in [format!("sha256-{HEX}"), format!("sha256:{HEX}.config"), HEX.to_owned()] {
            assert!(other.parse::<Digest>().is_err(), "{other}");
        }
        let error = format!("sha256-{HEX}\u{1b}").parse::<Digest>().unwrap_err().to_string();
        assert!(error.contains("sha256:<64 hex digits>") && error.contains("\\u{1b}"), "{error}");
    }

    proptest! {
        #[test]
        fn names_round_trip(low in any::<[u8; 32]>(), high in any::<[u8; 32]>()) {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&low);
            bytes[32..].copy_from_slice(&high);
            for digest in [Digest::Sha256(low), Digest::Sha512(Box::new(bytes))] {
                let nested = digest.file_name(Spelling::Nested);
                prop_assert_eq!(Digest::from_hex(digest.algorithm(), nested.as_str().as_bytes()), Some(digest.clone()));
                prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            }
        }

        #[test]
        fn any_name_is_safe(name in any::<Vec<u8>>()) {
            if let Some((digest, spelling)) = Digest::from_flat_name(&name) {
                let again = digest.file_name(spelling);
                prop_assert_eq!(again.as_str().as_bytes(), name.as_slice());
            }
        }
    }
}
