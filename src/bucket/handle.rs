//! What users hold of a bucket.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::base::durability::Durability;
use crate::base::error::{Error, Outcome, Result};
use crate::base::name::BucketName;
use crate::base::slot::Slot;
use crate::base::value::{IntoObject, Key, ValueError};
use crate::bucket::message::{Applied, BucketMessage, BucketStats};
use crate::persistence::Persister;
use crate::records::{Filter, Record, Write};

/// How long a call may take unless the handle says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A bucket: records that are checked against a schema, found by key and by index, and saved as its store is set.
///
/// A handle is a cheap clone that addresses the bucket by name and survives restarts of its actor; dropping handles
/// changes nothing. At most 1,024 calls per bucket are under way at a time, others wait within their timeout.
///
/// # Cancel safety
/// A write whose future is dropped is done or not done as a whole, and saved if it is done.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: BucketName,
    slot: Arc<Slot<BucketMessage>>,
    /// None where the bucket is not saved.
    persister: Option<Persister>,
    durability: Durability,
    timeout: Duration,
}

impl Bucket {
    pub(crate) fn new(name: BucketName, slot: Arc<Slot<BucketMessage>>, persister: Option<Persister>) -> Self {
        Self { name, slot, persister, durability: Durability::Ram, timeout: DEFAULT_TIMEOUT }
    }

    /// The bucket's name.
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// A handle whose writes are answered at this level of durability; default [`Durability::Ram`].
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { durability, ..self.clone() }
    }

    /// A handle whose calls may take this long to be in memory; default 5 s. Waiting for the disk has a bound of its
    /// own, the store's `commit_timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same bucket with records of a type.
    pub fn typed<T: Serialize + DeserializeOwned>(&self) -> TypedBucket<T> {
        TypedBucket { bucket: self.clone(), records: PhantomData }
    }

    /// Inserts a record: fills in generated fields and defaults, checks everything, answers the record as stored.
    ///
    /// # Errors
    /// `Validation` with every issue, `InvalidValue`, `DuplicateKey`, `UniqueViolation`, `CounterExhausted`: nothing has
    /// changed. `NotSaved`: in memory, but not at the handle's durability. `Timeout`, `ActorLost`, `Stopping`,
    /// `Unsupported`, `Fenced`.
    pub async fn insert(&self, data: impl IntoObject) -> Result<Arc<Record>> {
        let data = data.into_object().map_err(invalid)?;
        record(self.write(Write::Insert(data)).await?)
    }

    /// Merges changes over the top level of a record: the key, generated fields and metadata among them are left out.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and `NotFound`.
    pub async fn update(&self, key: impl Into<Key>, changes: impl IntoObject) -> Result<Arc<Record>> {
        let changes = changes.into_object().map_err(invalid)?;
        record(self.write(Write::Update(key.into(), changes)).await?)
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// `NotSaved`, `Timeout`, `ActorLost`, `Stopping`, `Unsupported`, `Fenced`.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        Ok(self.write(Write::Delete(key.into())).await?.written.gone() > 0)
    }

    /// Deletes all records; answers how many there were. The autoincrement counter stays.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub async fn clear(&self) -> Result<usize> {
        Ok(self.write(Write::Clear).await?.written.gone())
    }

    /// The record of a key.
    ///
    /// # Errors
    /// `Timeout`, `ActorLost`, `BucketNotDefined`.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Arc<Record>>> {
        let key = key.into();
        self.read(|port| BucketMessage::Get(key.clone(), port)).await
    }

    /// The records that a filter matches, in insertion order.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `InvalidArgument`.
    pub async fn find(&self, filter: impl Into<Filter>) -> Result<Vec<Arc<Record>>> {
        let filter = filter.into();
        self.read(|port| BucketMessage::Find(filter.clone(), port)).await
    }

    /// The first of the records that a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_one(&self, filter: impl Into<Filter>) -> Result<Option<Arc<Record>>> {
        Ok(self.find(filter).await?.into_iter().next())
    }

    /// How many records a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn count(&self, filter: impl Into<Filter>) -> Result<usize> {
        let filter = filter.into();
        self.read(|port| BucketMessage::Count(filter.clone(), port)).await
    }

    /// All records, in insertion order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(&self) -> Result<Vec<Arc<Record>>> {
        self.read(BucketMessage::All).await
    }

    /// The bucket's numbers.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn stats(&self) -> Result<BucketStats> {
        self.read(BucketMessage::Stats).await
    }

    /// Waits until everything that the bucket has accepted so far is saved; at once where it is not saved at all.
    ///
    /// # Errors
    /// What the commit said: everything is kept and retried. `Stopping`.
    pub async fn flush(&self) -> Result<()> {
        match &self.persister {
            Some(persister) => persister.flush(Some(self.slot.subject())).await,
            None => Ok(()),
        }
    }

    /// The bucket's actor as it is now, for `call!` and `cast!` with [`BucketMessage`]. After a restart there is another.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn actor(&self) -> Result<ActorRef<BucketMessage>> {
        self.slot.actor(Instant::now() + self.timeout).await
    }

    async fn write(&self, write: Write) -> Result<Applied> {
        let awaited = self.awaited()?;
        let deadline = Instant::now() + self.timeout;
        let message = |port| BucketMessage::Write(write, port);
        let applied = match self.slot.call(message, deadline).await? {
            Some(applied) => applied?,
            None => return Err(Error::ActorLost { outcome: Outcome::Unknown }),
        };
        if let (Some(persister), Some(revision)) = (awaited, applied.revision) {
            let saved = persister.saved(self.slot.subject(), revision, self.durability).await;
            saved.map_err(|error| Error::NotSaved { revision, source: Arc::new(error) })?;
        }
        Ok(applied)
    }

    /// The persister, if writes of this handle have to wait for it; refused before anything is changed.
    fn awaited(&self) -> Result<Option<&Persister>> {
        if self.durability == Durability::Ram {
            return Ok(None);
        }
        let refused = |has| Error::Unsupported { what: format!("durability {:?}", self.durability), has: Some(has) };
        let persister = self.persister.as_ref().ok_or_else(|| refused(Durability::Ram))?;
        let has = persister.capabilities().durability;
        if self.durability > has {
            return Err(refused(has));
        }
        match persister.fenced() {
            Some(error) => Err(error),
            None => Ok(Some(persister)),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        message: impl FnMut(RpcReplyPort<Result<T>>) -> BucketMessage,
    ) -> Result<T> {
        self.slot.read(message, Instant::now() + self.timeout).await
    }
}

