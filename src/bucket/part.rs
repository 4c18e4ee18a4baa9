//! A bucket as a transaction sees it.

use std::sync::Arc;

use crate::base::error::Result;
use crate::base::name::BucketName;
use crate::base::value::{IntoObject, Key, Object, Value};
use crate::bucket::directory::Address;
use crate::bucket::handle::{object, page, run, unexpected};
use crate::bucket::transaction::{Part, Transaction};
use crate::records::{
    Draws, Explain, Filter, Page, Paged, Patch, Query, Record, Table, Upserted, View, Write, Written,
};

/// A bucket as a transaction sees it: as it is, with the transaction's own writes over it. The operations are those of
/// [`Bucket`](crate::bucket::Bucket), but for `clear`; nothing is applied before the transaction commits.
///
/// Every operation may also fail with `Conflict`, when something that the transaction has read before has changed, and
/// with `TransactionClosed` once it has ended.
#[derive(Clone, Debug)]
pub struct TransactionBucket {
    transaction: Transaction,
    address: Arc<Address>,
}

impl Part {
    fn read<T>(&mut self, look: impl FnOnce(&mut crate::records::Draft, &Table, i64) -> Result<T>) -> Result<T> {
        let now = self.instance.now();
        let draft = &mut self.draft;
        self.instance.read(|table| look(draft, table, now))?
    }
}

impl TransactionBucket {
    pub(super) fn new(transaction: Transaction, address: Arc<Address>) -> Self {
        Self { transaction, address }
    }

    /// The bucket's name.
    pub fn name(&self) -> &BucketName {
        &self.address.name
    }

    async fn write(&self, write: Write) -> Result<Written> {
        let work = |part: &mut Part| {
            let number = match part.draft.numbers(&write) {
                (0, _) => None,
                (count, above) => Some(part.instance.reserve_numbers(count, above)?),
            };
            let mut draws = Draws { now: part.instance.now(), uuid: &mut uuid::Uuid::new_v4 };
            let draft = &mut part.draft;
            part.instance.read(|table| draft.write(table, write, number, &mut draws))?
        };
        self.transaction.part(&self.address, work).await
    }

    async fn record(&self, write: Write) -> Result<Arc<Record>> {
        self.write(write).await?.into_record().ok_or_else(unexpected)
    }

    async fn view(&self, filter: &Filter) -> Result<View> {
        self.transaction.part(&self.address, |part| part.read(|draft, table, now| draft.view(table, filter, now))).await
    }

    async fn whole(&self) -> Result<View> {
        self.transaction.part(&self.address, |part| part.read(|draft, table, now| draft.whole(table, now))).await
    }

    /// Inserts a record. Its generated number is the transaction's own, and leaves a gap if that does not commit.
    ///
    /// # Errors
    /// `Validation`, `InvalidValue`, `DuplicateKey`, `CounterExhausted`, `UserCode`.
    pub async fn insert(&self, data: impl IntoObject) -> Result<Arc<Record>> {
        self.record(Write::Insert(object(data)?)).await
    }

