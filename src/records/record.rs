//! One record: declared values by position, undeclared ones by name, metadata, and a hidden place.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::error::{Error, Result};
use crate::base::name::BucketName;
use crate::base::value::{FieldsDeserializer, Key, Object, Text, Value};

/// The metadata names, in the order in which they are shown; input sets none of them but `_expires_at`.
pub const METADATA: [&str; 4] = ["_version", "_created_at", "_updated_at", "_expires_at"];

/// The declared field names of a bucket, kept once for all of its records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    names: Box<[Text]>,
    /// Positions, sorted by name.
    by_name: Box<[u16]>,
    key: Option<u16>,
    /// Whose records these are, where that is known.
    bucket: Option<BucketName>,
}

impl Layout {
    /// The names in schema order, and which of them is the key.
    pub(crate) fn new(names: Vec<Text>, key: usize) -> Self {
        let mut by_name: Vec<u16> = (0..u16::try_from(names.len()).unwrap_or(u16::MAX)).collect();
        by_name.sort_by(|left, right| names[usize::from(*left)].cmp(&names[usize::from(*right)]));
        Self { names: names.into(), by_name: by_name.into(), key: u16::try_from(key).ok(), bucket: None }
    }

    /// The same, of this bucket.
    pub(super) fn of(self, bucket: Option<BucketName>) -> Self {
        Self { bucket, ..self }
    }

    /// Names of fields, none of them the key; no two are the same.
    #[cfg(any(feature = "redb", feature = "postgres", test))]
    pub(super) fn keyless(names: Vec<Text>) -> Self {
        Self { key: None, ..Self::new(names, 0) }
    }

    #[cfg(any(feature = "redb", feature = "postgres", test))]
    pub(super) fn names(&self) -> &[Text] {
        &self.names
    }

    /// The position of a declared field that is probably at or right behind `guess`.
    fn position_near(&self, guess: usize, name: &str) -> Option<usize> {
        let near = guess..=guess + 1;
        let mut near = near.filter(|at| self.names.get(*at).is_some_and(|other| other == name));
        near.next().or_else(|| self.position(name))
    }

    /// The declared fields' positions and names, sorted by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (usize, &Text)> {
        self.by_name.iter().map(|at| (usize::from(*at), &self.names[usize::from(*at)]))
    }

    /// The position of a declared field.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        let index = self.by_name.binary_search_by(|at| self.names[usize::from(*at)].as_str().cmp(name)).ok()?;
        Some(usize::from(self.by_name[index]))
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_key(&self, position: usize) -> bool {
        self.key.is_some_and(|key| usize::from(key) == position)
    }
}

/// What the store notes about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// 1 when inserted, 1 more at each update.
    pub version: u64,
    /// When it was inserted, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it was last changed, in milliseconds since the Unix epoch; never goes back.
    pub updated_at: i64,
    /// From when on it is absent from everything, in milliseconds since the Unix epoch, if ever.
    pub expires_at: Option<i64>,
}

/// A record as a bucket keeps and hands it out: immutable, shared, complete.
///
/// Its serialized form is the stored one: `{ key, place, version, created_at, updated_at, expires_at?, fields }` with
/// the undeclared and declared fields but the key in `fields`, by name. Adapters write and read that; users read fields
/// with [`get`](Record::get), types with [`to`](Record::to) and plain JSON with [`to_json`](Record::to_json).
#[derive(Clone)]
pub struct Record {
    pub(crate) layout: Arc<Layout>,
    pub(crate) key: Key,
    /// By position in the layout; the key's slot is empty, `key` has it.
    pub(crate) values: Box<[Option<Value>]>,
    /// Undeclared fields.
    pub(crate) extra: Object,
    pub(crate) metadata: Metadata,
    /// Orders the bucket by insertion.
    pub(crate) place: u64,
    /// Estimated bytes, where they were counted when the record was made; 0 where they were not.
    pub(super) counted: u32,
}

impl Record {
    /// The primary key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// 1 when inserted, 1 more at each update.
    pub fn version(&self) -> u64 {
        self.metadata.version
    }

    /// What the store notes about the record.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// The record's place in the insertion order of its bucket.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Whether the record has expired by `now`: then it is absent from everything.
    pub(crate) fn is_expired(&self, now: i64) -> bool {
        self.metadata.expires_at.is_some_and(|at| at <= now)
    }

    /// The value at a path of names separated by `.`; metadata is not found here, see [`metadata`](Self::metadata).
    pub fn get(&self, path: &str) -> Option<&Value> {
        match path.split_once('.') {
            None => self.field(path),
            Some((name, rest)) => self.field(name)?.at(rest),
        }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        match self.layout.position(name) {
            Some(position) => self.at_position(position),
            None => self.extra.get(name),
        }
    }

    pub(crate) fn at_position(&self, position: usize) -> Option<&Value> {
        if self.layout.is_key(position) {
            return Some(self.key.as_value());
        }
        self.values.get(position)?.as_ref()
    }

