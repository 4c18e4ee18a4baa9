//! Reads over a snapshot: what they answer never depends on how they are answered.
//!
//! `model` holds every read against a plain list, `filters`, `pages`, `plans` and `aggregates` the promises one by one.

mod aggregates;
mod filters;
mod model;
mod pages;
mod plans;

use std::sync::Arc;

use imbl::OrdMap;

use crate::base::value::{Key, Object};
use crate::records::definition::BucketDefinition;
use crate::records::field::Field;
use crate::records::filter::{Filter, MAX_FILTER_DEPTH};
use crate::records::index::Index;
use crate::records::place::Place;
use crate::records::query::Query;
use crate::records::record::{Metadata, Record};
use crate::records::schema::Schema;
use crate::records::view::View;

/// The parts of a bucket that reads need, written as a table writes them.
struct Bucket {
    schema: Arc<Schema>,
    order: OrdMap<Place, Arc<Record>>,
    indexes: Box<[Index]>,
    expiry: OrdMap<(i64, Place), Arc<Record>>,
    next: u64,
}

/// A bucket named `b` with key `id` and the declared fields `a`, `b` and `c` of any kind.
fn definition() -> BucketDefinition {
    let any = Field::any();
    BucketDefinition::new("b")
        .key("id")
        .field("id", Field::int())
        .field("a", any.clone())
        .field("b", any.clone())
        .field("c", any)
}

impl Bucket {
    fn new(definition: BucketDefinition) -> Self {
        let schema = Arc::new(Schema::new(definition).unwrap());
        let indexes = schema.indexes.iter().map(|_| Index::default()).collect();
        Self { schema, order: OrdMap::new(), indexes, expiry: OrdMap::new(), next: 0 }
    }

    fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.order.values().find(|record| record.key() == key)
    }

    /// Inserts, or replaces in place.
    fn put(&mut self, key: impl Into<Key>, fields: Object, expires_at: Option<i64>) -> Arc<Record> {
        let key = key.into();
        let old = self.get(&key).cloned();
        self.write(old, key, fields, expires_at)
    }

    /// Inserts a key that is new.
    fn add(&mut self, key: impl Into<Key>, fields: Object) -> Arc<Record> {
        self.write(None, key.into(), fields, None)
    }

    fn write(&mut self, old: Option<Arc<Record>>, key: Key, fields: Object, expires_at: Option<i64>) -> Arc<Record> {
        let place = old.as_ref().map_or(self.next, |old| old.place());
        self.next = self.next.max(place + 1);
        let version = old.as_ref().map_or(1, |old| old.version() + 1);
        let metadata = Metadata { version, created_at: 1, updated_at: 2, expires_at };
        let mut record = Record::from_parts(key, place, metadata, fields);
        record.bind(&self.schema.layout);
        let record = Arc::new(record);
        let place = self.schema.place_of(&record);
        self.order.insert(place.clone(), Arc::clone(&record));
        if let Some(at) = old.as_ref().and_then(|old| old.metadata().expires_at) {
            self.expiry.remove(&(at, place.clone()));
        }
        if let Some(at) = expires_at {
            self.expiry.insert((at, place), Arc::clone(&record));
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            match &old {
                Some(old) => index.replace(rule, &self.schema, old, &record),
                None => index.insert(rule, &self.schema, &record),
            }
        }
        record
    }

    fn delete(&mut self, key: &Key) {
        let Some(record) = self.get(key).cloned() else { return };
        let place = self.schema.place_of(&record);
        self.order.remove(&place);
        if let Some(at) = record.metadata().expires_at {
            self.expiry.remove(&(at, place));
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.remove(rule, &self.schema, &record);
        }
    }

    fn view(&self) -> View {
        let (schema, order, expiry) = (Arc::clone(&self.schema), self.order.clone(), self.expiry.clone());
        View::new(schema, order, self.indexes.clone(), expiry, 1, 1_000)
    }

    /// A view that has the records of the keys that a filter names.
    fn view_for(&self, filter: &Filter) -> View {
        match filter.keys(&self.schema) {
            Some(keys) => self.view().with_keyed(keys.iter().filter_map(|key| self.get(key).cloned()).collect(), false),
            None => self.view(),
        }
    }

    fn find(&self, query: impl Into<Query>) -> Vec<String> {
        let query = query.into();
        names(&self.view_for(query.filter()).find(&query).unwrap())
    }
}

fn names(records: &[Arc<Record>]) -> Vec<String> {
    records.iter().map(|record| record.key().to_string()).collect()
}
