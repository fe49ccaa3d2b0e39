//! A quick check of a blob: looks for signs that its content is truncated, without reading all of it.
//!
//! Guarantees: it does a few reads of a few bytes for each blob, and leaves no pages in the page cache
//! that were not there before. A sign is only a suspicion: the caller hashes suspect blobs, so no intact
//! blob is reported corrupt.
//!
//! What it does not guarantee: finding all damage. Changed bytes in the middle leave no sign, nor does
//! one truncated gzip file in 512.
//!
//! Sources: RFC 1952 (gzip: 8 bytes of trailer, the last 4 the size modulo 2^32), RFC 8878 (zstd frames
//! and blocks), POSIX.1 `pax` (ustar: 512-byte blocks, two of zeros at the end).

use std::fs::File;
use std::io;

use rustix::fs::{Advice, fadvise};

use crate::os::quiet_read::read_exact_quietly;

/// Maximum compression ratio of Deflate (RFC 1951: 258 bytes for two bits, rounded up).
const DEFLATE_MOST: u64 = 1032;
/// Maximum number of blocks and frames to walk in a zstd file; a layer of 1 GiB has at least 8,192.
const MAX_ZSTD_BLOCKS: u32 = 1 << 18;

/// Why the blob is suspect; `None` if it is not.
pub(crate) fn suspicion(
    file: &File,
    size_bytes: u64,
    expected_bytes: Option<u64>,
) -> io::Result<Option<&'static str>> {
    if expected_bytes.is_some_and(|expected| expected != size_bytes) {
        return Ok(Some("its size differs from that in its descriptor"));
    }
    if size_bytes == 0 {
        return Ok(Some("empty"));
    }
    // Turn off readahead: only a few scattered bytes are needed.
    let _ = fadvise(file, 0, None, Advice::Random);
    let found = look(file, size_bytes);
    let _ = fadvise(file, 0, None, Advice::Normal);
    found
}

fn look(file: &File, size_bytes: u64) -> io::Result<Option<&'static str>> {
    let mut head = [0; 512];
    let length = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(head.len());
    read_exact_quietly(file, &mut head[..length], 0)?;
    let is_skippable = (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18];
    if head.starts_with(&[0x1f, 0x8b]) {
        gzip(file, size_bytes)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable {
        zstd(file, size_bytes)
    } else if &head[257..262] == b"ustar" {
        tar(file, size_bytes)
    } else {
        Ok(None)
    }
}

/// Checks the size in the trailer: it must be possible for this compressed size, and be a whole number
/// of tar blocks.
///
/// Content other than an archive often counts as suspect, and is then hashed.
fn gzip(file: &File, size_bytes: u64) -> io::Result<Option<&'static str>> {
    const SMALLEST: u64 = 20;
    let early = Ok(Some("a gzip file that ends early"));
    if size_bytes < SMALLEST {
        return early;
    }
    let mut trailer = [0; 4];
    read_exact_quietly(file, &mut trailer, size_bytes - 4)?;
    let content = u64::from(u32::from_le_bytes(trailer));
    if !content.is_multiple_of(512) {
        return early;
    }
    if size_bytes >= u64::from(u32::MAX) / DEFLATE_MOST {
        return Ok(None); // Any such trailer is possible.
    }
    // Stored blocks add 5 bytes for each 16 KiB; headers add a few hundred bytes at most.
    let least = size_bytes.saturating_sub(1024 + size_bytes / 1024);
    if content < least || content > size_bytes * DEFLATE_MOST { early } else { Ok(None) }
}

/// Walks the frames block by block.
fn zstd(file: &File, size_bytes: u64) -> io::Result<Option<&'static str>> {
    let early = Ok(Some("a zstd file that ends early"));
    let mut position = 0;
    let mut blocks = 0;
    while position < size_bytes {
        blocks += 1;
        if blocks > MAX_ZSTD_BLOCKS {
            return Ok(None);
        }
        let Some(magic) = word(file, position, 4, size_bytes)? else { return early };
        position += 4;
        if (0x184d_2a50..=0x184d_2a5f).contains(&magic) {
            let Some(length) = word(file, position, 4, size_bytes)? else { return early };
            position += 4 + length;
            continue;
        }
        let Some(descriptor) = word(file, position, 1, size_bytes)? else { return early };
        position += 1 + frame_header_bytes(descriptor);
        loop {
            let Some(header) = word(file, position, 3, size_bytes)? else { return early };
            let is_run = (header >> 1) & 3 == 1;
            position += 3 + if is_run { 1 } else { header >> 3 };
            blocks += 1;
            if header & 1 == 1 {
                break;
            }
            if blocks > MAX_ZSTD_BLOCKS {
                return Ok(None);
            }
        }
        position += if descriptor & 4 == 4 { 4 } else { 0 };
    }
    if position > size_bytes { early } else { Ok(None) }
}