    /// The fields that are there: declared ones in schema order, then undeclared ones by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        let declared = self.layout.names.iter().enumerate();
        declared
            .filter_map(|(position, name)| Some((name.as_str(), self.at_position(position)?)))
            .chain(self.extra.iter().map(|(name, value)| (name.as_str(), value)))
    }

    fn metadata_values(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let Metadata { version, created_at, updated_at, expires_at } = self.metadata;
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let values = [Some(version), Some(created_at), Some(updated_at), expires_at];
        METADATA.into_iter().zip(values).filter_map(|(name, value)| Some((name, Value::Int(value?))))
    }

    /// Plain JSON: fields as in [`fields`](Self::fields), then metadata.
    pub fn to_json(&self) -> serde_json::Value {
        let fields = self.fields().map(|(name, value)| (name.to_owned(), value.to_json()));
        fields.chain(self.metadata_values().map(|(name, value)| (name.to_owned(), value.to_json()))).collect()
    }

    /// Reads a type from fields and metadata (`_version`, `_created_at`, `_updated_at`, `_expires_at`).
    ///
    /// # Errors
    /// `Decode` with what the type said of which field.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        let metadata: Vec<(&str, Value)> = self.metadata_values().collect();
        let all = self.fields().chain(metadata.iter().map(|(name, value)| (*name, value)));
        let declared = |name: &str| self.layout.position(name).is_some() || METADATA.contains(&name);
        T::deserialize(FieldsDeserializer::declared(all, declared)).map_err(|error| Error::Decode {
            bucket: self.layout.bucket.clone(),
            key: self.key.clone(),
            source: Arc::new(error),
        })
    }

    /// Bytes that the record takes, in memory and about the same on disk.
    pub fn estimated_bytes(&self) -> usize {
        match self.counted {
            0 => self.count_bytes(),
            counted => counted as usize,
        }
    }

    /// Counts the bytes, once for all who ask: whoever makes a record has its values at hand, and who notes it as unsaved
    /// in the bucket's turn does not.
    pub(super) fn counted(mut self) -> Self {
        self.counted = u32::try_from(self.count_bytes()).unwrap_or(0);
        self
    }

    fn count_bytes(&self) -> usize {
        let declared: usize = self.values.iter().flatten().map(Value::estimated_bytes).sum();
        64 + self.key.estimated_bytes() + declared + self.extra.estimated_bytes()
    }

    /// Moves the fields to the positions of `layout`.
    pub(crate) fn bind(&mut self, layout: &Arc<Layout>) {
        if Arc::ptr_eq(&self.layout, layout) {
            return;
        }
        self.counted = 0;
        let mut values = vec![None; layout.len()].into_boxed_slice();
        let mut undeclared = Vec::new();
        // Fields that were loaded are in the order in which they were declared, all but the key.
        let mut guess = 0;
        for (at, value) in std::mem::take(&mut self.values).into_iter().enumerate() {
            let Some(value) = value else { continue };
            let name = &self.layout.names[at];
            match layout.position_near(guess, name) {
                Some(position) => {
                    values[position] = Some(value);
                    guess = position + 1;
                }
                None => undeclared.push((name.clone(), value)),
            }
        }
        // Both are sorted by name: one pass over the two finds every position, mostly with one comparison each.
        let mut declared = layout.by_name.iter();
        let mut next = declared.next();
        for (name, value) in std::mem::take(&mut self.extra) {
            let position = loop {
                let Some(position) = next.map(|position| usize::from(*position)) else { break None };
                match layout.names[position].cmp(&name) {
                    Ordering::Less => next = declared.next(),
                    Ordering::Equal => {
                        next = declared.next();
                        break Some(position);
                    }
                    Ordering::Greater => break None,
                }
            };
            match position {
                Some(position) => values[position] = Some(value),
                None => undeclared.push((name, value)),
            }
        }
        self.values = values;
        self.extra = Object::from_unsorted(undeclared);
        self.layout = Arc::clone(layout);
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata: Vec<_> = self.metadata_values().collect();
        f.debug_map().entries(self.fields()).entries(metadata.iter().map(|(name, value)| (*name, value))).finish()
    }
}

/// Fields and metadata are equal; the place is not compared.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        if self.key != other.key || self.metadata != other.metadata {
            return false;
        }
        if Arc::ptr_eq(&self.layout, &other.layout) {
            return self.values == other.values && self.extra == other.extra;
        }
        // Declared by one and not by the other: compared by name, the key aside.
        let by_name = |record: &Self| -> Object {
            let key = record.layout.key.map(|key| record.layout.names[usize::from(key)].clone());
            let fields = record.fields().filter(|(name, _)| key.as_ref().is_none_or(|key| key != name));
            fields.map(|(name, value)| (name, value.clone())).collect()
        };
        by_name(self) == by_name(other)
    }
}

/// The stored form: borrowed to write, owned to read.
#[derive(Serialize)]
struct StoredRef<'a> {
    key: &'a Key,
    place: u64,
    version: u64,
    created_at: i64,
    updated_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    fields: StoredFields<'a>,
}

struct StoredFields<'a>(&'a Record);

