//! A stored bucket into a table: every record is bound to the definition and checked against it.

use std::sync::Arc;

use crate::base::error::{Error, Misfit, Result};
use crate::base::value::Key;
use crate::records::change::BucketSnapshot;
use crate::records::record::Record;
use crate::records::schema::{Fields, Schema};
use crate::records::table::Table;

/// How many misfits an error lists.
const LISTED: usize = 20;

/// A table made of what was stored.
#[derive(Debug)]
pub struct Restored {
    /// The table.
    pub table: Table,
    /// Whether it differs from what was stored, by a default filled in or a later schema version: then the stored form
    /// is to be replaced.
    pub altered: bool,
}

impl Table {
    /// Builds the table of a stored bucket: binds records to the definition, fills in defaults of fields that are new,
    /// checks every field, key and unique index, and rebuilds the indexes.
    ///
    /// # Errors
    /// `SchemaTooNew`; `Migration`, if records do not fit.
    pub fn restore(schema: Arc<Schema>, snapshot: BucketSnapshot) -> Result<Restored> {
        let BucketSnapshot { schema_version: stored, revision, mut counter, mut records } = snapshot;
        let defined = schema.schema_version();
        if stored > defined {
            return Err(Error::SchemaTooNew { bucket: schema.bucket().clone(), stored, defined });
        }
        let mut misfits = Misfits::default();
        let mut altered = stored != defined;
        for record in &mut records {
            match fit(&schema, record) {
                Ok(changed) => altered |= changed,
                Err(reason) => misfits.add(record.key().clone(), reason),
            }
            if let Some(number) = schema.highest_number(&record.values, &record.key) {
                counter = counter.max(number);
            }
        }
        misfits.check(&schema, stored)?;
        records.sort_by(|left, right| (left.place, left.key()).cmp(&(right.place, right.key())));
        if records.windows(2).any(|pair| pair[0].place == pair[1].place) {
            // Only an adapter that makes records up does this: they get places in the order of their keys.
            for (place, record) in (0..).zip(&mut records) {
                Arc::make_mut(record).place = place;
            }
            altered = true;
        }
        let (table, twice) = Table::from_parts(schema, records, counter, revision);
        for key in twice {
            misfits.add(key, "two records have this key");
        }
        for (index, record, next) in table.collisions() {
            let reason = format!("two records share a value of unique index {index}");
            misfits.add(record.key().clone(), reason.clone());
            misfits.add(next.key().clone(), reason);
        }
        misfits.check(table.schema(), stored)?;
        Ok(Restored { table, altered })
    }
}

/// Binds a record and checks it; answers whether that changed anything but the positions of its fields. A record that
/// nobody else holds, as after a load, is changed in place.
fn fit(schema: &Schema, record: &mut Arc<Record>) -> std::result::Result<bool, String> {
    let record = Arc::make_mut(record);
    record.bind(&schema.layout);
    record.values[schema.key] = Some(record.key.as_value().clone());
    let checked = schema.check_all(std::mem::take(&mut record.values), std::mem::take(&mut record.extra));
    let (fields, altered) =
        checked.map_err(|issues| issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let Fields { key, values, extra } = fields;
    (record.key, record.values, record.extra) = (key, values, extra);
    Ok(altered)
}

#[derive(Default)]
struct Misfits {
    listed: Vec<Misfit>,
    total: usize,
}

impl Misfits {
    fn add(&mut self, key: Key, reason: impl Into<String>) {
        self.total += 1;
        if self.listed.len() < LISTED {
            self.listed.push(Misfit::new(key, reason));
        }
    }

    fn check(&mut self, schema: &Schema, from: u32) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        Err(Error::Migration {
            bucket: schema.bucket().clone(),
            from,
            to: schema.schema_version(),
            records: std::mem::take(&mut self.listed),
            total: self.total,
        })
    }
}
