//! What is measured, told to the facade `metrics` where that feature is on. Every measure has the store's name as its
//! label `store`; what records hold is in none of them.
//!
//! The recorder is code of others: it is called without a lock that anybody else may want, and its panics are caught.
//!
//! | name | | of what |
//! |---|---|---|
//! | `ractor_persistence_commits_total` | counter | commits, by `outcome`: `saved`, or the kind of failure |
//! | `ractor_persistence_commit_seconds` | histogram | how long the adapter took for a commit |
//! | `ractor_persistence_commit_bytes` | histogram | estimated bytes of the changes in a commit |
//! | `ractor_persistence_unsaved_bytes` | gauge | estimated bytes that are not saved, as of the newest commit's begin or end |
//! | `ractor_persistence_flush_lag_seconds` | histogram | how old the oldest change was that a commit saved |
//! | `ractor_persistence_load_seconds` | histogram | how long a bucket or channel took to load |

use std::time::Duration;

use crate::base::error::Error;
use crate::base::name::StoreName;

/// A commit that has ended.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody asks"))]
pub(super) struct Committed<'a> {
    pub(super) failure: Option<&'a Error>,
    pub(super) took: Duration,
    pub(super) bytes: usize,
    /// How old the oldest change was that is saved by it.
    pub(super) lag: Option<Duration>,
    /// What is unsaved after it.
    pub(super) unsaved_bytes: usize,
}

#[cfg(feature = "metrics")]
pub(super) use told::{committed, describe, loaded, unsaved};

#[cfg(feature = "metrics")]
mod told {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

    use super::{Committed, Duration, Error, StoreName};

    const COMMITS: &str = "ractor_persistence_commits_total";
    const COMMIT_SECONDS: &str = "ractor_persistence_commit_seconds";
    const COMMIT_BYTES: &str = "ractor_persistence_commit_bytes";
    const UNSAVED_BYTES: &str = "ractor_persistence_unsaved_bytes";
    const FLUSH_LAG: &str = "ractor_persistence_flush_lag_seconds";
    const LOAD_SECONDS: &str = "ractor_persistence_load_seconds";

    /// A save must not be lost with the recorder.
    fn tell(recorder: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(recorder)).is_err() {
            tracing::error!("the recorder of metrics panicked");
        }
    }

    /// Tells the recorder what the measures are; again for each store, because a recorder may come later than the first.
    pub(in crate::persistence) fn describe() {
        tell(describe_all);
    }

    fn describe_all() {
        describe_counter!(COMMITS, Unit::Count, "Commits, by outcome");
        describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "How long the adapter took for a commit");
        describe_histogram!(COMMIT_BYTES, Unit::Bytes, "Estimated bytes of the changes in a commit");
        describe_gauge!(UNSAVED_BYTES, Unit::Bytes, "Estimated bytes that are not saved");
        describe_histogram!(FLUSH_LAG, Unit::Seconds, "How old the oldest change was that a commit saved");
        describe_histogram!(LOAD_SECONDS, Unit::Seconds, "How long a bucket or channel took to load");
    }

    pub(in crate::persistence) fn committed(store: &StoreName, commit: &Committed<'_>) {
        let outcome = commit.failure.map_or("saved", kind);
        tell(|| {
            counter!(COMMITS, "store" => store.to_string(), "outcome" => outcome).increment(1);
            histogram!(COMMIT_SECONDS, "store" => store.to_string()).record(commit.took.as_secs_f64());
            histogram!(COMMIT_BYTES, "store" => store.to_string()).record(float(commit.bytes));
            if let Some(lag) = commit.lag {
                histogram!(FLUSH_LAG, "store" => store.to_string()).record(lag.as_secs_f64());
            }
        });
        unsaved(store, commit.unsaved_bytes);
    }

    pub(in crate::persistence) fn unsaved(store: &StoreName, bytes: usize) {
        tell(|| gauge!(UNSAVED_BYTES, "store" => store.to_string()).set(float(bytes)));
    }

    pub(in crate::persistence) fn loaded(store: &StoreName, took: Duration) {
        tell(|| histogram!(LOAD_SECONDS, "store" => store.to_string()).record(took.as_secs_f64()));
    }

    #[allow(clippy::cast_precision_loss, reason = "estimated, and exact up to 8 PiB")]
    fn float(bytes: usize) -> f64 {
        bytes as f64
    }

    fn kind(error: &Error) -> &'static str {
        match error {
            Error::Transient { .. } => "transient",
            Error::Permanent { .. } => "permanent",
            Error::Unknown { .. } => "unknown",
            Error::Corrupt { .. } => "corrupt",
            Error::Fenced { .. } => "fenced",
            _ => "other",
        }
    }
}

#[cfg(not(feature = "metrics"))]
pub(super) use silence::{committed, describe, loaded, unsaved};

#[cfg(not(feature = "metrics"))]
mod silence {
    use super::{Committed, Duration, StoreName};

    pub(in crate::persistence) fn describe() {}
    pub(in crate::persistence) fn committed(_store: &StoreName, _commit: &Committed<'_>) {}
    pub(in crate::persistence) fn unsaved(_store: &StoreName, _bytes: usize) {}
    pub(in crate::persistence) fn loaded(_store: &StoreName, _took: Duration) {}
}
