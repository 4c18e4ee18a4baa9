//! What is journalled is loaded as if it were rows, wherever folding, closing or a kill came in between; damage to it is
//! told with its place and concerns nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use redb::{ReadableDatabase, ReadableTable};

use super::*;
use crate::adapters::memory::MemoryAdapter;
use crate::adapters::redb::keys::{BucketPlaces, JournalKeys};
use crate::adapters::redb::rows::{self, Definition};
use crate::adapters::redb::writer::Request as Asked;
use crate::base::error::Error;
use crate::base::name::{MessageId, Subject};
use crate::persistence::Finding;
use crate::records::{Request, Write};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

/// Written by the release before request ids were kept, long before there was a journal.
const BEFORE: &[u8] = include_bytes!("../../../../tests/vectors/before_request_ids/store.redb");

/// One that folds only when it is told to, or before it has to.
fn unfolding() -> RedbOptions {
    RedbOptions { quiet: Duration::from_secs(3_600), ..RedbOptions::default() }
}

/// One that folds a section at a time.
fn slow() -> RedbOptions {
    RedbOptions { step_bytes: 1, ..unfolding() }
}

async fn open(path: &Path, options: RedbOptions) -> RedbAdapter {
    RedbAdapter::open_with(path, options).await.unwrap()
}

pub(super) async fn fold(adapter: &RedbAdapter) -> Result<bool> {
    adapter.ask("folding", Asked::Fold).await
}

/// What a kill at this moment leaves, as a place of its own.
fn killed(place: &Place) -> Place {
    let crashed = Place::new();
    std::fs::copy(place.path(), crashed.path()).unwrap();
    crashed
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows_in(path: &Path, name: &str) -> Rows {
    let copy = Place::new();
    std::fs::copy(path, copy.path()).unwrap();
    let db = redb::Database::open(copy.path()).unwrap();
    let txn = db.begin_read().unwrap();
    let table = match txn.open_table(Definition::new(name)) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Vec::new(),
        table => table.unwrap(),
    };
    let rows = table.iter().unwrap().map(|row| row.unwrap());
    rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
}

fn journal_of(place: &Place) -> Rows {
    rows_in(&place.path(), rows::JOURNAL)
}

