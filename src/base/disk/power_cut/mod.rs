//! A disk in memory that keeps what is synced apart from what is not, and gives the images that a power cut could leave.
//! Only for tests, and for those of adapters elsewhere (feature `testkit`).
//!
//! Promise: an image has everything that was synced, and of the rest any part of what was asked for, never anything else.
//!
//! Invariants
//! - Sectors of 512 bytes are new or old independently of one another, and so are a file's length and the names of a
//!   directory, each change of them as a whole. What is left is applied in the order in which it was asked for.
//! - A file or directory whose own directory did not come to last is not there.
//! - A failing write leaves its first half behind, as a killed process does.
//!
//! Files: `disk` the disk and its files, `image` what is pending, and which parts of it come to last.

mod disk;
pub(crate) mod image;

pub use disk::PowerCutDisk;
