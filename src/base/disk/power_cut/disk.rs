//! The disk and its files.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::disk::power_cut::image::{Change, Dice, Names, Pending, fill, selections, write};
use crate::base::disk::{Disk, DiskFile, DiskLock};

/// A disk in memory on which power cuts, kills and failing calls can be played. Clones share it. Paths begin at `/`.
///
/// ```
/// use std::path::Path;
/// use ractor_persistence::base::disk::{Disk, replace};
/// use ractor_persistence::testkit::PowerCutDisk;
///
/// let disk = PowerCutDisk::default();
/// let path = Path::new("/state");
/// replace(&disk, path, b"old").unwrap();
/// let file = disk.open(path).unwrap();
/// file.write_at(0, b"new").unwrap(); // and no sync
/// let left: Vec<_> = disk.images(1).map(|image| image.contents(path).unwrap()).collect();
/// assert_eq!(left, [b"old", b"new"]);
/// assert_eq!(disk.survivor().contents(path).unwrap(), b"new");
/// ```
#[derive(Clone, Debug, Default)]
pub struct PowerCutDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What files hold, by number, as it is read and as it is on the medium.
    now: Vec<Vec<u8>>,
    synced: Vec<Vec<u8>>,
    names: Names,
    synced_names: Names,
    /// What is between the two, in the order in which it was asked for.
    pending: Vec<Pending>,
    /// The next free number of a part.
    parts: u64,
    locks: BTreeSet<PathBuf>,
    /// Calls that change something, so far.
    calls: usize,
    /// From this call on, all fail.
    fail_at: Option<usize>,
    fail_call: Option<&'static str>,
    /// These calls fail, and no others for that.
    fail_only: Vec<usize>,
    log: Vec<String>,
}

impl Inner {
    fn step(&mut self, call: &'static str, path: &Path) -> io::Result<()> {
        let dead = self.fail_at.is_some_and(|at| self.calls >= at) || self.fail_only.contains(&self.calls);
        self.calls += 1;
        if dead || self.fail_call == Some(call) {
            return Err(io::Error::other(format!("{call} fails as told")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.log.push(format!("{call} {name}"));
        Ok(())
    }

    fn change(&mut self, change: Change) {
        self.names.apply(&change);
        self.pending.push(Pending { part: self.parts, change });
        self.parts += 1;
    }

    fn content(&self, file: usize) -> &[u8] {
        self.now.get(file).map(Vec::as_slice).unwrap_or_default()
    }

    fn write(&mut self, file: usize, at: usize, bytes: &[u8]) {
        let Some(content) = self.now.get_mut(file) else { return };
        for (part, change) in write(file, content, at, bytes) {
            self.pending.push(Pending { part: self.parts + part, change });
        }
        self.parts += 4;
    }

    fn alive(&self) -> io::Result<()> {
        if self.fail_at.is_some_and(|at| self.calls > at) { Err(io::Error::other("dead")) } else { Ok(()) }
    }

    /// The medium, with what is kept of what is pending.
    fn image(&self, mut kept: impl FnMut(&Pending) -> bool) -> PowerCutDisk {
        let (mut contents, mut names) = (self.synced.clone(), self.synced_names.clone());
        for pending in &self.pending {
            if kept(pending) {
                names.apply(&pending.change);
                fill(&mut contents, &pending.change);
            }
        }
        names.prune();
        PowerCutDisk::of(contents, names)
    }
}

impl PowerCutDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(contents: Vec<Vec<u8>>, names: Names) -> Self {
        let (now, synced_names) = (contents.clone(), names.clone());
        Self(Arc::new(Mutex::new(Inner { now, synced: contents, names, synced_names, ..Inner::default() })))
    }

    /// After this many more calls that change something, all calls fail: the process is dead. The write that it dies in
    /// leaves its first half.
    pub fn fail_after(&self, calls: usize) {
        let mut inner = self.inner();
        inner.fail_at = Some(inner.calls + calls);
    }

    /// All calls of this name fail: that of a method of [`Disk`] or [`DiskFile`] that changes something.
    pub fn fail_call(&self, call: &'static str) {
        self.inner().fail_call = Some(call);
    }

    /// After this many more calls that change something, one fails and changes nothing. Others go on.
    pub fn fail_one_after(&self, calls: usize) {
        let mut inner = self.inner();
        let at = inner.calls + calls;
        inner.fail_only.push(at);
    }

    /// No call fails any more.
    pub fn heal(&self) {
        let mut inner = self.inner();
        (inner.fail_at, inner.fail_call) = (None, None);
        inner.fail_only.clear();
    }

    /// How many calls changed something, or were to.
    pub fn calls(&self) -> usize {
        self.inner().calls
    }

    /// The calls that changed something since the last time, each as `call file`.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().log)
    }

    /// What a killed process leaves: everything that was written, and no lock.
    #[must_use]
    pub fn survivor(&self) -> Self {
        let inner = self.inner();
        Self::of(inner.now.clone(), inner.names.clone())
    }

    /// Every image that a power cut at this moment could leave, within a bound: what is pending is cut into parts (a
    /// change of a directory; a file's new length; of a write its first sector, its last one, and what is between). Of up
    /// to six parts come all combinations; of more, those that lack at most `strays` of them, and those that have no more
    /// than `strays`: so many changes were overtaken by all others, or have overtaken them.
    pub fn images(&self, strays: usize) -> impl Iterator<Item = Self> + use<> {
        let inner = self.inner();
        let mut parts: Vec<u64> = inner.pending.iter().map(|pending| pending.part).collect();
        parts.dedup();
        let selections = selections(parts.len(), strays);
        let frozen = Inner {
            synced: inner.synced.clone(),
            synced_names: inner.synced_names.clone(),
            pending: inner.pending.clone(),
            ..Inner::default()
        };
        selections.into_iter().map(move |kept| {
            let kept: BTreeSet<u64> = parts.iter().zip(kept).filter(|(_, kept)| *kept).map(|(part, _)| *part).collect();
            frozen.image(|pending| kept.contains(&pending.part))
        })
    }

    /// One of the images that a power cut could leave, drawn by a seed, with every sector on its own.
    #[must_use]
    pub fn image(&self, seed: u64) -> Self {
        let mut dice = Dice(seed);
        // Some images have all or nothing of what was not synced.
        let odds = [(0, 8), (8, 8), (1, 8), (7, 8), (4, 8)];
        let draw = usize::try_from(dice.roll(5)).unwrap_or_default();
        let (few, many) = odds.get(draw).copied().unwrap_or((4, 8));
        self.inner().image(|_| dice.roll(many) < few)
    }

    /// What a file holds; none if it is not there.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner();
        inner.names.files.get(path).map(|file| inner.content(*file).to_vec())
    }

