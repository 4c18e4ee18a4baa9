//! One vocabulary for "when is it safe", used by everything that writes.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::base::error::Error;

/// How far a write must have come before it is answered. Ordered: a higher level includes the lower ones.
///
/// | level | answered when | survives a process crash | survives a power cut |
/// |---|---|---|---|
/// | `Ram` | the change is in memory; it is saved within the debounce window | from its save on | from its save on |
/// | `Wal` | its commit has been handed to the operating system or server | yes | maybe not |
/// | `Fsync` | that commit is synced | yes | yes |
///
/// An adapter may give more than was asked, never less.
///
/// ```
/// use ractor_persistence::base::durability::Durability;
/// assert!(Durability::Ram < Durability::Wal && Durability::Wal < Durability::Fsync);
/// assert_eq!(Durability::default(), Durability::Ram);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Durability {
    /// In memory; saved within the debounce window.
    #[default]
    Ram,
    /// Handed to the operating system or server.
    Wal,
    /// Synced to stable storage.
    Fsync,
}

/// Why a durability cannot be had.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lack {
    /// It was defined as one that is not saved.
    OptedOut,
    /// There is nowhere to save it.
    NoAdapter,
    /// The adapter does not go so far.
    OfAdapter,
}

impl Durability {
    /// The refusal of this level for somebody, who can have another one.
    pub(crate) fn refused(self, whose: impl Display, why: Lack, has: Self) -> Error {
        let why = match why {
            Lack::OptedOut => "which is defined as one that is not saved",
            Lack::NoAdapter => "whose store has no adapter",
            Lack::OfAdapter => "whose adapter does not go so far",
        };
        Error::Unsupported { what: format!("durability {self:?} for {whose}, {why},"), has: Some(has) }
    }
}
