//! What a bucket's actor is told.

use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;

use crate::base::error::Result;
use crate::base::value::{Key, Object};
use crate::bucket::hold::Hold;
use crate::records::{Filter, Patch, Prepared, Query, Record, Upserted, Write, Written};

/// What a bucket's actor is told, for `call!` and `cast!`. Replies come from memory, in the order of the mailbox; for
/// durability, timeouts and restarts use the handle, [`Bucket`](crate::bucket::Bucket).
#[derive(Debug)]
#[non_exhaustive]
pub enum BucketMessage {
    /// Inserts a record.
    Insert(Object, RpcReplyPort<Result<Arc<Record>>>),
    /// Inserts records, all or none.
    InsertMany(Vec<Object>, RpcReplyPort<Result<Vec<Arc<Record>>>>),
    /// Inserts a record, or merges changes over the one of its key.
    Upsert(Object, RpcReplyPort<Result<Upserted>>),
    /// Merges changes over a record.
    Update(Key, Object, RpcReplyPort<Result<Arc<Record>>>),
    /// Merges changes over a record of this version.
    UpdateIf(Key, u64, Object, RpcReplyPort<Result<Arc<Record>>>),
    /// Changes a record by path.
    Patch(Key, Patch, RpcReplyPort<Result<Arc<Record>>>),
    /// Deletes a record; answers whether it was there.
    Delete(Key, RpcReplyPort<Result<bool>>),
    /// Deletes the records that a filter matches; answers how many there were.
    DeleteMany(Filter, RpcReplyPort<Result<usize>>),
    /// Deletes all records; answers how many there were.
    Clear(RpcReplyPort<Result<usize>>),
    /// The record of a key.
    Get(Key, RpcReplyPort<Result<Option<Arc<Record>>>>),
    /// The records that a query asks for.
    Find(Box<Query>, RpcReplyPort<Result<Vec<Arc<Record>>>>),
    /// How many records a filter matches.
    Count(Filter, RpcReplyPort<Result<usize>>),
    /// All records, in bucket order.
    All(RpcReplyPort<Result<Vec<Arc<Record>>>>),
    /// A write whose outcome nobody waits for; a refusal is counted and traced.
    Post(WriteRequest),
    /// A write, answered with the revision that it made.
    Write(WriteRequest, RpcReplyPort<Result<Applied>>),
    /// An insert that was checked before.
    Put(Prepared, RpcReplyPort<Result<Applied>>),
    /// Inserts that were checked before, all or none.
    PutMany(Vec<Prepared>, RpcReplyPort<Result<Applied>>),
    /// Removes records that have expired, at most so many; answers how many.
    Purge(usize, RpcReplyPort<Result<usize>>),
    /// The bucket's numbers.
    Stats(RpcReplyPort<Result<BucketStats>>),
    /// A transaction takes the bucket's turn.
    Hold(Hold),
}

#[cfg(feature = "cluster")]
impl ractor::Message for BucketMessage {}

/// A write, and the id under which it is applied at most once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WriteRequest {
    /// What is to be written.
    pub write: Write,
    /// The id: 1 to 128 bytes. The bucket remembers those of its newest writes.
    pub id: Option<Arc<str>>,
}

impl WriteRequest {
    /// A write without an id.
    pub fn new(write: Write) -> Self {
        Self { write, id: None }
    }

    /// The same under an id.
    #[must_use]
    pub fn with_id(self, id: impl Into<Arc<str>>) -> Self {
        Self { id: Some(id.into()), ..self }
    }
}

impl From<Write> for WriteRequest {
    fn from(write: Write) -> Self {
        Self::new(write)
    }
}

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
    /// Records that have expired and are not purged yet; they are not among `records`.
    pub expired: usize,
    /// Indexes, the unique fields' included.
    pub indexes: usize,
    /// The highest autoincrement number written.
    pub counter: i64,
    /// 1 more at each commit.
    pub revision: u64,
    /// Whether its order is that of keys, and not that of insertion.
    pub ordered: bool,
    /// How long records live, if not for ever.
    pub ttl: Option<Duration>,
    /// Most records that it keeps, if there is a limit.
    pub max_size: Option<usize>,
    /// Posted writes that were refused.
    pub refused_posts: u64,
    /// Whether it is saved.
    pub persistent: bool,
}
