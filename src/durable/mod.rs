//! State of the user's own actors. Rank 3: uses `base`, `records`, `persistence`.
//!
//! A [`Durable`] value is plain: an actor loads it in `pre_start`, reads and changes it, and finds it again after a kill
//! or a restart of the process. All durable values of a store are records of one reserved bucket, saved by the store's
//! persister in the same commits as everything else.
//!
//! Invariants: a change is made as a whole, encoded and noted as unsaved before anybody sees it, or not at all, whether
//! the closure fails, panics or leaves what cannot be stored; of all handles opened under a name, only those of the newest
//! activation change the value.
//!
//! `handle` has [`Durable`], `options` [`DurableOptions`], `values` all durable values of a store, `stored` their stored
//! form, `turn` who may change one, `joined` a value within a transaction.

mod handle;
mod joined;
mod options;
mod stored;
mod turn;
mod values;

pub use handle::Durable;
pub use joined::TransactionDurable;
pub use options::DurableOptions;

pub(crate) use values::Values;
