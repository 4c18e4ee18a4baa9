//! What a bucket's actor is told.

use std::sync::Arc;

use ractor::RpcReplyPort;

use crate::base::error::Result;
use crate::base::value::{Key, Object};
use crate::records::{BucketSnapshot, Filter, Record, Write, Written};

/// What a bucket's actor is told, for `call!` and `cast!`. Replies come from memory, in the order of the mailbox; for
/// durability, timeouts and restarts use the handle, [`Bucket`](crate::bucket::Bucket).
#[derive(Debug)]
#[non_exhaustive]
pub enum BucketMessage {
    /// Inserts a record.
    Insert(Object, RpcReplyPort<Result<Arc<Record>>>),
    /// Merges changes over a record.
    Update(Key, Object, RpcReplyPort<Result<Arc<Record>>>),
    /// Deletes a record; answers whether it was there.
    Delete(Key, RpcReplyPort<Result<bool>>),
    /// Deletes all records; answers how many there were.
    Clear(RpcReplyPort<Result<usize>>),
    /// The record of a key.
    Get(Key, RpcReplyPort<Result<Option<Arc<Record>>>>),
    /// The records that a filter matches, in insertion order.
    Find(Filter, RpcReplyPort<Result<Vec<Arc<Record>>>>),
    /// How many records a filter matches.
    Count(Filter, RpcReplyPort<Result<usize>>),
    /// All records, in insertion order.
    All(RpcReplyPort<Result<Vec<Arc<Record>>>>),
    /// A write whose outcome nobody waits for; a refusal is counted and traced.
    Post(Write),
    /// A write, answered with the revision that it made.
    Write(Write, RpcReplyPort<Result<Applied>>),
    /// The bucket's numbers.
    Stats(RpcReplyPort<Result<BucketStats>>),
    /// The whole bucket, as it would be saved.
    Snapshot(RpcReplyPort<Result<BucketSnapshot>>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for BucketMessage {}

/// A write that is in memory.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Applied {
    /// Its answer.
    pub written: Written,
    /// The bucket's revision after it; none where nothing changed.
    pub revision: Option<u64>,
}

/// A bucket's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketStats {
    /// Records in it.
    pub records: usize,
    /// Indexes, the unique fields' included.
    pub indexes: usize,
    /// The highest autoincrement number written.
    pub counter: i64,
    /// 1 more at each commit.
    pub revision: u64,
    /// Posted writes that were refused.
    pub refused_posts: u64,
    /// Whether it is saved.
    pub persistent: bool,
}
