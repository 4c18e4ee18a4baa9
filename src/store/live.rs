//! What a store offers for live queries.

use crate::base::error::Result;
use crate::base::value::Value;
use crate::bucket::{LiveQuery, QueryContext};
use crate::store::handle::Store;

impl Store {
    /// Evaluates a function that reads buckets, and evaluates it again whenever a commit touches what it has read.
    ///
    /// The function only reads, through its [`QueryContext`], and should depend on nothing else. It may run any number
    /// of times.
    ///
    /// ```
    /// use ractor_persistence::bucket::QueryContext;
    /// use ractor_persistence::{BucketDefinition, Field, Filter, Store, record};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("shop").start().await?;
    /// let definition = BucketDefinition::new("users").key("id").field("id", Field::int()).field("role", Field::string());
    /// let users = store.define_bucket(definition).await?;
    /// users.insert(record! { "id": 1, "role": "admin" }).await?;
    /// let admins = |q: QueryContext| async move { q.bucket("users")?.count(Filter::eq("role", "admin")).await };
    /// let mut live = store.live(admins).await?;
    /// assert_eq!(*live.current(), 1);
    /// users.insert(record! { "id": 2, "role": "user" }).await?; // touches nothing
    /// users.insert(record! { "id": 3, "role": "admin" }).await?;
    /// assert_eq!(*live.next().await?, 2);
    /// # Ok::<_, ractor_persistence::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// What the first evaluation answers, `UserCode` if it panics: then nothing stays subscribed. `Stopping`.
    pub async fn live<R, F, Fut>(&self, function: F) -> Result<LiveQuery<R>>
    where
        R: PartialEq + Send + Sync + 'static,
        F: Fn(QueryContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
    {
        self.inner.admit()?;
        self.inner.live.subscribe(function).await
    }

    /// Gives a query with parameters a name.
    ///
    /// ```
    /// use ractor_persistence::bucket::QueryContext;
    /// use ractor_persistence::{BucketDefinition, Field, Filter, Store, Value, record};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("shop").start().await?;
    /// let definition = BucketDefinition::new("users").key("id").field("id", Field::int()).field("role", Field::string());
    /// let users = store.define_bucket(definition).await?;
    /// store.define_query("in role", |q: QueryContext, role: Value| async move {
    ///     let count = q.bucket("users")?.count(Filter::eq("role", role)).await?;
    ///     Ok(Value::from(i64::try_from(count).unwrap_or(i64::MAX)))
    /// })?;
    /// let mut live = store.live_query("in role", "admin").await?;
    /// users.insert(record! { "id": 1, "role": "admin" }).await?;
    /// assert_eq!(*live.next().await?, Value::from(1));
    /// assert_eq!(store.run_query("in role", "user").await?, Value::from(0));
    /// # Ok::<_, ractor_persistence::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `QueryAlreadyDefined`.
    pub fn define_query<F, Fut>(&self, name: impl Into<String>, function: F) -> Result<()>
    where
        F: Fn(QueryContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        self.inner.queries.define(name.into(), function)
    }

    /// Frees a query's name. Live queries that began with it go on.
    ///
    /// # Errors
    /// `QueryNotDefined`.
    pub fn undefine_query(&self, name: &str) -> Result<()> {
        self.inner.queries.undefine(name)
    }

    /// Runs a named query once.
    ///
    /// # Errors
    /// `QueryNotDefined`, what the query answers, `UserCode` if it panics, `Stopping`.
    pub async fn run_query(&self, name: &str, params: impl Into<Value>) -> Result<Value> {
        self.inner.admit()?;
        self.inner.queries.run(self.inner.directory.clone(), name, params.into()).await
    }

    /// Runs a named query, and again whenever a commit touches what it has read; see [`live`](Self::live).
    ///
    /// # Errors
    /// `QueryNotDefined`, and as [`live`](Self::live).
    pub async fn live_query(&self, name: &str, params: impl Into<Value>) -> Result<LiveQuery<Value>> {
        self.inner.admit()?;
        self.inner.queries.subscribe(&self.inner.live, name, params.into()).await
    }

    /// Waits for a moment at which every event published has been handled by the handlers of [`on`](Self::on), and every
    /// live query has told the result of the final state; at once if that is now.
    ///
    /// What handlers and callbacks have awaited is included. Streams, actors and bridges, which go at the pace of others,
    /// are not. While writes never pause, it may wait for long, and for a handler or query that never ends for ever.
    /// Awaited within a handler or the function of a live query, it waits for that very call, and so for ever.
    pub async fn settle(&self) {
        self.inner.activity.settled().await;
    }
}
