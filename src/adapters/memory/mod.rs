//! A plain shared map: for tests, and for stores that may forget when the process ends.
//!
//! Invariants: a commit is looked through before its first part is applied, and applied under one lock, so that nobody
//! sees half of it; its cost is that of its changes, not of the buckets that they are made to.
//!
//! `adapter` is the port's implementation, `state` what is kept and the rules by which it changes.

mod adapter;
mod state;

pub use adapter::MemoryAdapter;
pub use state::{Quarantined, QuarantinedData};
