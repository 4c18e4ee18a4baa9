//! Stored records of an earlier schema version into the defined one.

use std::fmt::{self, Display};
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::value::{MAX_DEPTH, Object, Text, Value};
use crate::records::check::is_too_deep;
use crate::records::record::{METADATA, Metadata, Record};
use crate::records::schema::Schema;
use crate::records::user_code::guarded;

type Code = dyn Fn(Object) -> Result<Object, String> + Send + Sync;

/// What turns a record of version `from` into one of the next.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) from: u32,
    code: Arc<Code>,
}

impl Step {
    pub(super) fn new<F, E>(from: u32, code: F) -> Self
    where
        F: Fn(Object) -> Result<Object, E> + Send + Sync + 'static,
        E: Display,
    {
        Self { from, code: Arc::new(move |record| code(record).map_err(|error| error.to_string())) }
    }

    fn run(&self, record: Object) -> Result<Object, String> {
        let from = self.from;
        match guarded("migrate", || (self.code)(record)) {
            Ok(Ok(object)) if object.iter().any(|(_, value)| is_too_deep(value, 1)) => {
                Err(format!("the step from version {from}: nested more than {MAX_DEPTH} levels deep"))
            }
            Ok(Ok(object)) => Ok(object),
            Ok(Err(message)) => Err(format!("the step from version {from}: {message}")),
            Err(Error::UserCode { .. }) => Err(format!("the step from version {from} panicked")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Schema {
    /// The steps that a record of this version has to go through.
    pub(super) fn steps_from(&self, version: u32) -> &[Step] {
        &self.steps[self.steps.partition_point(|step| step.from < version)..]
    }

    /// Takes a bound record through steps. The answer is what they put under the name of the key; it is not checked yet,
    /// nor are the fields.
    pub(super) fn migrate(&self, record: &mut Record, steps: &[Step]) -> Result<Option<Value>, String> {
        let mut object = self.to_object(record);
        for step in steps {
            object = step.run(object)?;
        }
        let mut key = None;
        let mut undeclared = Vec::new();
        record.values.fill(None);
        for (name, value) in object {
            match self.layout.position(&name) {
                Some(position) if position == self.key => key = Some(value),
                Some(position) => record.values[position] = Some(value),
                // The store's, and kept.
                None if METADATA.contains(&name.as_str()) => {}
                None => undeclared.push((name, value)),
            }
        }
        record.extra = Object::from_unsorted(undeclared);
        Ok(key)
    }

    /// What a step is given: fields, key and metadata.
    fn to_object(&self, record: &mut Record) -> Object {
        let fields = self.fields.iter().zip(&mut record.values);
        let fields = fields.filter_map(|(field, slot)| Some((field.name.clone(), slot.take()?)));
        let mut entries: Vec<(Text, Value)> = fields.collect();
        entries.extend(std::mem::take(&mut record.extra));
        entries.push((self.fields[self.key].name.clone(), record.key.as_value().clone()));
        let Metadata { version, created_at, updated_at, expires_at } = record.metadata;
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        let metadata = METADATA.into_iter().zip([Some(version), Some(created_at), Some(updated_at), expires_at]);
        entries.extend(metadata.filter_map(|(name, number)| Some((name.into(), Value::Int(number?)))));
        Object::from_unsorted(entries)
    }
}
