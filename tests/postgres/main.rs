//! A store on PostgreSQL keeps its promises when things go wrong with the server, the way to it, or other owners of the
//! same data. Were it broken, two processes would overwrite each other, acknowledged changes would be gone after a
//! restart of the server, or passwords would be in logs.
//!
//! What any adapter has to do is in `tests/conformance.rs` and `tests/persistence`. `server` is where the servers come
//! from, `world` what the tests share; each of the others asks one question. They run against a real server; no test
//! measures how long something takes.
#![cfg(all(feature = "postgres", feature = "testkit"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

mod cutting;
mod documents;
mod losing;
mod owning;
mod schema;
mod secrecy;
mod server;
mod tls;
mod waiting;
mod world;
