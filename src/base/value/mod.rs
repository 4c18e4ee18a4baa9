//! Values: what a record's fields hold, one total order over all of them, and how they are written.
//!
//! `text` is the string type, `object` names and values, `order` comparing and hashing, `key` primary keys, `convert`
//! From implementations, `ser` any `Serialize` into a value, `de` a value into any `Deserialize`, `stored` the exact
//! forms for MessagePack and JSON files, `packed` the former without a serializer, `json` the plain JSON that users see.

mod convert;
mod de;
mod json;
mod key;
mod object;
mod order;
#[cfg(any(feature = "redb", feature = "postgres", test))]
mod packed;
mod ser;
mod stored;
mod text;

pub use de::{FieldsDeserializer, ValueError, from_value};
pub use key::{Key, KeyRef, MAX_KEY_BYTES};
pub use object::Object;
pub use ser::{IntoObject, to_value};
pub use text::Text;

#[cfg(any(feature = "redb", feature = "postgres", test))]
pub(crate) use packed::{Reader, write};

/// Deepest nesting that input may have.
pub const MAX_DEPTH: usize = 64;
/// Most bytes that input may have, by [`Value::estimated_bytes`].
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a field holds: JSON's kinds, with integers kept apart from floats, and bytes.
///
/// Storage keeps every kind exactly. There is one total order: Null < Bool < numbers < String < Bytes < Array < Object;
/// numbers compare by exact value across `Int` and `Float`, strings by Unicode scalar values, arrays by element,
/// objects by sorted pairs. Equality and hashing agree with it.
///
/// ```
/// use ractor_persistence::base::value::Value;
/// assert_eq!(Value::Int(2), Value::Float(2.0));
/// assert_ne!(Value::Int((1 << 53) + 1), Value::Float((1_u64 << 53) as f64));
/// assert!(Value::Bool(true) < Value::Int(0) && Value::Int(7) < Value::from("a"));
/// ```
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number; never NaN or infinite in a record, and −0.0 is 0.0.
    Float(f64),
    /// Unicode text.
    String(Text),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// A list.
    Array(Box<[Value]>),
    /// Names and values.
    Object(Object),
}

// A declared field costs 24 bytes and its contents: texts of up to 24 bytes are kept in place.
const _: () = assert!(size_of::<Value>() == 24 && size_of::<Option<Value>>() == 24);

impl Value {
    /// The kind's name, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Whether it is Null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The whole number, if it is one: an `Int`, or a `Float` without a fraction that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Float(value) => order::float_as_int(*value),
            _ => None,
        }
    }

    /// The number as a float, if it is one; large integers are rounded.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "documented rounding")]
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if it is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The names and values, if it is an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Steps through objects along `path`, names separated by `.`; past anything else there is nothing.
    ///
    /// ```
    /// use ractor_persistence::{base::value::Value, record};
    /// let place = Value::from(record! { "address": { "city": "Brno" } });
    /// assert_eq!(place.at("address.city").and_then(|city| city.as_str()), Some("Brno"));
    /// ```
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, name| value.as_object()?.get(name))
    }

    /// Bytes that the value takes, in memory and about the same on disk; the same value gives the same number.
    pub fn estimated_bytes(&self) -> usize {
        24 + match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(items) => items.iter().map(Self::estimated_bytes).sum(),
            Self::Object(object) => object.estimated_bytes(),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 0,
        }
    }

    /// The path of the first number that is not finite, `""` for the value itself.
    pub(crate) fn non_finite(&self) -> Option<String> {
        match self {
            Self::Float(number) => (!number.is_finite()).then(String::new),
            Self::Array(items) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| Some(join_path(&index.to_string(), &item.non_finite()?))),
            Self::Object(object) => object.iter().find_map(|(name, item)| Some(join_path(name, &item.non_finite()?))),
            _ => None,
        }
    }

    /// Turns −0.0 into 0.0 everywhere in it; answers the path of the first number that is not finite, `""` for the value
    /// itself.
    pub(crate) fn settle_numbers(&mut self) -> Option<String> {
        match self {
            Self::Float(number) => {
                // Adding 0.0 changes nothing but the sign of a zero.
                *number += 0.0;
                (!number.is_finite()).then(String::new)
            }
            Self::Array(items) => items
                .iter_mut()
                .enumerate()
                .find_map(|(index, item)| Some(join_path(&index.to_string(), &item.settle_numbers()?))),
            Self::Object(object) => {
                object.values_mut().find_map(|(name, item)| Some(join_path(name, &item.settle_numbers()?)))
            }
            _ => None,
        }
    }
}

/// Joins two paths with a dot, where both are there.
pub(crate) fn join_path(outer: &str, inner: &str) -> String {
    match (outer.is_empty(), inner.is_empty()) {
        (true, _) => inner.to_owned(),
        (_, true) => outer.to_owned(),
        _ => format!("{outer}.{inner}"),
    }
}
