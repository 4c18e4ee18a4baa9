//! Back-ends, one folder each, implementing every port that they can. Rank 4: a store takes them through their ports and
//! names none of them.
//!
//! `memory` keeps everything for as long as the process runs, `redb` (feature `redb`) in one database file.

pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;
