//! A value into any `Deserialize`.

use serde::de::value::SeqDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::base::error::Plain;
use crate::base::value::Value;
use crate::base::value::stored::NATIVE;

/// Why input is no value, or a value does not fit a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}", Plain(path), if path.is_empty() { "" } else { ": " }, Plain(reason))]
#[non_exhaustive]
pub struct ValueError {
    /// Where, empty for the value itself. Of a value that does not fit a type, a name is given as `*` that neither the type
    /// nor the bucket declares: it may be a part of what a record holds.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl ValueError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }
}

/// In a path, a name that may be a part of what is held.
const SOME_NAME: &str = "*";

impl serde::ser::Error for ValueError {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self::new(reason.to_string())
    }
}

impl de::Error for ValueError {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self::new(reason.to_string())
    }

    // What was found is what a record holds: these say of which kind it is, and the default ones what it is.

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid type: {}, expected {expected}", kind(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid value: {}, expected {expected}", kind(found)))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown variant, expected one of {expected:?}"))
    }

    fn unknown_field(_field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field, expected one of {expected:?}"))
    }
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a floating point number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "something else",
    }
}

/// Reads a type from a value.
///
/// # Errors
/// What the type says about it.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, ValueError> {
    T::deserialize(value)
}

impl<'de> IntoDeserializer<'de, ValueError> for &'de Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for &'de Value {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::Array(items) => {
                let mut items = Items { items: items.iter(), taken: 0 };
                let result = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(result)
            }
            Value::Object(object) => FieldsDeserializer::new(object.iter().map(named)).deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self {
            Value::Object(object) => {
                FieldsDeserializer::new(object.iter().map(named)).deserialize_struct(name, fields, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        if name == NATIVE { visitor.visit_newtype_struct(Native(self)) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            // A `Vec<u8>` asks for a list.
            Value::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Object(object) if object.len() == 1 => {
                let Some((name, value)) = object.iter().next().map(named) else { return self.deserialize_any(visitor) };
                visitor.visit_enum(Variant { name, value, declared: variants.contains(&name) })
            }
            other => Err(ValueError::new(format!(
                "{} is no variant of {name}, which has {}",
                other.kind(),
                variants.join(", ")
            ))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

/// A value that is read as a value: it is taken as it is, without a look for the tags of readable formats.
struct Native<'de>(&'de Value);

impl<'de> de::Deserializer<'de> for Native<'de> {
    type Error = ValueError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any option newtype_struct seq enum
    }
}

fn named<'de, N: AsRef<str>>((name, value): (&'de N, &'de Value)) -> (&'de str, &'de Value) {
    (name.as_ref(), value)
}

/// Reads a struct or map from names and values.
#[derive(derive_more::Debug)]
pub struct FieldsDeserializer<I, D = fn(&str) -> bool> {
    fields: I,
    /// Whether a name is declared, and so no part of what is held.
    #[debug(skip)]
    declared: D,
}

impl<'de, I: Iterator<Item = (&'de str, &'de Value)>> FieldsDeserializer<I> {
    /// Reads from these names and values, in this order.
    pub fn new(fields: I) -> Self {
        Self { fields, declared: |_| false }
    }
}

impl<'de, I: Iterator<Item = (&'de str, &'de Value)>, D: Fn(&str) -> bool> FieldsDeserializer<I, D> {
    /// Reads from these names and values, of which errors may give those that are declared.
    pub(crate) fn declared(fields: I, declared: D) -> Self {
        Self { fields, declared }
    }
}

