//! Back-ends, one folder each, behind the one port.
//!
//! Promise: each keeps the contract of [`StorageAdapter`](crate::persistence::StorageAdapter) and declares in its
//! capabilities what it can do beyond the least.

#[cfg(feature = "json-file")]
pub mod json_file;
