//! Which records are asked for.

use crate::base::error::{Error, Result};
use crate::base::value::{Object, Value};
use crate::records::record::Record;

/// A condition on records: equalities by path, all of which must hold.
///
/// A path steps through objects, its names separated by `.`; past anything else the value is absent, and absent equals
/// Null. An object works as a filter too: one equality per name.
///
/// ```
/// use ractor_persistence::record;
/// use ractor_persistence::records::Filter;
/// let admins = Filter::eq("role", "admin").and(Filter::eq("address.city", "Brno"));
/// assert_eq!(Filter::from(record! { "role": "admin", "address.city": "Brno" }), admins);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Filter {
    /// Sorted by path when compared, so that the order of writing does not matter.
    equalities: Vec<(String, Value)>,
}

impl Filter {
    /// Every record.
    pub fn all() -> Self {
        Self::default()
    }

    /// The value at `path` equals `value`; Null also equals an absent one.
    pub fn eq(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { equalities: vec![(path.into(), value.into())] }
    }

    /// Both hold.
    pub fn and(mut self, other: Self) -> Self {
        self.equalities.extend(other.equalities);
        self
    }

    pub(super) fn equalities(&self) -> &[(String, Value)] {
        &self.equalities
    }

    /// Refuses what no record could be compared with.
    pub(super) fn check(&self) -> Result<()> {
        for (path, value) in &self.equalities {
            if path.split('.').any(str::is_empty) {
                return Err(Error::invalid_argument(format!("path {path:?} has an empty name")));
            }
            if value.non_finite().is_some() {
                return Err(Error::invalid_argument(format!("the number compared with {path:?} is not finite")));
            }
        }
        Ok(())
    }

    /// Whether the record is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        self.equalities.iter().all(|(path, value)| record.value_at(path).as_ref() == value)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |filter: &Self| {
            let mut equalities = filter.equalities.clone();
            equalities.sort();
            equalities
        };
        sorted(self) == sorted(other)
    }
}

impl From<Object> for Filter {
    fn from(object: Object) -> Self {
        Self { equalities: object.into_iter().map(|(name, value)| (name.to_string(), value)).collect() }
    }
}