impl Record {
    /// The fields that are stored, and how many they are: MessagePack writes that first.
    pub(super) fn stored_fields(&self) -> (usize, impl Iterator<Item = (&Text, &Value)>) {
        // The key's slot is empty.
        let declared = self.layout.names.iter().zip(&self.values);
        let declared = declared.filter_map(|(name, value)| Some((name, value.as_ref()?)));
        (self.values.iter().flatten().count() + self.extra.len(), declared.chain(self.extra.iter()))
    }
}

impl Serialize for StoredFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let (length, fields) = self.0.stored_fields();
        let mut map = serializer.serialize_map(Some(length))?;
        for (name, value) in fields {
            serde::ser::SerializeMap::serialize_entry(&mut map, name, value)?;
        }
        serde::ser::SerializeMap::end(map)
    }
}

#[derive(Deserialize)]
struct Stored {
    key: Key,
    place: u64,
    version: u64,
    created_at: i64,
    updated_at: i64,
    #[serde(default)]
    expires_at: Option<i64>,
    fields: PlainFields,
}

/// The names and values of a record, where no wrapper stands for an object.
struct PlainFields(Object);

impl<'de> Deserialize<'de> for PlainFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> serde::de::Visitor<'de> for Fields {
            type Value = PlainFields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the fields of a record")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<PlainFields, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0).min(1_024));
                while let Some(entry) = map.next_entry::<Text, Value>()? {
                    entries.push(entry);
                }
                Ok(PlainFields(Object::from_unsorted(entries)))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Metadata { version, created_at, updated_at, expires_at } = self.metadata;
        StoredRef {
            key: &self.key,
            place: self.place,
            version,
            created_at,
            updated_at,
            expires_at,
            fields: StoredFields(self),
        }
        .serialize(serializer)
    }
}

/// Nothing is declared until a bucket binds the record to its layout.
impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        static UNBOUND: LazyLock<Arc<Layout>> = LazyLock::new(Arc::default);
        let Stored { key, place, version, created_at, updated_at, expires_at, fields } =
            Stored::deserialize(deserializer)?;
        Ok(Self {
            layout: Arc::clone(&UNBOUND),
            key,
            values: Box::default(),
            extra: fields.0,
            metadata: Metadata { version, created_at, updated_at, expires_at },
            place,
            counted: 0,
        })
    }
}

impl Record {
    /// A record as an adapter may make one, of a key, its place, metadata and the fields other than the key. A bucket
    /// that loads it checks it against its definition.
    pub fn from_parts(key: impl Into<Key>, place: u64, metadata: Metadata, fields: Object) -> Self {
        let (layout, values) = (Arc::default(), Box::default());
        Self { layout, key: key.into(), values, extra: fields, metadata, place, counted: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Record {
        let metadata = Metadata { version: 3, created_at: 1, updated_at: 2, expires_at: None };
        let fields = record! { "name": "Ada", "$bytes": "AA==", "nested": { "a": [1, 2.0] } };
        Record::from_parts("k", 7, metadata, fields)
    }

    fn bound() -> Record {
        let mut record = stored();
        record.bind(&layout());
        record
    }

    fn layout() -> Arc<Layout> {
        Arc::new(Layout::new(vec!["name".into(), "id".into(), "age".into()], 1))
    }

    #[test]
    fn binding_moves_declared_fields_to_their_positions_and_lends_out_the_key() {
        let record = bound();
        let names: Vec<&str> = record.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["name", "id", "$bytes", "nested"]);
        assert_eq!(record.get("id"), Some(&Value::from("k")));
        assert_eq!(record.get("nested.a"), Some(&Value::from(vec![Value::Int(1), Value::Float(2.0)])));
        assert_eq!(record.get("age"), None);
        assert_eq!(record, stored(), "compared by name");
    }

    #[test]
    fn bytes_that_were_counted_once_are_those_that_are_there_and_are_counted_anew_after_a_move() {
        let mut record = bound();
        let bytes = record.estimated_bytes();
        record = record.counted();
        assert_eq!((record.counted as usize, record.estimated_bytes()), (bytes, bytes));
        // Undeclared fields count with their names.
        record.bind(&Arc::new(Layout::new(vec!["id".into()], 0)));
        assert_eq!(record.estimated_bytes(), bytes + 24 + "name".len());
    }

    #[test]
    fn the_stored_form_comes_back_from_both_formats() {
        let record = bound();
        let json = serde_json::to_string(&record).unwrap();
        let packed = rmp_serde::to_vec_named(&record).unwrap();
        let from_json: Record = serde_json::from_str(&json).unwrap();
        let from_packed: Record = rmp_serde::from_slice(&packed).unwrap();
        for mut back in [from_json, from_packed] {
            back.bind(&layout());
            assert_eq!(back, record);
            assert_eq!(back.place(), 7);
        }
    }

    #[test]
    fn a_type_is_read_with_key_and_metadata() {
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Named {
            id: String,
            name: String,
            #[serde(rename = "_version")]
            version: u64,
        }
        let record = bound();
        let named: Named = record.to().unwrap();
        assert_eq!(named, Named { id: "k".into(), name: "Ada".into(), version: 3 });
        assert!(matches!(record.to::<Vec<i64>>(), Err(Error::Decode { .. })));
    }
}
