//! The traits behind which the file system lies.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

/// A file system, in the few calls that the crate makes. Object-safe, so that a double can stand in for it.
///
/// # Contract
/// - All calls block.
/// - What a call changes is visible to later calls at once; it is durable once [`DiskFile::sync_data`] of the file, and
///   for names [`sync_dir`](Self::sync_dir) of the directory, has returned `Ok`.
/// - Errors are the operating system's; a missing file is [`NotFound`](io::ErrorKind::NotFound), a name in use
///   [`AlreadyExists`](io::ErrorKind::AlreadyExists).
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes one directory, for its owner alone (mode 0700 where there are modes).
    ///
    /// # Errors
    /// The operating system's; [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is in use.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file, for its owner alone (mode 0600 where there are modes), to read and write it.
    ///
    /// # Errors
    /// The operating system's; [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is in use.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, to read and write it.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Gives a file another name, in one step, over a file that has that name already; or a directory one that nothing
    /// has.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable. Where the system has no such call, it does nothing.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks a file, made if missing, against every other open of it in this process or another, without waiting. None
    /// if it is locked.
    ///
    /// # Errors
    /// The operating system's.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
}

/// An open file. Positions are in bytes.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file, possibly fewer than there are before it.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes, beyond the end of the file too. After an error, any part of them may have been written.
    ///
    /// # Errors
    /// The operating system's.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Sets the file's length; new bytes are zero.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes contents and length durable (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. What was written since the last success may or may not be durable then, and trying again
    /// proves nothing: the system may have forgotten what it could not write.
    fn sync_data(&self) -> io::Result<()>;
}

/// A lock, held until it is dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {}
