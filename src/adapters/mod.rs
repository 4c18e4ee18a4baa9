//! Back-ends, one folder each, implementing every port that they can. Rank 4: a store takes them through their ports and
//! names none of them.
//!
//! Promise: each keeps the contract of [`StorageAdapter`](crate::persistence::StorageAdapter) and declares in its
//! capabilities what it can do beyond the least. `memory` keeps everything for as long as the process runs, `json_file`
//! (feature `json-file`) in JSON files that people can read, `redb` (feature `redb`) in one database file, `postgres`
//! (feature `postgres`) in a PostgreSQL database that several processes and machines may share.

#[cfg(feature = "json-file")]
pub mod json_file;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redb")]
pub mod redb;
