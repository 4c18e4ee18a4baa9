//! What changes do to a bucket or a channel, and how both are written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize, Serializer};

use crate::adapters::json_file::error::{Fault, Refused, parse};
use crate::adapters::json_file::seal::{VERSION, WITH_REQUESTS};
use crate::base::codec::content_bytes;
use crate::base::name::MessageId;
use crate::base::value::{Key, Value};
use crate::records::{BucketDelta, BucketSnapshot, Record, Request};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

/// A bucket or a channel, as its two files hold it.
pub(super) trait State: Default {
    /// The format of its checkpoint.
    const FORMAT: &'static str;

    /// The highest version of its checkpoint.
    const NEWEST: u64;

    /// One save of a journal line.
    type Line<'a>: Copy + Serialize;

    /// One save as it is read from a journal line.
    type Stored: DeserializeOwned;

    fn line(stored: &Self::Stored) -> Self::Line<'_>;

    /// The lowest version of a journal that can have such a line.
    fn version_of(line: Self::Line<'_>) -> u64;

    /// The version of a checkpoint of this, and of the journal that continues it.
    fn version(&self) -> u64;

    /// Refuses what JSON cannot hold.
    fn check(line: Self::Line<'_>) -> Result<(), Refused>;

    fn apply(&mut self, line: Self::Line<'_>);

    /// Writes the members of a checkpoint from behind its header to its end.
    fn write(&self, out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault>;

    /// Reads a whole checkpoint; the reason of a failure says where, never what.
    fn read(text: &[u8]) -> Result<Checkpoint<Self>, String>;
}

/// A checkpoint that was read.
pub(super) struct Checkpoint<S> {
    pub(super) format: String,
    pub(super) store: String,
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) state: S,
}

/// A bucket.
#[derive(Debug, Default, PartialEq)]
pub(super) struct BucketState {
    schema_version: u32,
    revision: u64,
    counter: i64,
    records: HashMap<Key, Arc<Record>>,
    /// By ascending revision.
    requests: VecDeque<Request>,
}

/// A channel.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ChannelState {
    meta: ChannelMeta,
    history: BTreeMap<(i64, MessageId), SdsMessage>,
    timestamps: HashMap<MessageId, i64>,
    hints: BTreeMap<MessageId, Bytes>,
}

// ---- buckets

/// A delta, written with its records in order of place and their fields in order of name.
#[derive(Clone, Copy)]
pub(super) struct BucketLine<'a>(pub(super) &'a BucketDelta);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum StoredChange {
    #[serde(rename = "delta")]
    Delta(StoredDelta),
}

#[derive(Deserialize)]
#[serde(from = "DeltaText<Vec<Arc<Record>>, Vec<Key>, Vec<Request>>")]
pub(super) struct StoredDelta(BucketDelta);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaText<R, K, Q> {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cleared: bool,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    deletes: Option<K>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    upserts: Option<R>,
    counter: i64,
    revision: u64,
    schema_version: u32,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    requests: Option<Q>,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    request_window: Option<usize>,
}

fn none<T>() -> Option<T> {
    None
}

impl From<DeltaText<Vec<Arc<Record>>, Vec<Key>, Vec<Request>>> for StoredDelta {
    fn from(text: DeltaText<Vec<Arc<Record>>, Vec<Key>, Vec<Request>>) -> Self {
        let mut delta = BucketDelta::new(text.revision, text.counter, text.schema_version);
        delta.cleared = text.cleared;
        delta.deletes = text.deletes.unwrap_or_default();
        delta.upserts = text.upserts.unwrap_or_default();
        delta.requests = text.requests.unwrap_or_default();
        delta.request_window = text.request_window.unwrap_or_default();
        Self(delta)
    }
}

impl Serialize for BucketLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let delta = self.0;
        let mut upserts: Vec<RecordText<'_>> = delta.upserts.iter().map(|record| RecordText(record)).collect();
        upserts.sort_by_key(|record| record.0.place());
        let requests = Some(&delta.requests).filter(|requests| !requests.is_empty());
        let text = DeltaText {
            cleared: delta.cleared,
            deletes: Some(&delta.deletes).filter(|keys| !keys.is_empty()),
            upserts: Some(upserts).filter(|records| !records.is_empty()),
            counter: delta.counter,
            revision: delta.revision,
            schema_version: delta.schema_version,
            requests,
            request_window: requests.map(|_| delta.request_window),
        };
        #[derive(Serialize)]
        struct Tagged<T> {
            delta: T,
        }
        Tagged { delta: text }.serialize(serializer)
    }
}

/// A record in its stored form, the fields in order of name, whether or not it is bound to a layout.
struct RecordText<'a>(&'a Record);

/// The fields of a record but its key.
struct FieldsText<'a>(&'a Record);

