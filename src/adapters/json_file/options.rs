//! How an adapter of JSON files is opened.

use std::sync::Arc;

use crate::base::clock::{Clock, SystemClock};
use crate::base::disk::{Disk, RealDisk};
use crate::base::error::{Error, Result};

/// How a [`JsonFileAdapter`](crate::adapters::json_file::JsonFileAdapter) is opened. Values out of bounds fail there.
///
/// ```
/// use ractor_persistence::adapters::json_file::JsonFileOptions;
/// let options = JsonFileOptions::default().with_journal_floor(1 << 20);
/// assert_eq!((options.journal_factor, options.open_files), (1, 128));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JsonFileOptions {
    /// A checkpoint is written anew once its journal has this many times its bytes. Default 1; 1 to 1,000.
    pub journal_factor: u64,
    /// No checkpoint is written anew while its journal has fewer bytes than this. Default 64 KiB; 4 KiB to 1 GiB.
    pub journal_floor: u64,
    /// How many journals are kept open for appending. Default 128; 1 to 65,536.
    pub open_files: usize,
    /// The file system. Default: the operating system's.
    pub disk: Arc<dyn Disk>,
    /// Tells the time for `saved_at`, quarantine and the lock's holder. Default: the operating system's.
    pub clock: Arc<dyn Clock>,
}

impl Default for JsonFileOptions {
    fn default() -> Self {
        Self {
            journal_factor: 1,
            journal_floor: 64 * 1024,
            open_files: 128,
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
        }
    }
}

impl JsonFileOptions {
    /// Sets [`journal_factor`](Self::journal_factor).
    #[must_use]
    pub fn with_journal_factor(mut self, factor: u64) -> Self {
        self.journal_factor = factor;
        self
    }

    /// Sets [`journal_floor`](Self::journal_floor).
    #[must_use]
    pub fn with_journal_floor(mut self, bytes: u64) -> Self {
        self.journal_floor = bytes;
        self
    }

    /// Sets [`open_files`](Self::open_files).
    #[must_use]
    pub fn with_open_files(mut self, files: usize) -> Self {
        self.open_files = files;
        self
    }

    /// Sets [`disk`](Self::disk).
    #[must_use]
    pub fn with_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Sets [`clock`](Self::clock).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let faults = [
            ((1..=1_000).contains(&self.journal_factor), "journal_factor must be 1 to 1,000"),
            ((4_096..=1 << 30).contains(&self.journal_floor), "journal_floor must be 4 KiB to 1 GiB"),
            ((1..=65_536).contains(&self.open_files), "open_files must be 1 to 65,536"),
        ];
        let problems: Vec<String> =
            faults.into_iter().filter(|(fine, _)| !fine).map(|(_, fault)| fault.to_owned()).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::InvalidOptions { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_out_of_bounds_are_named() {
        assert!(JsonFileOptions::default().check().is_ok());
        let bad = JsonFileOptions::default().with_journal_factor(0).with_journal_floor(0).with_open_files(0);
        let Err(Error::InvalidOptions { problems }) = bad.check() else { panic!("accepted") };
        assert_eq!(problems.len(), 3);
    }
}
