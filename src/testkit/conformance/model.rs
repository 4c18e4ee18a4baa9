//! What an adapter should have stored, as plain maps, and how that differs from what it loads.
//!
//! Kept apart from the crate's own ways of applying changes, so that a fault in those shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::name::{BucketName, ChannelId, MessageId, Subject};
use crate::base::value::{Key, Object, Value};
use crate::persistence::Save;
use crate::records::{BucketChange, BucketSnapshot, Record, Request};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

/// What is stored of one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    buckets: BTreeMap<BucketName, BucketModel>,
    channels: BTreeMap<ChannelId, ChannelModel>,
    /// Everything that was ever saved or dropped: what is gone is looked for, too.
    pub(super) seen: BTreeSet<Subject>,
}

#[derive(Clone, Debug, Default)]
struct BucketModel {
    schema_version: u32,
    revision: u64,
    counter: i64,
    records: BTreeMap<Key, Arc<Record>>,
    /// By revision: no two requests make the same one.
    requests: BTreeMap<u64, Request>,
}

#[derive(Clone, Debug, Default)]
struct ChannelModel {
    meta: ChannelMeta,
    history: BTreeMap<MessageId, SdsMessage>,
    hints: BTreeMap<MessageId, Bytes>,
}

/// What an adapter loaded of one store.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) buckets: BTreeMap<BucketName, Option<BucketSnapshot>>,
    pub(super) channels: BTreeMap<ChannelId, ChannelData>,
}

pub(super) fn subject_of(save: &Save) -> Subject {
    match save {
        Save::Bucket(name, _) | Save::DropBucket(name) => Subject::Bucket(name.clone()),
        Save::ChannelMeta(id, _) | Save::History(id, _) | Save::Hint(id, _, _) | Save::DropChannel(id) => {
            Subject::Channel(id.clone())
        }
    }
}

impl Model {
    pub(super) fn apply(&mut self, save: &Save) {
        self.seen.insert(subject_of(save));
        match save {
            Save::Bucket(name, change) => self.buckets.entry(name.clone()).or_default().apply(change),
            Save::ChannelMeta(id, meta) => self.channel(id).meta = ChannelMeta::clone(meta),
            Save::History(id, update) => self.channel(id).update(update),
            Save::Hint(id, message, hint) if hint.is_empty() => {
                self.channel(id).hints.remove(message);
            }
            Save::Hint(id, message, hint) => {
                self.channel(id).hints.insert(message.clone(), hint.clone());
            }
            Save::DropBucket(name) => {
                self.buckets.remove(name);
            }
            Save::DropChannel(id) => {
                self.channels.remove(id);
            }
        }
    }

    fn channel(&mut self, id: &ChannelId) -> &mut ChannelModel {
        self.channels.entry(id.clone()).or_default()
    }

    /// Whether there is a hint for a message that is not in the history.
    pub(super) fn has_loose_hint(&self, channel: &ChannelId, message: &MessageId) -> bool {
        let channel = self.channels.get(channel);
        channel.is_some_and(|channel| channel.hints.contains_key(message) && !channel.history.contains_key(message))
    }

    /// The whole bucket, as an adapter that is not incremental is given it.
    pub(super) fn snapshot(&self, bucket: &BucketName) -> BucketSnapshot {
        let Some(bucket) = self.buckets.get(bucket) else { return BucketSnapshot::default() };
        let records = bucket.records.values().cloned().collect();
        let requests = bucket.requests.values().cloned().collect();
        BucketSnapshot {
            requests,
            ..BucketSnapshot::new(bucket.schema_version, bucket.revision, bucket.counter, records)
        }
    }

    /// The revision that a bucket's newest request made.
    pub(super) fn newest_request(&self, bucket: &BucketName) -> u64 {
        let newest = self.buckets.get(bucket).and_then(|bucket| bucket.requests.last_key_value());
        newest.map_or(0, |(revision, _)| *revision)
    }

