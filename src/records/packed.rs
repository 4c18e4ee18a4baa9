//! Records as MessagePack, written and read without a serializer in between: byte for byte what `Serialize` makes of
//! them with `rmp_serde` and names, at a fraction of the cost.

use std::sync::Arc;

use crate::base::value::{Object, Reader, Text, Value, write};
use crate::records::record::{Layout, Metadata, Record};

/// Names of the stored form, each as the text that it is packed as.
const KEY: &[u8] = b"\xa3key";
const PLACE: &[u8] = b"\xa5place";
const VERSION: &[u8] = b"\xa7version";
const CREATED_AT: &[u8] = b"\xaacreated_at";
const UPDATED_AT: &[u8] = b"\xaaupdated_at";
const EXPIRES_AT: &[u8] = b"\xaaexpires_at";
const FIELDS: &[u8] = b"\xa6fields";

impl Record {
    /// Appends the stored form as MessagePack.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        let Metadata { version, created_at, updated_at, expires_at } = self.metadata;
        write::map(out, 6 + usize::from(expires_at.is_some()));
        out.extend_from_slice(KEY);
        self.key.pack(out);
        out.extend_from_slice(PLACE);
        write::uint(out, self.place);
        out.extend_from_slice(VERSION);
        write::uint(out, version);
        out.extend_from_slice(CREATED_AT);
        write::int(out, created_at);
        out.extend_from_slice(UPDATED_AT);
        write::int(out, updated_at);
        if let Some(expires_at) = expires_at {
            out.extend_from_slice(EXPIRES_AT);
            write::int(out, expires_at);
        }
        out.extend_from_slice(FIELDS);
        let (count, declared) = self.stored_fields();
        write::map(out, count);
        for (name, value) in declared {
            write::text(out, name);
            value.pack(out);
        }
    }
}

/// Fields of one bucket's records are mostly the same in the same order: they are read into a layout that the records
/// share, rather than each with names of its own.
#[derive(Debug, Default)]
pub(crate) struct Unpacker {
    layout: Arc<Layout>,
    /// How often the layout has been replaced.
    learned: u32,
}

impl Unpacker {
    /// More layouts than that are no layout, but fields that have little in common.
    const LAYOUTS: u32 = 16;
    /// A record of more fields than that keeps its own names.
    const FIELDS: usize = 1_024;

    /// Reads the stored form of a record. `None`: it is not one, or not as [`Record::pack`] writes it, which a
    /// deserializer may still be able to read.
    pub(crate) fn record(&mut self, bytes: &[u8]) -> Option<Record> {
        let mut reader = Reader::new(bytes);
        let expires = match reader.map()? {
            6 => false,
            7 => true,
            _ => return None,
        };
        reader.exactly(KEY)?;
        let key = reader.key()?;
        reader.exactly(PLACE)?;
        let place = reader.uint()?;
        reader.exactly(VERSION)?;
        let version = reader.uint()?;
        reader.exactly(CREATED_AT)?;
        let created_at = reader.int()?;
        reader.exactly(UPDATED_AT)?;
        let updated_at = reader.int()?;
        let expires_at = if expires {
            reader.exactly(EXPIRES_AT)?;
            Some(reader.int()?)
        } else {
            None
        };
        reader.exactly(FIELDS)?;
        let (layout, values, extra) = self.fields(&mut reader)?;
        let metadata = Metadata { version, created_at, updated_at, expires_at };
        reader.is_at_end().then_some(Record { layout, key, values, extra, metadata, place, counted: 0 })
    }

    #[expect(clippy::type_complexity, reason = "the parts of a record")]
    fn fields(&mut self, reader: &mut Reader<'_>) -> Option<(Arc<Layout>, Box<[Option<Value>]>, Object)> {
        let count = reader.map()?;
        let from_here = *reader;
        if let Known::Values(values) = self.by_position(reader, count)? {
            return Some((Arc::clone(&self.layout), values, Object::new()));
        }
        *reader = from_here;
        let entries = reader.entries(count)?;
        if self.learned >= Self::LAYOUTS || entries.len() > Self::FIELDS || has_twins(&entries) {
            return Some((Arc::default(), Box::default(), Object::from_unsorted(entries)));
        }
        self.learned += 1;
        let (names, values): (Vec<Text>, Vec<Option<Value>>) =
            entries.into_iter().map(|(name, value)| (name, Some(value))).unzip();
        self.layout = Arc::new(Layout::keyless(names));
        Some((Arc::clone(&self.layout), values.into(), Object::new()))
    }

