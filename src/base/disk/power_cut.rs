//! A disk in memory that keeps what is synced apart from what is not, and gives images that a power cut could leave.
//!
//! Sectors of 512 bytes are new or old independently of one another, and so are the names of a directory since its last
//! sync, each change of them as a whole. A failing write leaves a prefix behind, as a killed process does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::disk::{Disk, DiskFile, DiskLock};

pub(crate) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct PowerCutDisk(Arc<Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Directory(PathBuf),
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl Change {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) | Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, ..) => path.parent(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Names {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Directory(path) => {
                self.directories.insert(path.clone());
            }
            Change::Link(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            Change::Unlink(path) => {
                self.files.remove(path);
            }
            Change::Rename(from, to, file) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *file);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    contents: Vec<Content>,
    now: Names,
    synced: Names,
    pending: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    /// Calls that change something, so far.
    calls: usize,
    /// From this call on, all fail.
    fail_at: Option<usize>,
    fail_call: Option<&'static str>,
    log: Vec<String>,
}

impl Inner {
    fn step(&mut self, call: &'static str, path: &Path) -> io::Result<()> {
        let dead = self.fail_at.is_some_and(|at| self.calls >= at);
        self.calls += 1;
        if dead || self.fail_call == Some(call) {
            return Err(io::Error::other(format!("{call} fails as told")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.log.push(format!("{call} {name}"));
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.pending.push(change);
    }

    fn alive(&self) -> io::Result<()> {
        if self.fail_at.is_some_and(|at| self.calls > at) { Err(io::Error::other("dead")) } else { Ok(()) }
    }
}

/// Splitmix64, so that an image is what its seed says.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

impl PowerCutDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After this many more calls that change something, all calls fail: the process is dead.
    pub(crate) fn fail_after(&self, calls: usize) {
        let mut inner = self.inner();
        inner.fail_at = Some(inner.calls + calls);
    }

    /// All calls of this name fail.
    pub(crate) fn fail_call(&self, call: &'static str) {
        self.inner().fail_call = Some(call);
    }

    pub(crate) fn heal(&self) {
        let mut inner = self.inner();
        (inner.fail_at, inner.fail_call) = (None, None);
    }

    /// Calls that changed something, or were to.
    pub(crate) fn calls(&self) -> usize {
        self.inner().calls
    }

    /// The calls that changed something, since the last time.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().log)
    }

    /// What a killed process leaves: everything that was written, and no lock.
    pub(crate) fn survivor(&self) -> Self {
        let inner = self.inner();
        let contents: Vec<Content> = inner
            .contents
            .iter()
            .map(|content| Content { now: content.now.clone(), synced: content.now.clone() })
            .collect();
        let (now, synced) = (inner.now.clone(), inner.now.clone());
        Self(Arc::new(Mutex::new(Inner { contents, now, synced, ..Inner::default() })))
    }

    /// One of the images that a power cut could leave.
    pub(crate) fn image(&self, seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Some images have all or nothing of what was not synced.
        let (few, many) = [(0, 8), (8, 8), (1, 8), (7, 8), (4, 8)][usize::try_from(dice.roll(5)).unwrap_or(0)];
        let inner = self.inner();
        let mut names = inner.synced.clone();
        for change in &inner.pending {
            if dice.roll(many) < few {
                names.apply(change);
            }
        }
        let contents = inner.contents.iter().map(|content| {
            let (old, new) = (&content.synced, &content.now);
            let length = if dice.roll(many) < few { new.len() } else { old.len() };
            let mut image = old.clone();
            image.resize(length, 0);
            for at in (0..length).step_by(SECTOR) {
                let end = (at + SECTOR).min(length).min(new.len());
                if at < end && dice.roll(many) < few {
                    image[at..end].copy_from_slice(&new[at..end]);
                }
            }
            Content { now: image.clone(), synced: image }
        });
        let contents = contents.collect();
        Self(Arc::new(Mutex::new(Inner { contents, now: names.clone(), synced: names, ..Inner::default() })))
    }

    pub(crate) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner();
        inner.now.files.get(path).map(|file| inner.contents[*file].now.clone())
    }

    /// Puts these bytes there, durably, from outside.
    pub(crate) fn plant(&self, path: &Path, bytes: Option<&[u8]>) {
        let mut inner = self.inner();
        let change = match bytes {
            Some(bytes) => {
                inner.contents.push(Content { now: bytes.to_vec(), synced: bytes.to_vec() });
                Change::Link(path.to_path_buf(), inner.contents.len() - 1)
            }
            None => Change::Unlink(path.to_path_buf()),
        };
        inner.now.apply(&change);
        inner.synced.apply(&change);
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.inner().now.files.keys().cloned().collect()
    }
}

impl Disk for PowerCutDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if path == Path::new("/") || inner.now.directories.contains(path) || inner.now.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let above = path.parent().unwrap_or(Path::new("/"));
        if above != Path::new("/") && !inner.now.directories.contains(above) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.step("create_dir", path)?;
        inner.change(Change::Directory(path.to_path_buf()));
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        if inner.now.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inner.step("create_new", path)?;
        inner.contents.push(Content::default());
        let file = inner.contents.len() - 1;
        inner.change(Change::Link(path.to_path_buf(), file));
        Ok(Box::new(MemoryFile { disk: self.clone(), file, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner();
        inner.alive()?;
        let file = *inner.now.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file, path: path.to_path_buf() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let inner = self.inner();
        if path != Path::new("/") && !inner.now.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = inner.now.directories.iter().chain(inner.now.files.keys());
        Ok(all
            .filter(|entry| entry.parent() == Some(path))
            .filter_map(|entry| entry.file_name())
            .map(Into::into)
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let file = *inner.now.files.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.step("rename", to)?;
        inner.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.now.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.step("remove", path)?;
        inner.change(Change::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.step("sync_dir", path)?;
        let pending = std::mem::take(&mut inner.pending);
        let (done, left): (Vec<_>, Vec<_>) = pending.into_iter().partition(|change| change.directory() == Some(path));
        for change in &done {
            inner.synced.apply(change);
        }
        inner.pending = left;
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut inner = self.inner();
        inner.alive()?;
        if !inner.locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock { disk: self.clone(), path: path.to_path_buf() })))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: PowerCutDisk,
    file: usize,
    path: PathBuf,
}

impl DiskFile for MemoryFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = self.disk.inner();
        inner.alive()?;
        let rest = inner.contents[self.file].now.get(usize::try_from(position).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        // Deliberately awkward: never more than a few bytes at once.
        let length = rest.len().min(buffer.len()).min(1_000);
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let before = inner.calls;
        let answer = inner.step("write_at", &self.path);
        // A dead process writes nothing more; the write that it died in leaves its first half.
        let length = match &answer {
            Ok(()) => bytes.len(),
            Err(_) if inner.fail_at.is_some_and(|at| before > at) => 0,
            Err(_) => bytes.len() / 2,
        };
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let content = &mut inner.contents[self.file].now;
        if content.len() < at + length {
            content.resize(at + length, 0);
        }
        content[at..at + length].copy_from_slice(&bytes[..length]);
        answer
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.inner();
        inner.alive()?;
        Ok(inner.contents[self.file].now.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step("truncate", &self.path)?;
        inner.contents[self.file].now.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step("sync_data", &self.path)?;
        let content = &mut inner.contents[self.file];
        content.synced = content.now.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: PowerCutDisk,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.inner().locks.remove(&self.path);
    }
}
