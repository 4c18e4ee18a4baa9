//! What users hold of a bucket.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::blocking;
use crate::base::durability::{Durability, Lack};
use crate::base::error::{Error, Outcome, Result};
use crate::base::name::BucketName;
use crate::base::patience::deadline;
use crate::base::slot::Slot;
use crate::base::value::{IntoObject, Key, Object, Value, ValueError};
use crate::bucket::directory::{Address, Directory};
use crate::bucket::instance::Instance;
use crate::bucket::message::{Applied, BucketMessage, BucketStats, WriteRequest};
use crate::bucket::reads::Reads;
use crate::bucket::typed::TypedBucket;
use crate::persistence::Persister;
use crate::records::{
    Explain, Filter, Page, Paged, Patch, Prepared, Query, ReadSet, Record, Table, Upserted, View, Write, Written,
};
use ractor::ActorRef;

/// How long a call may take unless the handle says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// From so many entries on, a query is left to the blocking pool: it takes longer than an async task should hold its
/// thread.
const LONG: usize = 16_384;

/// A bucket's slot: where its actor and its table are found.
pub(crate) type BucketSlot = Slot<BucketMessage, Arc<Instance>>;

/// A bucket: records that are checked against a schema, found by key and by index, and saved as its store is set.
///
/// A handle is a cheap clone that addresses the bucket by name and survives restarts of its actor; dropping handles
/// changes nothing. At most 1,024 writes per bucket are under way at a time, others wait within their timeout.
///
/// Reads run in the caller's task on an immutable snapshot: neither do they wait for writes, nor writes for them. Who
/// awaited a write sees it in every later read. All of one query sees one revision.
///
/// # Cancel safety
/// A write whose future is dropped is done or not done as a whole, and saved if it is done.
#[derive(Clone, Debug)]
pub struct Bucket {
    address: Arc<Address>,
    directory: Directory,
    durability: Durability,
    timeout: Duration,
    /// The id of the one write that this handle is for.
    request: Option<Arc<str>>,
    /// Where reads are noted, for live queries.
    reads: Option<Reads>,
}

impl Bucket {
    pub(crate) fn new(address: Arc<Address>, directory: Directory) -> Self {
        let (durability, timeout) = (Durability::Ram, DEFAULT_TIMEOUT);
        Self { address, directory, durability, timeout, request: None, reads: None }
    }

    /// The same with its reads noted.
    pub(crate) fn noting(self, reads: Reads) -> Self {
        Self { reads: Some(reads), ..self }
    }

    /// The bucket of this name: another one than at first where that was dropped and the name defined again.
    fn address(&self) -> Arc<Address> {
        if self.address.slot.is_gone()
            && let Ok(current) = self.directory.get(&self.address.name)
        {
            return current;
        }
        Arc::clone(&self.address)
    }

