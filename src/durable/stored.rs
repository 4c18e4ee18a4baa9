//! The stored form of a durable value: a record whose key is the value's name, with the fields `schema`, the version of
//! its type, and `value`.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, Misfit, Place, Result};
use crate::base::name::{BucketName, DurableName};
use crate::base::value::{Object, Value, ValueError, from_value, to_value};
use crate::durable::options::DurableOptions;
use crate::records::{Record, guarded};

const SCHEMA: &str = "schema";
const VALUE: &str = "value";

/// What errors about one value name as their bucket.
pub(super) fn place_of(name: &DurableName) -> BucketName {
    BucketName::reserved(&format!("durable value {name}"))
}

fn invalid(error: ValueError) -> Error {
    Error::InvalidValue { path: error.path, reason: error.reason }
}

/// The fields of a value's record.
///
/// # Errors
/// `InvalidValue` with the path within the value, where that is what cannot be stored.
pub(super) fn encode<S: Serialize>(schema_version: u32, value: &S) -> Result<Object> {
    let mut value = to_value(value).map_err(invalid)?;
    if let Some(path) = value.settle_numbers() {
        return Err(Error::InvalidValue { path, reason: "is no finite number, or one beyond 64 bits".to_owned() });
    }
    let mut fields = Object::new();
    fields.insert(SCHEMA, schema_version);
    fields.insert(VALUE, value);
    fields.check_limits().map_err(invalid)?;
    Ok(fields)
}

/// A value from its record, taken through the steps that it needs; answers, too, whether its stored form is an earlier
/// one.
///
/// # Errors
/// `SchemaTooNew`, `Migration`, `Decode`; `Corrupt` for a record of another form.
pub(super) fn decode<S: DeserializeOwned>(
    name: &DurableName,
    record: &Record,
    options: &DurableOptions<S>,
) -> Result<(S, bool)> {
    let malformed = |reason: &str| {
        let bucket = place_of(name);
        Error::corrupt(Place::new(bucket.to_string()), reason)
    };
    let stored = record.get(SCHEMA).and_then(Value::as_i64).and_then(|version| u32::try_from(version).ok());
    let stored = stored.filter(|version| *version > 0).ok_or_else(|| malformed("it has no schema version"))?;
    let value = record.get(VALUE).ok_or_else(|| malformed("it has no value"))?;
    let defined = options.schema_version;
    if stored > defined {
        return Err(Error::SchemaTooNew { bucket: place_of(name), stored, defined });
    }
    let misfit = |reason: String| Error::Migration {
        bucket: place_of(name),
        from: stored,
        to: defined,
        records: vec![Misfit::new(record.key().clone(), reason)],
        total: 1,
    };
    let steps = &options.steps[options.steps.partition_point(|step| step.from < stored)..];
    let migrated = match steps {
        [] => None,
        steps => {
            let migrated = steps.iter().try_fold(value.clone(), |value, step| step.run(value));
            Some(migrated.map_err(misfit)?)
        }
    };
    let read = guarded("reading a durable value", || from_value(migrated.as_ref().unwrap_or(value)))?;
    let read = read.map_err(|error| Error::Decode {
        bucket: Some(place_of(name)),
        key: record.key().clone(),
        source: Arc::new(error),
    })?;
    Ok((read, stored != defined))
}
