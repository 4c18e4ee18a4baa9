//! The operating system's file system.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::base::disk::{Disk, DiskFile, DiskLock};

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "modes are set on unix"))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile::new(options().create_new(true).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile::new(options().open(path)?)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    /// Elsewhere than on unix a directory cannot be synced; renames are as durable there as the system makes them.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = options().create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was being forked at this moment and shares it until
        // it executes its own program. A failure changes nothing: closing follows.
        self.0.unlock().ok();
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct RealFile(File);

#[cfg(unix)]
impl RealFile {
    fn new(file: File) -> Self {
        Self(file)
    }

    fn file(&self) -> &File {
        &self.0
    }

    fn read_once(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buffer, position)
    }

    fn write_all(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, position)
    }
}

/// Elsewhere a position belongs to the open file, so that seeking and what follows it must not be interleaved.
#[cfg(not(unix))]
#[derive(Debug)]
struct RealFile(File, std::sync::Mutex<()>);

#[cfg(not(unix))]
impl RealFile {
    fn new(file: File) -> Self {
        Self(file, std::sync::Mutex::new(()))
    }

    fn file(&self) -> &File {
        &self.0
    }

    fn read_once(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        use std::io::{Read, Seek, SeekFrom};
        let _alone = self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (&self.0).seek(SeekFrom::Start(position))?;
        (&self.0).read(buffer)
    }

    fn write_all(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let _alone = self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (&self.0).seek(SeekFrom::Start(position))?;
        (&self.0).write_all(bytes)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_once(position, buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all(position, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file().set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file().sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_where_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = RealDisk.create_new(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(3, b"abc").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut buffer = [1; 8];
        assert_eq!(file.read_at(1, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"\0\0abc");
        file.truncate(4).unwrap();
        assert_eq!(RealDisk.open(&path).unwrap().len().unwrap(), 4);
        assert_eq!(RealDisk.create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(RealDisk.list(directory.path()).unwrap(), ["file"]);
        RealDisk.remove(&path).unwrap();
        RealDisk.sync_dir(directory.path()).unwrap();
        assert_eq!(RealDisk.open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_directories_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (inner, file, lock) =
            (directory.path().join("d"), directory.path().join("d/f"), directory.path().join("d/l"));
        RealDisk.create_dir(&inner).unwrap();
        RealDisk.create_new(&file).unwrap();
        let _held = RealDisk.lock(&lock).unwrap().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file), mode(&lock)), (0o700, 0o600, 0o600));
    }
}
