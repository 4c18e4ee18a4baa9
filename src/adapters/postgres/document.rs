//! What people's queries see of a record: a `jsonb` copy of it.
//!
//! What `jsonb` cannot hold is left out of it, field by field: bytes, texts or names with the character U+0000, numbers
//! that are not finite. Nothing reads the copy.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::base::value::Value;
use crate::records::Record;

/// Most bytes of a copy; `jsonb` ends at 256 MiB of parts.
const LARGEST: usize = 64 << 20;

/// A copy as text; none where the record has no copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document(Option<String>);

impl Document {
    /// The fields, then metadata, as [`Record::to_json`] has them.
    pub(super) fn of(record: &Record) -> Self {
        let mut text = String::with_capacity(256);
        let mut members = Members::begin(&mut text);
        for (name, value) in record.fields() {
            members.add(name, value);
        }
        let metadata = record.metadata();
        members.add("_version", &Value::Int(i64::try_from(metadata.version).unwrap_or(i64::MAX)));
        members.add("_created_at", &Value::Int(metadata.created_at));
        members.add("_updated_at", &Value::Int(metadata.updated_at));
        if let Some(expires_at) = metadata.expires_at {
            members.add("_expires_at", &Value::Int(expires_at));
        }
        members.end();
        Self((text.len() <= LARGEST).then_some(text))
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, String::len)
    }
}

impl ToSql for Document {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        // The version of the binary form.
        out.put_u8(1);
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}

/// An object that is being written.
struct Members<'a> {
    text: &'a mut String,
    first: bool,
}

impl<'a> Members<'a> {
    fn begin(text: &'a mut String) -> Self {
        text.push('{');
        Self { text, first: true }
    }

    /// Adds a member, if it can be held.
    fn add(&mut self, name: &str, value: &Value) {
        let before = self.text.len();
        if !self.first {
            self.text.push(',');
        }
        let held = push_text(self.text, name) && {
            self.text.push(':');
            push(self.text, value)
        };
        if held {
            self.first = false;
        } else {
            self.text.truncate(before);
        }
    }

    fn end(self) {
        self.text.push('}');
    }
}

/// Appends a value; whether it could be held. Members of objects that cannot be are left out of them; in a list, where
/// that would move the others, they are null.
fn push(text: &mut String, value: &Value) -> bool {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => text.push_str(&value.to_string()),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => text.push_str(&number.to_string()),
            None => return false,
        },
        Value::String(value) => return push_text(text, value),
        Value::Bytes(_) => return false,
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                let before = text.len();
                if !push(text, item) {
                    text.truncate(before);
                    text.push_str("null");
                }
            }
            text.push(']');
        }
        Value::Object(object) => {
            let mut members = Members::begin(text);
            for (name, value) in object.iter() {
                members.add(name, value);
            }
            members.end();
        }
    }
    true
}

/// Appends a text in quotes, escaped as JSON has it.
fn push_text(text: &mut String, value: &str) -> bool {
    text.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\0') => return false,
            Some(c @ ('"' | '\\')) => text.extend(['\\', c]),
            Some(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => {}
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    text.push('"');
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Metadata;

    fn document(fields: crate::base::value::Object) -> serde_json::Value {
        let metadata = Metadata { version: 3, created_at: 1, updated_at: 2, expires_at: Some(9) };
        let record = Record::from_parts("k", 1, metadata, fields);
        serde_json::from_str(&Document::of(&record).0.unwrap()).unwrap()
    }

    #[test]
    fn a_document_is_the_records_json() {
        let fields = record! {
            "name": "Ada \"L\" \\ \u{1}\n\u{7f}ü😀", "born": 1815, "score": 0.1, "huge": f64::MAX, "tiny": 5e-324,
            "whole": 2.0, "yes": true, "none": (), "nested": { "list": [1, [], {}], "": "empty" }, "least": i64::MIN,
        };
        let metadata = Metadata { version: 3, created_at: 1, updated_at: 2, expires_at: Some(9) };
        let json = Record::from_parts("k", 1, metadata, fields.clone()).to_json();
        assert_eq!(document(fields), json);
    }

    #[test]
    fn what_jsonb_cannot_hold_is_left_out_and_everything_else_is_kept() {
        let bytes = Value::from(&b"\x01"[..]);
        let fields: crate::base::value::Object = [
            ("bytes", bytes.clone()),
            ("zero", "a\0b".into()),
            ("na\0me", 1.into()),
            ("list", vec![Value::Int(1), bytes.clone(), "\0".into(), Value::Int(2)].into()),
            ("nested", Value::Object([("bytes", bytes), ("kept", 1.into())].into_iter().collect())),
            ("infinite", f64::INFINITY.into()),
            ("last", 7.into()),
        ]
        .into_iter()
        .collect();
        let expected = serde_json::json!({
            "list": [1, null, null, 2], "nested": { "kept": 1 }, "last": 7,
            "_version": 3, "_created_at": 1, "_updated_at": 2, "_expires_at": 9,
        });
        assert_eq!(document(fields), expected);
    }
}
