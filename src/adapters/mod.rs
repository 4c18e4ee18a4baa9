//! Back-ends, one folder each. A store takes them through the ports that they implement and names none of them.
//!
//! [`memory`] keeps everything for as long as the process runs.

pub mod memory;
