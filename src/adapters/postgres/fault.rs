//! What the server and the way to it say, sorted by who has to hear it, and rid of what nobody may read.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use tokio_postgres::error::{DbError, Severity};

use crate::base::error::{Cause, Error, Place};

/// How the driver says that it cannot write a message.
const UNWRITABLE: &str = "error encoding message to server";

/// What was said, in words that hold neither a record's contents nor a password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(String);

/// Why something that was asked of the server failed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The store has been claimed again since; the epoch that is current.
    Fenced(u64),
    /// Another transaction was in the way: the same again, at once, may succeed.
    Conflict(Said),
    /// It may pass.
    Passing(Said),
    /// The connection was lost before the answer came.
    Lost(Said),
    /// The same again fails again.
    Lasting(Said),
    /// The server found its own files damaged.
    Damaged(Said),
}

impl Fault {
    /// Of which nothing was done.
    pub(super) fn into_error(self, operation: &str, epoch: u64) -> Error {
        let operation = operation.to_owned();
        let cause = |said: Said| -> Option<Cause> { Some(Arc::new(said)) };
        match self {
            Self::Fenced(current) => Error::Fenced { epoch, current },
            Self::Conflict(said) | Self::Passing(said) | Self::Lost(said) => {
                Error::Transient { operation, source: cause(said) }
            }
            Self::Lasting(said) => Error::Permanent { operation, source: cause(said) },
            Self::Damaged(said) => Error::corrupt(Place::new("the database"), said.0),
        }
    }

    /// Of which it is not known whether it was done.
    pub(super) fn into_unknown(self, operation: &str) -> Error {
        match self {
            Self::Conflict(said)
            | Self::Passing(said)
            | Self::Lost(said)
            | Self::Lasting(said)
            | Self::Damaged(said) => Error::unknown(operation, said),
            Self::Fenced(current) => Error::Fenced { epoch: 0, current },
        }
    }

    pub(super) fn passing(what: &str) -> Self {
        Self::Passing(Said(what.to_owned()))
    }

    pub(super) fn lasting(what: impl Into<String>) -> Self {
        Self::Lasting(Said(what.into()))
    }

    /// What an error of the driver means.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match (error.as_db_error(), error.source().and_then(|source| source.downcast_ref::<io::Error>())) {
            (Some(said), _) => of_server(said),
            // The certificate, or the protocol: what rustls refuses comes in an error of the file system's kind.
            (None, Some(cause)) if cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Self::Lasting(Said(format!("{error}: {cause}")))
            }
            // What this side cannot write down, and will not the next time either. What the other side has sent and nobody
            // can read has the same kind, but may be the fault of the way.
            (None, Some(cause)) if error.to_string() == UNWRITABLE => Self::Lasting(Said(format!("{error}: {cause}"))),
            (None, Some(cause)) => Self::Lost(Said(format!("{error}: {cause}"))),
            (None, None) => match error.source() {
                Some(cause) => Self::Lasting(Said(format!("{error}: {cause}"))),
                // The connection was closed, or the messages on it do not follow each other as the protocol says.
                None => Self::Lost(Said(error.to_string())),
            },
        }
    }

    /// Whether the server's answer to a `COMMIT` leaves open what became of it.
    pub(super) fn leaves_commit_open(error: &tokio_postgres::Error) -> bool {
        error.as_db_error().is_none_or(|said| {
            matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) || said.code().code() == "40003"
        })
    }
}

/// By the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_server(said: &DbError) -> Fault {
    let code = said.code().code();
    let class = code.get(..2).unwrap_or_default();
    let words = Said(match class {
        // Of data: its words quote it. Where it is tells enough.
        "22" | "23" => {
            let place = [said.table(), said.column(), said.constraint()].into_iter().flatten().collect::<Vec<_>>();
            format!("SQLSTATE {code} {}", place.join(", ")).trim_end().to_owned()
        }
        _ => format!("SQLSTATE {code}: {}", said.message()),
    });
    // How a standby refuses a transaction that is to write: it is one of many things that it has no feature for.
    let standby = code == "0A000" && said.routine() == Some("call_bool_check_hook");
    match (class, code) {
        _ if standby => Fault::Passing(words),
        // Serialization failure, deadlock.
        (_, "40001" | "40P01") => Fault::Conflict(words),
        // Lock not available, query canceled (which is how a timeout ends a statement), transaction or session that was
        // idle for too long, I/O error of the server's, read-only transaction: the server has become a standby.
        (_, "55P03" | "57014" | "25P03" | "25P04" | "57P05" | "58030" | "25006")
        // A prepared statement that is gone, as behind a pooler that gave the connection to another server.
        | (_, "26000")
        // Connection, insufficient resources, operator intervention.
        | ("08" | "53" | "57", _) => Fault::Passing(words),
        (_, "XX001" | "XX002") => Fault::Damaged(words),
        _ => Fault::Lasting(words),
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of(&error)
    }
}
