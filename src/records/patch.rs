//! Changes by path: several operations on one record, all of them or none.

// Integrated next: the table's write that takes a patch.
#![allow(dead_code)]

use std::fmt;

use serde::Serialize;

use crate::base::error::{Error, Issue, IssueCode, Result};
use crate::base::value::{MAX_BYTES, MAX_DEPTH, Object, Text, Value};
use crate::records::check::{Findings, check_numbers, is_too_deep};
use crate::records::record::{METADATA, Record};
use crate::records::schema::{Changed, Expiry, Schema};

/// Changes to parts of a record, by paths: names separated by `.`, which step through objects.
///
/// Operations apply in order, each to what the earlier ones left, and all or none: the first one that cannot be applied
/// refuses the patch, and so does a result that breaks the schema. What is changed is checked as at an update. A path
/// makes the objects that are missing on its way, where nothing or Null is; anything else there is the issue `type`. The
/// key, generated fields and metadata cannot be patched.
///
/// ```
/// use ractor_persistence::records::Patch;
/// let seen = Patch::new().set("address.city", "Brno").unset("nick").increment("visits", 1).push("tags", "new");
/// assert_eq!(seen.len(), 4);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[must_use]
pub struct Patch {
    operations: Vec<(Text, Operation)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
enum Operation {
    Set(Value),
    Unset,
    Increment(Value),
    Push(Value),
}

impl Patch {
    /// A patch without operations: like an empty update, it counts the version on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value at a path.
    pub fn set(self, path: impl Into<Text>, value: impl Into<Value>) -> Self {
        self.with(path, Operation::Set(value.into()))
    }

    /// Takes away what is at a path; nothing there is fine. A declared field gets its default back, if it has one.
    pub fn unset(self, path: impl Into<Text>) -> Self {
        self.with(path, Operation::Unset)
    }

    /// Adds an Int or Float to the number at a path; nothing or Null there counts as 0. The sum of two Ints is an Int, and
    /// beyond 64 bits the issue `max`; with a Float it is a Float.
    pub fn increment(self, path: impl Into<Text>, by: impl Into<Value>) -> Self {
        self.with(path, Operation::Increment(by.into()))
    }

    /// Adds an item to the end of the array at a path; nothing or Null there counts as an empty one.
    pub fn push(self, path: impl Into<Text>, item: impl Into<Value>) -> Self {
        self.with(path, Operation::Push(item.into()))
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn with(mut self, path: impl Into<Text>, operation: Operation) -> Self {
        self.operations.push((path.into(), operation));
        self
    }
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Unset => "unset",
            Self::Increment(_) => "increment",
            Self::Push(_) => "push",
        }
    }

    /// Applies itself to what is at its path.
    fn apply(self, slot: &mut Option<Value>) -> Result<(), Fault> {
        let present = slot.take().filter(|value| !value.is_null());
        *slot = match self {
            Self::Set(value) => Some(value),
            Self::Unset => None,
            Self::Increment(by) => Some(sum(present.unwrap_or(Value::Int(0)), by)?),
            Self::Push(item) => {
                let mut items = match present {
                    None => Vec::new(),
                    Some(Value::Array(items)) => items.into_vec(),
                    Some(other) => return Err(Fault::kind(&other, "an array")),
                };
                items.push(item);
                Some(Value::Array(items.into()))
            }
        };
        Ok(())
    }

    /// Applies itself below `slot`, at the path `rest`, which has at most as many names as values have levels.
    fn apply_at(self, slot: &mut Option<Value>, rest: Option<&str>) -> Result<(), Fault> {
        let Some(rest) = rest else { return self.apply(slot) };
        let (name, rest) = split(rest);
        if slot.as_ref().is_none_or(Value::is_null) {
            if matches!(self, Self::Unset) {
                return Ok(());
            }
            *slot = Some(Value::Object(Object::new()));
        }
        match slot {
            Some(Value::Object(object)) => {
                let mut inner = object.remove(name);
                self.apply_at(&mut inner, rest)?;
                if let Some(value) = inner {
                    object.insert(name, value);
                }
                Ok(())
            }
            Some(other) => Err(Fault::kind(other, "an object, on the way")),
            // Filled above.
            None => Ok(()),
        }
    }
}

/// Why an operation cannot be applied.
struct Fault {
    code: IssueCode,
    message: String,
}

impl Fault {
    fn kind(found: &Value, wanted: &str) -> Self {
        Self { code: IssueCode::Type, message: format!("is {}, not {wanted}", found.kind()) }
    }
}

