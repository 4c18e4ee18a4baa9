//! A bucket whose records are read as a type.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::value::{IntoObject, Key, Value};
use crate::bucket::handle::Bucket;
use crate::records::{Filter, Page, Patch, Query, Record, Upserted};

/// A bucket whose records are read as a type: the same operations, answering `T`. A record that does not fit is `Decode`
/// with its key. `T` is given its declared and undeclared fields, and metadata by the names `_version`, `_created_at`,
/// `_updated_at` and `_expires_at`; metadata that it serializes is ignored, but for `_expires_at`.
///
/// A write whose answer does not fit is done all the same.
#[derive(Debug)]
pub struct TypedBucket<T> {
    bucket: Bucket,
    records: PhantomData<fn() -> T>,
}

/// One page of records of a type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TypedPage<T> {
    /// The records.
    pub records: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// Where the next page begins; none of an empty page.
    pub next_cursor: Option<crate::records::Cursor>,
}

impl<T> Clone for TypedBucket<T> {
    fn clone(&self) -> Self {
        Self::new(self.bucket.clone())
    }
}

impl<T> TypedBucket<T> {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self { bucket, records: PhantomData }
    }

    /// The same bucket without a type.
    pub fn untyped(&self) -> &Bucket {
        &self.bucket
    }

    /// See [`Bucket::with_durability`].
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self::new(self.bucket.with_durability(durability))
    }

    /// See [`Bucket::with_timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
        Self::new(self.bucket.with_timeout(timeout))
    }

    /// See [`Bucket::with_request_id`].
    #[must_use]
    pub fn with_request_id(&self, id: impl Into<Arc<str>>) -> Self {
        Self::new(self.bucket.with_request_id(id))
    }
}

fn all<T: DeserializeOwned>(records: &[Arc<Record>]) -> Result<Vec<T>> {
    records.iter().map(|record| record.to()).collect()
}

fn one<T: DeserializeOwned>(record: Option<&Arc<Record>>) -> Result<Option<T>> {
    record.map(|record| record.to()).transpose()
}

impl<T: Serialize + DeserializeOwned> TypedBucket<T> {
    /// See [`Bucket::insert`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn insert(&self, record: &T) -> Result<T> {
        self.bucket.insert(record).await?.to()
    }

    /// See [`Bucket::insert_many`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn insert_many(&self, records: &[T]) -> Result<Vec<T>> {
        all(&self.bucket.insert_many(records).await?)
    }

    /// See [`Bucket::upsert`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn upsert(&self, record: &T) -> Result<Upserted<T>> {
        Ok(match self.bucket.upsert(record).await? {
            Upserted::Inserted(record) => Upserted::Inserted(record.to()?),
            Upserted::Updated(record) => Upserted::Updated(record.to()?),
        })
    }

    /// See [`Bucket::update`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn update(&self, key: impl Into<Key>, changes: impl IntoObject) -> Result<T> {
        self.bucket.update(key, changes).await?.to()
    }

    /// See [`Bucket::update_if`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn update_if(&self, key: impl Into<Key>, version: u64, changes: impl IntoObject) -> Result<T> {
        self.bucket.update_if(key, version, changes).await?.to()
    }

    /// See [`Bucket::patch`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn patch(&self, key: impl Into<Key>, patch: Patch) -> Result<T> {
        self.bucket.patch(key, patch).await?.to()
    }

    /// See [`Bucket::delete`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        self.bucket.delete(key).await
    }

    /// See [`Bucket::delete_many`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete_many(&self, filter: impl Into<Filter>) -> Result<usize> {
        self.bucket.delete_many(filter).await
    }

    /// See [`Bucket::clear`].
    ///
    /// # Errors
    /// As there.
    pub async fn clear(&self) -> Result<usize> {
        self.bucket.clear().await
    }

    /// See [`Bucket::get`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<T>> {
        one(self.bucket.get(key).await?.as_ref())
    }

    /// See [`Bucket::get_many`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn get_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<T>>> {
        self.bucket.get_many(keys).await?.iter().map(|record| one(record.as_ref())).collect()
    }

    /// See [`Bucket::find`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn find(&self, query: impl Into<Query>) -> Result<Vec<T>> {
        all(&self.bucket.find(query).await?)
    }

    /// See [`Bucket::find_one`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn find_one(&self, query: impl Into<Query>) -> Result<Option<T>> {
        one(self.bucket.find_one(query).await?.as_ref())
    }

    /// See [`Bucket::all`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn all(&self) -> Result<Vec<T>> {
        all(&self.bucket.all().await?)
    }

    /// See [`Bucket::count`].
    ///
    /// # Errors
    /// As there.
    pub async fn count(&self, filter: impl Into<Filter>) -> Result<usize> {
        self.bucket.count(filter).await
    }

    /// See [`Bucket::first`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn first(&self, count: usize) -> Result<Vec<T>> {
        all(&self.bucket.first(count).await?)
    }

    /// See [`Bucket::last`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn last(&self, count: usize) -> Result<Vec<T>> {
        all(&self.bucket.last(count).await?)
    }

    /// See [`Bucket::paginate`].
    ///
    /// # Errors
    /// As there, and `Decode`.
    pub async fn paginate(&self, query: impl Into<Query>, page: Page) -> Result<TypedPage<T>> {
        let page = self.bucket.paginate(query, page).await?;
        Ok(TypedPage { records: all(&page.records)?, has_more: page.has_more, next_cursor: page.next_cursor })
    }

    /// See [`Bucket::sum`].
    ///
    /// # Errors
    /// As there.
    pub async fn sum(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Value> {
        self.bucket.sum(path, filter).await
    }

    /// See [`Bucket::avg`].
    ///
    /// # Errors
    /// As there.
    pub async fn avg(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<f64> {
        self.bucket.avg(path, filter).await
    }

    /// See [`Bucket::min`].
    ///
    /// # Errors
    /// As there.
    pub async fn min(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        self.bucket.min(path, filter).await
    }

    /// See [`Bucket::max`].
    ///
    /// # Errors
    /// As there.
    pub async fn max(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        self.bucket.max(path, filter).await
    }
}