fn meddle(place: &Place, work: impl FnOnce(&mut rows::Table<'_>)) {
    let db = redb::Database::open(place.path()).unwrap();
    let txn = db.begin_write().unwrap();
    work(&mut txn.open_table(Definition::new(rows::JOURNAL)).unwrap());
    txn.commit().unwrap();
}

pub(super) fn upserting(revision: u64, records: Vec<Arc<Record>>) -> BucketChange {
    BucketChange::Delta(BucketDelta { upserts: records, ..delta(revision) })
}

/// A file that was killed with three changes of `users` and one of `other` in its journal.
async fn killed_with_changes() -> Place {
    let place = Place::new();
    let adapter = open(&place.path(), unfolding()).await;
    for revision in 1..=3_u8 {
        let records = vec![with_text(i64::from(revision), 0, &format!("needle {revision}"))];
        adapter.save_bucket(&bucket("users"), &upserting(revision.into(), records)).await.unwrap();
    }
    adapter.save_bucket(&bucket("other"), &upserting(1, vec![with_text(1, 0, "fine")])).await.unwrap();
    killed(&place)
}

#[tokio::test]
async fn a_change_is_in_the_journal_first_and_in_rows_after_a_quiet_moment() {
    let place = Place::new();
    let adapter = open(&place.path(), unfolding()).await;
    let rows_of = BucketPlaces::of(&bucket("users")).rows;
    adapter.save_bucket(&bucket("users"), &upserting(1, vec![with_text(1, 0, "a")])).await.unwrap();
    assert_eq!(journal_of(&place).len(), 2, "a section and the head");
    assert_eq!(rows_in(&place.path(), &rows_of), []);
    assert!(!fold(&adapter).await.unwrap(), "that was all");
    assert_eq!(journal_of(&place), []);
    assert_eq!(rows_in(&place.path(), &rows_of).len(), 1);
    close(adapter).await;

    let adapter = open(&place.path(), RedbOptions { quiet: Duration::from_millis(1), ..RedbOptions::default() }).await;
    adapter.save_bucket(&bucket("users"), &upserting(2, vec![with_text(2, 1, "b")])).await.unwrap();
    while !guarded_journal(&place).is_some_and(|journal| journal.is_empty()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap().len(), 2);
}

/// None if the copy was made in the middle of a commit.
fn guarded_journal(place: &Place) -> Option<Rows> {
    crate::adapters::redb::fault::guarded(|| journal_of(place)).ok()
}

#[tokio::test]
async fn closing_folds_everything_and_a_kill_leaves_it_to_the_next_load() {
    let place = killed_with_changes().await;
    assert_eq!(journal_of(&place).len(), 6);
    let adapter = open(&place.path(), unfolding()).await;
    let loaded = contents(&adapter, &bucket("users")).await.unwrap().unwrap();
    assert_eq!(loaded.len(), 3);
    assert_eq!(journal_of(&place).len(), 2, "the other one's, which nobody has loaded");
    close(adapter).await;
    assert_eq!(journal_of(&place), []);
}

#[tokio::test]
async fn the_first_change_that_is_journalled_closes_the_file_to_releases_without_a_journal() {
    let format = |place: &Place| {
        let (_, row) = rows_in(&place.path(), rows::META).remove(0);
        let text = b"\xa6format";
        let at = row.windows(text.len()).position(|window| window == text).unwrap();
        row[at + text.len()]
    };
    let place = Place::new();
    std::fs::write(place.path(), BEFORE).unwrap();
    let adapter = open(&place.path(), unfolding()).await;
    adapter.save_bucket(&bucket("other"), &full(vec![with_text(1, 0, "a")])).await.unwrap();
    assert_eq!(format(&killed(&place)), 1);
    adapter.save_bucket(&bucket("users"), &upserting(3, vec![with_text(9, 9, "new")])).await.unwrap();
    let killed = killed(&place);
    assert_eq!(format(&killed), 2);
    let adapter = open(&killed.path(), unfolding()).await;
    let loaded = adapter.load_bucket(&bucket("users")).await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.records.len()), (3, 4), "three from before");
    close(adapter).await;
    assert_eq!(format(&killed), 2);
}

/// A file of format 2, killed with three changes of `users` and one of `other` in its journal.
const JOURNALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/journal/store.redb");

#[tokio::test]
async fn a_file_of_the_first_release_with_a_journal_is_read_with_all_that_is_in_it() {
    let place = Place::new();
    std::fs::copy(JOURNALLED, place.path()).unwrap();
    assert_eq!(journal_of(&place).len(), 6, "nothing is folded yet");
    let adapter = open(&place.path(), unfolding()).await;
    let loaded = contents(&adapter, &bucket("users")).await.unwrap().unwrap();
    let texts: Vec<_> = loaded.iter().map(|(key, _, text)| (key.clone(), text.as_str())).collect();
    let expected = [(Key::from(1), "needle 1"), (Key::from(2), "needle 2"), (Key::from(3), "needle 3")];
    assert_eq!(texts, expected);
    assert_eq!(contents(&adapter, &bucket("other")).await.unwrap().unwrap()[0].2, "fine");
    close(adapter).await;
}

#[tokio::test]
#[ignore = "writes the file of the test before it, which a later release must not do again"]
async fn the_file_with_a_journal_is_written() {
    let place = killed_with_changes().await;
    std::fs::copy(place.path(), JOURNALLED).unwrap();
}

#[tokio::test]
async fn a_large_change_is_folded_in_steps_and_is_whole_after_any_of_them() {
    let place = Place::new();
    let adapter = open(&place.path(), slow()).await;
    let text = "long ".repeat(200);
    let records: Vec<_> = (0..500_u16).rev().map(|key| with_text(i64::from(key), key.into(), &text)).collect();
    adapter.save_bucket(&bucket("users"), &upserting(1, records)).await.unwrap();
    let sections = journal_of(&place).len() - 1;
    assert!(sections > 5, "{sections}");
    let mut steps = 1;
    while fold(&adapter).await.unwrap() {
        assert_eq!(journal_of(&place).len(), sections - steps + 1);
        let killed = killed(&place);
        let adapter = open(&killed.path(), slow()).await;
        assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap().len(), 500);
        steps += 1;
    }
    assert_eq!(steps, sections);
}