    /// The bucket's name.
    pub fn name(&self) -> &BucketName {
        &self.address.name
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

    /// A handle for one write under an id of 1 to 128 bytes: the bucket applies it once, however often it is sent, also
    /// after a restart, for as long as it remembers the id (the definition's `request_window`).
    ///
    /// A repeat changes nothing. It answers the records of the same keys as they are by then, or `AlreadyApplied` if one
    /// of them is gone. The write repeats itself once when the bucket's actor dies with it. Another write under the same
    /// id is refused with `RequestIdReused`. What changes nothing, such as the delete of a key that is free, is no commit
    /// and is not remembered: sent again, it is tried anew.
    #[must_use]
    pub fn with_request_id(&self, id: impl Into<Arc<str>>) -> Self {
        Self { request: Some(id.into()), ..self.clone() }
    }

    /// The same bucket with records of a type.
    pub fn typed<T>(&self) -> TypedBucket<T> {
        TypedBucket::new(self.clone())
    }

    // ---- writes

    /// Inserts a record: fills in generated fields and defaults, checks everything, answers the record as stored.
    ///
    /// # Errors
    /// `Validation` with every issue, `InvalidValue`, `DuplicateKey`, `UniqueViolation`, `CapacityExceeded`,
    /// `CounterExhausted`, `UserCode`: nothing has changed. `NotSaved`: in memory, but not at the handle's durability.
    /// `Timeout`, `ActorLost`, `Stopping`, `Unsupported`, `Fenced`.
    pub async fn insert(&self, data: impl IntoObject) -> Result<Arc<Record>> {
        let (data, address) = (object(data)?, self.address());
        if self.request.is_some() || !address.schema.prepares() {
            return record(Box::pin(self.write_at(&address, WriteRequest::new(Write::Insert(data)))).await?);
        }
        let prepared = address.prepare(data)?;
        let awaited = address.awaited(self.durability)?;
        let applied = address.slot.call(|port| BucketMessage::Put(prepared, port), self.timeout).await?;
        record(self.settle(&address, awaited, applied).await?)
    }

    /// Inserts records as one commit, all or none; no records are no commit.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); `Validation` and `InvalidValue` name the record, counted from 0.
    pub async fn insert_many<I: IntoObject>(&self, list: impl IntoIterator<Item = I>) -> Result<Vec<Arc<Record>>> {
        let list: Result<Vec<Object>> =
            list.into_iter().enumerate().map(|(at, data)| object(data).map_err(|error| error.of_item(at))).collect();
        let (list, address) = (list?, self.address());
        let written = if self.request.is_some() || !address.schema.prepares() {
            Box::pin(self.write_at(&address, WriteRequest::new(Write::InsertMany(list)))).await?
        } else {
            let prepared = list.into_iter().enumerate();
            let prepared = prepared.map(|(at, data)| address.prepare(data).map_err(|error| error.of_item(at)));
            let prepared = prepared.collect::<Result<Vec<_>>>()?;
            let awaited = address.awaited(self.durability)?;
            let applied = address.slot.call(|port| BucketMessage::PutMany(prepared, port), self.timeout).await?;
            self.settle(&address, awaited, applied).await?
        };
        match written {
            Written::Records(records) => Ok(records),
            _ => Err(unexpected()),
        }
    }

    /// Inserts a record, or, where its key is taken, merges it over the top level of the record that is there.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), but for `DuplicateKey`.
    pub async fn upsert(&self, data: impl IntoObject) -> Result<Upserted> {
        match self.write(Write::Upsert(object(data)?)).await? {
            Written::Upserted(upserted) => Ok(upserted),
            _ => Err(unexpected()),
        }
    }

    /// Merges changes over the top level of a record: the key, generated fields and metadata among them are left out,
    /// but for `_expires_at`.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and `NotFound`.
    pub async fn update(&self, key: impl Into<Key>, changes: impl IntoObject) -> Result<Arc<Record>> {
        record(self.write(Write::Update(key.into(), object(changes)?)).await?)
    }

    /// The same, if the record still has this version: compare and set.
    ///
    /// # Errors
    /// As [`update`](Self::update), and `VersionMismatch`.
    pub async fn update_if(&self, key: impl Into<Key>, version: u64, changes: impl IntoObject) -> Result<Arc<Record>> {
        record(self.write(Write::UpdateIf(key.into(), version, object(changes)?)).await?)
    }

    /// Changes a record by path; all of the patch's operations are applied, or none.
    ///
    /// # Errors
    /// As [`update`](Self::update), and `InvalidArgument` for paths that a patch may not touch.
    pub async fn patch(&self, key: impl Into<Key>, patch: Patch) -> Result<Arc<Record>> {
        record(self.write(Write::Patch(key.into(), patch)).await?)
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// `NotSaved`, `Timeout`, `ActorLost`, `Stopping`, `Unsupported`, `Fenced`.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        Ok(self.write(Write::Delete(key.into())).await?.gone() > 0)
    }

    /// Deletes the records that a filter matches, as one commit; answers how many there were.
    ///
    /// # Errors
    /// As [`delete`](Self::delete), and `InvalidArgument`.
    pub async fn delete_many(&self, filter: impl Into<Filter>) -> Result<usize> {
        Ok(self.write(Write::DeleteMany(filter.into())).await?.gone())
    }

    /// Deletes all records; answers how many there were. The autoincrement counter stays.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub async fn clear(&self) -> Result<usize> {
        Ok(self.write(Write::Clear).await?.gone())
    }

