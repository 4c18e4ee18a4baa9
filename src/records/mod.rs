//! What a bucket holds, pure: no I/O, no time, no randomness of its own.

mod change;
mod record;

pub use change::{BucketChange, BucketDelta, BucketSnapshot, ChangeSet};
pub use record::{Layout, METADATA, Metadata, Record};