#[tokio::test]
async fn what_a_clear_hides_never_becomes_rows_but_its_request_ids_do() {
    let place = Place::new();
    let adapter = open(&place.path(), slow()).await;
    let request =
        |revision| Request { revision, ..Request::new(format!("request {revision}"), &Write::Clear).unwrap() };
    let mut change = BucketDelta { upserts: vec![with_text(1, 0, "hidden")], ..delta(1) };
    (change.requests, change.request_window) = (vec![request(1)], 10);
    adapter.save_bucket(&bucket("users"), &BucketChange::Delta(change)).await.unwrap();
    let mut change = BucketDelta { cleared: true, upserts: vec![with_text(2, 0, "seen")], ..delta(2) };
    (change.requests, change.request_window) = (vec![request(2)], 10);
    adapter.save_bucket(&bucket("users"), &BucketChange::Delta(change)).await.unwrap();
    let places = BucketPlaces::of(&bucket("users"));
    while fold(&adapter).await.unwrap() {
        assert_eq!(rows_in(&place.path(), &places.rows), []);
    }
    assert_eq!(rows_in(&place.path(), &places.requests).len(), 2);
    let loaded = adapter.load_bucket(&bucket("users")).await.unwrap().unwrap();
    assert_eq!(loaded.records.iter().map(|record| record.key().clone()).collect::<Vec<_>>(), [Key::from(2)]);
    assert_eq!(loaded.requests.iter().map(|request| request.revision).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_journal_that_grows_beyond_its_bound_is_folded_between_commits() {
    let place = Place::new();
    let adapter = open(&place.path(), RedbOptions { journal_bytes: 20_000, step_bytes: 1, ..unfolding() }).await;
    let text = "long ".repeat(200);
    let mut most = 0;
    for revision in 1..=60_u8 {
        let record = with_text(i64::from(revision), revision.into(), &text);
        adapter.save_bucket(&bucket("users"), &upserting(revision.into(), vec![record])).await.unwrap();
        // Requests are served in their order, so this one comes behind the step.
        let behind = adapter.quarantined().await.unwrap();
        assert!(behind.is_empty());
        most = most.max(journal_of(&place).iter().map(|(_, row)| row.len()).sum());
    }
    assert!((15_000..=20_000).contains(&most), "{most}");
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap().len(), 60);
}

#[tokio::test]
async fn whatever_is_damaged_in_the_journal_is_told_with_its_place_and_concerns_nobody_else() {
    type Damage = fn(&mut rows::Table<'_>, &JournalKeys);
    fn row(table: &rows::Table<'_>, key: &[u8]) -> Vec<u8> {
        table.get(key).unwrap().unwrap().value().to_vec()
    }
    let damages: [(&str, &str, Damage); 8] = [
        ("a flipped bit", "section 1", |table, keys| {
            let mut bytes = row(table, &keys.section(1));
            *bytes.last_mut().unwrap() ^= 1;
            table.insert(&*keys.section(1), &*bytes).unwrap();
        }),
        ("another section's bytes", "section 1", |table, keys| {
            let bytes = row(table, &keys.section(0));
            table.insert(&*keys.section(1), &*bytes).unwrap();
        }),
        ("the first is gone", "section 0", |table, keys| drop(table.remove(&*keys.section(0)).unwrap().unwrap())),
        ("one is gone", "section 1", |table, keys| drop(table.remove(&*keys.section(1)).unwrap().unwrap())),
        ("the last is gone", "section 2", |table, keys| drop(table.remove(&*keys.section(2)).unwrap().unwrap())),
        ("one too many", "head", |table, keys| {
            let bytes = row(table, &keys.section(0));
            table.insert(&*keys.section(3), &*bytes).unwrap();
        }),
        ("no head", "head", |table, keys| drop(table.remove(&*keys.head()).unwrap().unwrap())),
        ("an old head", "head", |table, keys| {
            let head = crate::adapters::redb::journal::head(table, keys).unwrap().unwrap();
            let old = crate::adapters::redb::journal::Head { next: 2, ..head };
            crate::adapters::redb::journal::set_head(table, keys, &old).unwrap();
        }),
    ];
    let keys = JournalKeys::of_bucket(&bucket("users"));
    for (what, place_in, damage) in damages {
        let place = killed_with_changes().await;
        meddle(&place, |table| damage(table, &keys));
        let mut damaged = journal_of(&place);
        damaged.retain(|(key, _)| JournalKeys::parse(key).unwrap().0 == keys);

        // Nobody has asked for it: it stays where it is, and the others are folded.
        close(open(&place.path(), unfolding()).await).await;
        assert_eq!(journal_of(&place), damaged, "{what}");

        let adapter = open(&place.path(), unfolding()).await;
        for _ in 0..2 {
            let outcome = adapter.load_bucket(&bucket("users")).await;
            let Err(Error::Corrupt { at, .. }) = &outcome else { panic!("{what}: {outcome:?}") };
            let position = format!("{place_in} of bucket \"shop\", \"users\"");
            assert_eq!((at.container.as_str(), at.position.as_deref()), (rows::JOURNAL, Some(&*position)), "{what}");
        }
        assert_eq!(contents(&adapter, &bucket("other")).await.unwrap().unwrap()[0].2, "fine");
        adapter.save_bucket(&bucket("other"), &upserting(2, vec![with_text(2, 1, "too")])).await.unwrap();
        assert_eq!(contents(&adapter, &bucket("other")).await.unwrap().unwrap().len(), 2);

        let subject = Subject::Bucket(bucket("users").bucket);
        adapter.quarantine(&store("shop"), &subject).await.unwrap();
        adapter.save_bucket(&bucket("users"), &upserting(1, vec![with_text(1, 0, "anew")])).await.unwrap();
        assert!(!fold(&adapter).await.unwrap());
        assert_eq!(journal_of(&place), [], "{what}: it is folded again, without being asked for");
        adapter.drop_bucket(&bucket("users")).await.unwrap();
        assert_eq!(adapter.load_bucket(&bucket("users")).await.unwrap(), None);
        let kept = adapter.quarantined().await.unwrap();
        let raw = kept[0].rows.iter().filter(|row| row.table == rows::JOURNAL);
        assert_eq!(raw.map(|row| (row.key.to_vec(), row.value.to_vec())).collect::<Rows>(), damaged, "{what}");
        adapter.save_bucket(&bucket("users"), &upserting(1, vec![with_text(1, 0, "anew")])).await.unwrap();
        assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap()[0].2, "anew");
        close(adapter).await;
        assert_eq!(journal_of(&place), [], "{what}");
    }
}

/// What a watcher was told of `shop`.
type Told = Arc<std::sync::Mutex<Vec<(Option<Subject>, Option<Error>)>>>;

fn watched(adapter: &RedbAdapter) -> Told {
    let told = Told::default();
    let notes = Arc::clone(&told);
    let watcher = move |subject: Option<&Subject>, finding: Finding| {
        let error = match finding {
            Finding::Damaged(error) => Some(error),
            Finding::Mended => None,
        };
        notes.lock().unwrap().push((subject.cloned(), error));
    };
    adapter.watch(&store("shop"), Arc::new(watcher));
    told
}

#[tokio::test]
async fn damage_that_folding_finds_is_told_at_once_and_nothing_more_is_put_behind_it() {
    let place = killed_with_changes().await;
    let keys = JournalKeys::of_bucket(&bucket("users"));
    meddle(&place, |table| drop(table.remove(&*keys.section(1)).unwrap().unwrap()));
    let adapter = open(&place.path(), unfolding()).await;
    let (shop, users) = (store("shop"), bucket("users"));
    let epoch = adapter.claim(&shop).await.unwrap();
    let told = watched(&adapter);
    let delta = |revision| save(&users, upserting(revision, vec![with_text(4, 4, "behind the damage")]));
    while fold(&adapter).await.is_ok() {}
    let is_damage = |told: &(Option<Subject>, Option<Error>)| {
        let position = "section 1 of bucket \"shop\", \"users\"";
        told.0 == Some(Subject::Bucket(users.bucket.clone()))
            && matches!(&told.1, Some(Error::Corrupt { at, .. }) if at.position.as_deref() == Some(position))
    };
    {
        let told = told.lock().unwrap();
        assert!(told.len() == 1 && is_damage(&told[0]), "{told:?}");
    }
    // Nobody who comes later is left out.
    let later = watched(&adapter);

    let mut before = journal_of(&place);
    before.retain(|(key, _)| JournalKeys::parse(key).unwrap().0 == keys);
    for _ in 0..2 {
        let refused = commit(&adapter, &shop, epoch, vec![delta(4)]).await;
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    let mut after = journal_of(&place);
    after.retain(|(key, _)| JournalKeys::parse(key).unwrap().0 == keys);
    assert_eq!(after, before);
    let fenced = commit(&adapter, &shop, Epoch(epoch.0 - 1), vec![delta(4)]).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "who is fenced is told so: {fenced:?}");
    // A snapshot that is refused mends nothing.
    let snapshot = || save(&users, full(vec![with_text(1, 0, "anew")]));
    let fenced = commit(&adapter, &shop, Epoch(epoch.0 - 1), vec![snapshot()]).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    assert!(matches!(commit(&adapter, &shop, epoch, vec![delta(4)]).await, Err(Error::Corrupt { .. })));
    let other = save(&bucket("other"), upserting(2, vec![with_text(2, 1, "fine")]));
    commit(&adapter, &shop, epoch, vec![other]).await.unwrap();

    commit(&adapter, &shop, epoch, vec![snapshot(), delta(5)]).await.unwrap();
    {
        let later = later.lock().unwrap();
        assert!(later.len() == 2 && is_damage(&later[0]) && later[1].1.is_none(), "{later:?}");
    }
    commit(&adapter, &shop, epoch, vec![delta(6)]).await.unwrap();
    assert_eq!(contents(&adapter, &users).await.unwrap().unwrap().len(), 2);
    close(adapter).await;
    assert_eq!(journal_of(&place), []);
}

#[tokio::test]
async fn a_full_snapshot_and_a_drop_heal_a_damaged_journal() {
    for dropped in [false, true] {
        let place = killed_with_changes().await;
        let keys = JournalKeys::of_bucket(&bucket("users"));
        meddle(&place, |table| drop(table.remove(&*keys.section(1)).unwrap().unwrap()));
        let adapter = open(&place.path(), unfolding()).await;
        while fold(&adapter).await.is_ok() {}
        if dropped {
            adapter.drop_bucket(&bucket("users")).await.unwrap();
            assert_eq!(adapter.load_bucket(&bucket("users")).await.unwrap(), None);
        } else {
            adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, "anew")])).await.unwrap();
            assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap()[0].2, "anew");
        }
        adapter.save_bucket(&bucket("users"), &upserting(2, vec![with_text(2, 0, "later")])).await.unwrap();
        while fold(&adapter).await.unwrap() {}
        assert_eq!(journal_of(&place), [], "it is folded again, without being asked for");
    }
}

