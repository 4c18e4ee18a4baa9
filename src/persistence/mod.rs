//! How state reaches the disk and comes back.

mod port;

pub use port::{Atomicity, Capabilities, Commit, Epoch, Save, StorageAdapter, apply_save};