    /// Puts these bytes there from outside, durably and in a file of their own, or removes the file.
    pub fn plant(&self, path: &Path, bytes: Option<&[u8]>) {
        let mut inner = self.inner();
        let change = match bytes {
            Some(bytes) => {
                inner.now.push(bytes.to_vec());
                inner.synced.push(bytes.to_vec());
                Change::Link(path.to_path_buf(), inner.now.len() - 1)
            }
            None => Change::Unlink(path.to_path_buf()),
        };
        inner.names.apply(&change);
        inner.synced_names.apply(&change);
    }

    /// All files, in the order of their paths.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inner().names.files.keys().cloned().collect()
    }
}

impl Disk for PowerCutDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.names.has_directory(path) || inner.names.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !inner.names.has_directory(path.parent().unwrap_or(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.step("create_dir", path)?;
        inner.change(Change::Directory(path.to_path_buf()));
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        if inner.names.files.contains_key(path) || inner.names.has_directory(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !inner.names.has_directory(path.parent().unwrap_or(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.step("create_new", path)?;
        inner.now.push(Vec::new());
        inner.synced.push(Vec::new());
        let file = inner.now.len() - 1;
        inner.change(Change::Link(path.to_path_buf(), file));
        Ok(Box::new(MemoryFile { disk: self.clone(), file, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner();
        inner.alive()?;
        let file = *inner.names.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file, path: path.to_path_buf() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let inner = self.inner();
        if !inner.names.has_directory(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = inner.names.directories.iter().chain(inner.names.files.keys());
        Ok(all
            .filter(|entry| entry.parent() == Some(path))
            .filter_map(|entry| entry.file_name())
            .map(Into::into)
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.names.directories.contains(from) {
            if inner.names.directories.contains(to) || inner.names.files.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.step("rename", to)?;
            // What is pending inside belongs to the directory, whatever that is called.
            inner.pending.iter_mut().for_each(|pending| pending.change.moved(from, to));
            inner.change(Change::RenameDirectory(from.to_path_buf(), to.to_path_buf()));
            return Ok(());
        }
        let file = *inner.names.files.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.step("rename", to)?;
        inner.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.step("remove", path)?;
        inner.change(Change::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let mut inner = self.inner();
        inner.step("remove_dir", path)?;
        inner.change(Change::NoDirectory(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.step("sync_dir", path)?;
        let pending = std::mem::take(&mut inner.pending);
        let (done, left): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|pending| pending.change.directory() == Some(path));
        for pending in &done {
            inner.synced_names.apply(&pending.change);
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
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let rest = inner.content(self.file).get(at..).unwrap_or_default();
        // Deliberately awkward: never more than a few bytes at once.
        let pairs = buffer.iter_mut().zip(rest.iter().take(1_000));
        Ok(pairs.map(|(to, from)| *to = *from).count())
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
        let at = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        inner.write(self.file, at, bytes.get(..length).unwrap_or_default());
        answer
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.inner();
        inner.alive()?;
        Ok(inner.content(self.file).len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step("truncate", &self.path)?;
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let change = Change::Length { file: self.file, length };
        fill(&mut inner.now, &change);
        inner.change(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.step("sync_data", &self.path)?;
        let content = inner.content(self.file).to_vec();
        if let Some(synced) = inner.synced.get_mut(self.file) {
            *synced = content;
        }
        inner.pending.retain(|pending| pending.change.file() != Some(self.file));
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