#[tokio::test]
async fn a_step_that_fails_with_the_disk_loses_nothing_and_comes_again() {
    for syncs in [false, true] {
        let place = Place::new();
        let faults = faults::Faults::default();
        let options = RedbOptions { faults: Some(faults.clone()), ..unfolding() };
        let adapter = open(&place.path(), options).await;
        adapter.save_bucket(&bucket("users"), &upserting(1, vec![with_text(1, 0, "a")])).await.unwrap();
        let fail = |fail| if syncs { faults.fail_syncs(fail) } else { faults.fail_writes(fail) };
        fail(true);
        let outcome = fold(&adapter).await;
        assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
        let outcome = adapter.load_bucket(&bucket("users")).await;
        assert!(matches!(outcome, Err(Error::Transient { .. })), "{outcome:?}");
        fail(false);
        assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap().len(), 1);
        adapter.save_bucket(&bucket("users"), &upserting(2, vec![with_text(2, 1, "b")])).await.unwrap();
        close(adapter).await;
        assert_eq!(journal_of(&place), []);
    }
}

#[tokio::test]
async fn a_fenced_commit_leaves_nothing_in_the_journal() {
    let place = Place::new();
    let adapter = open(&place.path(), unfolding()).await;
    let (shop, users) = (store("shop"), bucket("users"));
    let old = adapter.claim(&shop).await.unwrap();
    adapter.claim(&shop).await.unwrap();
    let refused = commit(&adapter, &shop, old, vec![save(&users, upserting(1, vec![with_text(1, 0, "a")]))]).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert_eq!(journal_of(&place), []);
}

