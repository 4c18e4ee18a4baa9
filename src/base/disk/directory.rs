//! Making directories that are still there after a power cut.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::disk::{Disk, DiskError};

/// The directory that a file's name stands in.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn sync(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    disk.sync_dir(path).map_err(|error| DiskError::new("sync", path, error))
}

/// Makes a directory and those above it that are missing, each for its owner alone, and syncs the parent of each that it
/// makes. One that is there is left as it is.
///
/// # Errors
/// What the disk answers.
///
/// ```
/// use ractor_persistence::base::disk::{RealDisk, create_dir_all};
/// let directory = tempfile::tempdir()?;
/// let inner = directory.path().join("a/b");
/// create_dir_all(&RealDisk, &inner)?;
/// create_dir_all(&RealDisk, &inner)?;
/// assert!(inner.is_dir());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_dir_all(disk: &dyn Disk, path: &Path) -> Result<(), DiskError> {
    let mut missing = vec![path.to_path_buf()];
    while let Some(next) = missing.last() {
        match disk.create_dir(next) {
            Ok(()) => {
                sync(disk, &parent(next))?;
                missing.pop();
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                missing.pop();
            }
            // Only a path with a proper parent asks for it; the root and the working directory are there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && next.parent().is_some_and(|up| *up != *"") => {
                let above = parent(next);
                missing.push(above);
            }
            Err(error) => return Err(DiskError::new("create", next, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::power_cut::PowerCutDisk;

    #[test]
    fn each_directory_that_is_made_survives_a_power_cut() {
        let disk = PowerCutDisk::default();
        create_dir_all(&disk, Path::new("/a/b/c")).unwrap();
        for seed in 0..16 {
            assert!(disk.image(seed).list(Path::new("/a/b/c")).is_ok());
        }
    }
}
