//! A definition that has been checked, and what it says about a record.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::error::{Error, Issue, IssueCode, Result};
use crate::base::name::{BucketName, MAX_NAME_BYTES};
use crate::base::value::{Key, MAX_KEY_BYTES, Object, Text, Value, join_path};
use crate::records::date::is_iso_date;
use crate::records::definition::{
    BucketDefinition, Field, Generated, IndexDefinition, Kind, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES,
};
use crate::records::record::{Layout, METADATA};

/// A definition without faults.
#[derive(Debug)]
pub struct Schema {
    pub(super) bucket: BucketName,
    pub(super) layout: Arc<Layout>,
    pub(super) key: usize,
    pub(super) fields: Box<[NamedField]>,
    pub(super) indexes: Box<[IndexRule]>,
    pub(super) autoincrements: bool,
    persistent: bool,
    ordered: bool,
    schema_version: u32,
}

#[derive(Debug)]
pub(super) struct NamedField {
    pub(super) name: Text,
    pub(super) rule: Field,
}

#[derive(Debug)]
pub(super) struct IndexRule {
    pub(super) paths: Box<[Path]>,
    pub(super) unique: bool,
}

impl IndexRule {
    pub(super) fn label(&self) -> String {
        self.paths.iter().map(|path| path.text.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// A path whose first name is a declared field.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) text: String,
    pub(super) position: usize,
    /// What comes after the first name.
    pub(super) rest: Option<String>,
}

/// What an insert may draw on besides its input; given from outside so that the rules stay pure.
pub struct Draws<'a> {
    /// Milliseconds since the Unix epoch.
    pub now: i64,
    /// Draws a random UUID.
    pub uuid: &'a mut dyn FnMut() -> uuid::Uuid,
}

impl std::fmt::Debug for Draws<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draws").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The fields of a record that passed.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) key: Key,
    pub(super) values: Box<[Option<Value>]>,
    pub(super) extra: Object,
}

