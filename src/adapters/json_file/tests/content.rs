//! What is saved is what is loaded, and a commit costs what it changes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::error::Error;
use crate::base::value::{MAX_DEPTH, Value};
use crate::sds::UnacknowledgedMessage;

fn every_kind() -> Object {
    let mut deep = Value::Int(1);
    for _ in 0..MAX_DEPTH - 2 {
        deep = Value::Object([("$x", deep)].into_iter().collect());
    }
    crate::record! {
        "null": null, "bool": true, "int": (i64::MIN), "float": 0.1, "whole": 2.0, "huge": 1e300, "tiny": (f64::MIN_POSITIVE),
        "text": "\u{0}\"\\\n\t\u{1f600}", "bytes": (Value::Bytes(vec![0, 255].into())), "list": [1, [2.5, null]],
        "$bytes": "AA==", "tagged": { "$bytes": "AA==" }, "wrapped": { "$object": { "$object": 1 } }, "deep": deep,
        "": "empty name",
    }
}

#[tokio::test]
async fn every_kind_of_value_comes_back_as_it_was_from_line_and_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = Claimed::real(directory.path()).await.unwrap();
    let (first, second) = (record("a", 1, every_kind()), record(i64::MAX, 2, every_kind()));
    claimed.commit(vec![Save::Bucket(bucket("b"), upsert(1, vec![first]))]).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("b"), upsert(2, vec![second]))]).await.unwrap();
    claimed.close().await;
    let claimed = Claimed::real(directory.path()).await.unwrap();
    let loaded = claimed.load("b").await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.schema_version, loaded.records.len()), (2, 1, 2));
    for back in &loaded.records {
        let fields: Vec<_> = back.fields().map(|(name, value)| (name.to_owned(), format!("{value:?}"))).collect();
        let wanted: Vec<_> =
            every_kind().iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
        assert_eq!(fields, wanted);
    }
    assert_eq!(loaded.records[1].key(), &Key::from(i64::MAX));
    assert_eq!((loaded.records[1].place(), loaded.records[1].metadata().updated_at), (2, 6));
}

