//! Going over many records that nobody has looked at for a while.
//!
//! They lie all over memory, and a processor that goes from one to the next waits for memory several times per record. A
//! look at a few of them in advance lets it fetch those all at once: packing a window of changes took two thirds of the
//! time with it.

use std::hint::black_box;
use std::sync::Arc;

use crate::records::record::Record;

/// How many are fetched at a time: what there is to see of so many fits a first-level cache.
const AT_ONCE: usize = 16;

/// The records in order, each fetched with its values.
#[cfg(feature = "redb")]
pub(crate) fn fetched(records: &[Arc<Record>]) -> impl Iterator<Item = &Arc<Record>> {
    use crate::base::value::Value;

    let first_byte = |value: &Value| match value {
        Value::String(text) => text.as_bytes().first().copied(),
        _ => None,
    };
    records.chunks(AT_ONCE).flat_map(move |few| {
        black_box(few.iter().map(|record| record.values.len()).max());
        black_box(few.iter().flat_map(|record| &record.values).flatten().filter_map(first_byte).max());
        few
    })
}

/// Lets go of the records.
pub(crate) fn release(records: Vec<Arc<Record>>) {
    let mut left = records.into_iter();
    while !left.as_slice().is_empty() {
        black_box(left.as_slice().iter().take(AT_ONCE).map(Arc::strong_count).max());
        left.by_ref().take(AT_ONCE).for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::record::Metadata;

    fn records(count: i64) -> Vec<Arc<Record>> {
        let metadata = Metadata { version: 1, created_at: 1, updated_at: 1, expires_at: None };
        (0..count).map(|key| Arc::new(Record::from_parts(key, 0, metadata, crate::record! { "text": "" }))).collect()
    }

    #[cfg(feature = "redb")]
    #[test]
    fn every_record_is_fetched_once_and_in_order() {
        for count in [0, 1, 15, 16, 17, 32, 100] {
            let records = records(count);
            assert!(fetched(&records).map(|record| record.key()).eq(records.iter().map(|record| record.key())));
        }
    }

    #[test]
    fn every_record_is_let_go_of() {
        for count in [0, 1, 15, 16, 17, 32, 100] {
            let kept = records(count);
            release(kept.clone());
            assert!(kept.iter().all(|record| Arc::strong_count(record) == 1));
        }
    }
}
