//! SHA-256 of one stream, or of two at once on one core.
//!
//! Guarantees: the same digests as `sha2`, for every length and every way of dividing the content; with or without the
//! processor's SHA instructions. Source: FIPS 180-4.
//!
//! How it is fast: the SHA instructions of a round wait for those of the round before. Two streams whose rounds take
//! turns hide that wait. Where there are no such instructions (`sha`, x86-64), each stream goes through `sha2` alone.

use sha2::block_api::compress256;

use crate::verify::block::{BLOCK_BYTES, Block};
#[cfg(target_arch = "x86_64")]
use crate::verify::sha256_pair;

/// The state before the first block (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The hash of the blocks so far.
#[derive(Clone, Debug)]
pub(crate) struct Sha256 {
    state: [u32; 8],
    hashed_bytes: u64,
}

impl Sha256 {
    /// Begins a stream.
    pub(crate) const fn new() -> Self {
        Self { state: INITIAL, hashed_bytes: 0 }
    }

    /// Adds blocks.
    pub(crate) fn update(&mut self, blocks: &[Block]) {
        compress256(&mut self.state, blocks);
        self.count(blocks);
    }

    /// Adds blocks to two streams at once.
    pub(crate) fn update_both(streams: [&mut Self; 2], blocks: [&[Block]; 2]) {
        let [first, second] = streams;
        let shorter = blocks[0].len().min(blocks[1].len());
        let ((left, left_rest), (right, right_rest)) =
            (blocks[0].split_at(shorter), blocks[1].split_at(shorter));
        #[cfg(target_arch = "x86_64")]
        let is_done = sha256_pair::compress([&mut first.state, &mut second.state], [left, right]);
        #[cfg(not(target_arch = "x86_64"))]
        let is_done = false;
        if !is_done {
            first.update(blocks[0]);
            second.update(blocks[1]);
            return;
        }
        first.count(left);
        second.count(right);
        first.update(left_rest);
        second.update(right_rest);
    }

    /// Ends the stream with what is left of it after the last whole block that was added.
    pub(crate) fn finish(mut self, rest: &[u8]) -> [u8; 32] {
        let (blocks, tail) = rest.as_chunks();
        self.update(blocks);
        // Padding (section 5.1.1): a one, zeros, and the length in bits as the last eight bytes.
        let bits = (self.hashed_bytes + tail.len() as u64) * 8;
        let mut padding = [[0; BLOCK_BYTES]; 2];
        let padded = padding.as_flattened_mut();
        padded[..tail.len()].copy_from_slice(tail);
        padded[tail.len()] = 0x80;
        let used = (tail.len() + 9).div_ceil(BLOCK_BYTES);
        padded[used * BLOCK_BYTES - 8..used * BLOCK_BYTES].copy_from_slice(&bits.to_be_bytes());
        compress256(&mut self.state, &padding[..used]);
        let mut digest = [0; 32];
        digest
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(self.state)
            .for_each(|(word, state)| *word = state.to_be_bytes());
        digest
    }

    const fn count(&mut self, blocks: &[Block]) {
        self.hashed_bytes += blocks.len() as u64 * BLOCK_BYTES as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256 as Reference};

    use super::*;

    fn reference(content: &[u8]) -> [u8; 32] {
        Reference::digest(content).into()
    }

    /// Hashes two streams at once, in steps of at most so many blocks of each.
    fn of_both(contents: [&[u8]; 2], steps: [usize; 2]) -> [[u8; 32]; 2] {
        let [mut first, mut second] = [Sha256::new(), Sha256::new()];
        let [(mut left, left_rest), (mut right, right_rest)] = contents.map(<[u8]>::as_chunks);
        while !left.is_empty() || !right.is_empty() {
            let (left_step, left_later) = left.split_at(steps[0].min(left.len()));
            let (right_step, right_later) = right.split_at(steps[1].min(right.len()));
            Sha256::update_both([&mut first, &mut second], [left_step, right_step]);
            (left, right) = (left_later, right_later);
        }
        [first.finish(left_rest), second.finish(right_rest)]
    }

    #[test]
    fn every_length_has_the_digest_that_sha2_gives() {
        let noise: [u8; 300] = std::array::from_fn(|at| (at * at * 31).to_le_bytes()[0]);
        for length in 0..=noise.len() {
            let (content, other) = (&noise[..length], &noise[length..]);
            let expected = [content, other].map(reference);
            assert_eq!(Sha256::new().finish(content), expected[0], "{length} bytes at once");
            assert_eq!(of_both([content, other], [1, 2]), expected, "{length} bytes beside {}", other.len());
        }
    }

    proptest! {
        #[test]
        fn so_have_random_contents_in_random_steps(
            first in vec(any::<u8>(), 0..20_000),
            second in vec(any::<u8>(), 0..20_000),
            steps in [1..300_usize, 1..300],
        ) {
            prop_assert_eq!(of_both([&first, &second], steps), [reference(&first), reference(&second)]);
        }
    }

    #[test]
    fn the_length_is_counted_beyond_32_bits() {
        let million = vec![b'a'; 1_000_000];
        let (blocks, rest) = million.as_chunks();
        let mut hash = Sha256::new();
        hash.update(blocks);
        // FIPS 180-4's example of a million `a`.
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(hex::encode(hash.finish(rest)), expected);
        let zeros = [[0; BLOCK_BYTES]; 1 << 14];
        let (mut ours, mut theirs) = (Sha256::new(), Reference::new());
        for step in iter::repeat_n(&zeros[..], 520) {
            ours.update(step);
            theirs.update(step.as_flattened());
        }
        assert_eq!(ours.finish(&[]), <[u8; 32]>::from(theirs.finalize()));
    }
}
