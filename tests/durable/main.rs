//! A durable value is there again, whole and as it was last changed, whatever happens to the actor that keeps it. Were it
//! broken, an actor would come back with a state that it never had, or a killed one would write over its successor.
//!
//! `world` has what the tests share, `lives` actors that die and come back, `changes` what one change does, `handing_on`
//! who may change a value, `saving` when it is on disk.
#![cfg(all(feature = "testkit", feature = "json-file", feature = "redb"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

mod changes;
mod handing_on;
mod lives;
mod saving;
mod world;
