//! What mutants do to what they are given.

use std::sync::Arc;

use ractor_persistence::base::value::{Key, Object, Value};
use ractor_persistence::persistence::{Capabilities, Save};
use ractor_persistence::records::{BucketChange, BucketDelta, BucketSnapshot, Record, Request, Write};
use ractor_persistence::sds::HistoryUpdate;

pub(crate) fn delta(save: Save, change: impl FnOnce(&mut BucketDelta)) -> Option<Save> {
    Some(match save {
        Save::Bucket(name, old) => match BucketChange::clone(&old) {
            BucketChange::Delta(mut delta) => {
                change(&mut delta);
                Save::Bucket(name, BucketChange::Delta(delta).into())
            }
            _ => Save::Bucket(name, old),
        },
        other => other,
    })
}

pub(crate) fn any_request() -> Request {
    Request::new("any", &Write::Clear).unwrap()
}

pub(crate) fn history(save: Save, change: impl FnOnce(&mut HistoryUpdate)) -> Option<Save> {
    Some(match save {
        Save::History(id, old) => {
            let mut update = HistoryUpdate::clone(&old);
            change(&mut update);
            Save::History(id, update.into())
        }
        other => other,
    })
}

/// The record under another key and at another place, with its values changed.
pub(crate) fn remade(
    record: &Record,
    key: impl Into<Key>,
    place: u64,
    change: impl Fn(&Value) -> Value,
) -> Arc<Record> {
    let fields: Object = record.fields().map(|(name, value)| (name, change(value))).collect();
    Arc::new(Record::from_parts(key, place, record.metadata(), fields))
}

pub(crate) fn values(mut bucket: BucketSnapshot, change: fn(&Value) -> Value) -> Option<BucketSnapshot> {
    fn within(value: &Value, change: fn(&Value) -> Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.iter().map(|item| within(item, change)).collect()),
            Value::Object(object) => {
                Value::Object(object.iter().map(|(name, item)| (name.clone(), within(item, change))).collect())
            }
            other => change(other),
        }
    }
    for record in &mut bucket.records {
        *record = remade(record, record.key(), record.place(), |value| within(value, change));
    }
    Some(bucket)
}

/// Declares one thing when asked for the first time and another one later.
pub(crate) fn flipping(declared: Capabilities) -> Capabilities {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ASKED: AtomicBool = AtomicBool::new(false);
    declared.with_incremental(!ASKED.fetch_xor(true, Ordering::SeqCst))
}