fn sum(number: Value, by: Value) -> Result<Value, Fault> {
    match (&number, &by) {
        (Value::Int(number), Value::Int(by)) => number
            .checked_add(*by)
            .map(Value::Int)
            .ok_or_else(|| Fault { code: IssueCode::Max, message: "the sum is beyond 64 bits with sign".to_owned() }),
        _ => match (number.as_f64(), by.as_f64()) {
            (Some(number), Some(by)) => Ok(Value::Float(number + by)),
            (None, _) => Err(Fault::kind(&number, "a number")),
            (_, None) => Err(Fault::kind(&by, "a number")),
        },
    }
}

/// The first name of a path, and the rest.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)))
}

impl Schema {
    /// Whether a patch could be applied to any record at all.
    ///
    /// # Errors
    /// `InvalidArgument` for a path with an empty name or more than 64, for one into the key, a generated field or
    /// metadata, and for an increment by something that is no number.
    pub(super) fn check_patch(&self, patch: &Patch) -> Result<()> {
        for (path, operation) in &patch.operations {
            let refuse =
                |reason: &str| Err(Error::invalid_argument(format!("{} {path:?}: {reason}", operation.name())));
            if path.split('.').any(str::is_empty) {
                return refuse("the path has an empty name");
            }
            if path.split('.').nth(MAX_DEPTH).is_some() {
                return refuse("the path has more than 64 names");
            }
            let (root, _) = split(path);
            match self.layout.position(root) {
                Some(position) if position == self.key => return refuse("the key stays as it is"),
                Some(position) if self.is_fixed(position) => return refuse("a generated field stays as it is"),
                None if METADATA.contains(&root) => return refuse("metadata is the store's"),
                _ => {}
            }
            if let Operation::Increment(by) = operation
                && by.as_f64().is_none()
            {
                return refuse("it is not by a number");
            }
        }
        Ok(())
    }

    /// Applies a patch to a record's fields.
    ///
    /// # Errors
    /// As [`check_patch`](Self::check_patch); `Validation`; `InvalidValue`, if a field that it touches ends up nested too
    /// deeply or all of them too large for input; `UserCode` because of a default.
    pub(super) fn fields_of_patch(&self, record: &Record, patch: Patch) -> Result<Changed> {
        self.check_patch(&patch)?;
        let (mut values, mut extra) = (record.values.clone(), record.extra.clone());
        let (mut declared, mut undeclared): (Vec<usize>, Vec<Text>) = (Vec::new(), Vec::new());
        for (path, operation) in patch.operations {
            let (root, rest) = split(&path);
            let position = self.layout.position(root);
            let mut slot = match position {
                Some(position) => values[position].take(),
                None => extra.remove(root),
            };
            if let Some(position) = position
                && !(rest.is_none() && matches!(operation, Operation::Set(_) | Operation::Unset))
            {
                // It is absent because an operation took it away: what follows works on its default.
                self.fill_default(position, &mut slot)?;
            }
            let applied = operation.apply_at(&mut slot, rest);
            applied.map_err(|Fault { code, message }| self.refuse(vec![Issue::new(path.as_str(), code, message)]))?;
            match (position, slot) {
                (Some(position), slot) => {
                    values[position] = slot;
                    declared.push(position);
                }
                (None, Some(value)) => {
                    extra.insert(root, value);
                    undeclared.push(root.into());
                }
                (None, None) => {}
            }
        }
        declared.sort_unstable();
        declared.dedup();
        for position in &declared {
            self.fill_default(*position, &mut values[*position])?;
        }
        undeclared.sort_unstable();
        undeclared.dedup();

        // A patch is as good as an update by what it makes of the fields that it touches, and bounded like one.
        let of_declared =
            declared.iter().filter_map(|at| Some((self.fields[*at].name.as_str(), values[*at].as_ref()?)));
        let of_extra = undeclared.iter().filter_map(|name| Some((name.as_str(), extra.get(name)?)));
        check_bounds(of_declared.chain(of_extra))?;

        let mut findings = Findings::default();
        self.check_touched(&mut values, declared, &mut findings);
        for name in &undeclared {
            findings.issues.extend(extra.get_mut(name).and_then(|value| check_numbers(name, value)));
        }
        if findings.issues.is_empty() {
            Ok(Changed { values, extra, expires_at: Expiry::Default })
        } else {
            Err(self.refuse(findings.issues))
        }
    }
}

fn check_bounds<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> Result<()> {
    let mut bytes = 0;
    for (name, value) in fields {
        if is_too_deep(value, 1) {
            let reason = "nested more than 64 levels deep".to_owned();
            return Err(Error::InvalidValue { path: name.to_owned(), reason });
        }
        bytes += 24 + name.len() + value.estimated_bytes();
    }
    if bytes > MAX_BYTES {
        return Err(Error::InvalidValue { path: String::new(), reason: "larger than 16 MiB".to_owned() });
    }
    Ok(())
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is set is contents, and contents do not belong into logs.
        let operations = self.operations.iter().map(|(path, operation)| (operation.name(), path));
        f.write_str("Patch ")?;
        f.debug_list().entries(operations).finish()
    }
}
