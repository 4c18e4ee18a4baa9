//! Proving back-ends and what is built on them: a conformance kit for adapters, doubles that fail on demand, and crashes
//! for applications. Feature `testkit`.
//!
//! Everything that the crate trusts an adapter with is a *promise*, an `async fn` in [`conformance`] that works an
//! adapter and says [`Broken`] with what it found if the promise does not hold. The macro
//! [`conformance!`](crate::conformance) makes one test of each, so that a report names what is missing:
//!
//! ```
//! mod memory {
//!     use ractor_persistence::adapters::memory::MemoryAdapter;
//!     use ractor_persistence::persistence::StorageAdapter;
//!
//!     ractor_persistence::conformance!(
//!         factory = {
//!             let place = MemoryAdapter::default();
//!             move || std::future::ready(Ok(place.clone()))
//!         },
//!         capabilities = MemoryAdapter::default().capabilities(),
//!     );
//! }
//! ```
//!
//! [`FaultAdapter`] wraps any adapter, makes it fail, hang, dawdle or lose its answers, and keeps a log of what it was
//! handed. [`PowerCutDisk`] is a file system in memory that yields every image a power cut could leave, within a bound.
//! [`recovery_check`] is for applications: it lets theirs die between any two steps of a script, and compares.
//!
//! Invariants: the kit asks of an adapter only what a store would; what an adapter does not declare is not examined,
//! unless it must be refused. Nothing here asserts how long something takes; randomness is seeded and the seed told.
//!
//! `factory` where an adapter comes from, `verdict` what a promise says, `conformance/` the promises, `fault` the
//! adapter that fails, `faults` what it fails with and what it noted, `recovery` crashes of applications, `decoding` the bodies of fuzz targets, `random` seeded numbers.

pub mod conformance;
#[doc(hidden)]
pub mod decoding;
mod factory;
mod fault;
mod faults;
mod random;
mod recovery;
mod verdict;

pub use crate::base::disk::power_cut::PowerCutDisk;
pub use factory::{BackedUp, Factory, Poisoned};
pub use fault::FaultAdapter;
pub use faults::{Call, Effect, Fault, Faults, Logged, Operation};
pub use recovery::{Crashes, Failure, Recovered, recovery_check};
pub use verdict::{Broken, Verdict};