impl<'de, I, D> de::Deserializer<'de> for FieldsDeserializer<I, D>
where
    I: Iterator<Item = (&'de str, &'de Value)>,
    D: Fn(&str) -> bool,
{
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let mut entries = Entries { entries: self.fields, declared: self.declared, current: None, taken: 0 };
        let result = visitor.visit_map(&mut entries)?;
        entries.end()?;
        Ok(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let Self { fields: entries, declared } = self;
        let declared = |name: &str| fields.contains(&name) || declared(name);
        FieldsDeserializer::declared(entries, declared).deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// What is left of names and values. What fails in a value is told with its name, which costs nothing until then.
struct Entries<'de, I, D> {
    entries: I,
    declared: D,
    /// Whose name was read.
    current: Option<(&'de str, &'de Value)>,
    taken: usize,
}

impl<'de, I: Iterator<Item = (&'de str, &'de Value)>, D> Entries<'de, I, D> {
    fn end(self) -> Result<(), ValueError> {
        all_taken(self.taken, self.entries.count(), "map")
    }
}

impl<'de, I, D> de::MapAccess<'de> for Entries<'de, I, D>
where
    I: Iterator<Item = (&'de str, &'de Value)>,
    D: Fn(&str) -> bool,
{
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        self.current = self.entries.next();
        let Some((name, _)) = self.current else { return Ok(None) };
        self.taken += 1;
        seed.deserialize(Name(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let Some((name, value)) = self.current.take() else {
            return Err(ValueError::new("a value was asked for before its name"));
        };
        seed.deserialize(value).map_err(|error| error.within(if (self.declared)(name) { name } else { SOME_NAME }))
    }

    fn size_hint(&self) -> Option<usize> {
        exactly(&self.entries)
    }
}

/// What is left of a list.
struct Items<I> {
    items: I,
    taken: usize,
}

impl<'de, I: Iterator<Item = &'de Value>> Items<I> {
    fn end(self) -> Result<(), ValueError> {
        all_taken(self.taken, self.items.count(), "sequence")
    }
}

impl<'de, I: Iterator<Item = &'de Value>> de::SeqAccess<'de> for Items<I> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ValueError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let index = self.taken;
        self.taken += 1;
        seed.deserialize(value).map(Some).map_err(|error| error.within(&index.to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        exactly(&self.items)
    }
}

fn exactly(items: &impl Iterator) -> Option<usize> {
    match items.size_hint() {
        (least, Some(most)) if least == most => Some(least),
        _ => None,
    }
}

fn all_taken(taken: usize, left: usize, of: &str) -> Result<(), ValueError> {
    if left == 0 {
        return Ok(());
    }
    let plural = if taken == 1 { "" } else { "s" };
    let expected = format!("{taken} element{plural} in {of}");
    Err(de::Error::invalid_length(taken + left, &expected.as_str()))
}

/// A variant with contents: an object of one entry.
struct Variant<'de> {
    name: &'de str,
    value: &'de Value,
    declared: bool,
}

impl Variant<'_> {
    fn told(declared: bool, name: &str) -> impl FnOnce(ValueError) -> ValueError + '_ {
        move |error| error.within(if declared { name } else { SOME_NAME })
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = ValueError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ValueError> {
        Ok((seed.deserialize(Name(self.name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        self.newtype_variant_seed(std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ValueError> {
        seed.deserialize(self.value).map_err(Self::told(self.declared, self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ValueError> {
        de::Deserializer::deserialize_tuple(self.value, len, visitor).map_err(Self::told(self.declared, self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let read = de::Deserializer::deserialize_struct(self.value, "", fields, visitor);
        read.map_err(Self::told(self.declared, self.name))
    }
}

/// A name, which may have been a number or boolean before it became one.
struct Name<'de>(&'de str);

impl<'de> IntoDeserializer<'de, ValueError> for Name<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident => $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self.0.parse() {
                Ok(parsed) => visitor.$visit(parsed),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Name<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    parsed! {
        deserialize_bool => visit_bool, deserialize_i8 => visit_i64, deserialize_i16 => visit_i64,
        deserialize_i32 => visit_i64, deserialize_i64 => visit_i64, deserialize_i128 => visit_i64,
        deserialize_u8 => visit_u64, deserialize_u16 => visit_u64, deserialize_u32 => visit_u64,
        deserialize_u64 => visit_u64, deserialize_u128 => visit_u64
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}