/// Length of the rest of a frame header, in bytes (RFC 8878, section 3.1.1.1).
const fn frame_header_bytes(descriptor: u64) -> u64 {
    let is_single_segment = descriptor & 0x20 != 0;
    let window = if is_single_segment { 0 } else { 1 };
    let dictionary = [0, 1, 2, 4][(descriptor & 3) as usize];
    let content = match descriptor >> 6 {
        0 if is_single_segment => 1,
        0 => 0,
        1 => 2,
        2 => 4,
        _ => 8,
    };
    window + dictionary + content
}

/// Reads a little-endian number of `length` bytes; `None` if the file ends before its last byte.
fn word(file: &File, position: u64, length: usize, size_bytes: u64) -> io::Result<Option<u64>> {
    if position.saturating_add(length as u64) > size_bytes {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    read_exact_quietly(file, &mut bytes[..length], position)?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

/// An archive consists of whole blocks and ends with two blocks of zeros.
fn tar(file: &File, size_bytes: u64) -> io::Result<Option<&'static str>> {
    const END: u64 = 1024;
    let early = Ok(Some("a tar archive that ends early"));
    if !size_bytes.is_multiple_of(512) || size_bytes < END {
        return early;
    }
    let mut end = [1; 1024];
    read_exact_quietly(file, &mut end, size_bytes - END)?;
    if end.iter().any(|byte| *byte != 0) { early } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn look_at(content: &[u8]) -> Option<&'static str> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        suspicion(&file, content.len() as u64, None).unwrap()
    }

    /// Two frames: 3 raw bytes with a checksum, then a run of 7 bytes with a content size of one byte.
    /// Between them is a skippable frame of 2 bytes.
    fn zstd_file() -> Vec<u8> {
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        let first = [&magic[..], &[0x04, 0x00], &[0x19, 0, 0, b'a', b'b', b'c'], &[1, 2, 3, 4]].concat();
        let skip = [0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let second = [&magic[..], &[0x20, 7], &[0x3b, 0, 0, b'x']].concat();
        [&first[..], &skip, &second].concat()
    }

    #[test]
    fn zstd_files_that_end_early_are_seen_wherever_they_end() {
        let whole = zstd_file();
        assert_eq!(look_at(&whole), None);
        let frame_ends = [16, 26];
        for length in 5..whole.len() {
            let expected =
                if frame_ends.contains(&length) { None } else { Some("a zstd file that ends early") };
            assert_eq!(look_at(&whole[..length]), expected, "{length}");
        }
    }

    #[test]
    fn gzip_trailers_must_be_possible() {
        let mut file = vec![0x1f, 0x8b, 8, 0];
        file.resize(100_000, 0xff);
        assert_eq!(look_at(&file), Some("a gzip file that ends early"));
        let length = file.len();
        file[length - 4..].copy_from_slice(&307_200u32.to_le_bytes());
        assert_eq!(look_at(&file), None);
        file[length - 4..].copy_from_slice(&512u32.to_le_bytes());
        assert_eq!(look_at(&file), Some("a gzip file that ends early"));
        file[length - 4..].copy_from_slice(&307_201u32.to_le_bytes());
        assert_eq!(look_at(&file), Some("a gzip file that ends early"), "no archive has such a size");
        assert_eq!(look_at(&file[..10]), Some("a gzip file that ends early"));
    }

    #[test]
    fn skippable_frames_may_come_first() {
        let skip = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        let whole = [&skip[..], &zstd_file()].concat();
        assert_eq!(look_at(&whole), None);
        assert_eq!(look_at(&whole[..whole.len() - 1]), Some("a zstd file that ends early"));
    }

    #[test]
    fn archives_end_in_zeros() {
        let mut file = vec![b'x'; 4096];
        file[257..262].copy_from_slice(b"ustar");
        assert_eq!(look_at(&file), Some("a tar archive that ends early"));
        file[3072..].fill(0);
        assert_eq!(look_at(&file), None);
        assert_eq!(look_at(&file[..4000]), Some("a tar archive that ends early"));
    }

    #[test]
    fn other_content_says_nothing() {
        assert_eq!(look_at(b"{}"), None);
        assert_eq!(look_at(&[]), Some("empty"));
        let file = tempfile::tempfile().unwrap();
        assert!(suspicion(&file, 0, Some(1)).unwrap().is_some());
    }

    #[test]
    fn real_gzip_files_are_not_suspect() {
        for (size, block) in [(0, "zero"), (512, "zero"), (5_120_000, "zero"), (6_144_000, "urandom")] {
            let script = format!("head -c {size} /dev/{block} | gzip -c");
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(look_at(&output.stdout), None, "{size} bytes of {block}");
        }
    }
}
