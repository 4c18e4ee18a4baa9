//! Input into the fields of a record: generated, defaulted, merged, checked.

use std::cmp::Ordering;

use crate::base::error::{Error, Issue, IssueCode, Result};
use crate::base::value::{Key, Object, Value};
use crate::records::check::{Findings, check_numbers};
use crate::records::field::Generated;
use crate::records::generate::{cuid_text, uuid_text};
use crate::records::record::METADATA;
use crate::records::schema::{Changed, Draws, Expiry, Fields, Schema};

/// The one name of metadata that input may give.
const EXPIRES_AT: &str = METADATA[3];

impl Schema {
    /// Turns an insert's input into fields: generated ones and defaults filled in, everything checked. `next` is the
    /// number for autoincrement fields, none if there is none left.
    ///
    /// # Errors
    /// `Validation`, `CounterExhausted`; `UserCode` and `InvalidValue` because of a default.
    pub(super) fn fields_of_insert(&self, input: Object, next: Option<i64>, draws: &mut Draws<'_>) -> Result<Fields> {
        let mut values = vec![None; self.fields.len()].into_boxed_slice();
        let mut undeclared = Vec::new();
        let mut given = None;
        // Both are sorted by name: one pass over the two finds every position.
        let mut declared = self.layout.by_name();
        let mut next_declared = declared.next();
        for (name, value) in input {
            let position = loop {
                let Some((position, own)) = next_declared else { break None };
                match own.as_str().cmp(name.as_str()) {
                    Ordering::Less => next_declared = declared.next(),
                    Ordering::Equal => {
                        next_declared = declared.next();
                        break Some(position);
                    }
                    Ordering::Greater => break None,
                }
            };
            match position {
                Some(position) => values[position] = Some(value),
                None if name == EXPIRES_AT => given = Some(value),
                None if METADATA.contains(&name.as_str()) => {}
                None => undeclared.push((name, value)),
            }
        }
        self.generate(&mut values, next, draws)?;
        self.fill_defaults(&mut values)?;
        let mut extra = Object::from_unsorted(undeclared);
        let mut findings = Findings::default();
        self.check_all(&mut values, &mut extra, &mut findings);
        let expires_at = check_expiry(given, &mut findings);
        match values[self.key].take().and_then(Key::from_value) {
            Some(key) if findings.issues.is_empty() => Ok(Fields { key, values, extra, expires_at }),
            _ => Err(self.refuse(findings.issues)),
        }
    }

    /// Merges an update's changes over the top level of a record's fields; key, generated fields and metadata but
    /// `_expires_at` are left out of the changes.
    ///
    /// # Errors
    /// `Validation`.
    pub(super) fn fields_of_update(
        &self,
        mut values: Box<[Option<Value>]>,
        mut extra: Object,
        changes: Object,
    ) -> Result<Changed> {
        let mut touched = Vec::new();
        let mut undeclared = Vec::new();
        let mut given = None;
        for (name, mut value) in changes {
            match self.layout.position(&name) {
                Some(position) if self.is_fixed(position) => {}
                Some(position) => {
                    values[position] = Some(value);
                    touched.push(position);
                }
                None if name == EXPIRES_AT => given = Some(value),
                None if METADATA.contains(&name.as_str()) => {}
                None => {
                    undeclared.extend(check_numbers(&name, &mut value));
                    extra.insert(name, value);
                }
            }
        }
        let mut findings = Findings::default();
        self.check_touched(&mut values, touched, &mut findings);
        findings.issues.extend(undeclared);
        let expires_at = check_expiry(given, &mut findings);
        if findings.issues.is_empty() {
            Ok(Changed { values, extra, expires_at })
        } else {
            Err(self.refuse(findings.issues))
        }
    }

    /// Whether changes leave a field alone: the key, and what is generated.
    pub(super) fn is_fixed(&self, position: usize) -> bool {
        position == self.key || self.fields[position].rule.generated.is_some()
    }

    fn generate(&self, values: &mut [Option<Value>], next: Option<i64>, draws: &mut Draws<'_>) -> Result<()> {
        for (slot, field) in values.iter_mut().zip(&self.fields) {
            if let Some(generated) = field.rule.generated
                && slot.as_ref().is_none_or(Value::is_null)
            {
                *slot = Some(match generated {
                    Generated::Uuid => uuid_text((draws.uuid)()),
                    Generated::Cuid => cuid_text(draws.now, (draws.uuid)()),
                    Generated::Timestamp => Value::Int(draws.now),
                    Generated::Autoincrement => {
                        Value::Int(next.ok_or_else(|| Error::CounterExhausted { bucket: self.bucket.clone() })?)
                    }
                });
            }
        }
        Ok(())
    }

    /// Puts defaults where nothing is; answers whether there was such a place.
    ///
    /// # Errors
    /// `UserCode` and `InvalidValue` because of a default.
    pub(super) fn fill_defaults(&self, values: &mut [Option<Value>]) -> Result<bool> {
        let mut filled = false;
        for position in &self.defaulted {
            filled |= self.fill_default(*position, &mut values[*position])?;
        }
        Ok(filled)
    }

    /// As [`fill_defaults`](Self::fill_defaults), of one field.
    pub(super) fn fill_default(&self, position: usize, slot: &mut Option<Value>) -> Result<bool> {
        let field = &self.fields[position];
        let (None, Some(default)) = (&slot, &field.rule.default) else { return Ok(false) };
        *slot = Some(default.make(&field.name)?);
        Ok(true)
    }

    /// Checks every field in schema order, the key's value in its slot, then what is undeclared.
    pub(super) fn check_all(&self, values: &mut [Option<Value>], extra: &mut Object, findings: &mut Findings) {
        for (slot, field) in values.iter_mut().zip(&self.fields) {
            field.check(slot, findings);
        }
        findings.issues.extend(extra.values_mut().filter_map(|(name, value)| check_numbers(name, value)));
    }

    /// Checks fields that were changed, in schema order. The others were checked when they were written.
    pub(super) fn check_touched(&self, values: &mut [Option<Value>], mut touched: Vec<usize>, findings: &mut Findings) {
        touched.sort_unstable();
        touched.dedup();
        for position in touched {
            self.fields[position].check(&mut values[position], findings);
        }
    }
}

/// Reads `_expires_at` as it was given.
fn check_expiry(given: Option<Value>, findings: &mut Findings) -> Expiry {
    match given {
        None => Expiry::Default,
        Some(Value::Null) => Expiry::Never,
        Some(value) => match value.as_i64() {
            Some(at) => Expiry::At(at),
            None => {
                let message = format!("is {}, not milliseconds or null", value.kind());
                findings.issues.push(Issue::new(EXPIRES_AT, IssueCode::Type, message));
                Expiry::Default
            }
        },
    }
}
