//! Stores in one [redb](https://docs.rs/redb) file: for production on one machine.
//!
//! Promise: a commit that was answered `Ok` is on disk, whole; what is loaded is what was committed, or `Corrupt` with
//! table and key, never something else.
//!
//! Invariants
//! - One thread owns the database (`writer`). It serves requests in their order and puts the commits that queued up
//!   while the last transaction ran into one transaction; a commit that is refused there does not touch the others.
//! - Nothing of a commit is written before its epoch has been compared with the store's newest claim, in the same
//!   transaction.
//! - Changes are appended to the journal and folded into rows later, in one transaction with the journal's trim. Nothing is
//!   loaded before everything of it has been folded.
//! - redb serves flipped bytes without a word, so every row carries version and checksum, bound to its table and key,
//!   and headers carry tallies that notice rows which are missing.
//! - redb takes an empty file for a new database, so a file is born under another name, and one without the row that
//!   is written at birth is never taken for ours.
//! - After an I/O error nothing is done with the handle any more: the file is closed, opened again, and must still be
//!   the same one. What was in flight is answered with `Unknown`.
//!
//! The bytes are described in `docs/format.md`.
//!
//! | file | question |
//! |---|---|
//! | `adapter` | what does a store hold? |
//! | `options` | how is the file opened? |
//! | `writer` | in which order and in which transaction are things written? |
//! | `writer/folding` | when is the journal folded? |
//! | `apply` | what does a save write? |
//! | `journal` | what of it is written down first, to become rows later? |
//! | `fold` | how does that become rows? |
//! | `load` | what is read, and how is damage noticed? |
//! | `rows`, `keys` | what do rows and keys look like? |
//! | `backup` | how is all of it copied? |
//! | `quarantine` | where does unreadable data go? |
//! | `file`, `holder` | how is a file born, opened, closed, and who has it? |
//! | `fault` | who has to hear what redb says? |

mod adapter;
mod apply;
mod backup;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod decoding;
mod fault;
mod file;
mod fold;
mod holder;
mod journal;
mod keys;
mod load;
mod options;
mod quarantine;
mod rows;
mod writer;

#[cfg(test)]
mod tests;

pub use adapter::RedbAdapter;
pub use options::RedbOptions;