    /// Inserts records, all or none.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn insert_many<I: IntoObject>(&self, list: impl IntoIterator<Item = I>) -> Result<Vec<Arc<Record>>> {
        let list = list.into_iter().enumerate();
        let list: Result<Vec<Object>> =
            list.map(|(at, data)| object(data).map_err(|error| error.of_item(at))).collect();
        Ok(self.write(Write::InsertMany(list?)).await?.records().to_vec())
    }

    /// Inserts a record, or merges it over the one of its key.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn upsert(&self, data: impl IntoObject) -> Result<Upserted> {
        match self.write(Write::Upsert(object(data)?)).await? {
            Written::Upserted(upserted) => Ok(upserted),
            _ => Err(unexpected()),
        }
    }

    /// Merges changes over the top level of a record.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and `NotFound`.
    pub async fn update(&self, key: impl Into<Key>, changes: impl IntoObject) -> Result<Arc<Record>> {
        self.record(Write::Update(key.into(), object(changes)?)).await
    }

    /// The same, if the record still has this version.
    ///
    /// # Errors
    /// As [`update`](Self::update), and `VersionMismatch`.
    pub async fn update_if(&self, key: impl Into<Key>, version: u64, changes: impl IntoObject) -> Result<Arc<Record>> {
        self.record(Write::UpdateIf(key.into(), version, object(changes)?)).await
    }

    /// Changes a record by path.
    ///
    /// # Errors
    /// As [`update`](Self::update), and `InvalidArgument`.
    pub async fn patch(&self, key: impl Into<Key>, patch: Patch) -> Result<Arc<Record>> {
        self.record(Write::Patch(key.into(), patch)).await
    }

    /// Deletes a record; answers whether it was there.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<bool> {
        Ok(self.write(Write::Delete(key.into())).await?.gone() > 0)
    }

    /// Deletes the records that a filter matches; answers how many there were.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn delete_many(&self, filter: impl Into<Filter>) -> Result<usize> {
        Ok(self.write(Write::DeleteMany(filter.into())).await?.gone())
    }

    /// The record of a key. Read twice, it is the same.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Arc<Record>>> {
        let key = key.into();
        self.transaction.part(&self.address, |part| part.read(|draft, table, now| draft.get(table, &key, now))).await
    }

    /// The records of these keys, in the order asked.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn get_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Arc<Record>>>> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        let look = |part: &mut Part| {
            part.read(|draft, table, now| keys.iter().map(|key| draft.get(table, key, now)).collect())
        };
        self.transaction.part(&self.address, look).await
    }

    /// The records that a query asks for.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn find(&self, query: impl Into<Query>) -> Result<Vec<Arc<Record>>> {
        let query = query.into();
        let view = self.view(query.filter()).await?;
        run(view, move |view| view.find(&query)).await
    }

    /// The first of the records that a query asks for.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn find_one(&self, query: impl Into<Query>) -> Result<Option<Arc<Record>>> {
        let query = query.into();
        let view = self.view(query.filter()).await?;
        run(view, move |view| view.find_one(&query)).await
    }

    /// All records, in bucket order; the transaction's own inserts come last.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn all(&self) -> Result<Vec<Arc<Record>>> {
        let view = self.whole().await?;
        run(view, |view| Ok(view.all())).await
    }

    /// How many records a filter matches.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn count(&self, filter: impl Into<Filter>) -> Result<usize> {
        let filter = filter.into();
        let view = self.view(&filter).await?;
        run(view, move |view| view.count(&filter)).await
    }

    /// The first records in bucket order.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn first(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        page(self.whole().await?, count, move |view| view.first(count)).await
    }

    /// The last records in bucket order, in ascending order.
    ///
    /// # Errors
    /// None but those of every operation.
    pub async fn last(&self, count: usize) -> Result<Vec<Arc<Record>>> {
        page(self.whole().await?, count, move |view| view.last(count)).await
    }

    /// One page of the records that a query asks for.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn paginate(&self, query: impl Into<Query>, page: Page) -> Result<Paged> {
        let query = query.into();
        let look = |part: &mut Part| part.read(|draft, table, now| draft.page(table, query.filter(), now));
        let view = self.transaction.part(&self.address, look).await?;
        run(view, move |view| view.paginate(&query, &page)).await
    }

    /// The sum of the numbers at a path.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn sum(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Value> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.sum(&path, &filter)).await
    }

    /// The mean of the numbers at a path.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn avg(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<f64> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.avg(&path, &filter)).await
    }

    /// The least number at a path.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn min(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.min(&path, &filter)).await
    }

    /// The greatest number at a path.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn max(&self, path: impl Into<String>, filter: impl Into<Filter>) -> Result<Option<Value>> {
        let (path, filter) = (path.into(), filter.into());
        let view = self.view(&filter).await?;
        run(view, move |view| view.max(&path, &filter)).await
    }

    /// How a query would be answered.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn explain(&self, query: impl Into<Query>) -> Result<Explain> {
        let query = query.into();
        self.view(query.filter()).await?.explain(&query)
    }
}