#[tokio::test]
async fn a_channel_comes_back_with_state_history_in_order_and_hints() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let room = channel("room");
    let mut state = ChannelMeta { lamport_timestamp: 7, ..ChannelMeta::default() };
    let mut waiting = UnacknowledgedMessage { message: message(b"\xfe", 6), resend_attempts: 2, ..Default::default() };
    waiting.message.causal_history.push(crate::sds::HistoryEntry::new("m1"));
    state.outgoing.push(waiting);
    let state = Arc::new(state);
    let hint = |id: &[u8], hint: &'static [u8]| Save::Hint(room.clone(), id.into(), Bytes::from_static(hint));
    let first = vec![
        Save::ChannelMeta(room.clone(), meta(1)),
        Save::History(room.clone(), history(vec![message(b"b", 2), message(b"a", 2), message(b"\xff", 1)], &[])),
        hint(b"a", b"where a is"),
        hint(b"b", b"where b is"),
        hint(b"\xff", b"x"),
    ];
    claimed.commit(first).await.unwrap();
    let second = vec![
        // Appended again with another clock; evicted with its hint; an unknown one.
        Save::History(room.clone(), history(vec![message(b"\xff", 9), message(b"c", 3)], &[b"b", b"unknown"])),
        Save::ChannelMeta(room.clone(), Arc::clone(&state)),
        hint(b"\xff", b""),
    ];
    claimed.commit(second).await.unwrap();
    for round in 0..3 {
        let data = claimed.adapter.load_channel(&channel_key("room")).await.unwrap();
        assert_eq!(data.meta, *state, "round {round}");
        let order: Vec<_> = data.message_history.iter().map(|m| (m.lamport_timestamp, m.message_id.clone())).collect();
        assert_eq!(order, [(2, "a".into()), (3, "c".into()), (9, (&b"\xff"[..]).into())]);
        assert_eq!(data.message_history[0], message(b"a", 2));
        assert_eq!(data.hints, [("a".into(), Bytes::from_static(b"where a is"))]);
        match round {
            0 => claimed.adapter.save_channel_meta(&channel_key("room"), &state).await.unwrap(),
            // Through a checkpoint too.
            _ => {
                claimed.adapter.drop_channel(&channel_key("other")).await.unwrap();
                let same = Save::History(room.clone(), history(data.message_history.clone(), &[]));
                let again = vec![Save::DropChannel(room.clone()), same, Save::ChannelMeta(room.clone(), state.clone())];
                claimed.commit(again).await.unwrap();
                claimed.commit(vec![hint(b"a", b"where a is")]).await.unwrap();
            }
        }
    }
    assert_eq!(claimed.adapter.load_channel(&channel_key("never")).await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_checkpoint_is_written_for_people_in_an_order_that_does_not_change() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let ada = record(2, 2, crate::record! { "name": "Ada", "age": 36 });
    let bo = record("bo", 1, crate::record! { "name": "Bo" });
    let full = |records| Arc::new(BucketChange::Full(BucketSnapshot::new(4, 9, 2, records)));
    claimed.commit(vec![Save::Bucket(bucket("users"), full(vec![ada.clone(), bo.clone()]))]).await.unwrap();
    let (checkpoint, _) = bucket_files(Path::new("/data"), "users");
    let text = String::from_utf8(disk.contents(&checkpoint).unwrap()).unwrap();
    let (seal, rest) = text.split_once(",\n").unwrap();
    assert!(seal.starts_with("{\n  \"checksum\": \""), "{seal}");
    assert_eq!(
        rest,
        r#"  "format": "ractor-persistence/json_file/bucket",
  "version": 1,
  "store": "shop",
  "bucket": "users",
  "generation": 1,
  "saved_at": "2026-01-31T12:00:00.000Z",
  "schema_version": 4,
  "revision": 9,
  "counter": 2,
  "records": [
    {"key":"bo","place":1,"version":1,"created_at":5,"updated_at":6,"fields":{"name":"Bo"}},
    {"key":2,"place":2,"version":1,"created_at":5,"updated_at":6,"fields":{"age":36,"name":"Ada"}}
  ]
}
"#
    );
    // The same records in another order, and bound to a layout with an order of its own.
    let layout = Arc::new(crate::records::Layout::new(vec!["name".into(), "id".into(), "age".into()], 1));
    let bound = [bo, ada].map(|mut record| {
        Arc::make_mut(&mut record).bind(&layout);
        record
    });
    assert_eq!(bound[1].fields().next().map(|(name, _)| name), Some("name"));
    claimed.commit(vec![Save::Bucket(bucket("users"), full(bound.into()))]).await.unwrap();
    let again = String::from_utf8(disk.contents(&checkpoint).unwrap()).unwrap();
    let records = |text: &str| text.split_once("\"records\"").map(|(_, records)| records.to_owned()).unwrap();
    assert_eq!(records(&again), records(&text));
}

#[tokio::test]
async fn all_saves_of_a_subject_in_one_commit_are_one_line() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let room = channel("room");
    let saves = |n: i64| {
        vec![
            Save::Bucket(bucket("b"), put(1, n, "x")),
            Save::ChannelMeta(room.clone(), meta(n)),
            Save::Bucket(bucket("b"), put(2, n + 1, "y")),
            Save::History(room.clone(), history(vec![message(b"m", n)], &[])),
        ]
    };
    claimed.commit(saves(1)).await.unwrap();
    claimed.commit(saves(2)).await.unwrap();
    claimed.commit(vec![]).await.unwrap();
    let (_, journal) = bucket_files(Path::new("/data"), "b");
    for file in [journal.clone(), journal.with_file_name("channel.room.jsonl")] {
        let text = String::from_utf8(disk.contents(&file).unwrap()).unwrap();
        let lines = text.lines().filter(|line| line.contains("\"changes\"")).count();
        assert_eq!(lines, 1, "{file:?}: the first commit is the checkpoint, the second one line");
    }
}

