//! What is saved comes back as it was, over deltas, drops and reopening.

use proptest::prelude::*;

use super::*;
use crate::adapters::redb::rows;
use crate::base::name::MessageId;
use crate::base::value::Value;
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

#[tokio::test]
async fn a_bucket_that_was_never_saved_is_none_and_an_empty_one_is_empty() {
    let place = Place::new();
    let adapter = place.open().await;
    assert_eq!(adapter.load_bucket(&bucket("users")).await.unwrap(), None);
    let empty = BucketSnapshot::new(3, 9, 42, Vec::new());
    adapter.save_bucket(&bucket("users"), &BucketChange::Full(empty.clone())).await.unwrap();
    assert_eq!(adapter.load_bucket(&bucket("users")).await.unwrap(), Some(empty));
}

#[tokio::test]
async fn every_kind_of_value_key_and_metadata_survives_a_reopening() {
    let place = Place::new();
    let fields = record! {
        "null": null, "bool": true, "int": i64::MIN, "float": 0.1, "whole": 2.0, "text": "\u{0}\u{1f600}",
        "bytes": &[0_u8, 255][..], "list": [1, [2]], "object": { "$bytes": "AA==" },
    };
    let metadata = Metadata { version: u64::MAX, created_at: i64::MIN, updated_at: i64::MAX, expires_at: None };
    let keys = [Key::from(i64::MIN), Key::from(-1), Key::from(0), Key::from(i64::MAX), Key::from("1"), Key::from("é")];
    let records: Vec<_> = (0_u64..)
        .zip(&keys)
        .map(|(place, key)| Arc::new(Record::from_parts(key, place, metadata, fields.clone())))
        .collect();
    let snapshot = BucketSnapshot::new(u32::MAX, u64::MAX, i64::MIN, records);
    let adapter = place.open().await;
    adapter.save_bucket(&bucket("users"), &BucketChange::Full(snapshot.clone())).await.unwrap();
    close(adapter).await;

    let loaded = place.open().await.load_bucket(&bucket("users")).await.unwrap().unwrap();
    assert_eq!(loaded, snapshot, "in key order, which the records were in");
    assert!(loaded.records.iter().zip(0_u64..).all(|(record, place)| record.place() == place));
    assert!(matches!(loaded.records[0].get("whole"), Some(Value::Float(_))));
}

#[tokio::test]
async fn runs_of_new_records_come_between_those_that_are_there_and_over_those_of_their_keys() {
    let place = Place::new();
    let adapter = place.open().await;
    let record = |key: i64, text: &str| with_text(key, key.unsigned_abs(), text);
    let mut model = BucketSnapshot::new(1, 1, 0, (0..300).map(|number| record(number * 10, "old")).collect());
    adapter.save_bucket(&bucket("users"), &BucketChange::Full(model.clone())).await.unwrap();
    let long = "long ".repeat(100);
    let between = (1..7).chain(11..14).chain(21..23);
    // With keys that are there at its beginning, in it and at its end.
    let across = 40..=80;
    // More than is put into the tree at once, at its end.
    let behind = 5_000..9_000;
    let mut upserts: Vec<_> = between.chain(across).map(|key| record(key, "new")).collect();
    upserts.extend(behind.map(|key| record(key, &long)));
    upserts.extend((0..10).map(|number| with_text(format!("text {number}"), 10_000 + number, "new")));
    upserts.extend((1..10).map(|number| record(-number, "new")));
    // Of two records with one key the later one counts, wherever they are.
    upserts.extend([record(3, "newer"), record(60, "newer"), record(5_000, "newer")]);
    let change = BucketChange::Delta(BucketDelta { upserts, ..delta(2) });
    adapter.save_bucket(&bucket("users"), &change).await.unwrap();
    close(adapter).await;

    model.apply(&change);
    let of = |records: &[Arc<Record>]| {
        // The later one of each key.
        let texts = records.iter().map(|record| (record.key().clone(), record.get("text").cloned()));
        texts.collect::<std::collections::BTreeMap<_, _>>()
    };
    let loaded = place.open().await.load_bucket(&bucket("users")).await.unwrap().unwrap();
    assert_eq!(of(&loaded.records), of(&model.records));
    assert_eq!(loaded.records.len(), of(&model.records).len());
    assert!(loaded.records.is_sorted_by_key(|record| record.key().clone()));
}

