//! The parts of rows and keys that are read by hand, for fuzzing. Rows' envelopes, records and MessagePack have targets of
//! their own.

use crate::adapters::redb::journal::{Head, Stand};
use crate::adapters::redb::keys::{history_key, history_parts};
use crate::adapters::redb::rows::{BucketHeader, ChannelHeader};
use crate::base::codec;

/// Reads these bytes as a section of the journal, as a key of the history, and as each kind of header. Answers how many of
/// the readings succeeded.
pub fn read(bytes: &[u8]) -> usize {
    let mut succeeded = 0;
    if let Some((_, operations)) = Stand::split(bytes) {
        let mut length = 0;
        let mut whole = true;
        for operation in operations {
            whole &= operation.is_some();
            length += operation.map_or(0, |operation| operation.key.len() + operation.row.len());
        }
        assert!(length <= bytes.len(), "a section has no more than its bytes");
        succeeded += usize::from(whole);
    }
    if let Some((lamport, id)) = history_parts(bytes) {
        assert_eq!(history_key(lamport, id), bytes, "a key is written in one way");
        succeeded += 1;
    }
    succeeded += usize::from(codec::deserialize::<Head>(bytes).is_ok());
    succeeded += usize::from(codec::deserialize::<BucketHeader>(bytes).is_ok());
    succeeded += usize::from(codec::deserialize::<ChannelHeader>(bytes).is_ok());
    succeeded
}

/// Bytes to begin from: a section with an operation, a key and headers.
pub fn seeds() -> Vec<Vec<u8>> {
    let stand = [[0; 28].as_slice(), &[1]].concat();
    let operation = [&[0, 1, 0, 0, 0, 2, 0, 0, 0][..], b"k", b"ro"].concat();
    let mut seeds = vec![[stand.clone(), operation].concat(), stand, history_key(-7, b"message")];
    for pack in [
        |bytes: &mut Vec<u8>| codec::serialize(&Head::default(), bytes),
        |bytes: &mut Vec<u8>| codec::serialize(&BucketHeader::default(), bytes),
        |bytes: &mut Vec<u8>| codec::serialize(&ChannelHeader::default(), bytes),
    ] {
        let mut bytes = Vec::new();
        if pack(&mut bytes).is_ok() {
            seeds.push(bytes);
        }
    }
    seeds
}
