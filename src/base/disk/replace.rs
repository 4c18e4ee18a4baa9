//! Whole files: written aside, then put in place in one durable step.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::disk::directory::{parent, sync};
use crate::base::disk::{Disk, DiskError, FailStopFile};

/// A file that is being written aside, as `<name>.tmp`, to take the place of another in one step.
///
/// Until [`commit`](Self::commit) the old file, or none, is there as it was; after it the new one is there as a whole, also
/// after a power cut. Dropping it without a commit removes the temporary file. Two at once for one path are the caller's
/// mistake: they would write into the same temporary file.
///
/// ```
/// use ractor_persistence::base::disk::{RealDisk, Replacement, read};
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("state");
/// let mut new = Replacement::begin(&RealDisk, &path)?;
/// new.write(b"_ell")?;
/// new.write(b"o")?;
/// new.patch(0, b"H")?;
/// assert_eq!(read(&RealDisk, &path)?, None);
/// new.commit()?;
/// assert_eq!(read(&RealDisk, &path)?.as_deref(), Some(&b"Hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Replacement<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    aside: PathBuf,
    file: FailStopFile,
    length: u64,
    /// Whether the temporary file is still there under its name.
    waits: bool,
}

pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".tmp");
    path.with_file_name(name)
}

impl<'a> Replacement<'a> {
    /// Begins a file for `path`. What an earlier one left behind is removed.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn begin(disk: &'a dyn Disk, path: &Path) -> Result<Self, DiskError> {
        let aside = aside(path);
        remove_if_there(disk, &aside)?;
        let file = FailStopFile::create_new(disk, &aside)?;
        Ok(Self { disk, path: path.to_path_buf(), aside, file, length: 0, waits: true })
    }

    /// Writes behind what was written so far.
    ///
    /// # Errors
    /// What the disk answers; the replacement is of no use after it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write(self.length, bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Writes over a part of what was written so far.
    ///
    /// # Errors
    /// What the disk answers; the replacement is of no use after it.
    pub fn patch(&mut self, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write(position, bytes)
    }

    /// How many bytes were written so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written so far.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts the file in place: syncs it, renames it, syncs the directory.
    ///
    /// # Errors
    /// What the disk answers. Before the rename nothing has changed; if the directory cannot be synced, the error is one
    /// that [may have been applied](DiskError::maybe_applied): the new file is there, and a power cut may undo it.
    pub fn commit(mut self) -> Result<(), DiskError> {
        self.file.sync()?;
        let renamed = self.disk.rename(&self.aside, &self.path);
        renamed.map_err(|error| DiskError::new("put in place", &self.path, error))?;
        self.waits = false;
        sync(self.disk, &parent(&self.path)).map_err(DiskError::maybe_applied)
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if self.waits && self.disk.remove(&self.aside).is_err() {
            // The next replacement of this file removes it, and nothing ever reads it.
            tracing::debug!(file = %self.aside.display(), "a temporary file stays behind");
        }
    }
}

/// Replaces a file, or makes it, with these bytes: [`Replacement`] in one call.
///
/// # Errors
/// As [`Replacement::commit`].
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut new = Replacement::begin(disk, path)?;
    new.write(bytes)?;
    new.commit()
}

/// Reads a whole file; none if it is not there.
///
/// # Errors
/// What the disk answers.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match FailStopFile::open(disk, path) {
        Ok(file) => file.read_all().map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file, and what a replacement of it left behind, and syncs the directory; answers whether it was there.
///
/// # Errors
/// What the disk answers; from the removal on it [may have been applied](DiskError::maybe_applied).
pub fn remove(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    remove_if_there(disk, &aside(path))?;
    let there = remove_if_there(disk, path)?;
    if there {
        sync(disk, &parent(path)).map_err(DiskError::maybe_applied)?;
    }
    Ok(there)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<bool, DiskError> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::new("remove", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::power_cut::PowerCutDisk;

    #[test]
    fn a_power_cut_at_any_step_leaves_the_old_file_or_the_new_one_whole() {
        let path = Path::new("/state");
        for steps in 0.. {
            let disk = PowerCutDisk::default();
            replace(&disk, path, &[1; 1_500]).unwrap();
            disk.fail_after(steps);
            let answer = replace(&disk, path, &[2; 700]);
            for seed in 0..32 {
                let found = read(&disk.image(seed), path).unwrap();
                let (old, new) = (found == Some(vec![1; 1_500]), found == Some(vec![2; 700]));
                assert!(old || new, "step {steps}, seed {seed}");
                assert!(new || answer.is_err(), "step {steps}, seed {seed}: answered and lost");
            }
            if answer.is_ok() {
                assert!(steps >= 4, "sync, rename and directory sync are steps of their own");
                return;
            }
        }
    }

    #[test]
    fn only_a_failed_directory_sync_leaves_it_open_whether_the_file_was_replaced() {
        let disk = PowerCutDisk::default();
        let path = Path::new("/state");
        disk.fail_call("sync_dir");
        let error = replace(&disk, path, b"x").unwrap_err();
        assert!(matches!(error.into_error("saving"), crate::base::error::Error::Unknown { .. }));
        disk.heal();
        disk.fail_call("rename");
        let error = replace(&disk, path, b"y").unwrap_err();
        assert!(matches!(error.into_error("saving"), crate::base::error::Error::Transient { .. }));
        disk.heal();
        assert_eq!(read(&disk, path).unwrap(), Some(b"x".to_vec()));
        assert_eq!(disk.list(Path::new("/")).unwrap(), ["state"], "the temporary file is removed");
    }
}
