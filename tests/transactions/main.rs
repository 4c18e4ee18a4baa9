//! Transactions over several buckets are as if one ran after the other, apply whole or not at all, in memory and on disk.
//! Were it broken, sums would not add up, and half of a transfer would be gone after a crash.
//!
//! `world` has what the tests share; each of the others asks one question. Randomness is seeded, and seeds are printed;
//! `RACTOR_PERSISTENCE_HISTORY_SEEDS` sets how many histories are tried (default 30).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they expect by unwrapping it"
)]

mod conflicts;
mod disk;
mod histories;
mod net_effect;
mod world;
