//! One owner per directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::clock::Clock;
use crate::base::disk::{Disk, DiskError, DiskLock, FailStopFile, replace};
use crate::base::error::{Error, Result};
use crate::base::utc::Utc;

/// The file that is locked.
pub const LOCK_FILE: &str = "LOCK";
/// The file beside it that says who holds the lock; only ever read for messages.
pub const HOLDER_FILE: &str = "LOCK.holder";

/// A directory that nobody else has, in this process or another, until this is dropped. A process that dies leaves it
/// free.
///
/// ```
/// use std::sync::Arc;
/// use ractor_persistence::base::{clock::SystemClock, disk::{DirectoryLock, RealDisk}, error::Error};
/// let directory = tempfile::tempdir()?;
/// let lock = DirectoryLock::acquire(Arc::new(RealDisk), directory.path(), &SystemClock)?;
/// let refused = DirectoryLock::acquire(Arc::new(RealDisk), directory.path(), &SystemClock).unwrap_err();
/// assert!(matches!(refused, Error::Locked { holder: Some(holder), .. } if holder.starts_with("process ")));
/// drop(lock);
/// DirectoryLock::acquire(Arc::new(RealDisk), directory.path(), &SystemClock)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirectoryLock {
    disk: Arc<dyn Disk>,
    holder: PathBuf,
    _lock: Box<dyn DiskLock>,
}

#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    since_ms: i64,
}

impl DirectoryLock {
    /// Takes a directory, which must be there, without waiting.
    ///
    /// # Errors
    /// `Locked`, with who holds it and since when where that is known; else what the disk answers.
    pub fn acquire(disk: Arc<dyn Disk>, directory: &Path, clock: &dyn Clock) -> Result<Self> {
        let (path, holder) = (directory.join(LOCK_FILE), directory.join(HOLDER_FILE));
        let lock = disk.lock(&path).map_err(|error| DiskError::new("lock", &path, error).into_error("locking"))?;
        let Some(lock) = lock else {
            return Err(Error::Locked { path: directory.to_path_buf(), holder: who(disk.as_ref(), &holder) });
        };
        let me = Holder { pid: std::process::id(), since_ms: clock.now_ms() };
        let written = serde_json::to_vec(&me).map_err(|error| error.to_string());
        let written =
            written.and_then(|text| replace(disk.as_ref(), &holder, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            // Others are told that the directory is locked, only not by whom.
            tracing::warn!(file = %holder.display(), %error, "cannot note who holds a lock");
        }
        Ok(Self { disk, holder, _lock: lock })
    }
}

fn who(disk: &dyn Disk, path: &Path) -> Option<String> {
    let text = FailStopFile::open(disk, path).and_then(|file| file.read(0, 4_096)).ok()?;
    let Holder { pid, since_ms } = serde_json::from_slice(&text).ok()?;
    Some(format!("process {pid} since {}", Utc(since_ms)))
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Removed before the lock is free, so that it cannot be the next holder's. If that fails it is overwritten.
        self.disk.remove(&self.holder).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::disk::RealDisk;

    #[test]
    fn a_lock_names_its_holder_and_leaves_nothing_but_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(1_769_860_800_000);
        let take = || DirectoryLock::acquire(Arc::new(RealDisk), directory.path(), &clock);
        let held = take().unwrap();
        let Err(Error::Locked { path, holder }) = take() else { panic!("taken twice") };
        assert_eq!(path, directory.path());
        let expected = format!("process {} since 2026-01-31T12:00:00.000Z", std::process::id());
        assert_eq!(holder, Some(expected));
        std::fs::write(directory.path().join(HOLDER_FILE), b"{\"pid\":").unwrap();
        assert!(matches!(take(), Err(Error::Locked { holder: None, .. })), "garbage names nobody");
        drop(held);
        assert_eq!(RealDisk.list(directory.path()).unwrap(), [LOCK_FILE]);
        take().unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOCK_FILE), b"").unwrap();
        std::fs::write(directory.path().join(HOLDER_FILE), b"{\"pid\":1,\"since_ms\":0}").unwrap();
        DirectoryLock::acquire(Arc::new(RealDisk), directory.path(), &ManualClock::at(0)).unwrap();
    }
}