// ---- any order of things

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Part>),
    /// On a disk that does not sync: a commit, a step of folding or a load; then the commit comes again.
    Failing(Vec<Part>, u8),
    Quarantine(u8),
    Fold,
    Load,
    Reopen,
    Kill,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Full(u8, Vec<u8>),
    Delta { bucket: u8, cleared: bool, deletes: Vec<u8>, upserts: Vec<u8>, requests: u8, window: u8 },
    Drop(u8),
    Meta(i64),
    History { append: Vec<(u8, i8)>, evict: Vec<u8> },
    Hint(u8, Vec<u8>),
    DropChannel,
}

pub(super) fn parts() -> impl Strategy<Value = Part> {
    let keys = || proptest::collection::vec(0_u8..16, 0..8);
    prop_oneof![
        1 => (0_u8..2, keys()).prop_map(|(bucket, keys)| Part::Full(bucket, keys)),
        8 => (0_u8..2, proptest::bool::weighted(0.15), keys(), keys(), 0_u8..3, 1_u8..5).prop_map(
            |(bucket, cleared, deletes, upserts, requests, window)| Part::Delta {
                bucket, cleared, deletes, upserts, requests, window
            }
        ),
        1 => (0_u8..2).prop_map(Part::Drop),
        2 => any::<i64>().prop_map(Part::Meta),
        4 => (proptest::collection::vec((0_u8..8, -3_i8..4), 0..5), proptest::collection::vec(0_u8..8, 0..4))
            .prop_map(|(append, evict)| Part::History { append, evict }),
        2 => (0_u8..8, proptest::collection::vec(any::<u8>(), 0..3)).prop_map(|(id, hint)| Part::Hint(id, hint)),
        1 => Just(Part::DropChannel),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => proptest::collection::vec(parts(), 1..4).prop_map(Step::Commit),
        2 => (proptest::collection::vec(parts(), 1..4), 0_u8..3).prop_map(|(parts, how)| Step::Failing(parts, how)),
        1 => (0_u8..2).prop_map(Step::Quarantine),
        4 => Just(Step::Fold),
        1 => Just(Step::Load),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..24)
}