    /// Per subject that is not as it should be, how it differs.
    pub(super) fn differences(&self, loaded: &Loaded) -> BTreeMap<Subject, String> {
        let mut differences = BTreeMap::new();
        for (name, found) in &loaded.buckets {
            if let Err(difference) = compare_bucket(self.buckets.get(name), found.as_ref()) {
                differences.insert(Subject::Bucket(name.clone()), difference);
            }
        }
        for (id, found) in &loaded.channels {
            let nothing = ChannelModel::default();
            if let Err(difference) = compare_channel(self.channels.get(id).unwrap_or(&nothing), found) {
                differences.insert(Subject::Channel(id.clone()), difference);
            }
        }
        differences
    }
}

impl BucketModel {
    fn apply(&mut self, change: &BucketChange) {
        match change {
            BucketChange::Full(full) => {
                self.records = full.records.iter().map(|record| (record.key().clone(), Arc::clone(record))).collect();
                (self.schema_version, self.revision, self.counter) = (full.schema_version, full.revision, full.counter);
                self.requests = by_revision(&full.requests).collect();
            }
            BucketChange::Delta(delta) => {
                if delta.cleared {
                    self.records.clear();
                }
                for key in &delta.deletes {
                    self.records.remove(key);
                }
                for record in &delta.upserts {
                    self.records.insert(record.key().clone(), Arc::clone(record));
                }
                self.schema_version = delta.schema_version;
                (self.revision, self.counter) = (delta.revision, delta.counter);
                if !delta.requests.is_empty() {
                    self.requests.extend(by_revision(&delta.requests));
                    while self.requests.len() > delta.request_window {
                        self.requests.pop_first();
                    }
                }
            }
        }
    }
}

fn by_revision(requests: &[Request]) -> impl Iterator<Item = (u64, Request)> {
    requests.iter().map(|request| (request.revision, request.clone()))
}

impl ChannelModel {
    fn update(&mut self, update: &HistoryUpdate) {
        for message in &update.append {
            self.history.insert(message.message_id.clone(), message.clone());
        }
        for id in &update.evict {
            self.history.remove(id);
            self.hints.remove(id);
        }
    }
}

/// How something differs from what it should be.
type Same = Result<(), String>;

fn differs(what: impl fmt::Display, expected: impl fmt::Debug, found: impl fmt::Debug) -> Same {
    Err(format!("{what}: expected {}, found {}", brief(&expected), brief(&found)))
}

/// Enough of it to recognise it by.
fn brief(thing: &impl fmt::Debug) -> String {
    const MOST: usize = 300;
    struct Cut(String);
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MOST.saturating_sub(self.0.chars().count());
            self.0.extend(text.chars().take(room));
            if room < text.chars().count() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut cut = Cut(String::new());
    match fmt::write(&mut cut, format_args!("{thing:?}")) {
        Ok(()) => cut.0,
        Err(_) => cut.0 + "…",
    }
}

fn compare_bucket(expected: Option<&BucketModel>, found: Option<&BucketSnapshot>) -> Same {
    let (expected, found) = match (expected, found) {
        (None, None) => return Ok(()),
        (None, Some(found)) => return Err(format!("expected nothing, found {} record(s)", found.records.len())),
        (Some(expected), None) => return Err(format!("expected {} record(s), found nothing", expected.records.len())),
        (Some(expected), Some(found)) => (expected, found),
    };
    let mut records = BTreeMap::new();
    for record in &found.records {
        if records.insert(record.key(), record).is_some() {
            return Err(format!("record {:?} is there more than once", record.key()));
        }
    }
    let missing: Vec<&Key> = expected.records.keys().filter(|key| !records.contains_key(key)).collect();
    let surplus: Vec<&&Key> = records.keys().filter(|key| !expected.records.contains_key(key)).collect();
    if !missing.is_empty() || !surplus.is_empty() {
        return Err(format!("records missing: {}; that should not be there: {}", brief(&missing), brief(&surplus)));
    }
    for (key, record) in &expected.records {
        if let Some(found) = records.get(key) {
            compare_record(record, found).map_err(|difference| format!("record {}: {difference}", brief(key)))?;
        }
    }
    if expected.revision != found.revision {
        return differs("revision", expected.revision, found.revision);
    }
    if expected.counter != found.counter {
        return differs("counter", expected.counter, found.counter);
    }
    if expected.schema_version != found.schema_version {
        return differs("schema version", expected.schema_version, found.schema_version);
    }
    compare_requests(&expected.requests, &found.requests)
}

