//! The compression function of SHA-256 for two streams at once, by the SHA instructions of x86-64.
//!
//! Guarantees: where the processor lacks the instructions, nothing changes, and the caller learns it.
//!
//! Source: FIPS 180-4, section 6.2.2; Intel's "Intrinsics Guide" for the order of the words in the registers: one holds
//! the working variables a, b, e and f, the other c, d, g and h.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use crate::verify::block::{BLOCK_BYTES, Block};

/// FIPS 180-4, section 4.2.2.
const CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Adds equally many blocks to both states. Returns whether the processor can do it.
#[expect(unsafe_code, reason = "a function for newer processors may be called only on those")]
pub(crate) fn compress(states: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) -> bool {
    let is_available = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3");
    if is_available {
        // SAFETY: the processor has all features that the function is compiled for.
        unsafe { compress_by_instructions(states, blocks) };
    }
    is_available
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress_by_instructions(states: [&mut [u32; 8]; 2], blocks: [&[Block]; 2]) {
    let mut registers = [load_state(states[0]), load_state(states[1])];
    for (left, right) in blocks[0].iter().zip(blocks[1]) {
        let before = registers;
        let mut words = [load_block(left), load_block(right)];
        for sixteen in 0..4 {
            for four in 0..4 {
                let constants = constants(sixteen * 4 + four);
                // The two streams take turns: this is what hides the wait.
                for (registers, words) in registers.iter_mut().zip(&mut words) {
                    if sixteen > 0 {
                        schedule(words, four);
                    }
                    rounds(registers, _mm_add_epi32(words[four], constants));
                }
            }
        }
        for (registers, before) in registers.iter_mut().zip(before) {
            registers[0] = _mm_add_epi32(registers[0], before[0]);
            registers[1] = _mm_add_epi32(registers[1], before[1]);
        }
    }
    for (state, registers) in states.into_iter().zip(registers) {
        *state = stored(registers);
    }
}

/// Four rounds, for which the words of the message are already added to the constants.
#[inline]
#[target_feature(enable = "sha,sse2")]
fn rounds([abef, cdgh]: &mut [__m128i; 2], added: __m128i) {
    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, added);
    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(added, 0x0e));
}

/// Replaces four words of the message schedule by the words sixteen rounds later.
#[inline]
#[target_feature(enable = "sha,ssse3")]
fn schedule(words: &mut [__m128i; 4], four: usize) {
    let (next, later, last) = (words[(four + 1) % 4], words[(four + 2) % 4], words[(four + 3) % 4]);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(words[four], next), _mm_alignr_epi8(last, later, 4));
    words[four] = _mm_sha256msg2_epu32(sum, last);
}

#[inline]
#[target_feature(enable = "sse2")]
fn constants(four: usize) -> __m128i {
    let [first, second, third, fourth] = CONSTANTS[four];
    _mm_set_epi32(fourth.cast_signed(), third.cast_signed(), second.cast_signed(), first.cast_signed())
}

/// The sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "ssse3")]
fn load_block(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut words = [_mm_setzero_si128(); BLOCK_BYTES / 16];
    for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        let (halves, _) = bytes.as_chunks();
        let (low, high) = (i64::from_le_bytes(halves[0]), i64::from_le_bytes(halves[1]));
        *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap);
    }
    words
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_state(state: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn stored([abef, cdgh]: [__m128i; 2]) -> [u32; 8] {
    let [a, b, e, f] = lanes(abef);
    let [c, d, g, h] = lanes(cdgh);
    [a, b, c, d, e, f, g, h]
}

/// The words of a register, the highest first.
#[inline]
#[target_feature(enable = "sse4.1")]
fn lanes(register: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32(register, 3).cast_unsigned(),
        _mm_extract_epi32(register, 2).cast_unsigned(),
        _mm_extract_epi32(register, 1).cast_unsigned(),
        _mm_extract_epi32(register, 0).cast_unsigned(),
    ]
}
