//! A store saves what it was told, tells the truth about what it could not save, and is back with it after whatever
//! happens to its actors. Were it broken, acknowledged changes would be gone, or callers would wait for ever.
//!
//! `world` has what the tests share; each of the others asks one question. Time is paused, except where an adapter works
//! on threads of its own; no test measures how long something takes.
#![cfg(feature = "testkit")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

mod defining;
mod dropping;
mod failing;
mod fencing;
mod killing;
mod leaving;
#[cfg(feature = "metrics")]
mod measuring;
mod recovering;
mod reopening;
mod runtimes;
mod secrecy;
mod sharing;
mod stopping;
mod supervision;
mod telling;
mod timing;
mod unknown;
mod world;
