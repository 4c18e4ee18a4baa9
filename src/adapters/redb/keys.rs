//! Names and keys as bytes: injective, and ordered as what they stand for.

use crate::base::name::{BucketKey, ChannelKey, StoreName};
use crate::base::value::{Key, KeyRef};

const INT: u8 = 1;
const TEXT: u8 = 2;
/// Most characters of a key that are shown in an error.
const SHOWN: usize = 80;

/// The sign bit flipped, so that bytewise order is numeric order.
fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

fn number(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?) ^ i64::MIN)
}

/// Appends the bytes of a record's key.
pub(super) fn push_record_key(key: &Key, bytes: &mut Vec<u8>) {
    match key.parts() {
        KeyRef::Int(number) => {
            bytes.push(INT);
            bytes.extend_from_slice(&ordered(number));
        }
        KeyRef::Text(text) => {
            bytes.push(TEXT);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// Replaces what is in `bytes` by those of a record's key.
pub(super) fn set_record_key(key: &Key, bytes: &mut Vec<u8>) {
    bytes.clear();
    push_record_key(key, bytes);
}

/// The first bytes of a record's key, as a number: where two of them differ, their order is that of the keys.
pub(super) fn record_key_start(key: &Key) -> (u8, u64) {
    match key.parts() {
        KeyRef::Int(number) => (INT, u64::from_be_bytes(ordered(number))),
        KeyRef::Text(text) => {
            let mut start = [0; 8];
            for (to, from) in start.iter_mut().zip(text.as_bytes()) {
                *to = *from;
            }
            (TEXT, u64::from_be_bytes(start))
        }
    }
}

/// The bytes of a message's place in its history.
pub(super) fn history_key(lamport: i64, id: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + id.len());
    bytes.extend_from_slice(&ordered(lamport));
    bytes.extend_from_slice(id);
    bytes
}

/// A message's place taken apart, if the bytes are one.
pub(super) fn history_parts(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (lamport, id) = bytes.split_at_checked(8)?;
    Some((number(lamport)?, id))
}

/// Two names as one key. The store's length comes first, so that no two pairs share a key.
fn pair(store: &StoreName, name: &str) -> Vec<u8> {
    let store = store.as_str();
    let mut bytes = Vec::with_capacity(1 + store.len() + name.len());
    // Names have at most 128 bytes; a longer one could not be made.
    bytes.push(u8::try_from(store.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(store.as_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

fn table(kind: &str, store: &StoreName, name: &str) -> String {
    format!("{kind}/{}/{store}/{name}", store.as_str().len())
}

/// Where a bucket's rows are filed.
pub(super) struct BucketPlaces {
    pub(super) pair: Vec<u8>,
    pub(super) rows: String,
    pub(super) requests: String,
}

impl BucketPlaces {
    pub(super) fn of(key: &BucketKey) -> Self {
        let name = key.bucket.as_str();
        let [rows, requests] = ["rows", "requests"].map(|kind| table(kind, &key.store, name));
        Self { pair: pair(&key.store, name), rows, requests }
    }
}

/// Where a channel's rows are filed.
pub(super) struct ChannelPlaces {
    pub(super) pair: Vec<u8>,
    pub(super) history: String,
    pub(super) ids: String,
    pub(super) hints: String,
}

impl ChannelPlaces {
    pub(super) fn of(key: &ChannelKey) -> Self {
        let name = key.channel.as_str();
        Self {
            pair: pair(&key.store, name),
            history: table("history", &key.store, name),
            ids: table("history_ids", &key.store, name),
            hints: table("hints", &key.store, name),
        }
    }

    pub(super) fn tables(&self) -> [&str; 3] {
        [&self.history, &self.ids, &self.hints]
    }
}

fn shortened(text: impl Iterator<Item = char>) -> String {
    let mut text = text;
    let mut shown: String = text.by_ref().take(SHOWN).collect();
    if text.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Any key, for people.
pub(super) fn show(bytes: &[u8]) -> String {
    format!("key \"{}\"", shortened(bytes.escape_ascii().map(char::from)))
}

/// A record's key, for people. A text may be a person's name or address, which has no place in a log: its checksum stands
/// for it, by which whoever has the file can tell which one it is.
pub(super) fn show_record_key(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((&INT, rest)) => number(rest).map(|number| format!("key {number}")),
        _ => None,
    }
    .unwrap_or_else(|| format!("key of {} bytes with crc32c {:08x}", bytes.len(), crc32c::crc32c(bytes)))
}

/// The bytes of a revision: bytewise order is that of the revisions.
pub(super) fn revision_key(revision: u64) -> [u8; 8] {
    revision.to_be_bytes()
}

/// A revision, for people.
pub(super) fn show_revision(bytes: &[u8]) -> String {
    match bytes.try_into() {
        Ok(bytes) => format!("revision {}", u64::from_be_bytes(bytes)),
        Err(_) => show(bytes),
    }
}

/// A pair of names, for people.
pub(super) fn show_pair(bytes: &[u8]) -> String {
    let parts = bytes.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
    match parts.map(|(store, name)| (std::str::from_utf8(store), std::str::from_utf8(name))) {
        Some((Ok(store), Ok(name))) => format!("key {store:?}, {name:?}"),
        _ => show(bytes),
    }
}

/// A message's place, for people.
pub(super) fn show_history_key(bytes: &[u8]) -> String {
    match history_parts(bytes) {
        Some((lamport, id)) => {
            format!("key {lamport}, \"{}\"", shortened(id.escape_ascii().map(char::from)))
        }
        None => show(bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::name::BucketName;

    fn bytes_of(key: &Key) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_record_key(key, &mut bytes);
        bytes
    }

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::from),
            "\\PC{1,8}".prop_map(Key::from),
            "[ab\u{0}]{1,12}".prop_map(Key::from)
        ]
    }

    proptest! {
        #[test]
        fn bytewise_order_is_key_order(left in any_key(), right in any_key()) {
            prop_assert_eq!(bytes_of(&left).cmp(&bytes_of(&right)), left.cmp(&right));
            let starts = record_key_start(&left).cmp(&record_key_start(&right));
            prop_assert!(starts.is_eq() || starts == left.cmp(&right));
        }

        #[test]
        fn bytewise_order_is_history_order(left: (i64, Vec<u8>), right: (i64, Vec<u8>)) {
            let bytes = |(lamport, id): &(i64, Vec<u8>)| history_key(*lamport, id);
            prop_assert_eq!(bytes(&left).cmp(&bytes(&right)), left.cmp(&right));
            let place = bytes(&left);
            prop_assert_eq!(history_parts(&place), Some((left.0, left.1.as_slice())));
        }

        #[test]
        fn no_two_pairs_of_names_share_a_place(a in "[a/1]{1,4}", b in "[a/1]{1,4}", c in "[a/1]{1,4}", d in "[a/1]{1,4}") {
            let places = |store: &str, bucket: &str| {
                let key = BucketKey::new(StoreName::new(store).unwrap(), BucketName::new(bucket).unwrap());
                let places = BucketPlaces::of(&key);
                (places.pair, places.rows, places.requests)
            };
            let (left_pair, left_rows, left_requests) = places(&a, &b);
            let (right_pair, right_rows, right_requests) = places(&c, &d);
            let same = (a, b) == (c, d);
            prop_assert_eq!(left_pair == right_pair, same);
            prop_assert_eq!(left_rows == right_rows, same);
            prop_assert_eq!(left_requests == right_requests, same);
            prop_assert_ne!(left_rows, right_requests);
        }
    }

    #[test]
    fn keys_are_shown_as_people_know_them() {
        assert_eq!(show_record_key(&bytes_of(&Key::from(-7))), "key -7");
        assert_eq!(show_record_key(&bytes_of(&Key::from("a\"b"))), "key of 4 bytes with crc32c ac53b18c");
        assert!(show_record_key(&[9, 255]).starts_with("key of 2 bytes with crc32c "));
        assert_eq!(show_history_key(&history_key(3, b"m1")), "key 3, \"m1\"");
        assert_eq!(show_revision(&revision_key(7)), "revision 7");
        assert_eq!(show_revision(b"no revision"), "key \"no revision\"");
        assert_eq!(show_pair(&[1, b's', b'b']), "key \"s\", \"b\"");
        assert!(show(&[b'x'; 300]).chars().count() < 100);
    }
}
