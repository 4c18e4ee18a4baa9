//! Checking values against the fields that they are of.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::error::{Issue, IssueCode};
use crate::base::value::{MAX_DEPTH, Text, Value, join_path};
use crate::records::date::is_iso_date;
use crate::records::field::{Field, Kind};
use crate::records::limits::Limits;

/// A declared field.
#[derive(Debug)]
pub(super) struct NamedField {
    pub(super) name: Text,
    pub(super) rule: Field,
    /// The key is required without saying so.
    required: bool,
    limits: Option<Box<Limits>>,
}

/// What checking a record has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) issues: Vec<Issue>,
    /// A default was filled in, or a value brought into another kind.
    pub(super) altered: bool,
}

impl NamedField {
    /// A field that is the key or not. What is wrong with its limits is added to `problems`.
    pub(super) fn new(name: Text, rule: Field, key: bool, problems: &mut Vec<String>) -> Self {
        let limits = Limits::new(&rule, key, problems);
        Self { name, required: rule.required || key, rule, limits }
    }

    /// Checks a value of the field, and brings it into the kind that is stored.
    pub(super) fn check(&self, slot: &mut Option<Value>, findings: &mut Findings) {
        // The commonest: of its kind, and nothing else is asked of it.
        let plain = matches!(
            (self.rule.kind, &*slot),
            (Kind::String, Some(Value::String(_)))
                | (Kind::Int, Some(Value::Int(_)))
                | (Kind::Bool, Some(Value::Bool(_)))
        );
        if plain && self.limits.is_none() {
            return;
        }
        let Some(value) = slot.as_mut().filter(|value| !value.is_null()) else {
            if self.required {
                findings.issues.push(Issue::new(self.name.as_str(), IssueCode::Required, "is required"));
            }
            return;
        };
        if let Some(issue) = check_numbers(&self.name, value) {
            findings.issues.push(issue);
            return;
        }
        match coerce(self.rule.kind, value) {
            Ok(altered) => findings.altered |= altered,
            Err(message) => {
                findings.issues.push(Issue::new(self.name.as_str(), IssueCode::Type, message));
                return;
            }
        }
        if let Some(limits) = &self.limits {
            limits.check(&self.name, value, &mut findings.issues);
        }
    }
}

/// Numbers that JSON does not have are refused at their path; −0.0 becomes 0.0.
pub(super) fn check_numbers(name: &str, value: &mut Value) -> Option<Issue> {
    let path = value.settle_numbers()?;
    Some(Issue::new(join_path(name, &path), IssueCode::Type, "numbers are finite, integers have 64 bits with sign"))
}

/// Whether a value at `level`, 1 for a field's, reaches below the level that input may reach.
pub(super) fn is_too_deep(value: &Value, level: usize) -> bool {
    match value {
        Value::Array(items) => level >= MAX_DEPTH || items.iter().any(|item| is_too_deep(item, level + 1)),
        Value::Object(object) => level >= MAX_DEPTH || object.iter().any(|(_, item)| is_too_deep(item, level + 1)),
        _ => false,
    }
}

/// Brings a value that is not Null into the kind of its field, or says why it cannot be. Answers whether that changed it.
pub(super) fn coerce(kind: Kind, value: &mut Value) -> std::result::Result<bool, String> {
    let converted = match (kind, &*value) {
        (Kind::Any, _)
        | (Kind::String, Value::String(_))
        | (Kind::Int | Kind::Number | Kind::Date, Value::Int(_))
        | (Kind::Float | Kind::Number, Value::Float(_))
        | (Kind::Bool, Value::Bool(_))
        | (Kind::Bytes, Value::Bytes(_))
        | (Kind::Object, Value::Object(_))
        | (Kind::Array, Value::Array(_)) => return Ok(false),
        (Kind::Date, Value::String(text)) if is_iso_date(text) => return Ok(false),
        (Kind::Date, Value::String(_)) => return Err("is no ISO 8601 date".to_owned()),
        (Kind::Int, Value::Float(_)) => value.as_i64().map(Value::Int),
        // Only an integer that a float holds exactly; the two compare by exact value.
        (Kind::Float, Value::Int(_)) => value.as_f64().map(Value::Float).filter(|float| float == value),
        (Kind::Bytes, Value::String(text)) => match STANDARD.decode(text.as_str()) {
            Ok(bytes) => Some(Value::Bytes(bytes.into())),
            Err(_) => return Err("is no padded base64".to_owned()),
        },
        (Kind::Bytes, Value::Array(items)) => {
            let bytes: Option<Box<[u8]>> = items.iter().map(|item| u8::try_from(item.as_i64()?).ok()).collect();
            match bytes {
                Some(bytes) => Some(Value::Bytes(bytes)),
                None => return Err("is a list of something else than numbers from 0 to 255".to_owned()),
            }
        }
        _ => None,
    };
    match converted {
        Some(converted) => {
            *value = converted;
            Ok(true)
        }
        None => Err(format!("is {}, not {}", value.kind(), kind.name())),
    }
}
