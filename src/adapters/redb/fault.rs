//! What redb says, sorted by who has to hear it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use redb::{CommitError, CompactionError, CursorError, StorageError, TableError, TransactionError};

use crate::base::error::{Cause, Error, Place};

/// Why something on the file failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// A reason of the request's own; others in the same transaction are not concerned.
    Own(Error),
    /// redb found the file damaged where this request looked.
    Damaged(String),
    /// The handle is of no use any more: nothing works until the file has been opened again.
    Broken(Cause),
}

impl Fault {
    /// What the request that met it is told.
    pub(super) fn into_error(self, operation: &str, path: &Path) -> Error {
        match self {
            Self::Own(error) => error,
            Self::Damaged(reason) => Error::corrupt(Place::new(path.display().to_string()), reason),
            Self::Broken(cause) => Error::Unknown { operation: operation.to_owned(), source: Some(cause) },
        }
    }
}

impl Fault {
    /// What a request that only reads is told: nothing is in doubt, so it may be tried again.
    pub(super) fn into_read_error(self, operation: &str, path: &Path) -> Error {
        match self {
            Self::Broken(cause) => Error::Transient { operation: operation.to_owned(), source: Some(cause) },
            other => other.into_error(operation, path),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(reason) => Self::Damaged(reason),
            // A page that is said to be behind the end of the file.
            redb::Error::Io(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => {
                Self::Damaged(error.to_string())
            }
            error @ redb::Error::ValueTooLarge(_) => Self::Own(Error::permanent("writing a row", error)),
            // Tables are opened as the one type that they are all of, once at a time, so these are facts of the file.
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableExists(_)
            | redb::Error::TableAlreadyOpen(..)
            | redb::Error::UnorderedKey) => Self::Damaged(error.to_string()),
            error @ redb::Error::TransactionInProgress => {
                Self::Own(Error::transient("compacting while loads are running", error))
            }
            error => Self::Broken(Arc::new(error)),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(StorageError, TableError, TransactionError, CommitError, CompactionError, CursorError);

/// redb gave up on the file with a panic.
#[derive(Debug, thiserror::Error)]
#[error("redb panicked: {0}")]
pub(super) struct Panicked(String);

/// Runs `work`; a panic, which is how redb answers some kinds of damage, comes back as its message.
///
/// What `work` borrows is not looked at again after a panic but to be dropped: the file is opened anew.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Panicked(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned())
    })
}
