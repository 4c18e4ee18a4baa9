//! What a transaction does to buckets, channels and durable values is done as a whole or not at all: in memory, on disk,
//! and across a kill. Were it broken, a message would be sent for a state that was lost, or a state would tell of a message
//! that nobody sent.
//!
//! `world` has what the tests share, `together` what a hand-over does, `conflicts` what happens at the same time, `misuse`
//! what is refused, `disk` what commits hold while some fail, `killed` what is left when the process is killed.
#![cfg(all(feature = "testkit", feature = "json-file", feature = "redb"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they expect by unwrapping it, and what they have drawn by printing it"
)]

mod conflicts;
mod disk;
#[cfg(unix)]
mod killed;
mod misuse;
mod together;
mod world;