fn compare_requests(expected: &BTreeMap<u64, Request>, found: &[Request]) -> Same {
    let told = |requests: &mut dyn Iterator<Item = &Request>| -> Vec<(u64, String)> {
        requests.map(|request| (request.revision, request.id.clone())).collect()
    };
    let (expected_order, found_order) = (told(&mut expected.values()), told(&mut found.iter()));
    if expected_order != found_order {
        return differs("request ids by revision", expected_order, found_order);
    }
    for (expected, found) in expected.values().zip(found) {
        if expected != found {
            return differs(format_args!("request {:?}", expected.id), expected, found);
        }
    }
    Ok(())
}

fn compare_record(expected: &Record, found: &Record) -> Same {
    if expected.metadata() != found.metadata() {
        return differs("metadata", expected.metadata(), found.metadata());
    }
    if expected.place() != found.place() {
        return differs("place", expected.place(), found.place());
    }
    let fields = |record: &Record| -> Object { record.fields().map(|(name, value)| (name, value.clone())).collect() };
    compare_object("field", &fields(expected), &fields(found))
}

fn compare_object(path: &str, expected: &Object, found: &Object) -> Same {
    if let Some(name) = found.names().find(|name| !expected.contains(name)) {
        return Err(format!("{path} {name:?} should not be there"));
    }
    for (name, expected) in expected.iter() {
        let path = format!("{path} {:?}", name.as_str());
        match found.get(name) {
            Some(found) => compare_value(&path, expected, found)?,
            None => return Err(format!("{path} is missing")),
        }
    }
    Ok(())
}

/// Sharper than `==`, for which 2 is 2.0: storage keeps the kind, and every bit of a float.
fn compare_value(path: &str, expected: &Value, found: &Value) -> Same {
    let same = match (expected, found) {
        (Value::Float(expected), Value::Float(found)) => expected.to_bits() == found.to_bits(),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare_value(&format!("{path}[{index}]"), expected, found)?;
            }
            true
        }
        (Value::Object(expected), Value::Object(found)) => return compare_object(path, expected, found),
        _ => expected.kind() == found.kind() && expected == found,
    };
    if same { Ok(()) } else { differs(path, expected, found) }
}

fn compare_channel(expected: &ChannelModel, found: &ChannelData) -> Same {
    if expected.meta != found.meta {
        return differs("meta", &expected.meta, &found.meta);
    }
    let mut history: Vec<&SdsMessage> = expected.history.values().collect();
    history.sort_by_key(|message| (message.lamport_timestamp, message.message_id.clone()));
    let order = |message: &SdsMessage| (message.lamport_timestamp, message.message_id.clone());
    let expected_order: Vec<_> = history.iter().map(|message| order(message)).collect();
    let found_order: Vec<_> = found.message_history.iter().map(order).collect();
    if expected_order != found_order {
        return differs("history by (lamport, id)", expected_order, found_order);
    }
    for (expected, found) in history.into_iter().zip(&found.message_history) {
        if expected != found {
            return differs(format_args!("message {:?}", expected.message_id), expected, found);
        }
    }
    let mut hints = found.hints.clone();
    hints.sort();
    let expected: Vec<_> = expected.hints.iter().map(|(id, hint)| (id.clone(), hint.clone())).collect();
    if hints != expected {
        return differs("hints", expected, hints);
    }
    Ok(())
}