    // ---- reads

    /// The record of a key.
    ///
    /// # Errors
    /// `Timeout` while the bucket is restarting, `BucketNotDefined`, `Stopping`.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Arc<Record>>> {
        if is_turn_of_others() {
            tokio::task::coop::consume_budget().await;
        }
        let key = key.into();
        let instance = match self.address.slot.shared_now() {
            Some(Ok(instance)) => instance,
            _ => self.address().slot.shared(deadline(self.timeout), |_| true).await?,
        };
        let (found, revision) = instance.get(&key);
        if let Some(reads) = &self.reads {
            reads.note(self.name(), revision, |reads| reads.key(&key));
        }
        Ok(found)
    }

    /// The records of these keys, in the order asked.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Arc<Record>>>> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        let look = |table: &Table, now| keys.iter().map(|key| table.get(key, now)).collect();
        self.read(look, |reads| keys.iter().for_each(|key| reads.key(key))).await
    }

    /// The records that a query asks for; a filter or an object will do. In bucket order, unless the query says
    /// otherwise.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `InvalidArgument`.
    pub async fn find(&self, query: impl Into<Query>) -> Result<Vec<Arc<Record>>> {
        let query = query.into();
        let view = self.view(query.filter()).await?;
        run(view, move |view| view.find(&query)).await
    }

    /// The first of the records that a query asks for.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_one(&self, query: impl Into<Query>) -> Result<Option<Arc<Record>>> {
        let query = query.into();
        let view = self.view(query.filter()).await?;
        run(view, move |view| view.find_one(&query)).await
    }

    /// All records, in bucket order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(&self) -> Result<Vec<Arc<Record>>> {
        let view = self.whole().await?;
        run(view, |view| Ok(view.all())).await
    }

    /// How many records a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn count(&self, filter: impl Into<Filter>) -> Result<usize> {
        let filter = filter.into();
        let view = self.view(&filter).await?;
        run(view, move |view| view.count(&filter)).await
    }

    /// The first records in bucket order, at most so many.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn first(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        page(self.whole().await?, count, move |view| view.first(count)).await
    }

    /// The last records in bucket order, at most so many, in ascending order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn last(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        page(self.whole().await?, count, move |view| view.last(count)).await
    }

    /// One page of the records that a query asks for, and where the next one begins.
    ///
    /// # Errors
    /// As [`find`](Self::find); `InvalidArgument` also for a page of no records, a query with offset or limit, and a
    /// cursor of another bucket or order.
    pub async fn paginate(&self, query: impl Into<Query>, page: Page) -> Result<Paged> {
        let query = query.into();
        query.filter().check()?;
        let view = self.read(|table, now| table.view(query.filter(), now), ReadSet::whole).await?;
        run(view, move |view| view.paginate(&query, &page)).await
    }

    /// The sum of the numbers at a path: an exact Int while all are Ints and it fits, else a Float; 0 of none.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn sum(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Value> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.sum(&path, &filter)).await
    }

    /// The mean of the numbers at a path; 0 of none.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn avg(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<f64> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.avg(&path, &filter)).await
    }

    /// The least number at a path.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn min(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.min(&path, &filter)).await
    }

    /// The greatest number at a path.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn max(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.max(&path, &filter)).await
    }

    /// How a query would be answered: which index, how many entries, in which order. Reads none of them.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn explain(&self, query: impl Into<Query>) -> Result<Explain> {
        let query = query.into();
        let now = self.now_view(query.filter()).await?;
        now.explain(&query)
    }

    /// The bucket's numbers.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `ActorLost`.
    pub async fn stats(&self) -> Result<BucketStats> {
        self.address().slot.read(BucketMessage::Stats, self.timeout).await
    }

    /// Waits until everything that the bucket has accepted so far is saved; at once where it is not saved at all.
    ///
    /// # Errors
    /// What the commit said: everything is kept and retried. `Stopping`.
    pub async fn flush(&self) -> Result<()> {
        let address = self.address();
        match &address.persister {
            Some(persister) => persister.flush(Some(address.slot.subject())).await,
            None => Ok(()),
        }
    }

    /// The bucket's actor as it is now, for `call!` and `cast!` with [`BucketMessage`]. After a restart there is another.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn actor(&self) -> Result<ActorRef<BucketMessage>> {
        self.address().slot.actor(deadline(self.timeout)).await
    }

    // ---- how

    async fn write(&self, write: Write) -> Result<Written> {
        self.write_at(&self.address(), WriteRequest::new(write)).await
    }

    async fn write_at(&self, address: &Address, request: WriteRequest) -> Result<Written> {
        if let Some(id) = &self.request {
            // Rare, and large: not a part of every write.
            return Box::pin(self.write_once(address, request.with_id(Arc::clone(id)))).await;
        }
        let awaited = address.awaited(self.durability)?;
        let applied = address.slot.call(|port| BucketMessage::Write(request, port), self.timeout).await?;
        self.settle(address, awaited, applied).await
    }

    async fn write_once(&self, address: &Address, request: WriteRequest) -> Result<Written> {
        let awaited = address.awaited(self.durability)?;
        let again = request.clone();
        let mut applied = address.slot.call(|port| BucketMessage::Write(request, port), self.timeout).await?;
        if matches!(applied, None | Some(Err(Error::ActorLost { .. }))) {
            // Sent again: what was applied already is not applied again.
            applied = address.slot.call(|port| BucketMessage::Write(again, port), self.timeout).await?;
        }
        self.settle(address, awaited, applied).await
    }

    /// Waits for the disk where the handle asks for that.
    async fn settle(
        &self,
        address: &Address,
        awaited: Option<&Persister>,
        applied: Option<Result<Applied>>,
    ) -> Result<Written> {
        let applied = applied.unwrap_or(Err(Error::ActorLost { outcome: Outcome::Unknown }))?;
        if let (Some(persister), Some(revision)) = (awaited, applied.revision) {
            let saved = Box::pin(persister.saved(address.slot.subject(), revision, self.durability)).await;
            saved.map_err(|error| Error::NotSaved { revision, source: Arc::new(error) })?;
        }
        Ok(applied.written)
    }

    /// Looks at the table, for moments only. An instance that has been replaced meanwhile is looked for again.
    async fn read<T>(&self, look: impl Fn(&Table, i64) -> T, note: impl FnOnce(&mut ReadSet)) -> Result<T> {
        // Ready at once as a rule: a task that does nothing but read has to give way to others all the same.
        tokio::task::coop::consume_budget().await;
        let seen = match self.address.slot.shared_now() {
            Some(Ok(instance)) => {
                let now = instance.now();
                instance.read(|table| (look(table, now), table.revision())).ok()
            }
            _ => None,
        };
        let (found, revision) = match seen {
            Some(seen) => seen,
            None => Box::pin(self.read_later(look)).await?,
        };
        if let Some(reads) = &self.reads {
            reads.note(self.name(), revision, note);
        }
        Ok(found)
    }

    /// The bucket is restarting, or gone.
    async fn read_later<T>(&self, look: impl Fn(&Table, i64) -> T) -> Result<(T, u64)> {
        let deadline = deadline(self.timeout);
        let address = self.address();
        let mut retired: Option<Arc<Instance>> = None;
        loop {
            let other = |found: &Arc<Instance>| retired.as_ref().is_none_or(|retired| !Arc::ptr_eq(retired, found));
            let instance = address.slot.shared(deadline, other).await?;
            let now = instance.now();
            match instance.read(|table| (look(table, now), table.revision())) {
                Ok(seen) => return Ok(seen),
                Err(_retired) => retired = Some(instance),
            }
        }
    }

    async fn view(&self, filter: &Filter) -> Result<View> {
        filter.check()?;
        self.read(|table, now| table.view(filter, now), |reads| reads.predicate(filter)).await
    }

    async fn now_view(&self, filter: &Filter) -> Result<View> {
        filter.check()?;
        self.read(|table, now| table.view(filter, now), |_| {}).await
    }

    async fn whole(&self) -> Result<View> {
        self.read(|table, now| table.whole(now), ReadSet::whole).await
    }
}

