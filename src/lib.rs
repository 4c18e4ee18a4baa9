//! What a Rust actor keeps when its process ends.
#![deny(unsafe_code)]

#[macro_use]
mod macros;

pub mod adapters;
pub mod base;
pub mod bucket;
pub mod bus;
pub mod channel;
pub mod persistence;
pub mod records;
pub mod sds;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
