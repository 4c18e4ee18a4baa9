//! Live queries: functions that read buckets, and are called again when what they have read has changed.
//!
//! Promise: the last result that is told is that of the final state. A commit that touches what a query has read causes
//! one evaluation, any other commit none; a query that is being evaluated hears of it afterwards, once.
//!
//! Invariants
//! - A query hears a bucket's changes before it reads of that bucket, and every read is noted with the revision that
//!   answered it: a change is either in the answer, or heard after it.
//! - The sink marks and wakes; what users wrote runs in the query's own task, and a panic of it stays there.
//! - Nothing of this listens to the bus while there are no live queries.
//! - Locks are held for moments; a query's own lock may be held while the index is locked, never the other way round.
//!
//! `context` is what query functions read with, `watch` what one query has read and heard, `index` which queries a change
//! concerns, `engine` subscribing and evaluating, `handle` what users hold, `named` queries by name, `activity` whether
//! something is under way.

mod activity;
mod context;
mod engine;
mod handle;
mod index;
mod named;
mod task;
mod watch;

pub use context::{QueryBucket, QueryContext};
pub use handle::LiveQuery;

pub(crate) use activity::{Activity, Working};
pub(crate) use engine::LiveQueries;
pub(crate) use named::NamedQueries;
pub(crate) use task::caught;
