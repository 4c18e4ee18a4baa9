//! How and when a store saves.

use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};

/// How and when a store saves. Values out of bounds fail when the store starts.
///
/// ```
/// use std::time::Duration;
/// use ractor_persistence::persistence::PersistenceOptions;
/// let options = PersistenceOptions::default().with_debounce(Duration::from_millis(20));
/// assert_eq!(options.debounce, Duration::from_millis(20));
/// assert_eq!(options.load_concurrency, 32);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct PersistenceOptions {
    /// From the first unsaved change to its capture: a fixed window that later changes do not extend. Default 100 ms; 0
    /// captures at once; at most 1 h.
    pub debounce: Duration,
    /// Estimated bytes unsaved, over all buckets and channels, at which a flush starts before its window is over; at 4
    /// times that while commits fail, health tells of memory pressure. Default 64 MiB, at least 1.
    pub max_unsaved: usize,
    /// How long to wait after a failed commit.
    pub retry: Backoff,
    /// A commit that takes longer is reported as of unknown outcome; the next one still waits for its end. Default 30 s,
    /// 1 ms to 1 h.
    pub commit_timeout: Duration,
    /// How long `stop` takes at most. Actors have half of it to finish what they have accepted, but a second at least,
    /// even where that is longer; what is left is for the last commit, which is then given up, and for closing the adapter. A commit that is given up
    /// may be written all the same, and the file may stay locked until it has ended. Default 30 s, 1 ms to 1 h.
    pub stop_timeout: Duration,
    /// The level of commits that nobody awaits. Below `Fsync`, a synced commit follows within the window, and only that
    /// counts as saved. Default `Fsync`; `Wal` at least.
    pub save_durability: Durability,
    /// What to do about stored data that cannot be read. Default: fail.
    pub load_failure: LoadFailure,
    /// How many buckets and channels load at once. Default 32, 1 to 1,024.
    pub load_concurrency: usize,
    /// How long one bucket or channel may take to load, and a starting store to claim its name. Default 60 s, 1 ms to 1 h.
    pub load_timeout: Duration,
}

impl Default for PersistenceOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            max_unsaved: 64 << 20,
            retry: Backoff::default(),
            commit_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            save_durability: Durability::Fsync,
            load_failure: LoadFailure::Fail,
            load_concurrency: 32,
            load_timeout: Duration::from_secs(60),
        }
    }
}

/// What to do about stored data that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadFailure {
    /// The bucket or channel is not opened, and the data stays as it is.
    #[default]
    Fail,
    /// The data is moved into quarantine, the failure is reported, and the bucket or channel starts empty.
    StartEmpty,
}

/// Waiting times that double, with full jitter: the n-th is drawn evenly from 0 to `min(first · 2ⁿ⁻¹, most)`.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// Bound of the first. Default 100 ms, 1 ms to 1 h.
    pub first: Duration,
    /// Bound of all. Default 30 s, `first` to 1 h.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// Waiting times from `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// How long to wait after the `attempt`-th failure in a row, counted from 1; `jitter` is drawn evenly from 0 to 1.
    pub(crate) fn delay(self, attempt: u32, jitter: f64) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const MILLISECOND: Duration = Duration::from_millis(1);

impl PersistenceOptions {
    /// Sets [`debounce`](Self::debounce).
    pub fn with_debounce(mut self, debounce: Duration) -> Self {
        self.debounce = debounce;
        self
    }

    /// Sets [`max_unsaved`](Self::max_unsaved).
    pub fn with_max_unsaved(mut self, bytes: usize) -> Self {
        self.max_unsaved = bytes;
        self
    }

    /// Sets [`retry`](Self::retry).
    pub fn with_retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// Sets [`commit_timeout`](Self::commit_timeout).
    pub fn with_commit_timeout(mut self, timeout: Duration) -> Self {
        self.commit_timeout = timeout;
        self
    }

    /// Sets [`stop_timeout`](Self::stop_timeout).
    pub fn with_stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// Sets [`save_durability`](Self::save_durability).
    pub fn with_save_durability(mut self, level: Durability) -> Self {
        self.save_durability = level;
        self
    }

    /// Sets [`load_failure`](Self::load_failure).
    pub fn with_load_failure(mut self, choice: LoadFailure) -> Self {
        self.load_failure = choice;
        self
    }

    /// Sets [`load_concurrency`](Self::load_concurrency).
    pub fn with_load_concurrency(mut self, loads: usize) -> Self {
        self.load_concurrency = loads;
        self
    }

    /// Sets [`load_timeout`](Self::load_timeout).
    pub fn with_load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// `InvalidOptions` with every fault.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (self.debounce <= HOUR, "debounce is at most 1 h"),
            (self.max_unsaved >= 1, "max_unsaved is at least 1"),
            ((MILLISECOND..=HOUR).contains(&self.retry.first), "retry.first is 1 ms to 1 h"),
            ((self.retry.first..=HOUR).contains(&self.retry.most), "retry.most is retry.first to 1 h"),
            ((MILLISECOND..=HOUR).contains(&self.commit_timeout), "commit_timeout is 1 ms to 1 h"),
            ((MILLISECOND..=HOUR).contains(&self.stop_timeout), "stop_timeout is 1 ms to 1 h"),
            (self.save_durability > Durability::Ram, "save_durability is at least Wal"),
            ((1..=1_024).contains(&self.load_concurrency), "load_concurrency is 1 to 1,024"),
            ((MILLISECOND..=HOUR).contains(&self.load_timeout), "load_timeout is 1 ms to 1 h"),
        ];
        let problems: Vec<String> =
            checks.into_iter().filter(|(fine, _)| !fine).map(|(_, problem)| problem.to_owned()).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::InvalidOptions { problems }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_out_of_bounds_is_listed() {
        let options = PersistenceOptions::default()
            .with_debounce(2 * HOUR)
            .with_max_unsaved(0)
            .with_retry(Backoff::new(Duration::ZERO, 2 * HOUR))
            .with_commit_timeout(Duration::ZERO)
            .with_stop_timeout(2 * HOUR)
            .with_save_durability(Durability::Ram)
            .with_load_concurrency(0)
            .with_load_timeout(2 * HOUR);
        let Err(Error::InvalidOptions { problems }) = options.validate() else { panic!("nothing was found") };
        assert_eq!(problems.len(), 9);
        assert!(PersistenceOptions::default().validate().is_ok());
    }

    #[test]
    fn waiting_times_double_up_to_their_bound() {
        let backoff = Backoff::default();
        let bounds: Vec<u128> = (1..=11).map(|attempt| backoff.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.delay(5, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(u32::MAX, 0.5), Duration::from_secs(15));
    }
}
