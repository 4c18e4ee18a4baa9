//! A definition that has been checked, and what it says about its bucket.

use std::sync::Arc;

use crate::base::error::{Error, Issue};
use crate::base::name::BucketName;
use crate::base::value::{Key, Object, Value};
use crate::records::check::NamedField;
use crate::records::field::Generated;
use crate::records::migrate::Step;
use crate::records::record::Layout;

/// A definition without faults.
#[derive(Debug)]
pub struct Schema {
    pub(super) bucket: BucketName,
    pub(super) layout: Arc<Layout>,
    pub(super) key: usize,
    pub(super) fields: Box<[NamedField]>,
    pub(super) indexes: Box<[IndexRule]>,
    pub(super) autoincrements: bool,
    /// Positions of the fields that have a default.
    pub(super) defaulted: Box<[usize]>,
    /// Sorted by version, one for each at most.
    pub(super) steps: Box<[Step]>,
    pub(super) ttl_ms: Option<i64>,
    pub(super) max_size: Option<usize>,
    pub(super) request_window: usize,
    pub(super) persistent: bool,
    pub(super) ordered: bool,
    pub(super) schema_version: u32,
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

/// The fields of a new record that passed.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) key: Key,
    pub(super) values: Box<[Option<Value>]>,
    pub(super) extra: Object,
    pub(super) expires_at: Expiry,
}

/// The fields of a changed record that passed; its key stays.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) values: Box<[Option<Value>]>,
    pub(super) extra: Object,
    pub(super) expires_at: Expiry,
}

/// What a write says about when its record expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing: after the bucket's lifetime from the insert on, and as before at an update.
    #[default]
    Default,
    /// Not at all.
    Never,
    /// At this time, in milliseconds since the Unix epoch.
    At(i64),
}

impl Expiry {
    /// When a record that is inserted at `now` expires.
    pub(super) fn of_insert(self, now: i64, ttl_ms: Option<i64>) -> Option<i64> {
        self.of_update(ttl_ms.map(|ttl| now.saturating_add(ttl)))
    }

    /// When a record that is changed expires.
    pub(super) fn of_update(self, before: Option<i64>) -> Option<i64> {
        match self {
            Self::Default => before,
            Self::Never => None,
            Self::At(at) => Some(at),
        }
    }
}

impl Schema {
    /// The bucket's name.
    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    /// Whether the bucket is to be saved.
    pub fn persistent(&self) -> bool {
        self.persistent
    }

    /// Whether inserts may draw autoincrement numbers.
    pub fn draws_numbers(&self) -> bool {
        self.autoincrements
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

    /// How long records live that do not say so themselves, in milliseconds; none: for ever.
    pub fn ttl_ms(&self) -> Option<i64> {
        self.ttl_ms
    }

    /// Most records that the bucket holds; none: no bound.
    pub fn max_size(&self) -> Option<usize> {
        self.max_size
    }

    /// How many request ids the bucket remembers; 0: none.
    pub fn request_window(&self) -> usize {
        self.request_window
    }

    pub(super) fn refuse(&self, issues: Vec<Issue>) -> Error {
        Error::Validation { bucket: self.bucket.clone(), index: None, issues }
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
