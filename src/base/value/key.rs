//! Primary keys.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::value::{Text, Value};

/// Most bytes of a text key.
pub const MAX_KEY_BYTES: usize = 1_024;

/// A primary key: a whole number or a text of 1 to 1,024 bytes. Numbers sort before texts; `1` is not `"1"`.
///
/// ```
/// use ractor_persistence::base::value::{Key, KeyRef};
/// let (number, text) = (Key::from(1), Key::from("1"));
/// assert!(number < text && number != text);
/// assert_eq!(number.parts(), KeyRef::Int(1));
/// ```
// Invariant: the value is an Int or a String. Kept as a value so that a record can lend its key out as a field.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Value);

/// A key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRef<'a> {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'a str),
}

impl Key {
    /// The key's parts, to match on.
    pub fn parts(&self) -> KeyRef<'_> {
        match &self.0 {
            Value::Int(number) => KeyRef::Int(*number),
            Value::String(text) => KeyRef::Text(text),
            // Ruled out by the invariant of the type: every constructor makes an Int or a String.
            _ => KeyRef::Text(""),
        }
    }

    /// The key as the value of its field.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// The key as the value of its field, without a copy.
    pub(crate) fn into_value(self) -> Value {
        self.0
    }

    /// The key that a value is, if its kind can be one: an Int, an integral Float, a String.
    pub fn from_value(value: Value) -> Option<Self> {
        match value {
            text @ Value::String(_) => Some(Self(text)),
            other => other.as_i64().map(Self::from),
        }
    }

    /// Bytes that the key takes, as [`Value::estimated_bytes`] counts.
    pub fn estimated_bytes(&self) -> usize {
        self.0.estimated_bytes()
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self(Value::Int(number))
    }
}

impl From<i32> for Key {
    fn from(number: i32) -> Self {
        Self(Value::Int(number.into()))
    }
}

impl From<u32> for Key {
    fn from(number: u32) -> Self {
        Self(Value::Int(number.into()))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Value::String(text.into()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(Value::String(text.into()))
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        Self(Value::String(text.into()))
    }
}

impl From<Text> for Key {
    fn from(text: Text) -> Self {
        Self(Value::String(text))
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl From<Key> for Value {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        key.0.clone()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            KeyRef::Int(number) => write!(f, "{number}"),
            KeyRef::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            KeyRef::Int(number) => write!(f, "{number}"),
            KeyRef::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.parts() {
            KeyRef::Int(number) => serializer.serialize_i64(number),
            KeyRef::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            key @ (Value::Int(_) | Value::String(_)) => Ok(Self(key)),
            other => Err(serde::de::Error::custom(format_args!("a key cannot be {}", other.kind()))),
        }
    }
}
