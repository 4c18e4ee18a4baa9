//! The exact form of values in storage.
//!
//! In binary formats each kind is the format's own. In readable ones bytes are `{"$bytes": "<padded base64>"}`, and an
//! object whose only name begins with `$` is wrapped as `{"$object": …}`, so that every kind comes back as it was.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::value::{MAX_DEPTH, Object, Text, Value};

const BYTES: &str = "$bytes";
const OBJECT: &str = "$object";

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(text.into())
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A value says by this name that it is one: [`to_value`](super::to_value) then takes it as it is, and every format
/// writes what is inside.
pub(super) const NATIVE: &str = "$ractor_persistence::Value";

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NATIVE, &Stored(self))
    }
}

struct Stored<'a>(&'a Value);

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use Value::{Array, Bool, Bytes, Float, Int, Null, String};
        match self.0 {
            Null => serializer.serialize_unit(),
            Bool(value) => serializer.serialize_bool(*value),
            Int(value) => serializer.serialize_i64(*value),
            Float(value) => serializer.serialize_f64(*value),
            String(text) => serializer.serialize_str(text),
            Bytes(bytes) if serializer.is_human_readable() => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BYTES, &STANDARD.encode(bytes))?;
                map.end()
            }
            Bytes(bytes) => serializer.serialize_bytes(bytes),
            Array(items) => serializer.collect_seq(items),
            Value::Object(object) if serializer.is_human_readable() && looks_tagged(object) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(OBJECT, &Plain(object))?;
                map.end()
            }
            Value::Object(object) => Plain(object).serialize(serializer),
        }
    }
}

/// The names and values of an object, without the wrapper that a nested one may need.
struct Plain<'a>(&'a Object);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn looks_tagged(object: &Object) -> bool {
    object.len() == 1 && object.names().all(|name| name.starts_with('$'))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let readable = deserializer.is_human_readable();
        // As it is written: so what holds a value as it is knows that it is asked for one.
        deserializer.deserialize_newtype_struct(NATIVE, ValueVisitor { readable, plain: false, depth: 0 })
    }
}

/// `plain`: the inside of an `$object`, which is taken as it stands.
#[derive(Clone, Copy)]
struct ValueVisitor {
    readable: bool,
    plain: bool,
    depth: usize,
}

impl ValueVisitor {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        // Wrappers take a level of their own. The bound guards the stack against bytes that nobody wrote.
        if self.depth > 2 * MAX_DEPTH + 2 {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth + 1, plain: false, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let readable = self.readable && deserializer.is_human_readable();
        deserializer.deserialize_any(Self { readable, ..self })
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Int).map_err(|_| E::custom("an integer beyond 64 bits with sign"))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(bytes.into())
    }
    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1_024));
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut entries: Vec<(Text, Value)> = Vec::with_capacity(map.size_hint().unwrap_or(0).min(1_024));
        while let Some(name) = map.next_key::<Text>()? {
            let wrapper = self.readable && !self.plain && entries.is_empty() && name == OBJECT;
            let value = map.next_value_seed(ValueVisitor { plain: wrapper, ..inner })?;
            entries.push((name, value));
        }
        if self.readable && !self.plain && entries.len() == 1 && entries[0].0.starts_with('$') {
            let (name, value) = entries.swap_remove(0);
            return match (name.as_str(), value) {
                (BYTES, Value::String(text)) => {
                    STANDARD.decode(text.as_str()).map(|bytes| Value::Bytes(bytes.into())).map_err(de::Error::custom)
                }
                (OBJECT, value @ Value::Object(_)) => Ok(value),
                _ => Err(de::Error::custom("an unknown tag that begins with $")),
            };
        }
        Ok(Value::Object(Object::from_unsorted(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(value: &Value) {
        let json = serde_json::to_string(value).unwrap();
        let back: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"), "{json}");
        let packed = rmp_serde::to_vec_named(value).unwrap();
        let back: Value = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"));
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let bytes = Value::from(&[0_u8, 255][..]);
        let tagged: Object = [("$bytes", "AA==")].into_iter().collect();
        let object: Object = [("$object", Value::Object(tagged.clone()))].into_iter().collect();
        let deep: Object = [("$object", Value::Object(object.clone()))].into_iter().collect();
        let two: Object = [("$a", 1), ("$b", 2)].into_iter().collect();
        for value in [
            Value::Null,
            true.into(),
            i64::MIN.into(),
            i64::MAX.into(),
            2.0.into(),
            0.1.into(),
            f64::MAX.into(),
            f64::MIN_POSITIVE.into(),
            "\u{0}\"\\ \u{1f600}".into(),
            bytes.clone(),
            vec![bytes, Value::Null].into(),
            Object::new().into(),
            tagged.into(),
            object.into(),
            deep.into(),
            two.into(),
        ] {
            both_ways(&value);
        }
    }

    #[test]
    fn the_deepest_wrapped_objects_come_back() {
        let mut value = Value::from(1);
        for _ in 0..MAX_DEPTH {
            value = Value::Object([("$x", value)].into_iter().collect());
        }
        let json = serde_json::to_string(&value).unwrap();
        let mut deserializer = serde_json::Deserializer::from_str(&json);
        deserializer.disable_recursion_limit();
        assert_eq!(Value::deserialize(&mut deserializer).unwrap(), value);
    }

    #[test]
    fn unknown_tags_and_hostile_depth_are_refused() {
        assert!(serde_json::from_str::<Value>(r#"{"$date": 1}"#).is_err());
        assert!(serde_json::from_str::<Value>(r#"{"$bytes": "!"}"#).is_err());
        assert!(serde_json::from_str::<Value>("18446744073709551615").is_err());
        let hostile = vec![0x91_u8; 1_000];
        assert!(rmp_serde::from_slice::<Value>(&hostile).is_err());
    }
}