#[tokio::test]
async fn a_commit_writes_one_line_and_syncs_once_whatever_the_bucket_holds() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let many =
        (0..2_000).map(|n| record(n, u64::try_from(n).unwrap(), crate::record! { "text": "some text" })).collect();
    claimed.commit(vec![Save::Bucket(bucket("b"), upsert(1, many))]).await.unwrap();
    disk.take_log();
    let (_, journal) = bucket_files(Path::new("/data"), "b");
    let before = disk.contents(&journal).unwrap();
    claimed.commit(vec![Save::Bucket(bucket("b"), put(2, 7, "changed"))]).await.unwrap();
    assert_eq!(disk.take_log(), ["write_at bucket.b.jsonl", "sync_data bucket.b.jsonl"]);
    claimed.commit_at(Durability::Wal, vec![Save::Bucket(bucket("b"), put(3, 8, "changed"))]).await.unwrap();
    assert_eq!(disk.take_log(), ["write_at bucket.b.jsonl"]);
    claimed.commit(vec![]).await.unwrap();
    assert_eq!(disk.take_log(), ["sync_data bucket.b.jsonl"], "a synced commit covers what was written before it");
    claimed.commit(vec![]).await.unwrap();
    assert_eq!(disk.take_log(), [""; 0]);
    let after = disk.contents(&journal).unwrap();
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).filter(|(old, new)| old != new).count() < 600);
}

#[tokio::test]
async fn a_journal_that_outgrows_its_checkpoint_is_replaced_and_costs_no_more_than_a_few_times_the_changes() {
    let disk = PowerCutDisk::default();
    let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone())).with_journal_floor(4_096);
    let claimed = Claimed::with(Path::new("/data"), options).await.unwrap();
    let (checkpoint, journal) = bucket_files(Path::new("/data"), "b");
    let mut replaced = 0;
    for n in 1..=100 {
        disk.take_log();
        claimed
            .commit(vec![Save::Bucket(bucket("b"), put(n, i64::try_from(n).unwrap() % 30, &"x".repeat(300)))])
            .await
            .unwrap();
        replaced += usize::from(disk.take_log().contains(&"rename bucket.b.json".to_owned()));
        let (checkpoint, journal) = (disk.contents(&checkpoint).unwrap().len(), disk.contents(&journal).unwrap().len());
        assert!(journal <= 2 * (checkpoint.max(4_096) + 4_096), "commit {n}: {journal} beside {checkpoint}");
    }
    assert!((3..=12).contains(&replaced), "{replaced} checkpoints");
    let loaded = claimed.load("b").await.unwrap().unwrap();
    assert_eq!((loaded.records.len(), loaded.revision), (30, 100));
}

#[tokio::test]
async fn a_value_that_json_cannot_hold_is_refused_before_anything_is_written() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed
        .commit(vec![Save::Bucket(bucket("a"), put(1, 1, "old")), Save::Bucket(bucket("b"), put(1, 1, "old"))])
        .await
        .unwrap();
    disk.take_log();
    let bad = upsert(2, vec![record(1, 1, crate::record! { "outer": { "secret": (f64::NAN) } })]);
    let refused = claimed
        .commit(vec![
            Save::Bucket(bucket("a"), put(2, 1, "new")),
            Save::Bucket(bucket("b"), put(2, 1, "new")),
            Save::Bucket(bucket("b"), bad.clone()),
            Save::Bucket(bucket("c"), put(1, 1, "never")),
        ])
        .await;
    assert!(
        matches!(&refused, Err(Error::Permanent { operation, .. }) if operation.contains("bucket b")),
        "{refused:?}"
    );
    assert_eq!(disk.take_log(), ["write_at bucket.a.jsonl"], "in order, up to the one that is refused");
    let text = |loaded: Option<BucketSnapshot>| loaded.unwrap().records[0].get("text").cloned();
    assert_eq!(text(claimed.load("a").await.unwrap()), Some("new".into()));
    assert_eq!(text(claimed.load("b").await.unwrap()), Some("old".into()));
    assert!(claimed.load("c").await.unwrap().is_none());
    let full = Arc::new(BucketChange::Full(BucketSnapshot::new(
        1,
        3,
        0,
        vec![record(1, 1, crate::record! { "x": (f64::INFINITY) })],
    )));
    assert!(matches!(claimed.commit(vec![Save::Bucket(bucket("b"), full)]).await, Err(Error::Permanent { .. })));
    assert_eq!(text(claimed.load("b").await.unwrap()), Some("old".into()));
}

