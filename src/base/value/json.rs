//! The plain JSON that users see; `stored` has the exact one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::value::Value;

impl Value {
    /// Plain JSON: bytes as padded base64, a number that is not finite as null.
    ///
    /// ```
    /// use ractor_persistence::base::value::Value;
    /// assert_eq!(Value::from(&b"\x01\x02"[..]).to_json(), serde_json::json!("AQI="));
    /// ```
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::String(text) => text.as_str().into(),
            Self::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(object) => object.to_json(),
        }
    }
}
