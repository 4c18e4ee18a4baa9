//! What a Rust actor keeps when its process ends.
#![deny(unsafe_code)]

#[macro_use]
mod macros;

pub mod adapters;
pub mod base;
pub mod persistence;
pub mod records;
pub mod sds;
