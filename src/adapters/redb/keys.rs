//! Names and keys as bytes: injective, and ordered as what they stand for.

use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName, Subject};
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
fn pair(store: &str, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + store.len() + name.len());
    // Names have at most 128 bytes; a longer one could not be made.
    bytes.push(u8::try_from(store.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(store.as_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

fn table(kind: &str, store: &str, name: &str) -> String {
    format!("{kind}/{}/{store}/{name}", store.len())
}

/// Where a bucket's rows are filed.
pub(super) struct BucketPlaces {
    pub(super) pair: Vec<u8>,
    pub(super) rows: String,
    pub(super) requests: String,
}

impl BucketPlaces {
    pub(super) fn of(key: &BucketKey) -> Self {
        Self::named(key.store.as_str(), key.bucket.as_str())
    }

    pub(super) fn named(store: &str, name: &str) -> Self {
        let [rows, requests] = ["rows", "requests"].map(|kind| table(kind, store, name));
        Self { pair: pair(store, name), rows, requests }
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
        Self::named(key.store.as_str(), key.channel.as_str())
    }

    pub(super) fn named(store: &str, name: &str) -> Self {
        Self {
            pair: pair(store, name),
            history: table("history", store, name),
            ids: table("history_ids", store, name),
            hints: table("hints", store, name),
        }
    }

    pub(super) fn tables(&self) -> [&str; 3] {
        [&self.history, &self.ids, &self.hints]
    }
}

/// Whose section of the journal something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    Bucket { store: &'a str, name: &'a str },
    Channel { store: &'a str, name: &'a str },
}

/// Behind the last section of an owner.
const HEAD: u64 = u64::MAX;

/// The keys of one owner in the journal: all of them begin alike, and nobody else's are between them, because both names
/// have their lengths before them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct JournalKeys(Vec<u8>);

impl JournalKeys {
    pub(super) fn of(owner: Owner<'_>) -> Self {
        let (kind, store, name) = match owner {
            Owner::Bucket { store, name } => (JOURNALLED_BUCKET, store, name),
            Owner::Channel { store, name } => (JOURNALLED_CHANNEL, store, name),
        };
        let mut bytes = Vec::with_capacity(3 + store.len() + name.len());
        bytes.push(kind);
        for name in [store, name] {
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(name.as_bytes());
        }
        Self(bytes)
    }

    pub(super) fn of_bucket(key: &BucketKey) -> Self {
        Self::of(Owner::Bucket { store: key.store.as_str(), name: key.bucket.as_str() })
    }

    pub(super) fn of_channel(key: &ChannelKey) -> Self {
        Self::of(Owner::Channel { store: key.store.as_str(), name: key.channel.as_str() })
    }

    /// The owner whose key this is, and which of its sections; none for the head.
    pub(super) fn parse(key: &[u8]) -> Option<(Self, Option<u64>)> {
        let (beginning, number) = key.split_at_checked(key.len().checked_sub(8)?)?;
        owner(beginning)?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        Some((Self(beginning.to_vec()), (number != HEAD).then_some(number)))
    }

    pub(super) fn owner(&self) -> Option<Owner<'_>> {
        owner(&self.0)
    }

    /// The owner by its names; none if one of them cannot be a name.
    pub(super) fn subject(&self) -> Option<(StoreName, Subject)> {
        let (store, subject) = match self.owner()? {
            Owner::Bucket { store, name } => (store, Subject::Bucket(BucketName::stored(name)?)),
            Owner::Channel { store, name } => (store, Subject::Channel(ChannelId::new(name).ok()?)),
        };
        Some((StoreName::new(store).ok()?, subject))
    }

    pub(super) fn section(&self, number: u64) -> Vec<u8> {
        [self.0.as_slice(), &number.to_be_bytes()].concat()
    }

    /// Of the row behind the sections.
    pub(super) fn head(&self) -> Vec<u8> {
        self.section(HEAD)
    }
}

const JOURNALLED_BUCKET: u8 = b'b';
const JOURNALLED_CHANNEL: u8 = b'c';

fn owner(bytes: &[u8]) -> Option<Owner<'_>> {
    fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (length, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        Some((std::str::from_utf8(name).ok()?, rest))
    }
    let (kind, rest) = bytes.split_first()?;
    let (store, rest) = name(rest)?;
    let (name, rest) = name(rest)?;
    match (*kind, rest) {
        (JOURNALLED_BUCKET, []) => Some(Owner::Bucket { store, name }),
        (JOURNALLED_CHANNEL, []) => Some(Owner::Channel { store, name }),
        _ => None,
    }
}

/// A place in the journal, for people.
pub(super) fn show_journal_key(bytes: &[u8]) -> String {
    let Some((keys, section)) = JournalKeys::parse(bytes) else { return show(bytes) };
    let of = match keys.owner() {
        Some(Owner::Bucket { store, name }) => format!("bucket {store:?}, {name:?}"),
        Some(Owner::Channel { store, name }) => format!("channel {store:?}, {name:?}"),
        None => return show(bytes),
    };
    match section {
        Some(number) => format!("section {number} of {of}"),
        None => format!("head of {of}"),
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
    use crate::base::name::{BucketName, StoreName};

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
    fn a_place_in_the_journal_tells_whose_it_is_and_no_two_owners_share_a_beginning() {
        let owners = [
            Owner::Bucket { store: "s", name: "ab" },
            Owner::Bucket { store: "s", name: "abc" },
            Owner::Bucket { store: "sa", name: "b" },
            Owner::Channel { store: "s", name: "ab" },
        ];
        for owner in owners {
            let keys = JournalKeys::of(owner);
            assert_eq!(keys.owner(), Some(owner));
            assert_eq!(JournalKeys::parse(&keys.section(7)), Some((keys.clone(), Some(7))));
            assert_eq!(JournalKeys::parse(&keys.head()), Some((keys.clone(), None)));
            for other in owners.into_iter().filter(|other| *other != owner).map(JournalKeys::of) {
                let between = (keys.section(0)..=keys.head()).contains(&other.section(0x6363_6363_6363_6363));
                assert!(!between, "{owner:?}, {other:?}");
            }
        }
        assert_eq!(show_journal_key(&JournalKeys::of(owners[0]).section(7)), "section 7 of bucket \"s\", \"ab\"");
        assert_eq!(show_journal_key(&JournalKeys::of(owners[3]).head()), "head of channel \"s\", \"ab\"");
        assert_eq!(show_journal_key(b"x"), "key \"x\"");
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
