//! A copy of a directory, made aside and put in place in one step.

use std::path::{Path, PathBuf};

use crate::adapters::json_file::error::Fault;
use crate::adapters::json_file::names;
use crate::base::disk::{Disk, DiskError, FailStopFile, create_dir_all};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// What was copied, under a name of its own until it is in place. Dropped before that, it is removed.
#[derive(Debug)]
pub(super) struct Backup<'a> {
    disk: &'a dyn Disk,
    target: PathBuf,
    aside: PathBuf,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    bytes: u64,
    waits: bool,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    move |error| DiskError::new(verb, path, error)
}

/// Whether something has this name.
pub(super) fn is_taken(disk: &dyn Disk, path: &Path) -> bool {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    !(disk.list(path).is_err_and(|error| missing(&error)) && disk.open(path).is_err_and(|error| missing(&error)))
}

impl<'a> Backup<'a> {
    /// Makes the directory that is going to be `target`, beside it.
    pub(super) fn begin(disk: &'a dyn Disk, target: &Path) -> Result<Self, Fault> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // One that a killed process left behind is somebody's to look at, not ours to write into.
        let mut count = 0_u64;
        let aside = loop {
            let suffix = if count == 0 { String::new() } else { format!("-{count}") };
            let aside = target.with_file_name(format!("{name}.tmp{suffix}"));
            if !is_taken(disk, &aside) {
                break aside;
            }
            count += 1;
        };
        create_dir_all(disk, &aside)?;
        let target = target.to_path_buf();
        Ok(Self { disk, target, aside, directories: Vec::new(), files: Vec::new(), bytes: 0, waits: true })
    }

    /// Copies all that is stored below `root`, which nobody may write meanwhile. Nothing is synced yet.
    pub(super) fn copy(&mut self, root: &Path) -> Result<(), Fault> {
        let list = |path: &Path| self.disk.list(path).map_err(failed("list", path));
        for store in list(root)? {
            let from = root.join(&store);
            // A file, or a directory of somebody else's.
            let Ok(files) = self.disk.list(&from) else { continue };
            if !files.iter().any(|file| names::is_stored(&file.to_string_lossy())) {
                continue;
            }
            let to = self.aside.join(&store);
            self.disk.create_dir(&to).map_err(failed("create", &to))?;
            self.directories.push(to.clone());
            for file in files.iter().filter(|file| names::is_stored(&file.to_string_lossy())) {
                self.copy_file(&from.join(file), &to.join(file))?;
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> Result<(), Fault> {
        let source = FailStopFile::open(self.disk, from)?;
        let copy = FailStopFile::create_new(self.disk, to)?;
        self.files.push(to.to_path_buf());
        let mut position = 0;
        loop {
            let bytes = source.read(position, CHUNK)?;
            if bytes.is_empty() {
                break;
            }
            copy.write(position, &bytes)?;
            position += bytes.len() as u64;
        }
        self.bytes += position;
        Ok(())
    }

    /// Makes the copy durable, and puts it in place. Answers its bytes.
    pub(super) fn finish(mut self) -> Result<u64, Fault> {
        for file in &self.files {
            FailStopFile::open(self.disk, file)?.sync()?;
        }
        for directory in self.directories.iter().chain([&self.aside]) {
            self.disk.sync_dir(directory).map_err(failed("sync", directory))?;
        }
        self.disk.rename(&self.aside, &self.target).map_err(failed("put in place", &self.target))?;
        self.waits = false;
        let parent = self.target.parent().unwrap_or(&self.target).to_path_buf();
        match self.disk.sync_dir(&parent) {
            Ok(()) => Ok(self.bytes),
            Err(error) => Err(self.withdraw(DiskError::new("sync", &parent, error)).into()),
        }
    }

    /// Takes a copy back whose name may not last, to be removed with what is aside; answers what its caller is told of that.
    fn withdraw(&mut self, error: DiskError) -> DiskError {
        match self.disk.rename(&self.target, &self.aside) {
            Ok(()) => {
                self.waits = true;
                error
            }
            Err(left) => {
                let target = self.target.display();
                tracing::warn!(%target, error = %left, "a copy whose directory was not synced stays behind");
                error.maybe_applied()
            }
        }
    }
}

impl Drop for Backup<'_> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let files = self.files.iter().map(|file| self.disk.remove(file));
        let directories = self.directories.iter().chain([&self.aside]).map(|path| self.disk.remove_dir(path));
        // All are tried: what cannot be removed is under a name that nothing reads.
        let failed = files.chain(directories).filter(Result::is_err).count();
        if failed > 0 {
            tracing::warn!(directory = %self.aside.display(), failed, "an unfinished copy stays behind");
        }
    }
}
