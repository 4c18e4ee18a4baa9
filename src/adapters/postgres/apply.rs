//! What a save writes: the statements of a commit, in the order of its saves.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use crate::adapters::postgres::document::Document;
use crate::adapters::postgres::rows::{self, Header, Shelf};
use crate::adapters::postgres::statement::Sql;
use crate::adapters::postgres::transaction::Step;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, MessageId, StoreName};
use crate::persistence::Save;
use crate::records::{BucketChange, Record, Request};
use crate::sds::{ChannelMeta, HistoryUpdate, SdsMessage};

/// Most rows of one statement.
const ROWS: usize = 4_096;
/// Most bytes of one statement's rows; one row may have more.
const BYTES: usize = 8 << 20;

/// Most bytes of one statement's parameters: the server takes no message and no value of 1 GiB, ends the connection, and
/// does so again with whatever comes beside it.
const MOST: usize = 960 << 20;
// `MaxAllocSize` of the server.
const _: () = assert!(MOST + BYTES < 0x3fff_ffff);

/// What is more than the server takes.
#[derive(Debug, thiserror::Error)]
#[error("a row with {bytes} bytes is more than the {most} that PostgreSQL is given at once")]
struct TooLarge {
    bytes: usize,
    most: usize,
}

/// The statements of all saves.
pub(super) fn steps(store: &StoreName, saves: &[Save]) -> Result<Vec<Step>> {
    steps_within(store, saves, MOST)
}

fn steps_within(store: &StoreName, saves: &[Save], most: usize) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for save in saves {
        let of = |kind, name: &str| Subject { kind, store: store.as_str().to_owned(), name: name.to_owned(), most };
        let (bucket, subject) = (|name: &BucketName| of("bucket", name.as_str()), |id: &str| of("channel", id));
        match save {
            Save::Bucket(name, change) => save_bucket(&bucket(name), change, &mut steps)?,
            Save::ChannelMeta(id, meta) => save_meta(&subject(id.as_str()), meta, &mut steps)?,
            Save::History(id, update) => save_history(&subject(id.as_str()), update, &mut steps)?,
            Save::Hint(id, message, hint) => save_hint(&subject(id.as_str()), message, hint, &mut steps)?,
            Save::DropBucket(name) => {
                let subject = bucket(name);
                let all = [Sql::DropHeader, Sql::ClearRecords, Sql::ClearRequests];
                steps.extend(all.map(|sql| subject.step(sql, vec![])));
            }
            Save::DropChannel(id) => {
                let subject = subject(id.as_str());
                steps.extend([Sql::DropMeta, Sql::ClearHistory, Sql::ClearHints].map(|sql| subject.step(sql, vec![])));
            }
        }
    }
    Ok(steps)
}

type Parameter = Box<dyn ToSql + Send + Sync>;

/// The bucket or channel that statements are about.
struct Subject {
    kind: &'static str,
    store: String,
    name: String,
    /// Most bytes of a statement.
    most: usize,
}

impl Subject {
    fn shelf(&self, kind: &'static rows::Kind) -> Shelf<'_> {
        Shelf::new(kind, &self.store, &self.name)
    }

    /// A statement whose first two parameters are the names.
    fn step(&self, sql: Sql, more: Vec<Parameter>) -> Step {
        let mut parameters: Vec<Parameter> = Vec::with_capacity(2 + more.len());
        parameters.push(Box::new(self.store.clone()));
        parameters.push(Box::new(self.name.clone()));
        parameters.extend(more);
        Step::new(sql, parameters)
    }

    /// The same with parameters of so many bytes, if the server takes that many.
    fn sized(&self, sql: Sql, more: Vec<Parameter>, bytes: usize) -> Result<Step> {
        if bytes > self.most {
            let cause = TooLarge { bytes, most: self.most };
            return Err(Error::permanent(format!("saving {} {}", self.kind, self.name), cause));
        }
        Ok(self.step(sql, more).of_bytes(bytes))
    }

    /// One statement per so many keys.
    fn keyed(&self, sql: Sql, keys: Vec<Vec<u8>>, steps: &mut Vec<Step>) -> Result<()> {
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < ROWS && bytes < BYTES {
                let Some(key) = keys.next() else { break };
                bytes += key.len();
                some.push(key);
            }
            steps.push(self.sized(sql, vec![Box::new(some)], bytes)?);
        }
        Ok(())
    }
}

/// A number for people's queries; null where a `bigint` cannot hold it.
fn shown(number: u64) -> Option<i64> {
    i64::try_from(number).ok()
}

// ---- buckets

