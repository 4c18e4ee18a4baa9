//! Who asked to be told of changes is told of the last one, once per commit, and whatever he does with it is his affair.
//!
//! Without this a screen would show what was true a while ago, evaluate a thousand times where once is enough, or take
//! the bucket down with it. `queries` has live queries, `lives` what becomes of them when buckets come and go, `random`
//! many writers at once, `handlers` handlers of events, `bridges` events for elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by unwrapping it")]

mod bridges;
mod handlers;
mod lives;
mod queries;
mod random;
mod support;
