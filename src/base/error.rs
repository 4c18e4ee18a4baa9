//! The one public error, ordered by what a caller can do about it. `facts` has what it carries.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::name::{BucketName, MessageId, Subject};
use crate::base::value::{Key, Value};

mod facts;
mod report;

pub use facts::{Failure, Issue, IssueCode, Misfit, Outcome, Place};
pub(crate) use report::Plain;
use report::{Counted, Listed, Report};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What lies behind an error; shared, because one failed commit answers many waiters.
pub type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// Everything that can go wrong, by what the caller can do about it.
///
/// Neither messages nor `Debug` contain a record's or a message's contents, a record's key included: those are in the
/// fields, for code to read. `InvalidValue` says where in the input, by the names of fields and of map keys. The cause, where there is one, is in [`source`](std::error::Error::source) and not repeated in
/// the text: [`report`](Error::report) is the text with all causes, for a log.
///
/// ```
/// use ractor_persistence::base::error::Error;
/// use ractor_persistence::base::name::BucketName;
/// let error = Error::NotFound { bucket: BucketName::new("users")?, key: "ada@example.org".into() };
/// assert!(!format!("{error} {error:?}").contains("ada"));
/// assert!(matches!(&error, Error::NotFound { key, .. } if *key == "ada@example.org".into()));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, derive_more::Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- correct the data
    /// The record breaks its bucket's schema; all faults are listed.
    #[error("{}: {}", bucket.with_kind(), Listed(issues))]
    Validation {
        /// The bucket that refused it.
        bucket: BucketName,
        /// Which one of a batch, counted from 0.
        index: Option<usize>,
        /// Every fault, in schema order.
        issues: Vec<Issue>,
    },
    /// The input cannot be a record at all: it is no object, nested too deeply or too large.
    #[error("invalid value at {path:?}: {}", Plain(reason))]
    InvalidValue {
        /// Where in the input, empty for the whole.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A record with this key is there already.
    #[error("{}: a record with this key exists", bucket.with_kind())]
    DuplicateKey {
        /// The bucket that refused it.
        bucket: BucketName,
        /// The key that is taken.
        #[debug(skip)]
        key: Key,
    },
    /// Another record holds this value of a unique index.
    #[error("{}: unique index {} has another holder of these values", bucket.with_kind(), Plain(index))]
    UniqueViolation {
        /// The bucket that refused it.
        bucket: BucketName,
        /// The index: its paths, joined by commas.
        index: String,
        /// The values that are taken.
        #[debug(skip)]
        values: Vec<Value>,
        /// The key of the record that holds them.
        #[debug(skip)]
        holder: Key,
    },

    // ---- read again
    /// The record has another version.
    #[error("{}: the record has version {actual}, not {expected}", bucket.with_kind())]
    VersionMismatch {
        /// The bucket that refused it.
        bucket: BucketName,
        /// The record's key.
        #[debug(skip)]
        key: Key,
        /// The version asked for.
        expected: u64,
        /// The version that the record has.
        actual: u64,
    },
    /// No record has this key.
    #[error("{}: no record with this key", bucket.with_kind())]
    NotFound {
        /// The bucket that was asked.
        bucket: BucketName,
        /// The key that nothing has.
        #[debug(skip)]
        key: Key,
    },

    // ---- repeat
    /// What a transaction has read was changed before it could commit; nothing of it was applied.
    #[error("{}: what was read has changed meanwhile", bucket.with_kind())]
    Conflict {
        /// The bucket that was read. For what else joined a transaction, a reserved name that says what it is.
        bucket: BucketName,
        /// The record that changed, where it was one.
        #[debug(skip)]
        key: Option<Key>,
    },

    /// A later activation has taken the durable value over, as a restarted actor's does: this handle changes it no more.
    #[error("durable value {}: activation {activation} was superseded by {current}", Plain(name))]
    Superseded {
        /// The value's name.
        name: String,
        /// The handle's activation.
        activation: u64,
        /// The newest one.
        current: u64,
    },

    // ---- make room
    /// The bucket is full of what this very commit wrote.
    #[error("{}: more than its {max_size} records would be written at once", bucket.with_kind())]
    CapacityExceeded {
        /// The bucket that refused it.
        bucket: BucketName,
        /// The most records that it takes.
        max_size: usize,
    },
    /// An autoincrement counter has reached the largest number there is.
    #[error("{}: the autoincrement counter is exhausted", bucket.with_kind())]
    CounterExhausted {
        /// The bucket whose counter it is.
        bucket: BucketName,
    },

    // ---- correct the code
    /// An argument that no state could make valid.
    #[error("invalid argument: {}", Plain(reason))]
    InvalidArgument {
        /// What is wrong with it.
        reason: String,
    },
    /// A name that cannot be one.
    #[error("invalid {kind} name \"{}\": it {fault}", Plain(name))]
    InvalidName {
        /// What was to be named.
        kind: &'static str,
        /// The name, escaped and shortened.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A bucket's definition has faults; all are listed.
    #[error("invalid definition of bucket {bucket:?}: {}", Listed(problems))]
    InvalidDefinition {
        /// The name that was given, valid or not.
        bucket: String,
        /// Every fault.
        problems: Vec<String>,
    },
    /// Options are out of bounds; all faults are listed.
    #[error("invalid options: {}", Listed(problems))]
    InvalidOptions {
        /// Every fault.
        problems: Vec<String>,
    },
    /// A record does not fit the type that it was asked for as.
    #[error("{}does not fit the type asked for", unfit(bucket.as_ref()))]
    Decode {
        /// The bucket that has the record, where the record knows it. For a durable value, a reserved name that says
        /// which it is.
        bucket: Option<BucketName>,
        /// The record's key.
        #[debug(skip)]
        key: Key,
        /// What the type said: a [`ValueError`](crate::base::value::ValueError), with the path of the field.
        #[source]
        source: Cause,
    },
    /// Code of the user's that ran inside a call panicked.
    #[error("user code panicked in {place}")]
    UserCode {
        /// Which code.
        place: &'static str,
    },
    /// The transaction that the handle belonged to has ended.
    #[error("the transaction has ended")]
    TransactionClosed,
    /// The request id was used for another write.
    #[error("{}: the request id was used for another write", bucket.with_kind())]
    RequestIdReused {
        /// The bucket that refused it.
        bucket: BucketName,
    },
    /// A query of this name is defined.
    #[error("query {name:?} is already defined")]
    QueryAlreadyDefined {
        /// The name in use.
        name: String,
    },
    /// No query of this name is defined.
    #[error("query {name:?} is not defined")]
    QueryNotDefined {
        /// The name asked for.
        name: String,
    },
    /// A bucket of this name is defined.
    #[error("{} is already defined", bucket.with_kind())]
    BucketAlreadyExists {
        /// The name in use.
        bucket: BucketName,
    },
    /// No bucket of this name is defined.
    #[error("{} is not defined", bucket.with_kind())]
    BucketNotDefined {
        /// The name asked for.
        bucket: BucketName,
    },
    /// The back-end, bucket or channel cannot do this.
    #[error("{} is not supported{}", Plain(what), Has(*has))]
    Unsupported {
        /// What was asked for; of a durability, for whom, and why it cannot be had.
        what: String,
        /// The durability that can be had instead, where that was the question.
        has: Option<Durability>,
    },

    // ---- add a step, or upgrade
    /// Stored records do not fit the definition; nothing was changed.
    #[error(
        "{}: {total} stored record(s) of schema version {from} do not fit version {to}: {}",
        bucket.with_kind(), Counted(records, *total)
    )]
    Migration {
        /// The bucket that was to be loaded.
        bucket: BucketName,
        /// The schema version stored.
        from: u32,
        /// The schema version defined.
        to: u32,
        /// Up to 20 records and why they do not fit.
        records: Vec<Misfit>,
        /// How many do not fit in all.
        total: usize,
    },
    /// The stored schema version is later than the defined one.
    #[error("{}: stored schema version {stored} is later than the defined {defined}", bucket.with_kind())]
    SchemaTooNew {
        /// The bucket that was to be loaded.
        bucket: BucketName,
        /// The version stored.
        stored: u32,
        /// The version defined.
        defined: u32,
    },
    /// Stored bytes have a format version that this release does not know.
    #[error("{} at {at} has format version {found}, this release knows {known}", Plain(format))]
    UnknownFormat {
        /// Which format, as in `docs/format.md`.
        format: String,
        /// Where it is.
        at: Place,
        /// The version found.
        found: u64,
        /// The newest version known.
        known: u64,
    },

    // ---- look first
    /// The call took longer than its timeout.
    #[error("timed out{}", outcome.text())]
    Timeout {
        /// Whether the call had an effect.
        outcome: Outcome,
    },
    /// The actor died before it answered.
    #[error("the actor was lost{}", outcome.text())]
    ActorLost {
        /// Whether the call had an effect.
        outcome: Outcome,
    },

    /// The write was applied when it was first sent, and a record of it is gone since.
    #[error("the request was applied at revision {revision}, and its records have changed since")]
    AlreadyApplied {
        /// The keys that it wrote.
        #[debug(skip)]
        keys: Vec<Key>,
        /// The revision that it made.
        revision: u64,
    },
    /// An actor died so often that its store has given it up.
    #[error("{subject} has been given up after {restarts} restarts in {within:?}")]
    GivenUp {
        /// Whose actor it was.
        subject: Subject,
        /// How often it was restarted.
        restarts: u32,
        /// Within which time.
        within: std::time::Duration,
    },

    // ---- raise the alarm
    /// The change is in memory, but its commit failed; it is kept and retried.
    #[error("the change is in memory as revision {revision}, but not saved yet")]
    NotSaved {
        /// The revision of the change.
        revision: u64,
        /// What the commit said.
        source: Arc<Error>,
    },

    // ---- catch up
    /// Events were dropped because whoever listens to them had not kept up.
    #[error("{missed} event(s) were missed")]
    Lagged {
        /// How many.
        missed: u64,
    },

    // ---- give up
    /// The store is stopping or has stopped.
    #[error("the store is stopping")]
    Stopping,

    // ---- back-ends
    /// A failure that may pass: try again.
    #[error("transient failure of {}", Plain(operation))]
    Transient {
        /// What was being done.
        operation: String,
        /// What the back-end said.
        #[source]
        source: Option<Cause>,
    },
    /// A failure that repeating does not cure.
    #[error("permanent failure of {}", Plain(operation))]
    Permanent {
        /// What was being done.
        operation: String,
        /// What the back-end said.
        #[source]
        source: Option<Cause>,
    },
    /// A later claim owns the store: this one may not write any more.
    #[error("fenced: epoch {epoch} is not the current one, {current}")]
    Fenced {
        /// The epoch of the commit.
        epoch: u64,
        /// The epoch that owns the store.
        current: u64,
    },
    /// Stored bytes are damaged.
    #[error("corrupt data at {at}: {}", Plain(reason))]
    Corrupt {
        /// Where.
        at: Place,
        /// What is wrong there.
        reason: String,
    },
    /// It may or may not have been written: treat as not written, re-read before trusting.
    #[error("outcome of {} is unknown", Plain(operation))]
    Unknown {
        /// What was being done.
        operation: String,
        /// What the back-end said.
        #[source]
        source: Option<Cause>,
    },
    /// Somebody else has the file or directory open.
    #[error("{} is locked{}", Plain(path.display()), By(holder.as_deref()))]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// Who holds it and since when, where that is known.
        holder: Option<String>,
    },

    // ---- channels
    /// A message needs content.
    #[error("a message needs content")]
    EmptyContent,
    /// A message or packet is larger than the channel takes.
    #[error("{size} bytes are more than the {max} that the channel takes")]
    MessageTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most that is taken.
        max: usize,
    },
    /// An id is empty or too long.
    #[error("invalid id: {reason}")]
    InvalidId {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A message with this id is known already.
    #[error("message id {id} is in use")]
    DuplicateId {
        /// The id in use.
        id: MessageId,
    },
    /// Too many messages wait for their acknowledgement.
    #[error("{limit} messages wait for their acknowledgement")]
    OutgoingFull {
        /// The limit that was reached.
        limit: usize,
    },
    /// Too much is parked to park more.
    #[error("too much is parked: the limit of {limit} {what} is reached")]
    ParkedFull {
        /// What is counted.
        what: &'static str,
        /// The limit that was reached.
        limit: usize,
    },
    /// A list in a packet has too many entries.
    #[error("a list of the packet has more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// Bytes that are no message.
    #[error("malformed message: {reason}")]
    MalformedMessage {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A message of another channel.
    #[error("the message belongs to another channel")]
    WrongChannel,
    /// No channel of this id is open.
    #[error("channel {} is not open", Plain(id))]
    UnknownChannel {
        /// The id, escaped.
        id: String,
    },
    /// A channel of this id is open or stored, so that none can be imported under it.
    #[error("channel {} exists", Plain(id))]
    ChannelExists {
        /// The id, escaped.
        id: String,
    },
    /// As many channels have been opened for packets as may be.
    #[error("packets have opened {limit} channels, the most that they may")]
    TooManyChannels {
        /// The limit that was reached.
        limit: usize,
    },
    /// Too many answers wait for a commit.
    #[error("{limit} answers wait for a commit")]
    Backpressure {
        /// The limit that was reached.
        limit: usize,
    },
}

impl Error {
    /// A [`Transient`](Error::Transient) failure with its cause.
    pub fn transient(operation: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Transient { operation: operation.into(), source: Some(Arc::new(source)) }
    }

    /// A [`Permanent`](Error::Permanent) failure with its cause.
    pub fn permanent(operation: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Permanent { operation: operation.into(), source: Some(Arc::new(source)) }
    }

    /// An [`Unknown`](Error::Unknown) outcome with its cause.
    pub fn unknown(operation: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unknown { operation: operation.into(), source: Some(Arc::new(source)) }
    }

    /// [`Corrupt`](Error::Corrupt) data at a place.
    pub fn corrupt(at: Place, reason: impl Into<String>) -> Self {
        Self::Corrupt { at, reason: reason.into() }
    }

    /// [`Unsupported`](Error::Unsupported), with nothing to offer instead.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), has: None }
    }

    /// [`InvalidArgument`](Error::InvalidArgument) with its reason.
    pub fn invalid_argument(reason: impl Into<String>) -> Self {
        Self::InvalidArgument { reason: reason.into() }
    }

    /// The error and what stands behind it as one line: the text of each, outermost first, after a colon, unless it has been
    /// said. This is what a log or a person needs; [`Failure`] is shown like it.
    ///
    /// ```
    /// use ractor_persistence::base::error::Error;
    /// let full = std::io::Error::other("No space left on device");
    /// let error = Error::transient("commit", full);
    /// assert_eq!(error.to_string(), "transient failure of commit");
    /// assert_eq!(error.report().to_string(), "transient failure of commit: No space left on device");
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        Report(self)
    }

    /// Whether trying the same again later may succeed: `Conflict`, `Transient` and `Unknown`.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Transient { .. } | Self::Unknown { .. })
    }

    /// The error of one of a batch, counted from 0.
    pub(crate) fn of_item(self, at: usize) -> Self {
        match self {
            Self::Validation { bucket, issues, .. } => Self::Validation { bucket, index: Some(at), issues },
            Self::InvalidValue { path, reason } if path.is_empty() => {
                Self::InvalidValue { path: at.to_string(), reason }
            }
            Self::InvalidValue { path, reason } => Self::InvalidValue { path: format!("{at}.{path}"), reason },
            other => other,
        }
    }
}

/// What does not fit, as the beginning of a sentence.
fn unfit(bucket: Option<&BucketName>) -> String {
    match bucket {
        Some(value) if value.is_reserved() => format!("{value}: what is stored "),
        Some(bucket) => format!("{}: a record ", bucket.with_kind()),
        None => "a record ".to_owned(),
    }
}

struct By<'a>(Option<&'a str>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => write!(f, " by {}", Plain(holder)),
            None => Ok(()),
        }
    }
}

struct Has(Option<Durability>);

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(level) => write!(f, ", {level:?} is"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_enough_to_travel() {
        assert!(size_of::<Error>() <= 128, "{}", size_of::<Error>());
    }

    #[test]
    fn the_cause_is_in_source_and_not_in_the_text() {
        let error = Error::transient("commit", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "transient failure of commit");
        let cause = std::error::Error::source(&error).expect("a cause was given");
        assert_eq!(cause.to_string(), "disk on fire");
    }
}