fn save_bucket(bucket: &Subject, change: &BucketChange, steps: &mut Vec<Step>) -> Result<()> {
    let (header, upserts): (Header, &[Arc<Record>]) = match change {
        BucketChange::Full(snapshot) => {
            steps.push(bucket.step(Sql::ClearRecords, vec![]));
            steps.push(bucket.step(Sql::ClearRequests, vec![]));
            let (schema_version, revision, counter) = (snapshot.schema_version, snapshot.revision, snapshot.counter);
            (Header { schema_version, revision, counter }, &snapshot.records)
        }
        BucketChange::Delta(delta) => {
            if delta.cleared {
                steps.push(bucket.step(Sql::ClearRecords, vec![]));
            }
            let mut keys: Vec<Vec<u8>> = delta.deletes.iter().map(rows::record_key).collect();
            // In the order in which every transaction takes its rows, so that no two wait for each other.
            keys.sort_unstable();
            bucket.keyed(Sql::DeleteRecords, keys, steps)?;
            let (schema_version, revision, counter) = (delta.schema_version, delta.revision, delta.counter);
            (Header { schema_version, revision, counter }, &delta.upserts)
        }
    };
    save_records(bucket, upserts, steps)?;
    match change {
        BucketChange::Full(snapshot) => save_requests(bucket, &snapshot.requests, None, steps)?,
        BucketChange::Delta(delta) => save_requests(bucket, &delta.requests, Some(delta.request_window), steps)?,
    }
    let row = bucket.shelf(&rows::HEADER).encode(&[], &header)?;
    let shown: Vec<Parameter> = vec![
        Box::new(shown(header.revision)),
        Box::new(i64::from(header.schema_version)),
        Box::new(header.counter),
        Box::new(row),
    ];
    steps.push(bucket.step(Sql::SaveHeader, shown));
    Ok(())
}

#[derive(Default)]
struct RecordColumns {
    keys: Vec<Vec<u8>>,
    places: Vec<Option<i64>>,
    rows: Vec<Vec<u8>>,
    documents: Vec<Document>,
    bytes: usize,
}

fn save_records(bucket: &Subject, records: &[Arc<Record>], steps: &mut Vec<Step>) -> Result<()> {
    let mut shelf = bucket.shelf(&rows::RECORD);
    let mut columns = RecordColumns::default();
    for record in sorted(records) {
        let key = rows::record_key(record.key());
        let row = shelf.encode_with(&key, |body| {
            record.pack(body);
            Ok(())
        })?;
        let document = Document::of(record);
        columns.bytes += key.len() + row.len() + document.len();
        columns.keys.push(key);
        columns.places.push(shown(record.place()));
        columns.rows.push(row);
        columns.documents.push(document);
        if columns.keys.len() >= ROWS || columns.bytes >= BYTES {
            steps.push(columns.into_step(bucket)?);
            columns = RecordColumns::default();
        }
    }
    if !columns.keys.is_empty() {
        steps.push(columns.into_step(bucket)?);
    }
    Ok(())
}

impl RecordColumns {
    fn into_step(self, bucket: &Subject) -> Result<Step> {
        let columns: Vec<Parameter> =
            vec![Box::new(self.keys), Box::new(self.places), Box::new(self.rows), Box::new(self.documents)];
        bucket.sized(Sql::SaveRecords, columns, self.bytes)
    }
}

/// Records by key, each key once: of two with the same key the later one counts.
fn sorted(records: &[Arc<Record>]) -> Vec<&Record> {
    let mut sorted: Vec<&Record> = records.iter().map(|record| &**record).collect();
    sorted.sort_by(|left, right| left.key().cmp(right.key()));
    keep_last(&mut sorted, |left, right| left.key() == right.key());
    sorted
}

/// Of neighbours that are the same, keeps the last one.
fn keep_last<T: Copy>(items: &mut Vec<T>, same: impl Fn(T, T) -> bool) {
    items.dedup_by(|later, kept| {
        let same = same(*later, *kept);
        if same {
            *kept = *later;
        }
        same
    });
}

/// Stores requests over those that are there, of which the newest `window` are kept. Without new ones, nothing is looked
/// at.
fn save_requests(bucket: &Subject, requests: &[Request], window: Option<usize>, steps: &mut Vec<Step>) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let mut newest: Vec<&Request> = requests.iter().collect();
    newest.sort_by_key(|request| request.revision);
    keep_last(&mut newest, |left, right| left.revision == right.revision);
    let mut shelf = bucket.shelf(&rows::REQUEST);
    let mut newest = newest.into_iter().peekable();
    while newest.peek().is_some() {
        let (mut keys, mut encoded, mut bytes) = (Vec::new(), Vec::new(), 0);
        while keys.len() < ROWS && bytes < BYTES {
            let Some(request) = newest.next() else { break };
            let key = rows::revision_key(request.revision);
            let row = shelf.encode(&key, request)?;
            bytes += key.len() + row.len();
            keys.push(key.to_vec());
            encoded.push(row);
        }
        steps.push(bucket.sized(Sql::SaveRequests, vec![Box::new(keys), Box::new(encoded)], bytes)?);
    }
    if let Some(window) = window {
        steps.push(bucket.step(Sql::TrimRequests, vec![Box::new(i64::try_from(window).unwrap_or(i64::MAX))]));
    }
    Ok(())
}

