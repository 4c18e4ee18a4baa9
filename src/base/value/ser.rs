//! Any `Serialize` into a value.

use serde::ser::{self, Serialize};

use crate::base::value::de::ValueError;
use crate::base::value::stored::NATIVE;
use crate::base::value::{MAX_BYTES, MAX_DEPTH, Object, Text, Value, join_path};

/// Turns anything that serializes into a value, the way a readable format would: unit variants become texts, newtype
/// and struct variants objects of one name, unit and `None` Null. An integer beyond 64 bits with sign becomes an
/// infinite float, which no record takes.
///
/// # Errors
/// Over 64 levels, over 16 MiB, map keys that are no texts, and what the type itself refuses, each with its path.
///
/// ```
/// use ractor_persistence::base::value::to_value;
/// #[derive(serde::Serialize)]
/// struct Point { x: i64, y: f64 }
/// let point = to_value(&Point { x: 1, y: 0.5 }).unwrap();
/// assert_eq!(point.at("y").and_then(|y| y.as_f64()), Some(0.5));
/// ```
pub fn to_value<T: Serialize + ?Sized>(input: &T) -> Result<Value, ValueError> {
    let value = input.serialize(ToValue { depth: 0, readable: true })?;
    if value.estimated_bytes() > MAX_BYTES {
        return Err(too_large());
    }
    Ok(value)
}

fn too_large() -> ValueError {
    ValueError::new("larger than 16 MiB")
}

fn too_deep() -> ValueError {
    ValueError::new("nested more than 64 levels deep")
}

/// What can be given as a record or a record's changes: an [`Object`], or any `Serialize` that is one.
pub trait IntoObject {
    /// Turns it into an object.
    ///
    /// # Errors
    /// It is something else than an object, or [`to_value`] refuses it.
    fn into_object(self) -> Result<Object, ValueError>;
}

impl<T: Serialize> IntoObject for T {
    fn into_object(self) -> Result<Object, ValueError> {
        match to_value(&self)? {
            Value::Object(object) => Ok(object),
            other => Err(ValueError::new(format!("is {}, not an object", other.kind()))),
        }
    }
}

// An object is no `Serialize`, so that it can be taken as it is here.
impl IntoObject for Object {
    fn into_object(self) -> Result<Object, ValueError> {
        Ok(self)
    }
}

impl IntoObject for &Object {
    fn into_object(self) -> Result<Object, ValueError> {
        Ok(self.clone())
    }
}

impl Object {
    /// Refuses what is nested more than 64 levels deep or larger than 16 MiB.
    pub(crate) fn check_limits(&self) -> Result<(), ValueError> {
        fn too_deep_at(value: &Value, level: usize) -> bool {
            match value {
                Value::Array(items) => level >= MAX_DEPTH || items.iter().any(|item| too_deep_at(item, level + 1)),
                Value::Object(object) => {
                    level >= MAX_DEPTH || object.iter().any(|(_, item)| too_deep_at(item, level + 1))
                }
                _ => false,
            }
        }
        let mut bytes = 0;
        for (name, value) in self.iter() {
            let contents = match value {
                Value::String(text) => text.len(),
                Value::Array(_) | Value::Object(_) if too_deep_at(value, 1) => return Err(too_deep().within(name)),
                Value::Array(_) | Value::Object(_) | Value::Bytes(_) => value.estimated_bytes() - 24,
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
            };
            bytes += name.len() + contents;
        }
        // What a value takes by itself: as `estimated_bytes` has it.
        if bytes.saturating_add(48 * self.len()) > MAX_BYTES { Err(too_large()) } else { Ok(()) }
    }
}

#[derive(Clone, Copy)]
struct ToValue {
    depth: usize,
    /// Types that have two forms give the readable one, but a value that is one already gives its own.
    readable: bool,
}

