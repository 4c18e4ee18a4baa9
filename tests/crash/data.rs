//! What is in the bucket: records whose every field follows from key and number, so that a torn one is noticed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::value::Object;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::{PersistenceOptions, StorageAdapter};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Filter, Generated, Record};
use ractor_persistence::store::Store;

use crate::Backend;
use crate::told::Changed;

/// The debounce window.
pub(crate) const WINDOW: Duration = Duration::from_millis(20);
pub(crate) const BUCKET: &str = "data";
/// Groups of records; each belongs to one task of the child.
pub(crate) const GROUPS: i64 = 4;

fn definition() -> BucketDefinition {
    BucketDefinition::new(BUCKET)
        .key("id")
        .field("id", Field::string())
        .field("place", Field::int().generated(Generated::Autoincrement))
        .field("number", Field::int().required())
        .field("group", Field::int().required())
        .field("tag", Field::string().required().unique())
        .field("text", Field::string().required())
        .index(["group"])
}

pub(crate) fn fields(group: i64, key: &str, number: i64) -> Object {
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap());
    let text = letter.to_string().repeat(usize::try_from(number * 7_919 % 1_500).unwrap());
    record! { "id": key, "group": group, "number": number, "tag": format!("{key}/{number}"), "text": text }
}

pub(crate) async fn start(adapter: Arc<dyn StorageAdapter>) -> Result<Store> {
    let options = PersistenceOptions::default().with_debounce(WINDOW);
    Store::builder("crash").shared_adapter(adapter).persistence(options).start().await
}

pub(crate) async fn open(backend: Backend, directory: &Path) -> Result<Store> {
    start((backend.open)(directory.to_owned()).await?).await
}

pub(crate) async fn define(store: &Store) -> Result<Bucket> {
    store.define_bucket(definition()).await
}

pub(crate) fn int(record: &Record, field: &str) -> i64 {
    record.get(field).and_then(|value| value.as_i64()).unwrap()
}

/// The bucket, as it is compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) counter: i64,
    /// Number and place by key.
    pub(crate) records: BTreeMap<String, (i64, i64)>,
}

impl State {
    pub(crate) fn apply(&mut self, revision: u64, change: &Changed) {
        self.revision = revision;
        match change {
            Changed::Inserted { key, number, place } => {
                self.records.insert(key.clone(), (*number, *place));
                self.counter = self.counter.max(*place);
            }
            Changed::Updated { key, number } => self.records.get_mut(key).unwrap().0 = *number,
            Changed::Deleted { key } => drop(self.records.remove(key)),
            Changed::Cleared => self.records.clear(),
        }
    }

    /// Reads it from the bucket, and checks what it must be in itself: fields, order, indexes, unique rule.
    pub(crate) async fn read(bucket: &Bucket) -> Self {
        let stats = bucket.stats().await.unwrap();
        let mut state = Self { revision: stats.revision, counter: stats.counter, records: BTreeMap::new() };
        let all = bucket.all().await.unwrap();
        for record in &all {
            let (number, group) = (int(record, "number"), int(record, "group"));
            let key = record.get("id").and_then(|key| key.as_str()).unwrap();
            for (name, value) in fields(group, key, number).iter() {
                assert_eq!(record.get(name), Some(value), "{name} of {key:?}");
            }
            state.records.insert(key.to_owned(), (number, int(record, "place")));
        }
        assert_eq!(state.records.len(), all.len(), "a key has one record");
        let places: Vec<_> = all.iter().map(|record| int(record, "place")).collect();
        assert!(places.is_sorted(), "records are in the order of their insertion: {places:?}");
        for group in 0..GROUPS {
            let scanned: Vec<_> = all.iter().filter(|record| int(record, "group") == group).cloned().collect();
            let indexed = bucket.find(Filter::eq("group", group)).await.unwrap();
            assert_eq!(indexed, scanned, "the index on groups has group {group} as the records have it");
        }
        for holder in &all {
            let tag = holder.get("tag").unwrap().clone();
            let found = bucket.find(Filter::eq("tag", tag.clone())).await.unwrap();
            assert_eq!(found, [Arc::clone(holder)], "the unique index has each record once");
            let mut other = fields(0, "other", 1);
            other.insert("tag", tag);
            match bucket.insert(other).await {
                Err(Error::UniqueViolation { holder: named, .. }) => assert_eq!(&named, holder.key()),
                other => panic!("a tag that {holder:?} has was not refused: {other:?}"),
            }
        }
        state
    }

    /// What a store finds in the directory.
    pub(crate) async fn reopen(backend: Backend, directory: &Path) -> Self {
        let store = open(backend, directory).await.expect("a killed store's file opens");
        let bucket = define(&store).await.expect("a killed store's bucket loads");
        let state = Self::read(&bucket).await;
        let report = store.stop().await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
        state
    }
}