// ---- channels

fn save_meta(channel: &Subject, meta: &ChannelMeta, steps: &mut Vec<Step>) -> Result<()> {
    let row = channel.shelf(&rows::META).encode(&[], meta)?;
    let bytes = row.len();
    steps.push(channel.sized(Sql::SaveMeta, vec![Box::new(row)], bytes)?);
    Ok(())
}

fn save_history(channel: &Subject, update: &HistoryUpdate, steps: &mut Vec<Step>) -> Result<()> {
    let mut messages: Vec<&SdsMessage> = update.append.iter().collect();
    messages.sort_by(|left, right| left.message_id.cmp(&right.message_id));
    keep_last(&mut messages, |left, right| left.message_id == right.message_id);
    let mut shelf = channel.shelf(&rows::MESSAGE);
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let (mut ids, mut lamports, mut encoded, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        while ids.len() < ROWS && bytes < BYTES {
            let Some(message) = messages.next() else { break };
            let id = message.message_id.as_bytes().to_vec();
            let row = shelf.encode(&rows::history_key(message.lamport_timestamp, &id), message)?;
            bytes += id.len() + row.len();
            ids.push(id);
            lamports.push(message.lamport_timestamp);
            encoded.push(row);
        }
        let columns: Vec<Parameter> = vec![Box::new(ids), Box::new(lamports), Box::new(encoded)];
        steps.push(channel.sized(Sql::SaveMessages, columns, bytes)?);
    }
    let mut evicted: Vec<Vec<u8>> = update.evict.iter().map(|id| id.as_bytes().to_vec()).collect();
    evicted.sort_unstable();
    channel.keyed(Sql::EvictMessages, evicted.clone(), steps)?;
    // Those of messages that were never stored too: an append and its eviction may have cancelled out before a save.
    channel.keyed(Sql::EvictHints, evicted, steps)
}

fn save_hint(channel: &Subject, message: &MessageId, hint: &[u8], steps: &mut Vec<Step>) -> Result<()> {
    let id = message.as_bytes().to_vec();
    if hint.is_empty() {
        return channel.keyed(Sql::EvictHints, vec![id], steps);
    }
    let row = channel.shelf(&rows::HINT).encode(&id, &bytes::Bytes::copy_from_slice(hint))?;
    let bytes = id.len() + row.len();
    steps.push(channel.sized(Sql::SaveHint, vec![Box::new(id), Box::new(row)], bytes)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::name::ChannelId;
    use crate::records::{BucketDelta, Metadata};

    const LIMIT: usize = 10_000;

    fn record(key: i64, length: usize) -> Arc<Record> {
        let metadata = Metadata { version: 1, created_at: 1, updated_at: 2, expires_at: None };
        Arc::new(Record::from_parts(key, 0, metadata, record! { "bytes": Bytes::from(vec![7; length]) }))
    }

    fn saving(bucket: &str, lengths: &[usize]) -> Save {
        let mut delta = BucketDelta::new(1, 0, 1);
        delta.upserts = (0..).zip(lengths).map(|(key, length)| record(key, *length)).collect();
        Save::Bucket(BucketName::new(bucket).unwrap(), BucketChange::Delta(delta).into())
    }

    #[test]
    fn a_row_that_no_server_takes_is_refused_for_good_and_the_refusal_names_whose_it_is() {
        let store = StoreName::new("shop").unwrap();
        let within = |saves: &[Save]| steps_within(&store, saves, LIMIT).map(drop);
        within(&[saving("small", &[4_000, 4_000]), saving("users", &[9_000])]).unwrap();
        let refused = within(&[saving("small", &[10]), saving("users", &[11_000])]).unwrap_err();
        let Error::Permanent { operation, source: Some(cause) } = &refused else { panic!("{refused:?}") };
        assert!(operation.contains("bucket users") && cause.to_string().contains("10000"), "{refused:?}, {cause}");

        let hint = Save::Hint(ChannelId::new("room").unwrap(), "m".into(), vec![7; 11_000].into());
        let refused = within(&[hint]).unwrap_err();
        assert!(
            matches!(&refused, Error::Permanent { operation, .. } if operation.contains("channel room")),
            "{refused:?}"
        );
    }
}
