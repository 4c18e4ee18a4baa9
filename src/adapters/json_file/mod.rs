//! JSON files: for people who read and diff their data.
//!
//! Promise: what a commit at `Fsync` answered `Ok` for is there after a power cut; what one below it did, after the process
//! was killed. A file that was cut short, swapped or damaged is refused by its name and place, never believed and never
//! overwritten. Bytes are described in `docs/format.md`.
//!
//! Invariants
//! - One adapter per directory, kept by a lock; one writer per subject, kept by a mutex that the blocking work holds, so
//!   that a future which is dropped changes nothing about the order of commits.
//! - A line is written into room that is durable already, over tabs; nothing is ever written behind a cut.
//! - A checkpoint holds everything of all journals of older generations before its own journal begins.
//! - After a failed write or sync of a subject its files are read again before they are written again.
//!
//! Files: `adapter` the port, `options`, `session` an open directory: lock, claims, open subjects, `subject` what a
//! subject's two files go through, `plan` a commit by subjects, `state` what changes do to a bucket or channel,
//! `checkpoint` and `journal` the two files' texts, `backup` a copy of everything, `seal` checksummed text, `names` file names, `decoding` the texts
//! for fuzzing, `error` private detail.

mod adapter;
mod backup;
mod checkpoint;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod decoding;
mod error;
mod journal;
mod names;
mod options;
mod plan;
mod seal;
mod session;
mod state;
mod subject;
#[cfg(test)]
mod tests;

pub use adapter::JsonFileAdapter;
pub use options::JsonFileOptions;