impl ToValue {
    fn deeper(self) -> Result<Self, ValueError> {
        if self.depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = ValueError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    fn serialize_bool(self, v: bool) -> Result<Value, ValueError> {
        Ok(Value::Bool(v))
    }
    fn serialize_i8(self, v: i8) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_i16(self, v: i16) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_i32(self, v: i32) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_i64(self, v: i64) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_i128(self, v: i128) -> Result<Value, ValueError> {
        Ok(i64::try_from(v).map_or(Value::Float(f64::INFINITY), Value::Int))
    }
    fn serialize_u8(self, v: u8) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_u16(self, v: u16) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_u32(self, v: u32) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_u64(self, v: u64) -> Result<Value, ValueError> {
        Ok(i64::try_from(v).map_or(Value::Float(f64::INFINITY), Value::Int))
    }
    fn serialize_u128(self, v: u128) -> Result<Value, ValueError> {
        Ok(i64::try_from(v).map_or(Value::Float(f64::INFINITY), Value::Int))
    }
    fn serialize_f32(self, v: f32) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_f64(self, v: f64) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_char(self, v: char) -> Result<Value, ValueError> {
        Ok(Value::from(v.encode_utf8(&mut [0; 4]) as &str))
    }
    fn serialize_str(self, v: &str) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<Value, ValueError> {
        Ok(v.into())
    }
    fn serialize_none(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, ValueError> {
        Ok(variant.into())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        value.serialize(Self { readable: self.readable && name != NATIVE, ..self })
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        let inner = value.serialize(self.deeper()?).map_err(|error| error.within(variant))?;
        Ok(Value::Object([(variant, inner)].into_iter().collect()))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Items, ValueError> {
        // A length that a type merely claims reserves no more than this.
        let items = Vec::with_capacity(len.unwrap_or(0).min(1_024));
        Ok(Items { inner: self.deeper()?, items, variant: None })
    }
    fn serialize_tuple(self, len: usize) -> Result<Items, ValueError> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items, ValueError> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items, ValueError> {
        Ok(Items { variant: Some(variant), ..self.deeper()?.serialize_seq(Some(len))? })
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Entries, ValueError> {
        let entries = Vec::with_capacity(len.unwrap_or(0).min(1_024));
        Ok(Entries { inner: self.deeper()?, entries, name: None, variant: None })
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Entries, ValueError> {
        self.serialize_map(Some(len))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Entries, ValueError> {
        Ok(Entries { variant: Some(variant), ..self.deeper()?.serialize_map(Some(len))? })
    }
}

fn tagged(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(variant) => Value::Object([(variant, value)].into_iter().collect()),
        None => value,
    }
}

struct Items {
    inner: ToValue,
    items: Vec<Value>,
    variant: Option<&'static str>,
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let value = value.serialize(self.inner).map_err(|error| error.within(&self.items.len().to_string()))?;
        self.items.push(value);
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::Array(self.items.into()))
    }
}

macro_rules! items {
    ($($trait:ident::$push:ident),*) => {$(
        impl ser::$trait for Items {
            type Ok = Value;
            type Error = ValueError;
            fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
                self.push(value)
            }
            fn end(self) -> Result<Value, ValueError> {
                Ok(self.finish())
            }
        }
    )*};
}
items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

struct Entries {
    inner: ToValue,
    entries: Vec<(Text, Value)>,
    name: Option<Text>,
    variant: Option<&'static str>,
}

impl Entries {
    fn push<T: Serialize + ?Sized>(&mut self, name: Text, value: &T) -> Result<(), ValueError> {
        let value = value.serialize(self.inner).map_err(|error| error.within(&name))?;
        self.entries.push((name, value));
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, Value::Object(Object::from_unsorted(self.entries)))
    }
}

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Entries {
            type Ok = Value;
            type Error = ValueError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), ValueError> {
                self.push(name.into(), value)
            }
            fn end(self) -> Result<Value, ValueError> {
                Ok(self.finish())
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        self.name = Some(match key.serialize(self.inner)? {
            Value::String(name) => name,
            Value::Int(number) => number.to_string().into(),
            Value::Bool(value) => value.to_string().into(),
            other => return Err(ValueError::new(format!("a name cannot be {}", other.kind()))),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        match self.name.take() {
            Some(name) => self.push(name, value),
            None => Err(ValueError::new("a value without a name")),
        }
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

impl ValueError {
    pub(super) fn within(mut self, name: &str) -> Self {
        self.path = join_path(name, &self.path);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::base::value::from_value;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Circle(f64),
        Line(i64, i64),
        Rect { width: u8 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        name: String,
        maybe: Option<i64>,
        letter: char,
        shapes: Vec<Shape>,
        by_number: BTreeMap<u16, String>,
        pair: (bool, f32),
        unit: (),
    }

    #[test]
    fn any_type_survives_the_way_into_a_value_and_back() {
        let everything = Everything {
            name: "ü".into(),
            maybe: None,
            letter: 'ž',
            shapes: vec![Shape::Empty, Shape::Circle(0.5), Shape::Line(1, -1), Shape::Rect { width: 3 }],
            by_number: [(7, "seven".into())].into(),
            pair: (true, 1.5),
            unit: (),
        };
        let value = to_value(&everything).unwrap();
        assert_eq!(from_value::<Everything>(&value).unwrap(), everything);
        assert_eq!(serde_json::to_value(&everything).unwrap(), value.to_json(), "the same shape as plain JSON");
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let mut deep = serde_json::json!(1);
        for _ in 0..64 {
            deep = serde_json::json!([deep]);
        }
        assert!(to_value(&deep).is_ok());
        let deeper = serde_json::json!({ "a": deep });
        let error = to_value(&deeper).unwrap_err();
        assert!(error.path.starts_with("a.0.0"), "{error}");
        assert!(to_value(&"x".repeat(MAX_BYTES)).is_err());
    }

    #[test]
    fn a_value_inside_a_type_is_taken_as_it_is() {
        #[derive(Serialize)]
        struct Holder {
            value: Value,
        }
        let tagged: Object = [("$bytes", "x")].into_iter().collect();
        for value in [Value::from(&[1_u8][..]), Value::Object(tagged), vec![Value::from(&[2_u8][..])].into()] {
            let object = Holder { value: value.clone() }.into_object().unwrap();
            assert_eq!(object.get("value"), Some(&value));
        }
        assert!(7.into_object().is_err());
    }

    #[test]
    fn integers_beyond_64_bits_become_what_no_record_takes() {
        assert_eq!(to_value(&u64::MAX).unwrap().non_finite(), Some(String::new()));
        let nested = to_value(&serde_json::json!({ "a": [0, u64::MAX] })).unwrap();
        assert_eq!(nested.non_finite().as_deref(), Some("a.1"));
    }
}
