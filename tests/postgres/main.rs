//! The Postgres adapter against a real server.
#![cfg(all(feature = "postgres", feature = "testkit"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

mod server;