impl Schema {
    /// Checks a definition.
    ///
    /// # Errors
    /// `InvalidDefinition` with every fault.
    pub fn new(definition: BucketDefinition) -> Result<Self> {
        let mut problems = Vec::new();
        let BucketDefinition { name, key, fields, indexes, persistent, ordered, schema_version } = definition;
        let bucket = match BucketName::new(&name) {
            Ok(bucket) => Some(bucket),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        if schema_version == 0 {
            problems.push("the schema version must be at least 1".to_owned());
        }
        if fields.len() > MAX_FIELDS {
            problems.push(format!("{} fields are more than {MAX_FIELDS}", fields.len()));
        }
        check_fields(&fields, &mut problems);
        let key_position = check_key(key.as_deref(), &fields, &mut problems);
        let names: Vec<Text> = fields.iter().map(|(name, _)| name.into()).collect();
        let layout = Layout::new(names, key_position.unwrap_or(0));

        let of_fields = fields.iter().filter(|(_, field)| field.unique);
        let of_fields = of_fields.map(|(name, _)| IndexDefinition { paths: vec![name.clone()], unique: true });
        let mut all: Vec<IndexDefinition> = Vec::new();
        for index in of_fields.chain(indexes) {
            match all.iter_mut().find(|other| other.paths == index.paths) {
                // Declared twice is kept once; the stricter wins.
                Some(same) => same.unique |= index.unique,
                None => all.push(index),
            }
        }
        if all.len() > MAX_INDEXES {
            problems.push(format!("{} indexes are more than {MAX_INDEXES}", all.len()));
        }
        let indexes = all.into_iter().filter_map(|index| check_index(index, &layout, &mut problems)).collect();

        match (bucket, key_position) {
            (Some(bucket), Some(key)) if problems.is_empty() => {
                let autoincrements = fields.iter().any(|(_, field)| field.generated == Some(Generated::Autoincrement));
                let fields = fields.into_iter().map(|(name, rule)| NamedField { name: name.into(), rule }).collect();
                let layout = Arc::new(layout);
                Ok(Self { bucket, layout, key, fields, indexes, autoincrements, persistent, ordered, schema_version })
            }
            _ => Err(Error::InvalidDefinition { bucket: name, problems }),
        }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    /// Whether the bucket is to be saved.
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// Whether the bucket's order is that of its keys, and not that of insertion.
    pub fn ordered(&self) -> bool {
        self.ordered
    }

    /// The definition's version.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// How many indexes there are, the unique fields' included.
    pub fn indexes(&self) -> usize {
        self.indexes.len()
    }

    pub(super) fn refuse(&self, issues: Vec<Issue>) -> Error {
        Error::Validation { bucket: self.bucket.clone(), index: None, issues }
    }

    /// Turns an insert's input into fields: generated ones and defaults filled in, everything checked.
    pub(super) fn fields_of_insert(&self, input: Object, next: Option<i64>, draws: &mut Draws<'_>) -> Result<Fields> {
        let mut values = vec![None; self.fields.len()].into_boxed_slice();
        let mut undeclared = Vec::new();
        for (name, value) in input {
            match self.layout.position(&name) {
                Some(position) => values[position] = Some(value),
                None if METADATA.contains(&name.as_str()) => {}
                None => undeclared.push((name, value)),
            }
        }
        for (slot, NamedField { rule, .. }) in values.iter_mut().zip(&self.fields) {
            if let Some(generated) = rule.generated
                && slot.as_ref().is_none_or(Value::is_null)
            {
                *slot = Some(match generated {
                    Generated::Uuid => {
                        let mut text = uuid::Uuid::encode_buffer();
                        Value::from(&*(draws.uuid)().hyphenated().encode_lower(&mut text))
                    }
                    Generated::Timestamp => Value::Int(draws.now),
                    Generated::Autoincrement => {
                        Value::Int(next.ok_or_else(|| Error::CounterExhausted { bucket: self.bucket.clone() })?)
                    }
                });
            }
        }
        let checked = self.check_all(values, Object::from_unsorted(undeclared));
        checked.map(|(fields, _)| fields).map_err(|issues| self.refuse(issues))
    }

    /// Fills in defaults of absent fields, then checks every field; all issues in schema order. Answers too whether a
    /// default was filled in or a value brought into another kind.
    pub(super) fn check_all(
        &self,
        mut values: Box<[Option<Value>]>,
        mut extra: Object,
    ) -> std::result::Result<(Fields, bool), Vec<Issue>> {
        let mut findings = Findings::default();
        let mut key = None;
        for (position, (slot, field)) in values.iter_mut().zip(&self.fields).enumerate() {
            let NamedField { name, rule } = field;
            if slot.is_none() && rule.default.is_some() {
                slot.clone_from(&rule.default);
                findings.altered = true;
            }
            if position == self.key {
                key = check_key_value(name, rule, slot.take(), &mut findings);
            } else {
                check_value(name, rule, slot, &mut findings);
            }
        }
        check_extra(&mut extra, &mut findings);
        match key {
            Some(key) if findings.issues.is_empty() => Ok((Fields { key, values, extra }, findings.altered)),
            _ => Err(findings.issues),
        }
    }

    /// Merges an update's changes over a record's fields; metadata, key and generated fields of the changes are left
    /// out.
    pub(super) fn fields_of_update(
        &self,
        mut values: Box<[Option<Value>]>,
        mut extra: Object,
        changes: Object,
    ) -> Result<(Box<[Option<Value>]>, Object)> {
        let mut findings = Findings::default();
        let mut touched = Vec::new();
        for (name, value) in changes {
            match self.layout.position(&name) {
                Some(position) if position == self.key || self.fields[position].rule.generated.is_some() => {}
                Some(position) => {
                    values[position] = Some(value);
                    touched.push(position);
                }
                None if METADATA.contains(&name.as_str()) => {}
                None => {
                    extra.insert(name, value);
                }
            }
        }
        // What is not touched was checked when it was written.
        touched.sort_unstable();
        for position in touched {
            let NamedField { name, rule } = &self.fields[position];
            check_value(name, rule, &mut values[position], &mut findings);
        }
        check_extra(&mut extra, &mut findings);
        if findings.issues.is_empty() { Ok((values, extra)) } else { Err(self.refuse(findings.issues)) }
    }

    /// The highest number in the autoincrement fields.
    pub(super) fn highest_number(&self, fields: &[Option<Value>], key: &Key) -> Option<i64> {
        let of_field = |(position, field): (usize, &NamedField)| {
            if field.rule.generated != Some(Generated::Autoincrement) {
                return None;
            }
            if position == self.key { key.as_value().as_i64() } else { fields.get(position)?.as_ref()?.as_i64() }
        };
        if !self.autoincrements {
            return None;
        }
        self.fields.iter().enumerate().filter_map(of_field).max()
    }
}

fn check_fields(fields: &[(String, Field)], problems: &mut Vec<String>) {
    for (position, (name, field)) in fields.iter().enumerate() {
        let shown: String = name.escape_debug().take(MAX_NAME_BYTES).collect();
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            problems.push(format!("field {shown:?}: a name has 1 to 128 bytes"));
        }
        if name.contains('.') {
            problems.push(format!("field {shown:?}: a name has no dot"));
        }
        if METADATA.contains(&name.as_str()) {
            problems.push(format!("field {shown:?}: the name is metadata's"));
        }
        if fields[..position].iter().any(|(earlier, _)| earlier == name) {
            problems.push(format!("field {shown:?} is declared twice"));
        }
        let fits = match field.generated {
            None => true,
            Some(Generated::Uuid) => matches!(field.kind, Kind::String | Kind::Any),
            Some(Generated::Timestamp) => matches!(field.kind, Kind::Int | Kind::Number | Kind::Date | Kind::Any),
            Some(Generated::Autoincrement) => matches!(field.kind, Kind::Int | Kind::Number | Kind::Any),
        };
        if let (false, Some(generated)) = (fits, field.generated) {
            problems.push(format!("field {shown:?}: {generated:?} does not generate a {}", field.kind.name()));
        }
        if let Some(default) = &field.default {
            let mut findings = Findings::default();
            check_value(name, field, &mut Some(default.clone()), &mut findings);
            problems
                .extend(findings.issues.iter().map(|issue| format!("field {shown:?}: its default: {}", issue.message)));
        }
    }
}

fn check_key(key: Option<&str>, fields: &[(String, Field)], problems: &mut Vec<String>) -> Option<usize> {
    let Some(key) = key else {
        problems.push("no key is given".to_owned());
        return None;
    };
    let Some(position) = fields.iter().position(|(name, _)| name == key) else {
        problems.push(format!("the key {key:?} is not declared"));
        return None;
    };
    let kind = fields[position].1.kind;
    if !matches!(kind, Kind::Int | Kind::String) {
        problems.push(format!("the key {key:?} is a {}, not an int or string", kind.name()));
        return None;
    }
    Some(position)
}

fn check_index(index: IndexDefinition, layout: &Layout, problems: &mut Vec<String>) -> Option<IndexRule> {
    let label = index.paths.join(",");
    if index.paths.is_empty() || index.paths.len() > MAX_INDEX_PATHS {
        problems.push(format!("index {label:?}: it has {} paths, not 1 to {MAX_INDEX_PATHS}", index.paths.len()));
        return None;
    }
    let mut paths = Vec::with_capacity(index.paths.len());
    for text in index.paths {
        let (root, rest) = match text.split_once('.') {
            Some((root, rest)) => (root, Some(rest.to_owned())),
            None => (text.as_str(), None),
        };
        match layout.position(root) {
            Some(position) => paths.push(Path { position, rest, text }),
            None => problems.push(format!("index {label:?}: field {root:?} is not declared")),
        }
    }
    Some(IndexRule { paths: paths.into(), unique: index.unique })
}

/// What checking a record has found so far.
#[derive(Default)]
struct Findings {
    issues: Vec<Issue>,
    /// A default was filled in, or a value brought into another kind.
    altered: bool,
}

/// Checks one declared field but the key, and brings it into the kind that is stored.
fn check_value(name: &str, rule: &Field, slot: &mut Option<Value>, findings: &mut Findings) {
    let Some(value) = slot.as_mut().filter(|value| !value.is_null()) else {
        if rule.required {
            findings.issues.push(Issue::new(name, IssueCode::Required, "is required"));
        }
        return;
    };
    if let Some(issue) = check_numbers(name, value) {
        findings.issues.push(issue);
        return;
    }
    match coerce(rule.kind, value) {
        Ok(altered) => findings.altered |= altered,
        Err(message) => findings.issues.push(Issue::new(name, IssueCode::Type, message)),
    }
}

fn check_key_value(name: &str, rule: &Field, value: Option<Value>, findings: &mut Findings) -> Option<Key> {
    let Some(mut value) = value.filter(|value| !value.is_null()) else {
        findings.issues.push(Issue::new(name, IssueCode::Required, "is required"));
        return None;
    };
    match coerce(rule.kind, &mut value) {
        Ok(altered) => findings.altered |= altered,
        Err(message) => {
            findings.issues.push(Issue::new(name, IssueCode::Type, message));
            return None;
        }
    }
    match value.as_str().map(str::len) {
        Some(0) => findings.issues.push(Issue::new(name, IssueCode::MinLength, "a key is not empty")),
        Some(length) if length > MAX_KEY_BYTES => {
            findings.issues.push(Issue::new(name, IssueCode::MaxLength, "a key has at most 1,024 bytes"));
        }
        _ => return Key::from_value(value),
    }
    None
}

fn check_extra(extra: &mut Object, findings: &mut Findings) {
    findings.issues.extend(extra.values_mut().filter_map(|(name, value)| check_numbers(name, value)));
}

/// Numbers that JSON does not have are refused at their path; −0.0 becomes 0.0.
fn check_numbers(name: &str, value: &mut Value) -> Option<Issue> {
    let path = value.settle_numbers()?;
    Some(Issue::new(join_path(name, &path), IssueCode::Type, "numbers are finite, integers have 64 bits with sign"))
}

/// Brings a value that is not Null into the kind of its field, or says why it cannot be. Answers whether that changed it.
fn coerce(kind: Kind, value: &mut Value) -> std::result::Result<bool, String> {
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
