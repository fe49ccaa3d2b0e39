//! Random numbers for pulls, attacks and contents. None of them is a secret.

pub(crate) use rand::rngs::SmallRng as Random;

/// A generator that differs in each call. Where a run must be repeatable, seed one instead.
pub(crate) fn random() -> Random {
    rand::make_rng()
}
