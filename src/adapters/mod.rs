//! One folder per back-end, each implementing every port that it can.

#[cfg(feature = "redb")]
pub mod redb;
