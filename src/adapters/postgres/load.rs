//! Reading a bucket or channel whole, and noticing everything that is not as it was written.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream};

use crate::adapters::postgres::fault::Fault;
use crate::adapters::postgres::pool::{Lease, Pool};
use crate::adapters::postgres::rows::{self, Header, Shelf};
use crate::adapters::postgres::statement::Sql;
use crate::adapters::postgres::transaction::READING;
use crate::base::codec;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId};
use crate::records::{BucketSnapshot, Record, Request, Unpacker};
use crate::sds::{ChannelData, ChannelMeta, SdsMessage};

/// Others get a turn after so many rows, which take some hundred microseconds.
const TURN: usize = 256;

/// Why a load failed: on the way, or by what it found.
enum Trouble {
    Way(Fault),
    Found(Error),
}

impl<E: Into<Fault>> From<E> for Trouble {
    fn from(fault: E) -> Self {
        Self::Way(fault.into())
    }
}

impl Trouble {
    fn into_error(self, operation: &str) -> Error {
        match self {
            Self::Way(fault) => fault.into_error(operation, 0),
            Self::Found(error) => error,
        }
    }
}

/// What is stored of a bucket.
pub(super) async fn bucket(pool: &Arc<Pool>, schema: &str, key: &BucketKey) -> Result<Option<BucketSnapshot>> {
    let loading = read_bucket(pool, schema, key);
    loading.await.map_err(|trouble| trouble.into_error("loading a bucket"))
}

async fn read_bucket(pool: &Arc<Pool>, schema: &str, key: &BucketKey) -> Result<Option<BucketSnapshot>, Trouble> {
    let (store, name) = (key.store.as_str(), key.bucket.as_str());
    let mut lease = pool.lease().await?;
    lease.prepare(schema, &[Sql::LoadHeader, Sql::LoadRequests, Sql::LoadRecords]).await?;
    let (begun, header, requests, records) = {
        let names: [&(dyn ToSql + Sync); 2] = [&store, &name];
        let (client, header) = lease.prepared(Sql::LoadHeader)?;
        let (_, requests) = lease.prepared(Sql::LoadRequests)?;
        let (_, records) = lease.prepared(Sql::LoadRecords)?;
        // Sent in this order, which is that of their first polls.
        tokio::join!(
            client.batch_execute(READING),
            client.query_opt(header, &names),
            client.query(requests, &names),
            client.query_raw(records, names),
        )
    };
    begun?;
    let header = match header? {
        Some(row) => {
            let mut shelf = Shelf::new(&rows::HEADER, store, name);
            Some(shelf.decode::<Header>(&[], row.try_get(0)?).map_err(Trouble::Found)?)
        }
        None => None,
    };
    let requests = read_requests(&requests?, store, name)?;
    let records = read_records(records?, store, name).await?;
    finish(lease).await?;
    let Some(header) = header else {
        for (kind, rows) in [(&rows::RECORD, records.len()), (&rows::REQUEST, requests.len())] {
            if rows > 0 {
                let place = Shelf::new(kind, store, name).container();
                let reason =
                    format!("{rows} rows are there, but the bucket's row in {} is missing", rows::HEADER.table);
                return Err(Trouble::Found(Error::corrupt(place, reason)));
            }
        }
        return Ok(None);
    };
    let mut snapshot = BucketSnapshot::new(header.schema_version, header.revision, header.counter, records);
    snapshot.requests = requests;
    Ok(Some(snapshot))
}

/// Ends a transaction that has read, and puts its connection back.
async fn finish(lease: Lease) -> Result<(), Fault> {
    lease.client()?.batch_execute("COMMIT").await?;
    lease.give_back();
    Ok(())
}

async fn next(rows: &mut Pin<Box<RowStream>>) -> Result<Option<Row>, Fault> {
    Ok(poll_fn(|context| rows.as_mut().poll_next(context)).await.transpose()?)
}

async fn read_records(records: RowStream, store: &str, name: &str) -> Result<Vec<Arc<Record>>, Trouble> {
    let mut stream = Box::pin(records);
    let mut shelf = Shelf::new(&rows::RECORD, store, name);
    let mut unpacker = Unpacker::default();
    let mut records = Vec::new();
    while let Some(row) = next(&mut stream).await? {
        let (key, data): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let read = |body: &[u8]| unpacker.record(body).map_or_else(|| codec::deserialize(body), Ok);
        let record: Record = shelf.decode_with(key, data, read).map_err(Trouble::Found)?;
        records.push(Arc::new(record));
        if records.len().is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(records)
}

/// The writes with a request id, in the order in which they were made.
fn read_requests(found: &[Row], store: &str, name: &str) -> Result<Vec<Request>, Trouble> {
    let mut shelf = Shelf::new(&rows::REQUEST, store, name);
    let mut requests = Vec::with_capacity(found.len());
    for row in found {
        let (key, data): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let request: Request = shelf.decode(key, data).map_err(Trouble::Found)?;
        if key != rows::revision_key(request.revision) {
            return Err(Trouble::Found(Error::corrupt(shelf.place(key), "the request made another revision")));
        }
        requests.push(request);
    }
    Ok(requests)
}

/// What is stored of a channel.
pub(super) async fn channel(pool: &Arc<Pool>, schema: &str, key: &ChannelKey) -> Result<ChannelData> {
    let loading = read_channel(pool, schema, key);
    loading.await.map_err(|trouble| trouble.into_error("loading a channel"))
}

async fn read_channel(pool: &Arc<Pool>, schema: &str, key: &ChannelKey) -> Result<ChannelData, Trouble> {
    let (store, name) = (key.store.as_str(), key.channel.as_str());
    let mut lease = pool.lease().await?;
    lease.prepare(schema, &[Sql::LoadMeta, Sql::LoadHints, Sql::LoadHistory]).await?;
    let (begun, meta, hints, history) = {
        let names: [&(dyn ToSql + Sync); 2] = [&store, &name];
        let (client, meta) = lease.prepared(Sql::LoadMeta)?;
        let (_, hints) = lease.prepared(Sql::LoadHints)?;
        let (_, history) = lease.prepared(Sql::LoadHistory)?;
        tokio::join!(
            client.batch_execute(READING),
            client.query_opt(meta, &names),
            client.query(hints, &names),
            client.query_raw(history, names),
        )
    };
    begun?;
    let meta: ChannelMeta = match meta? {
        Some(row) => {
            let mut shelf = Shelf::new(&rows::META, store, name);
            shelf.decode(&[], row.try_get(0)?).map_err(Trouble::Found)?
        }
        None => ChannelMeta::default(),
    };
    let mut found = Vec::new();
    let mut shelf = Shelf::new(&rows::HINT, store, name);
    for row in hints? {
        let (id, data): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let hint: Bytes = shelf.decode(id, data).map_err(Trouble::Found)?;
        found.push((MessageId::from(id), hint));
    }
    let mut stream = Box::pin(history?);
    let mut shelf = Shelf::new(&rows::MESSAGE, store, name);
    let mut messages: Vec<SdsMessage> = Vec::new();
    while let Some(row) = next(&mut stream).await? {
        let (id, lamport, data): (&[u8], i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        messages.push(shelf.decode(&rows::history_key(lamport, id), data).map_err(Trouble::Found)?);
        if messages.len().is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    finish(lease).await?;
    Ok(ChannelData::new(meta, messages, found))
}