#[derive(Clone, Debug)]
enum Step {
    Full(Vec<u8>),
    Delta { cleared: bool, deletes: Vec<u8>, upserts: Vec<u8> },
    Drop,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || proptest::collection::vec(0_u8..24, 0..12);
    let step = prop_oneof![
        1 => keys().prop_map(Step::Full),
        6 => (proptest::bool::weighted(0.1), keys(), keys())
            .prop_map(|(cleared, deletes, upserts)| Step::Delta { cleared, deletes, upserts }),
        1 => Just(Step::Drop),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..12)
}

fn key_of(number: u8) -> Key {
    if number.is_multiple_of(2) { Key::from(i64::from(number) - 10) } else { Key::from(format!("k{number}")) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_leaves_what_it_leaves_in_memory(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let mut adapter = place.open().await;
            let mut model: Option<BucketSnapshot> = None;
            for (revision, step) in (1_u64..).zip(steps) {
                let records = |numbers: Vec<u8>| {
                    let unique: std::collections::BTreeSet<u8> = numbers.into_iter().collect();
                    unique.into_iter().rev()
                        .map(|number| with_text(key_of(number), number.into(), &format!("at {revision}")))
                        .collect::<Vec<_>>()
                };
                let change = match step {
                    Step::Full(numbers) => BucketChange::Full(BucketSnapshot::new(1, revision, 3, records(numbers))),
                    Step::Delta { cleared, deletes, upserts } => {
                        let deletes = deletes.into_iter().filter(|number| !upserts.contains(number));
                        let deletes = deletes.map(key_of).collect();
                        BucketChange::Delta(BucketDelta { cleared, deletes, upserts: records(upserts), ..delta(revision) })
                    }
                    Step::Drop => {
                        adapter.drop_bucket(&bucket("users")).await.unwrap();
                        model = None;
                        continue;
                    }
                    Step::Reopen => {
                        close(adapter).await;
                        adapter = place.open().await;
                        continue;
                    }
                };
                adapter.save_bucket(&bucket("users"), &change).await.unwrap();
                model.get_or_insert_default().apply(&change);
                let mut expected = model.clone().unwrap();
                expected.records.sort_by(|left, right| left.key().cmp(right.key()));
                let loaded = adapter.load_bucket(&bucket("users")).await.unwrap();
                assert_eq!(loaded, Some(expected));
            }
        });
    }
}

#[tokio::test]
async fn the_same_commit_twice_counts_once() {
    let place = Place::new();
    let adapter = place.open().await;
    let change = BucketChange::Delta(BucketDelta {
        deletes: vec![Key::from(9)],
        upserts: vec![with_text(1, 0, "a"), with_text(2, 1, "b")],
        ..delta(1)
    });
    for _ in 0..2 {
        adapter.save_bucket(&bucket("users"), &change).await.unwrap();
    }
    let expected = vec![(Key::from(1), 0, "a".to_owned()), (Key::from(2), 1, "b".to_owned())];
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap(), Some(expected));
}

#[tokio::test]
async fn names_that_look_alike_share_nothing() {
    let place = Place::new();
    let adapter = place.open().await;
    let names = [("a", "b/c"), ("a/b", "c"), ("a", "B/c"), ("1", "1/a"), ("1/1", "a"), ("e\u{301}", "x"), ("é", "x")];
    let keys: Vec<_> = names.iter().map(|(s, b)| BucketKey::new(store(s), BucketName::new(*b).unwrap())).collect();
    for (number, key) in (0_u64..).zip(&keys) {
        adapter.save_bucket(key, &full(vec![with_text("k", number, &format!("of {number}"))])).await.unwrap();
    }
    adapter.drop_bucket(&keys[1]).await.unwrap();
    for (number, key) in (0_u64..).zip(&keys) {
        let expected = (number != 1).then(|| vec![(Key::from("k"), number, format!("of {number}"))]);
        assert_eq!(contents(&adapter, key).await.unwrap(), expected, "{key:?}");
    }
}

#[tokio::test]
async fn a_value_of_many_pages_comes_back() {
    let place = Place::new();
    let adapter = place.open().await;
    let large = "x".repeat(3 << 20);
    adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, &large)])).await.unwrap();
    let loaded = contents(&adapter, &bucket("users")).await.unwrap().unwrap();
    assert_eq!(loaded[0].2.len(), large.len());
}