#[tokio::test]
async fn a_drop_leaves_nothing_and_what_follows_it_in_the_same_commit_begins_anew() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed
        .commit(vec![Save::Bucket(bucket("b"), put(1, 1, "old")), Save::Bucket(bucket("c"), put(1, 1, "old"))])
        .await
        .unwrap();
    for _ in 0..100 {
        claimed.commit(vec![Save::DropBucket(bucket("b"))]).await.unwrap();
        assert!(claimed.load("b").await.unwrap().is_none());
        claimed.commit(vec![Save::Bucket(bucket("b"), put(1, 2, "new"))]).await.unwrap();
    }
    let saves = vec![
        Save::Bucket(bucket("b"), put(2, 3, "x")),
        Save::DropBucket(bucket("b")),
        Save::Bucket(bucket("b"), put(1, 4, "y")),
    ];
    claimed.commit(saves).await.unwrap();
    let keys: Vec<_> =
        claimed.load("b").await.unwrap().unwrap().records.iter().map(|record| record.key().clone()).collect();
    assert_eq!(keys, [Key::from(4)]);
    claimed.commit(vec![Save::DropBucket(bucket("b")), Save::DropBucket(bucket("c"))]).await.unwrap();
    let left: Vec<_> = disk.files().iter().map(|path| path.display().to_string()).collect();
    assert_eq!(left, ["/data/LOCK.holder", "/data/shop/EPOCH"]);
}

#[tokio::test]
async fn a_journal_alone_is_enough_for_what_has_no_checkpoint_yet() {
    let disk = PowerCutDisk::default();
    let ids = Ids { store: shop(), subject: Subject::Bucket(bucket("b")) };
    let header =
        crate::adapters::json_file::journal::Header { version: 1, generation: 0, follows: None, dropped: false };
    let (mut text, pen) = crate::adapters::json_file::journal::fresh(&ids, &header).unwrap();
    let change = put(1, 1, "alone");
    let BucketChange::Delta(delta) = change.as_ref() else { panic!("a delta") };
    let entry = pen.entry(&[crate::adapters::json_file::state::BucketLine(delta)]).unwrap();
    let at = usize::try_from(entry.line.at).unwrap();
    text[at..at + entry.line.text.len()].copy_from_slice(&entry.line.text);
    let claimed = Claimed::on(&disk).await.unwrap();
    let (checkpoint, journal) = bucket_files(Path::new("/data"), "b");
    disk.plant(&journal, Some(&text));
    assert_eq!(claimed.load("b").await.unwrap().unwrap().records.len(), 1);
    claimed.commit(vec![Save::Bucket(bucket("b"), put(2, 2, "more"))]).await.unwrap();
    assert!(disk.contents(&checkpoint).is_some());
    assert_eq!(claimed.load("b").await.unwrap().unwrap().records.len(), 2);
}

#[tokio::test]
async fn megabytes_in_one_record_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = Claimed::real(directory.path()).await.unwrap();
    let bytes = Value::Bytes(vec![0xa5; 1 << 20].into());
    let large = record(1, 1, [("text", Value::from("x".repeat(1 << 20))), ("bytes", bytes)].into_iter().collect());
    for revision in 1..=2 {
        claimed.commit(vec![Save::Bucket(bucket("b"), upsert(revision, vec![large.clone()]))]).await.unwrap();
        assert_eq!(claimed.load("b").await.unwrap().unwrap().records, std::slice::from_ref(&large));
    }
}