impl Serialize for RecordText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Text<'a> {
            key: &'a Key,
            place: u64,
            version: u64,
            created_at: i64,
            updated_at: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            expires_at: Option<i64>,
            fields: FieldsText<'a>,
        }
        let metadata = self.0.metadata();
        Text {
            key: self.0.key(),
            place: self.0.place(),
            version: metadata.version,
            created_at: metadata.created_at,
            updated_at: metadata.updated_at,
            expires_at: metadata.expires_at,
            fields: FieldsText(self.0),
        }
        .serialize(serializer)
    }
}

impl Serialize for FieldsText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(stored_fields(self.0))
    }
}

fn stored_fields(record: &Record) -> Vec<(&str, &Value)> {
    // A bound record lends out its key as the value of the key's field: that very value is left out.
    let key: *const Value = record.key().as_value();
    let mut fields: Vec<_> = record.fields().filter(|(_, value)| !std::ptr::eq(*value, key)).collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

fn check_record(record: &Record) -> Result<(), Refused> {
    for (name, value) in record.fields() {
        if let Some(inner) = value.non_finite() {
            return Err(Refused::NotFinite(crate::base::value::join_path(name, &inner)));
        }
    }
    Ok(())
}

impl BucketState {
    /// Becomes a whole bucket.
    pub(super) fn replace(&mut self, snapshot: &BucketSnapshot) -> Result<(), Refused> {
        snapshot.records.iter().try_for_each(|record| check_record(record))?;
        let BucketSnapshot { schema_version, revision, counter, .. } = *snapshot;
        let records = snapshot.records.iter().map(|record| (record.key().clone(), Arc::clone(record))).collect();
        let requests = snapshot.requests.iter().cloned().collect();
        *self = Self { schema_version, revision, counter, records, requests };
        Ok(())
    }

    /// Hands the bucket out, its records in order of place.
    pub(super) fn into_snapshot(self) -> BucketSnapshot {
        let mut records: Vec<Arc<Record>> = self.records.into_values().collect();
        records.sort_by(|left, right| order(left).cmp(&order(right)));
        let mut snapshot = BucketSnapshot::new(self.schema_version, self.revision, self.counter, records);
        snapshot.requests = self.requests.into();
        snapshot
    }
}

fn order(record: &Record) -> (u64, &Key) {
    (record.place(), record.key())
}

fn json<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), Fault> {
    // Writing into memory cannot fail, so that a failure is the value's own.
    serde_json::to_writer(into, value).map_err(|_| Refused::Json.into())
}

/// Writes a list, one item per line, as the last or not the last member of a checkpoint.
fn list<T: Serialize>(
    name: &str,
    items: impl Iterator<Item = T>,
    last: bool,
    out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut text = format!("  \"{name}\": [").into_bytes();
    let mut first = true;
    for item in items {
        text.extend_from_slice(if first { b"\n    " } else { b",\n    " });
        first = false;
        json(&item, &mut text)?;
        out(&text)?;
        text.clear();
    }
    text.extend_from_slice(if first { b"]" } else { b"\n  ]" });
    text.extend_from_slice(if last { b"\n" } else { b",\n" });
    out(&text)
}

impl State for BucketState {
    const FORMAT: &'static str = "ractor-persistence/json_file/bucket";
    const NEWEST: u64 = WITH_REQUESTS;
    type Line<'a> = BucketLine<'a>;
    type Stored = StoredChange;

    fn line(stored: &StoredChange) -> BucketLine<'_> {
        let StoredChange::Delta(StoredDelta(delta)) = stored;
        BucketLine(delta)
    }

    fn version_of(line: BucketLine<'_>) -> u64 {
        if line.0.requests.is_empty() { VERSION } else { WITH_REQUESTS }
    }

    fn version(&self) -> u64 {
        if self.requests.is_empty() { VERSION } else { WITH_REQUESTS }
    }

    fn check(line: BucketLine<'_>) -> Result<(), Refused> {
        line.0.upserts.iter().try_for_each(|record| check_record(record))
    }

    fn apply(&mut self, line: BucketLine<'_>) {
        let delta = line.0;
        if delta.cleared {
            self.records.clear();
        }
        for key in &delta.deletes {
            self.records.remove(key);
        }
        for record in &delta.upserts {
            self.records.insert(record.key().clone(), Arc::clone(record));
        }
        delta.remember_in(&mut self.requests);
        (self.counter, self.revision, self.schema_version) = (delta.counter, delta.revision, delta.schema_version);
    }

    fn write(&self, out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let Self { schema_version, revision, counter, .. } = self;
        let numbers = format!(
            "  \"schema_version\": {schema_version},\n  \"revision\": {revision},\n  \"counter\": {counter},\n"
        );
        out(numbers.as_bytes())?;
        let mut records: Vec<&Arc<Record>> = self.records.values().collect();
        records.sort_by(|left, right| order(left).cmp(&order(right)));
        list("records", records.into_iter().map(|record| RecordText(record)), self.requests.is_empty(), out)?;
        if self.requests.is_empty() { Ok(()) } else { list("requests", self.requests.iter(), true, out) }
    }

    fn read(text: &[u8]) -> Result<Checkpoint<Self>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            #[serde(rename = "checksum")]
            _checksum: IgnoredAny,
            format: String,
            #[serde(rename = "version")]
            _version: IgnoredAny,
            store: String,
            bucket: String,
            generation: u64,
            #[serde(rename = "saved_at")]
            _saved_at: IgnoredAny,
            schema_version: u32,
            revision: u64,
            counter: i64,
            records: Vec<Arc<Record>>,
            #[serde(default)]
            requests: VecDeque<Request>,
        }
        let Text { format, store, bucket, generation, schema_version, revision, counter, records, requests, .. } =
            parse(text)?;
        let records = records.into_iter().map(|record| (record.key().clone(), record)).collect();
        let state = Self { schema_version, revision, counter, records, requests };
        Ok(Checkpoint { format, store, name: bucket, generation, state })
    }
}

