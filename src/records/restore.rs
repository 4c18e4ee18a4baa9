//! A stored bucket into a table: every record is bound to the definition and checked against it.

use std::sync::Arc;

use crate::base::error::{Error, Misfit, Result};
use crate::base::value::Key;
use crate::records::change::BucketSnapshot;
use crate::records::record::Record;
use crate::records::schema::Schema;
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
            match fit(&schema, Arc::clone(record)) {
                Ok((fitting, changed)) => {
                    if let Some(number) = schema.highest_number(&fitting.values, &fitting.key) {
                        counter = counter.max(number);
                    }
                    *record = fitting;
                    altered |= changed;
                }
                Err(reason) => misfits.add(record.key().clone(), reason),
            }
        }
        records.sort_by(|left, right| (left.place, left.key()).cmp(&(right.place, right.key())));
        if records.windows(2).any(|pair| pair[0].place == pair[1].place) {
            // Only an adapter that makes records up does this: they get places in the order of their keys.
            for (place, record) in (0..).zip(&mut records) {
                Arc::make_mut(record).place = place;
            }
            altered = true;
        }
        duplicate_keys(&records, &mut misfits);
        misfits.check(&schema, stored)?;
        let table = Table::from_parts(schema, records, counter, revision);
        for (index, record, next) in table.collisions() {
            let reason = format!("two records share a value of unique index {index}");
            misfits.add(record.key().clone(), reason.clone());
            misfits.add(next.key().clone(), reason);
        }
        misfits.check(table.schema(), stored)?;
        Ok(Restored { table, altered })
    }
}

/// Binds a record and checks it; answers whether that changed anything but the positions of its fields.
fn fit(schema: &Schema, record: Arc<Record>) -> std::result::Result<(Arc<Record>, bool), String> {
    let bound = record.bind(&schema.layout);
    let mut values = bound.values.clone();
    values[schema.key] = Some(bound.key.as_value().clone());
    let fields = schema
        .check_all(values, bound.extra.clone())
        .map_err(|issues| issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    // Debug-free comparison by kind too: a coerced Int equals its Float, but is stored differently.
    let same = fields.key == bound.key
        && fields.extra == bound.extra
        && fields.values.iter().zip(&bound.values).all(|(new, old)| {
            new == old && new.as_ref().map(std::mem::discriminant) == old.as_ref().map(std::mem::discriminant)
        });
    if same {
        return Ok((bound, false));
    }
    let Record { layout, metadata, place, .. } = Arc::unwrap_or_clone(bound);
    Ok((
        Arc::new(Record { layout, key: fields.key, values: fields.values, extra: fields.extra, metadata, place }),
        true,
    ))
}

fn duplicate_keys(records: &[Arc<Record>], misfits: &mut Misfits) {
    let mut seen = hashbrown::HashSet::with_capacity(records.len());
    for record in records {
        if !seen.insert(record.key()) {
            misfits.add(record.key().clone(), "two records have this key");
        }
    }
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
