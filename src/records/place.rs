//! Where a record stands in the order of its bucket.

use crate::base::value::Key;
use crate::records::record::Record;
use crate::records::schema::Schema;

/// A place in the order of a bucket: of insertion, or of keys where the bucket is ordered. All places of one bucket are
/// of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The record's hidden position.
    At(u64),
    /// The record's key.
    Key(Key),
}

impl Schema {
    /// Where a record stands.
    pub(super) fn place_of(&self, record: &Record) -> Place {
        if self.ordered() { Place::Key(record.key.clone()) } else { Place::At(record.place) }
    }
}
