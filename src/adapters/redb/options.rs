//! How a file is opened.

use std::time::Duration;

use crate::base::error::{Error, Result};

/// Least bytes of cache.
const MIN_CACHE: usize = 1 << 20;

/// How a [`RedbAdapter`](crate::adapters::redb::RedbAdapter) opens its file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedbOptions {
    /// Most bytes of pages kept in memory, at least 1 MiB. Default: 64 MiB, which holds the inner pages of buckets with
    /// tens of millions of records; records themselves are kept by the buckets, so more rarely helps.
    pub cache_bytes: usize,
    /// How long nothing must have been asked for, after commits, for the free pages to be recorded.
    pub(super) pause: Duration,
    /// From how many bytes of file on they are.
    pub(super) worth_recording: u64,
    /// How long nothing must have been asked for, after commits, for the journal to be folded.
    pub(super) quiet: Duration,
    /// A journal of more bytes than that is folded by a step after each commit.
    pub(super) journal_bytes: u64,
    /// Most bytes of journal that a step folds, in a journal that is not too large.
    pub(super) step_bytes: u64,
    /// Damages the disk under tests.
    #[cfg(test)]
    pub(crate) faults: Option<crate::adapters::redb::tests::faults::Faults>,
    /// Takes the place of the disk under tests.
    #[cfg(test)]
    pub(crate) medium: Option<crate::adapters::redb::tests::medium::Medium>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            pause: Duration::from_secs(1),
            // Less is walked in some 15 ms.
            worth_recording: 16 << 20,
            quiet: Duration::from_millis(250),
            journal_bytes: 64 << 20,
            step_bytes: 4 << 20,
            #[cfg(test)]
            faults: None,
            #[cfg(test)]
            medium: None,
        }
    }
}

impl RedbOptions {
    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.cache_bytes < MIN_CACHE {
            let problem = format!("cache_bytes is {}, less than {MIN_CACHE}", self.cache_bytes);
            return Err(Error::InvalidOptions { problems: vec![problem] });
        }
        Ok(())
    }
}