fn record(applied: Applied) -> Result<Arc<Record>> {
    // Inserts and updates answer a record and nothing else.
    applied.written.into_record().ok_or_else(|| Error::invalid_argument("the write answers no record"))
}

fn invalid(error: ValueError) -> Error {
    let ValueError { path, reason, .. } = error;
    Error::InvalidValue { path, reason }
}

/// A bucket whose records are read as a type: the same operations, answering `T`. A record that does not fit is `Decode`
/// with its key. `T` is given its declared and undeclared fields, and metadata by the names `_version`, `_created_at`,
/// `_updated_at` and `_expires_at`; metadata that it serializes is ignored.
#[derive(Debug)]
pub struct TypedBucket<T> {
    bucket: Bucket,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedBucket<T> {
    fn clone(&self) -> Self {
        Self { bucket: self.bucket.clone(), records: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> TypedBucket<T> {
    /// The same bucket without a type.
    pub fn untyped(&self) -> &Bucket {
        &self.bucket
    }

    /// Inserts a record; answers it as stored.
    ///
    /// # Errors
    /// As [`Bucket::insert`], and `Decode`: then the record is in the bucket all the same.
    pub async fn insert(&self, record: &T) -> Result<T> {
        self.bucket.insert(record).await?.to()
    }

    /// Merges changes over a record; answers it as stored.
    ///
    /// # Errors
    /// As [`Bucket::update`], and `Decode`: then the record is changed all the same.
    pub async fn update(&self, key: impl Into<Key>, changes: impl IntoObject) -> Result<T> {
        self.bucket.update(key, changes).await?.to()
    }

    /// The record of a key.
    ///
    /// # Errors
    /// As [`Bucket::get`], and `Decode`.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<T>> {
        self.bucket.get(key).await?.map(|record| record.to()).transpose()
    }

    /// The records that a filter matches, in insertion order.
    ///
    /// # Errors
    /// As [`Bucket::find`], and `Decode`.
    pub async fn find(&self, filter: impl Into<Filter>) -> Result<Vec<T>> {
        self.bucket.find(filter).await?.iter().map(|record| record.to()).collect()
    }

    /// The first of the records that a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_one(&self, filter: impl Into<Filter>) -> Result<Option<T>> {
        self.bucket.find_one(filter).await?.map(|record| record.to()).transpose()
    }

    /// All records, in insertion order.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn all(&self) -> Result<Vec<T>> {
        self.bucket.all().await?.iter().map(|record| record.to()).collect()
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// As [`Bucket::delete`].
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.bucket.delete(key).await
    }
}
