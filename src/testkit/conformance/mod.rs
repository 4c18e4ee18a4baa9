//! What every adapter promises, one function each. [`PROMISES`] lists them.
//!
//! Each is given a factory whose place is new, and the capabilities that the adapter is to declare; a promise about
//! something that is not declared holds without being examined.
//!
//! `values` what comes back exactly, `buckets`, `requests` and `channels` what changes do, `names` what is kept apart,
//! `commits` units, repetition, concurrency and dropped futures, `claims` opening, fencing, closing,
//! `maintenance` backups and compaction; `bench` works the adapter,
//! `model` knows what it should hold, `data` is what it is given, `promises` the list.
#![expect(clippy::missing_errors_doc, reason = "each is `Broken` where it does not hold: that is what they are for")]

mod bench;
mod buckets;
mod channels;
mod claims;
mod commits;
mod data;
mod maintenance;
mod model;
mod names;
mod promises;
mod requests;
mod values;

pub use buckets::*;
pub use channels::*;
pub use claims::*;
pub use commits::*;
pub use maintenance::*;
pub use names::*;
pub use promises::{PROMISES, Promise, examine};
pub use requests::*;
pub use values::*;
