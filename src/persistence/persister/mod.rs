//! What stands between the pure dirty set, the cells and the adapter. The actor in `actor` drives it; whoever holds the
//! [`Persister`] can tell it of changes and wait for saves.
//!
//! `handle` is what a persister is made of and what it is told; `wait` who waits for saves, `turn` what is done next and with
//! what, `outcome` what follows from it, `tell` who hears of it, `load` the way back from the adapter, `damage` what that
//! finds out by itself, `look` health and statistics, `stop` its end.

mod damage;
mod handle;
mod load;
mod look;
mod outcome;
mod stop;
mod tell;
#[cfg(test)]
mod tests;
mod turn;
mod wait;

pub use handle::OnError;
pub(crate) use handle::{DirtySink, Persister};
pub use look::PersistenceStats;
pub(crate) use wait::Saved;