fn message(id: &str, lamport: i64, content: &str) -> SdsMessage {
    let (content, channel_id) = (content.to_owned().into(), "c".into());
    SdsMessage { message_id: id.into(), lamport_timestamp: lamport, content, channel_id, ..SdsMessage::default() }
}

#[tokio::test]
async fn a_channel_comes_back_in_the_order_of_its_history() {
    let place = Place::new();
    let adapter = place.open().await;
    let key = channel("c");
    assert_eq!(adapter.load_channel(&key).await.unwrap(), ChannelData::default());

    let messages = [message("b", 7, "2"), message("a", 7, "1"), message("z", -3, "0"), message("c", i64::MAX, "3")];
    adapter.update_history(&key, &HistoryUpdate::new(messages.to_vec(), vec!["unknown".into()])).await.unwrap();
    let meta = ChannelMeta { lamport_timestamp: 12, ..ChannelMeta::default() };
    adapter.save_channel_meta(&key, &meta).await.unwrap();
    for id in ["a", "b", "not in the history"] {
        adapter.set_retrieval_hint(&key, &id.into(), format!("hint of {id}").as_bytes()).await.unwrap();
    }
    adapter.set_retrieval_hint(&key, &"b".into(), b"").await.unwrap();
    close(adapter).await;

    let adapter = place.open().await;
    let data = adapter.load_channel(&key).await.unwrap();
    let ids: Vec<_> = data.message_history.iter().map(|message| message.message_id.to_string()).collect();
    assert_eq!(ids, ["z", "a", "b", "c"]);
    assert_eq!(data.message_history[1], messages[1]);
    assert_eq!(data.meta, meta);
    let hints: Vec<(MessageId, &[u8])> = data.hints.iter().map(|(id, hint)| (id.clone(), &**hint)).collect();
    let expected: [(MessageId, &[u8]); 2] =
        [("a".into(), b"hint of a"), ("not in the history".into(), b"hint of not in the history")];
    assert_eq!(hints, expected);
}

#[tokio::test]
async fn a_message_that_is_appended_again_is_overwritten_and_an_evicted_one_takes_its_hint_along() {
    let place = Place::new();
    let adapter = place.open().await;
    let key = channel("c");
    let update = HistoryUpdate::new(vec![message("a", 1, "old"), message("b", 2, "b")], Vec::new());
    adapter.update_history(&key, &update).await.unwrap();
    adapter.update_history(&key, &update).await.unwrap();
    adapter.update_history(&key, &HistoryUpdate::new(vec![message("a", 9, "new")], Vec::new())).await.unwrap();
    adapter.set_retrieval_hint(&key, &"a".into(), b"hint").await.unwrap();
    adapter.set_retrieval_hint(&key, &"b".into(), b"hint").await.unwrap();
    adapter.update_history(&key, &HistoryUpdate::new(Vec::new(), vec!["b".into()])).await.unwrap();

    let data = adapter.load_channel(&key).await.unwrap();
    assert_eq!(data.message_history, [message("a", 9, "new")]);
    assert_eq!(data.hints, [("a".into(), "hint".into())]);
    adapter.drop_channel(&key).await.unwrap();
    adapter.drop_channel(&key).await.unwrap();
    assert_eq!(adapter.load_channel(&key).await.unwrap(), ChannelData::default());
}

#[tokio::test]
async fn dropping_and_saving_again_leaves_no_table_behind() {
    let place = Place::new();
    let adapter = place.open().await;
    for _ in 0..20 {
        adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, "a")])).await.unwrap();
        let update = HistoryUpdate::new(vec![message("a", 1, "a")], Vec::new());
        adapter.update_history(&channel("c"), &update).await.unwrap();
        adapter.set_retrieval_hint(&channel("c"), &"a".into(), b"hint").await.unwrap();
        adapter.drop_bucket(&bucket("users")).await.unwrap();
        adapter.drop_channel(&channel("c")).await.unwrap();
    }
    close(adapter).await;
    let db = redb::Database::open(place.path()).unwrap();
    let txn = redb::ReadableDatabase::begin_read(&db).unwrap();
    let tables = txn.list_tables().unwrap().map(|table| redb::TableHandle::name(&table).to_owned());
    let mut born: Vec<_> = rows::BORN_WITH.map(str::to_owned).to_vec();
    // The channel's changes were journalled.
    born.push(rows::JOURNAL.to_owned());
    born.sort();
    assert_eq!(tables.collect::<Vec<_>>(), born);
}