fn id_of(number: u8) -> MessageId {
    MessageId::from(&[b'm', number][..])
}

pub(super) fn save_of(part: Part, revision: u64) -> Save {
    let named = |number: u8| bucket(if number == 0 { "users" } else { "users2" }).bucket;
    let id = channel("c").channel;
    let records = |numbers: Vec<u8>| {
        let unique: std::collections::BTreeSet<u8> = numbers.into_iter().collect();
        let records = unique.into_iter().map(|number| {
            // Whether the row is taken for a new one is a guess that may be wrong either way.
            let version = 1 + (u64::from(number) * revision) % 3 / 2;
            let metadata = Metadata { version, created_at: 5, updated_at: 6, expires_at: None };
            let place = u64::from(number) + 100 * revision;
            Arc::new(Record::from_parts(
                i64::from(number) - 5,
                place,
                metadata,
                record! { "text": format!("at {revision}") },
            ))
        });
        records.collect::<Vec<_>>()
    };
    match part {
        Part::Full(number, keys) => {
            let snapshot = BucketSnapshot::new(1, revision, 3, records(keys));
            Save::Bucket(named(number), Arc::new(BucketChange::Full(snapshot)))
        }
        Part::Delta { bucket, cleared, deletes, upserts, requests, window } => {
            let deletes = deletes.into_iter().filter(|number| !upserts.contains(number));
            let mut change = BucketDelta::new(revision, i64::from(window), 1 + u32::from(requests));
            change.cleared = cleared;
            change.deletes = deletes.map(|number| Key::from(i64::from(number) - 5)).collect();
            change.upserts = records(upserts);
            change.requests = (0..requests.into())
                .map(|number| {
                    let request = Request::new(format!("{revision}.{number}"), &Write::Clear).unwrap();
                    Request { revision: 10 * revision + number, ..request }
                })
                .collect();
            change.request_window = window.into();
            Save::Bucket(named(bucket), Arc::new(BucketChange::Delta(change)))
        }
        Part::Drop(number) => Save::DropBucket(named(number)),
        Part::Meta(lamport_timestamp) => {
            Save::ChannelMeta(id, Arc::new(ChannelMeta { lamport_timestamp, ..ChannelMeta::default() }))
        }
        Part::History { append, evict } => {
            let append = append.into_iter().map(|(number, lamport)| SdsMessage {
                message_id: id_of(number),
                lamport_timestamp: lamport.into(),
                content: format!("at {revision}").into_bytes().into(),
                channel_id: "c".into(),
                ..SdsMessage::default()
            });
            Save::History(id, Arc::new(HistoryUpdate::new(append.collect(), evict.into_iter().map(id_of).collect())))
        }
        Part::Hint(number, hint) => Save::Hint(id, id_of(number), hint.into()),
        Part::DropChannel => Save::DropChannel(id),
    }
}

