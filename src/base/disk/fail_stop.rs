//! A file that is written in place, and is given up after its first failure.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::disk::{Disk, DiskError, DiskFile};

/// An open file that refuses everything after a failed write, truncation or sync, until it is opened again.
///
/// After a failed write nobody knows what the file holds; after a failed sync the system may have forgotten what it could
/// not write, and a second sync would answer `Ok` for bytes that are lost. So neither is tried again here. Whoever opens
/// the file again reads what it holds before writing on.
///
/// ```
/// use ractor_persistence::base::disk::{FailStopFile, RealDisk};
/// let directory = tempfile::tempdir()?;
/// let file = FailStopFile::create_new(&RealDisk, &directory.path().join("notes"))?;
/// assert_eq!(file.append(b"one ")?, 0);
/// assert_eq!(file.append(b"two")?, 4);
/// file.sync()?;
/// assert_eq!(file.read_all()?, b"one two");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FailStopFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    latched: AtomicBool,
}

impl FailStopFile {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, DiskError> {
        let file = disk.open(path).map_err(|error| DiskError::new("open", path, error))?;
        Ok(Self { path: path.to_path_buf(), file, latched: AtomicBool::new(false) })
    }

    /// Makes a file that is not there. Its name is durable after a sync of its directory.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn create_new(disk: &dyn Disk, path: &Path) -> Result<Self, DiskError> {
        let file = disk.create_new(path).map_err(|error| DiskError::new("create", path, error))?;
        Ok(Self { path: path.to_path_buf(), file, latched: AtomicBool::new(false) })
    }

    /// Whether the file refuses everything.
    pub fn is_latched(&self) -> bool {
        self.latched.load(Ordering::Acquire)
    }

    fn usable(&self, verb: &'static str) -> Result<(), DiskError> {
        if self.is_latched() { Err(DiskError::latched(verb, &self.path)) } else { Ok(()) }
    }

    fn latch<T>(&self, verb: &'static str, answer: std::io::Result<T>) -> Result<T, DiskError> {
        answer.map_err(|error| {
            self.latched.store(true, Ordering::Release);
            DiskError::new(verb, &self.path, error)
        })
    }

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the disk answers; latched.
    pub fn len(&self) -> Result<u64, DiskError> {
        self.usable("measure")?;
        self.file.len().map_err(|error| DiskError::new("measure", &self.path, error))
    }

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `length` bytes from `position` on; fewer where the file ends.
    ///
    /// # Errors
    /// What the disk answers; latched. A failed read does not latch.
    pub fn read(&self, position: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        self.usable("read")?;
        read_up_to(self.file.as_ref(), position, length).map_err(|error| DiskError::new("read", &self.path, error))
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(&self) -> Result<Vec<u8>, DiskError> {
        self.read(0, usize::try_from(self.len()?).unwrap_or(usize::MAX))
    }

    /// Writes all bytes from `position` on.
    ///
    /// # Errors
    /// What the disk answers, after which the file is latched: any part of the bytes may have been written.
    pub fn write(&self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.usable("write")?;
        self.latch("write", self.file.write_at(position, bytes))
    }

    /// Writes all bytes behind the end; answers where that was.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn append(&self, bytes: &[u8]) -> Result<u64, DiskError> {
        let end = self.len()?;
        self.write(end, bytes)?;
        Ok(end)
    }

    /// Sets the file's length; new bytes are zero.
    ///
    /// # Errors
    /// What the disk answers, after which the file is latched.
    pub fn truncate(&self, length: u64) -> Result<(), DiskError> {
        self.usable("truncate")?;
        self.latch("truncate", self.file.truncate(length))
    }

    /// Makes contents and length durable.
    ///
    /// # Errors
    /// What the disk answers, after which the file is latched: what was written since the last sync may be lost.
    pub fn sync(&self) -> Result<(), DiskError> {
        self.usable("sync")?;
        self.latch("sync", self.file.sync_data())
    }
}

fn read_up_to(file: &dyn DiskFile, mut position: u64, length: usize) -> std::io::Result<Vec<u8>> {
    // No more is set aside than the file has.
    let rest = usize::try_from(file.len()?.saturating_sub(position)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(rest)];
    let mut filled = 0;
    while let Some(buffer) = bytes.get_mut(filled..).filter(|buffer| !buffer.is_empty()) {
        let read = file.read_at(position, buffer)?;
        if read == 0 {
            break;
        }
        filled += read;
        position += read as u64;
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::power_cut::PowerCutDisk;

    #[test]
    fn after_a_failed_sync_a_file_refuses_everything_until_it_is_opened_again() {
        let disk = PowerCutDisk::default();
        let file = FailStopFile::create_new(&disk, Path::new("/a")).unwrap();
        file.write(0, b"x").unwrap();
        disk.fail_after(0);
        let failed = file.sync().unwrap_err();
        assert!(!failed.is_latched());
        disk.heal();
        let calls = disk.calls();
        assert!(file.sync().unwrap_err().is_latched());
        assert!(file.write(1, b"y").unwrap_err().is_latched());
        assert!(file.append(b"y").unwrap_err().is_latched());
        assert!(file.truncate(0).unwrap_err().is_latched());
        assert!(file.read_all().unwrap_err().is_latched());
        assert_eq!(disk.calls(), calls, "no second sync reaches the disk");
        let again = FailStopFile::open(&disk, Path::new("/a")).unwrap();
        assert_eq!(again.read_all().unwrap(), b"x");
        again.sync().unwrap();
    }

    #[test]
    fn after_a_failed_write_a_file_refuses_everything_until_it_is_opened_again() {
        let disk = PowerCutDisk::default();
        let file = FailStopFile::create_new(&disk, Path::new("/a")).unwrap();
        disk.fail_after(0);
        assert!(!file.append(b"x").unwrap_err().is_latched());
        disk.heal();
        assert!(file.is_latched() && file.sync().unwrap_err().is_latched());
    }

    #[test]
    fn a_read_asks_for_no_more_memory_than_the_file_has() {
        let disk = PowerCutDisk::default();
        let file = FailStopFile::create_new(&disk, Path::new("/a")).unwrap();
        file.append(b"abc").unwrap();
        assert_eq!(file.read(1, usize::MAX).unwrap(), b"bc");
        assert_eq!(file.read(9, usize::MAX).unwrap(), b"");
    }
}