// ---- channels

/// A save of a channel.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChannelLine<'a> {
    Meta(&'a ChannelMeta),
    History(&'a HistoryUpdate),
    Hint(HintText<'a>),
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct HintText<'a> {
    pub(super) message: &'a MessageId,
    #[serde(with = "content_bytes")]
    pub(super) hint: &'a Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum StoredSave {
    Meta(Box<ChannelMeta>),
    History(HistoryUpdate),
    Hint(StoredHint),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredHint {
    message: MessageId,
    #[serde(with = "content_bytes")]
    hint: Bytes,
}

impl ChannelState {
    /// Hands the channel out, its history by (Lamport timestamp, id).
    pub(super) fn into_data(self) -> ChannelData {
        ChannelData::new(self.meta, self.history.into_values().collect(), self.hints.into_iter().collect())
    }

    fn append(&mut self, message: SdsMessage) {
        let (id, timestamp) = (message.message_id.clone(), message.lamport_timestamp);
        if let Some(old) = self.timestamps.insert(id.clone(), timestamp) {
            self.history.remove(&(old, id.clone()));
        }
        self.history.insert((timestamp, id), message);
    }

    fn evict(&mut self, id: &MessageId) {
        if let Some(timestamp) = self.timestamps.remove(id) {
            self.history.remove(&(timestamp, id.clone()));
        }
        self.hints.remove(id);
    }

    fn hint(&mut self, message: &MessageId, hint: &Bytes) {
        if hint.is_empty() {
            self.hints.remove(message);
        } else {
            self.hints.insert(message.clone(), hint.clone());
        }
    }
}

impl State for ChannelState {
    const FORMAT: &'static str = "ractor-persistence/json_file/channel";
    const NEWEST: u64 = VERSION;
    type Line<'a> = ChannelLine<'a>;
    type Stored = StoredSave;

    fn line(stored: &StoredSave) -> ChannelLine<'_> {
        match stored {
            StoredSave::Meta(meta) => ChannelLine::Meta(meta),
            StoredSave::History(update) => ChannelLine::History(update),
            StoredSave::Hint(StoredHint { message, hint }) => ChannelLine::Hint(HintText { message, hint }),
        }
    }

    fn version_of(_: ChannelLine<'_>) -> u64 {
        VERSION
    }

    fn version(&self) -> u64 {
        VERSION
    }

    fn check(_: ChannelLine<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn apply(&mut self, line: ChannelLine<'_>) {
        match line {
            ChannelLine::Meta(meta) => self.meta = meta.clone(),
            ChannelLine::History(update) => {
                update.append.iter().for_each(|message| self.append(message.clone()));
                update.evict.iter().for_each(|id| self.evict(id));
            }
            ChannelLine::Hint(HintText { message, hint }) => self.hint(message, hint),
        }
    }

    fn write(&self, out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        // Texts have no line breaks of their own in JSON, so that every one is the printer's and may be indented.
        let meta = serde_json::to_string_pretty(&self.meta).map_err(|_| Refused::Json)?.replace('\n', "\n  ");
        out(format!("  \"meta\": {meta},\n").as_bytes())?;
        list("history", self.history.values(), false, out)?;
        list("hints", self.hints.iter().map(|(message, hint)| HintText { message, hint }), true, out)
    }

    fn read(text: &[u8]) -> Result<Checkpoint<Self>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            #[serde(rename = "checksum")]
            _checksum: IgnoredAny,
            format: String,
            #[serde(rename = "version")]
            _version: IgnoredAny,
            store: String,
            channel: String,
            generation: u64,
            #[serde(rename = "saved_at")]
            _saved_at: IgnoredAny,
            meta: ChannelMeta,
            history: Vec<SdsMessage>,
            hints: Vec<StoredHint>,
        }
        let Text { format, store, channel, generation, meta, history, hints, .. } = parse(text)?;
        let mut state = Self { meta, ..Self::default() };
        history.into_iter().for_each(|message| state.append(message));
        hints.iter().for_each(|StoredHint { message, hint }| state.hint(message, hint));
        Ok(Checkpoint { format, store, name: channel, generation, state })
    }
}
