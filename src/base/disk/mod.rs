//! The seam to the file system: everything that is kept in files goes through it.
//!
//! Promise: what is durable when a call here returns is written at that call, and the steps that make it durable cannot
//! be left out, because no call here has one without the others.
//!
//! Invariants
//! - A file is created or replaced as a whole by [`Replacement`] alone: temporary file, sync, rename, directory sync.
//! - A directory is made by [`create_dir_all`] alone, which syncs the parent of each one that it makes.
//! - A file that is written in place is a [`FailStopFile`]: after a failed write or sync it refuses everything, and no
//!   sync is tried a second time on it.
//! - All calls block; whoever is async comes through [`base::blocking`](crate::base::blocking).
//!
//! Files: `port` the traits that a double implements, `real` the operating system's file system, `error` what went wrong
//! and whether it may have happened nonetheless, `fail_stop` a file that is written in place, `replace` whole files,
//! `directory` making directories, `lock` one owner per directory, `power_cut`
//! (tests) a disk on which the power can be cut.

mod directory;
mod error;
mod fail_stop;
mod lock;
mod port;
#[cfg(any(test, feature = "testkit"))]
pub mod power_cut;
mod real;
mod replace;

pub use directory::create_dir_all;
pub use error::DiskError;
pub use fail_stop::FailStopFile;
pub use lock::{DirectoryLock, HOLDER_FILE, LOCK_FILE};
pub use port::{Disk, DiskFile, DiskLock};
pub use real::RealDisk;
pub use replace::{Replacement, read, remove, replace};