type Contents = (Vec<Option<(BucketSnapshot, BTreeMap<Key, Arc<Record>>)>>, ChannelData);

async fn everything<A: StorageAdapter>(adapter: &A) -> Contents {
    let mut buckets = Vec::new();
    for name in ["users", "users2"] {
        let loaded = adapter.load_bucket(&bucket(name)).await.unwrap();
        buckets.push(loaded.map(|mut snapshot| {
            let records = std::mem::take(&mut snapshot.records);
            (snapshot, records.into_iter().map(|record| (record.key().clone(), record)).collect())
        }));
    }
    let mut data = adapter.load_channel(&channel("c")).await.unwrap();
    data.message_history.sort_by_key(|message| (message.lamport_timestamp, message.message_id.clone()));
    data.hints.sort();
    (buckets, data)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whenever_it_is_folded_closed_or_killed_what_is_loaded_is_what_memory_holds(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (model, shop) = (MemoryAdapter::default(), store("shop"));
            let mut place = Place::new();
            let faults = faults::Faults::default();
            let slow = || RedbOptions { faults: Some(faults.clone()), ..slow() };
            let mut adapter = open(&place.path(), slow()).await;
            let mut epoch = adapter.claim(&shop).await.unwrap();
            let model_epoch = model.claim(&shop).await.unwrap();
            for (revision, step) in (1_u64..).zip(steps) {
                match step {
                    Step::Commit(parts) => {
                        let saves: Vec<_> = parts.into_iter().map(|part| save_of(part, revision)).collect();
                        commit(&adapter, &shop, epoch, saves.clone()).await.unwrap();
                        let same = Commit::new(shop.clone(), model_epoch, Durability::Fsync, saves);
                        model.commit(&same).await.unwrap();
                    }
                    Step::Failing(parts, how) => {
                        let saves: Vec<_> = parts.into_iter().map(|part| save_of(part, revision)).collect();
                        faults.fail_syncs(true);
                        match how {
                            0 => drop(fold(&adapter).await),
                            1 => drop(adapter.load_bucket(&bucket("users")).await),
                            _ => {
                                let outcome = commit(&adapter, &shop, epoch, saves.clone()).await;
                                assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
                            }
                        }
                        faults.fail_syncs(false);
                        commit(&adapter, &shop, epoch, saves.clone()).await.unwrap();
                        let same = Commit::new(shop.clone(), model_epoch, Durability::Fsync, saves);
                        model.commit(&same).await.unwrap();
                    }
                    Step::Quarantine(number) => {
                        let name = bucket(if number == 0 { "users" } else { "users2" }).bucket;
                        adapter.quarantine(&shop, &Subject::Bucket(name.clone())).await.unwrap();
                        let saves = vec![Save::DropBucket(name)];
                        model.commit(&Commit::new(shop.clone(), model_epoch, Durability::Fsync, saves)).await.unwrap();
                    }
                    Step::Fold => drop(fold(&adapter).await.unwrap()),
                    Step::Load => assert_eq!(everything(&adapter).await, everything(&model).await),
                    Step::Reopen => {
                        close(adapter).await;
                        assert_eq!(journal_of(&place), []);
                        adapter = open(&place.path(), slow()).await;
                        epoch = adapter.claim(&shop).await.unwrap();
                    }
                    Step::Kill => {
                        place = killed(&place);
                        adapter = open(&place.path(), slow()).await;
                        epoch = adapter.claim(&shop).await.unwrap();
                    }
                }
            }
            assert_eq!(everything(&adapter).await, everything(&model).await);
        });
    }
}
