//! What a bucket answers, tells, keeps and forgets, asked through handles as users have them. Were it broken, writes
//! would be lost or doubled, reads would show what is gone, and subscribers would miss what happened.
//!
//! `world` has what the tests share; each of the others asks one question. Records are stamped by a clock that is moved by
//! hand; where ticks matter, time is paused. Randomness is seeded, and seeds are printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they expect by unwrapping it"
)]

mod capacity;
mod expiry;
mod model;
mod names;
mod operations;
mod order;
mod requests;
mod restarts;
#[cfg(feature = "json-file")]
mod together;
mod world;