    /// Fields whose names are in the layout, in its order.
    fn by_position(&self, reader: &mut Reader<'_>, count: usize) -> Option<Known> {
        let names = self.layout.names();
        if count > names.len() {
            return Some(Known::Other);
        }
        let mut values = Vec::with_capacity(names.len());
        let mut left = names.iter();
        for _ in 0..count {
            let name = reader.text_bytes()?;
            loop {
                let Some(next) = left.next() else { return Some(Known::Other) };
                if next.as_bytes() == name {
                    values.push(Some(reader.value()?));
                    break;
                }
                values.push(None);
            }
        }
        values.extend(left.map(|_| None));
        Some(Known::Values(values.into()))
    }
}

/// What comes of reading fields by a known layout.
enum Known {
    Values(Box<[Option<Value>]>),
    /// They do not fit it.
    Other,
}

fn has_twins(entries: &[(Text, Value)]) -> bool {
    let mut names: Vec<&Text> = entries.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::value::Key;

    fn serialized(record: &Record) -> Vec<u8> {
        rmp_serde::to_vec_named(record).unwrap()
    }

    fn packed(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.pack(&mut out);
        out
    }

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![any::<i64>().prop_map(Key::from), "\\PC{1,40}".prop_map(Key::from)]
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "\\PC{0,40}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
            proptest::collection::vec(any::<i32>().prop_map(Value::from), 0..3).prop_map(Value::from),
            proptest::collection::vec(("[a-c]", any::<i32>()), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    }

    prop_compose! {
        fn records()(
            key in keys(), place: u64, version: u64, created_at: i64, updated_at: i64, expires_at: Option<i64>,
            fields in proptest::collection::vec(("[a-f]{1,2}", values()), 0..20),
        ) -> Record {
            let metadata = Metadata { version, created_at, updated_at, expires_at };
            Record::from_parts(key, place, metadata, fields.into_iter().collect())
        }
    }

    fn layout() -> Arc<Layout> {
        Arc::new(Layout::new(["f", "id", "b", "a"].map(Text::from).to_vec(), 1))
    }

    proptest! {
        #[test]
        fn stored_records_have_the_bytes_that_the_serializer_gives_them(record in records()) {
            prop_assert_eq!(packed(&record), serialized(&record));
            let mut bound = record;
            bound.bind(&layout());
            prop_assert_eq!(packed(&bound), serialized(&bound));
        }

        #[test]
        fn records_that_are_read_one_after_another_are_those_that_the_deserializer_reads(
            records in proptest::collection::vec((records(), any::<bool>()), 0..12),
        ) {
            let mut unpacker = Unpacker::default();
            for (mut record, bound) in records {
                if bound {
                    record.bind(&layout());
                }
                let bytes = packed(&record);
                let mut read = unpacker.record(&bytes).unwrap();
                let mut slowly: Record = rmp_serde::from_slice(&bytes).unwrap();
                prop_assert_eq!(&read, &slowly);
                prop_assert_eq!(read.place(), slowly.place());
                // The order in which fields are written is that of the layout, so both are bound before they are compared.
                read.bind(&layout());
                slowly.bind(&layout());
                prop_assert_eq!(packed(&read), packed(&slowly));
            }
        }

        #[test]
        fn what_is_read_of_damaged_bytes_is_what_the_deserializer_reads(
            record in records(), at: proptest::sample::Index, new: u8, cut: bool,
        ) {
            let mut bytes = packed(&record);
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = new;
            }
            if let Some(read) = Unpacker::default().record(&bytes) {
                let slowly: Record = rmp_serde::from_slice(&bytes).unwrap();
                prop_assert_eq!(read, slowly);
            }
        }
    }

    #[test]
    fn records_with_the_same_fields_share_their_layout() {
        let metadata = Metadata { version: 1, created_at: 2, updated_at: 3, expires_at: None };
        let record = |key: i64, fields: &[(&str, i64)]| {
            packed(&Record::from_parts(key, 0, metadata, fields.iter().copied().collect()))
        };
        let mut unpacker = Unpacker::default();
        let all = unpacker.record(&record(1, &[("a", 1), ("b", 2), ("c", 3)])).unwrap();
        let some = unpacker.record(&record(2, &[("b", 5)])).unwrap();
        assert!(Arc::ptr_eq(&all.layout, &some.layout), "some of the fields, in the same order, are enough");
        assert_eq!((some.get("a"), some.get("b")), (None, Some(&Value::Int(5))));
        for number in 0..100 {
            let name = format!("x{number}");
            let read = unpacker.record(&record(3, &[(&name, number)])).unwrap();
            assert_eq!(read.get(&name), Some(&Value::Int(number)));
        }
        assert_eq!(unpacker.learned, Unpacker::LAYOUTS, "what never repeats is not learned for ever");
    }
}