/// Runs a query on a snapshot: here, if it is short.
pub(crate) async fn run<T: Send + 'static>(
    view: View,
    query: impl FnOnce(&View) -> Result<T> + Send + 'static,
) -> Result<T> {
    if view.is_short(LONG) {
        return query(&view);
    }
    blocking::run("a query", move || query(&view)).await
}

/// Takes so many records from an end of a snapshot: here, if they are few.
pub(crate) async fn page(
    view: View,
    count: usize,
    take: impl FnOnce(&View) -> Vec<Arc<Record>> + Send + 'static,
) -> Result<Vec<Arc<Record>>> {
    if count < LONG {
        return Ok(take(&view));
    }
    run(view, move |view| Ok(take(view))).await
}

/// Reads are ready at once as a rule, and a task that does nothing but read has to give way to others all the same. A
/// look-up takes too little time to count each one: every sixteenth of a thread does.
pub(crate) fn is_turn_of_others() -> bool {
    thread_local! {
        static READS: Cell<u8> = const { Cell::new(0) };
    }
    READS.with(|reads| {
        reads.set(reads.get().wrapping_add(1));
        reads.get() % 16 == 0
    })
}

/// The persister, if writes of this durability have to wait for it; refused before anything is changed. Whoever has none
/// though it is to be saved is in a store without an adapter.
pub(crate) fn awaited<'a>(
    persister: Option<&'a Persister>,
    durability: Durability,
    whose: &dyn fmt::Display,
    persistent: bool,
) -> Result<Option<&'a Persister>> {
    if durability == Durability::Ram {
        return Ok(None);
    }
    let Some(persister) = persister else {
        let why = if persistent { Lack::NoAdapter } else { Lack::OptedOut };
        return Err(durability.refused(whose, why, Durability::Ram));
    };
    let has = persister.capabilities().durability;
    if durability > has {
        return Err(durability.refused(whose, Lack::OfAdapter, has));
    }
    match persister.fenced() {
        Some(error) => Err(error),
        None => Ok(Some(persister)),
    }
}

fn record(written: Written) -> Result<Arc<Record>> {
    written.into_record().ok_or_else(unexpected)
}

/// Each write has one kind of answer, and is asked for that.
pub(crate) fn unexpected() -> Error {
    Error::invalid_argument("the write has another kind of answer")
}

pub(crate) fn object(data: impl IntoObject) -> Result<Object> {
    data.into_object().map_err(|ValueError { path, reason, .. }| Error::InvalidValue { path, reason })
}

impl Address {
    /// The persister, if writes of this durability have to wait for it.
    pub(super) fn awaited(&self, durability: Durability) -> Result<Option<&Persister>> {
        awaited(self.persister.as_ref(), durability, &self.name.with_kind(), self.schema.persistent())
    }

    fn prepare(&self, data: Object) -> Result<Prepared> {
        self.schema.prepare(data, &mut uuid::Uuid::new_v4)
    }
}
