//! What query functions read with.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::name::BucketName;
use crate::base::value::{Key, Value};
use crate::bucket::directory::Directory;
use crate::bucket::handle::Bucket;
use crate::bucket::live::index::Index;
use crate::bucket::live::watch::Watch;
use crate::bucket::reads::Reads;
use crate::records::{Explain, Filter, Page, Paged, Query, Record};

/// What a query function reads with: the store's buckets, for reading.
///
/// A clone notes its reads in the same place. What is read after the function has answered concerns nobody.
#[derive(Clone, Debug)]
pub struct QueryContext {
    directory: Directory,
    /// None where the function runs once and is forgotten.
    noting: Option<Noting>,
}

#[derive(Clone, Debug)]
pub(super) struct Noting {
    pub(super) index: Arc<Index>,
    pub(super) watch: Arc<Watch>,
    pub(super) reads: Reads,
}

impl QueryContext {
    pub(crate) fn once(directory: Directory) -> Self {
        Self { directory, noting: None }
    }

    pub(super) fn noting(directory: Directory, noting: Noting) -> Self {
        Self { directory, noting: Some(noting) }
    }

    /// A bucket, for reading. A live query that asks for one that is not defined is evaluated again when it is.
    ///
    /// # Errors
    /// `InvalidName`, `BucketNotDefined`.
    pub fn bucket(&self, name: &str) -> Result<QueryBucket> {
        let name = BucketName::new(name)?;
        let Some(Noting { index, watch, reads }) = &self.noting else {
            return Ok(QueryBucket { bucket: self.directory.bucket(name.as_str())? });
        };
        watch.listen(index, &name);
        reads.ask(&name);
        Ok(QueryBucket { bucket: self.directory.bucket(name.as_str())?.noting(reads.clone()) })
    }
}

/// A bucket for reading, see [`Bucket`]: each method does what the one of that name does there.
#[derive(Clone, Debug)]
pub struct QueryBucket {
    bucket: Bucket,
}

impl QueryBucket {
    /// The bucket's name.
    pub fn name(&self) -> &BucketName {
        self.bucket.name()
    }

    /// See [`Bucket::with_timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
        Self { bucket: self.bucket.with_timeout(timeout) }
    }

    /// See [`Bucket::get`].
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Arc<Record>>> {
        self.bucket.get(key).await
    }

    /// See [`Bucket::get_many`].
    ///
    /// # Errors
    /// As there.
    pub async fn get_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Arc<Record>>>> {
        self.bucket.get_many(keys).await
    }

    /// See [`Bucket::find`].
    ///
    /// # Errors
    /// As there.
    pub async fn find(&self, query: impl Into<Query>) -> Result<Vec<Arc<Record>>> {
        self.bucket.find(query).await
    }

    /// See [`Bucket::find_one`].
    ///
    /// # Errors
    /// As there.
    pub async fn find_one(&self, query: impl Into<Query>) -> Result<Option<Arc<Record>>> {
        self.bucket.find_one(query).await
    }

    /// See [`Bucket::all`].
    ///
    /// # Errors
    /// As there.
    pub async fn all(&self) -> Result<Vec<Arc<Record>>> {
        self.bucket.all().await
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
    /// As there.
    pub async fn first(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        self.bucket.first(count).await
    }

    /// See [`Bucket::last`].
    ///
    /// # Errors
    /// As there.
    pub async fn last(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        self.bucket.last(count).await
    }

    /// See [`Bucket::paginate`].
    ///
    /// # Errors
    /// As there.
    pub async fn paginate(&self, query: impl Into<Query>, page: Page) -> Result<Paged> {
        self.bucket.paginate(query, page).await
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

    /// See [`Bucket::explain`]. It reads no record, so that no change touches it.
    ///
    /// # Errors
    /// As there.
    pub async fn explain(&self, query: impl Into<Query>) -> Result<Explain> {
        self.bucket.explain(query).await
    }
}