#[tokio::test]
async fn more_subjects_than_files_may_be_open_are_written_and_synced_all_the_same() {
    let disk = PowerCutDisk::default();
    let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone())).with_open_files(2);
    let claimed = Claimed::with(Path::new("/data"), options).await.unwrap();
    let saves = |revision| (0..6).map(|n| Save::Bucket(bucket(&format!("b{n}")), put(revision, 1, "x"))).collect();
    claimed.commit_at(Durability::Wal, saves(1)).await.unwrap();
    disk.take_log();
    claimed.commit_at(Durability::Wal, saves(2)).await.unwrap();
    let synced = disk.take_log().iter().filter(|call| call.starts_with("sync_data")).count();
    assert_eq!(synced, 4, "those that are closed, before they are");
    for revision in 3..=4 {
        claimed.commit_at(Durability::Wal, saves(revision)).await.unwrap();
    }
    claimed.commit(vec![]).await.unwrap();
    let image = disk.image(0);
    assert!(disk.image(1).files().len() >= 12);
    let cut = Claimed::on(&image).await.unwrap();
    for n in 0..6 {
        assert_eq!(cut.load(&format!("b{n}")).await.unwrap().unwrap().revision, 4);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Delta { cleared: bool, deletes: Vec<i64>, upserts: Vec<(i64, f64)> },
    Full(Vec<(i64, f64)>),
    Drop,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let finite = any::<f64>().prop_filter("finite", |number| number.is_finite());
    let records = proptest::collection::vec((0_i64..8, finite), 0..5);
    let delta = (proptest::bool::weighted(0.1), proptest::collection::vec(0_i64..8, 0..3), records.clone());
    let step = prop_oneof![
        8 => delta.prop_map(|(cleared, deletes, upserts)| Step::Delta { cleared, deletes, upserts }),
        1 => records.prop_map(Step::Full),
        1 => Just(Step::Drop),
        2 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

fn records_of(pairs: &[(i64, f64)]) -> Vec<Arc<Record>> {
    let last: std::collections::BTreeMap<i64, f64> = pairs.iter().copied().collect();
    let made =
        |(key, number): (&i64, &f64)| record(*key, u64::try_from(*key).unwrap(), crate::record! { "n": (*number) });
    last.iter().map(made).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_changes_add_up_to_what_a_plain_model_has(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = PowerCutDisk::default();
            let mut claimed = Claimed::on(&disk).await.unwrap();
            let mut model: Option<BucketSnapshot> = None;
            for (revision, step) in (1..).zip(steps) {
                let change = match step {
                    Step::Delta { cleared, deletes, upserts } => {
                        let mut delta = BucketDelta::new(revision, 3, 2);
                        delta.upserts = records_of(&upserts);
                        delta.deletes = deletes.into_iter().map(Key::from).collect();
                        delta.deletes.retain(|key| delta.upserts.iter().all(|record| record.key() != key));
                        delta.cleared = cleared;
                        BucketChange::Delta(delta)
                    }
                    Step::Full(records) => BucketChange::Full(BucketSnapshot::new(2, revision, 3, records_of(&records))),
                    Step::Drop => {
                        claimed.commit(vec![Save::DropBucket(bucket("b"))]).await.unwrap();
                        model = None;
                        continue;
                    }
                    Step::Reopen => {
                        claimed.close().await;
                        claimed = Claimed::on(&disk).await.unwrap();
                        continue;
                    }
                };
                model.get_or_insert_default().apply(&change);
                claimed.commit(vec![Save::Bucket(bucket("b"), Arc::new(change))]).await.unwrap();
            }
            if let Some(model) = &mut model {
                model.records.sort_by_key(|record| record.place());
            }
            assert_eq!(claimed.load("b").await.unwrap(), model);
        });
    }
}
