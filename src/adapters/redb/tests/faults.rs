//! A disk that can be told to fail.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Switches shared by every opening of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    inner: Arc<Switches>,
}

#[derive(Debug, Default)]
struct Switches {
    writes: AtomicBool,
    reads: AtomicBool,
    syncs: AtomicBool,
    opens: AtomicBool,
    /// Whoever syncs waits for it.
    gate: Mutex<()>,
    synced: AtomicU64,
}

impl Faults {
    pub(crate) fn fail_writes(&self, fail: bool) {
        self.inner.writes.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn fail_reads(&self, fail: bool) {
        self.inner.reads.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.inner.syncs.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn fail_opens(&self, fail: bool) {
        self.inner.opens.store(fail, Ordering::SeqCst);
    }

    /// Makes syncs wait until the guard is dropped.
    pub(crate) fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.inner.gate.lock().unwrap()
    }

    /// How many syncs have ended.
    pub(crate) fn synced(&self) -> u64 {
        self.inner.synced.load(Ordering::SeqCst)
    }

    pub(in crate::adapters::redb) fn backend(&self, file: File) -> Result<Faulty, DatabaseError> {
        if self.inner.opens.load(Ordering::SeqCst) {
            return Err(io::Error::other("opening fails").into());
        }
        Ok(Faulty { file: FileBackend::new(file)?, faults: self.clone() })
    }

    fn check(&self, switch: &AtomicBool) -> io::Result<()> {
        if switch.load(Ordering::SeqCst) { Err(io::Error::other("told to fail")) } else { Ok(()) }
    }
}

#[derive(Debug)]
pub(in crate::adapters::redb) struct Faulty {
    file: FileBackend,
    faults: Faults,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.check(&self.faults.inner.reads)?;
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        drop(self.faults.hold_syncs());
        self.faults.check(&self.faults.inner.syncs)?;
        self.file.sync_data()?;
        self.faults.inner.synced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.check(&self.faults.inner.writes)?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
