//! A backup is the state after some commit, with every commit that was answered before it; what goes wrong leaves nothing
//! behind. Compacting loses nothing.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use redb::ReadableDatabase;

use super::*;
use crate::adapters::redb::fault::guarded;
use crate::adapters::redb::file;
use crate::adapters::redb::rows::{self, Definition};
use crate::base::error::Error;
use crate::sds::{HistoryUpdate, SdsMessage};

fn upserting(key: i64, text: &str) -> BucketChange {
    let upserts = vec![with_text(key, key.unsigned_abs(), text)];
    BucketChange::Delta(BucketDelta { upserts, ..delta(key.unsigned_abs() + 1) })
}

fn meta(path: &Path) -> Vec<u8> {
    let txn = redb::Database::open(path).unwrap().begin_read().unwrap();
    let row = txn.open_table(Definition::new(rows::META)).unwrap().get(&b"store"[..]).unwrap().unwrap();
    row.value().to_vec()
}

#[tokio::test]
async fn a_copy_has_everything_and_is_a_file_of_its_own() {
    let place = Place::new();
    let options = RedbOptions { quiet: std::time::Duration::from_secs(3_600), ..RedbOptions::default() };
    let adapter = RedbAdapter::open_with(place.path(), options).await.unwrap();
    let shop = store("shop");
    let epoch = adapter.claim(&shop).await.unwrap();
    adapter.save_bucket(&bucket("users"), &full(vec![with_text(0, 0, "a row")])).await.unwrap();
    adapter.save_bucket(&bucket("users"), &upserting(1, "journalled")).await.unwrap();
    let message = SdsMessage { message_id: "m".into(), channel_id: "c".into(), ..SdsMessage::default() };
    adapter.update_history(&channel("c"), &HistoryUpdate::new(vec![message], Vec::new())).await.unwrap();

    let target = place.directory.path().join("copy.redb");
    let bytes = adapter.backup(&target).await.unwrap();
    assert_eq!(std::fs::metadata(&target).unwrap().len(), bytes);
    let names = place.files();
    assert_eq!(names, ["copy.redb", "store.redb", "store.redb.holder"]);

    let copy = RedbAdapter::open(&target).await.unwrap();
    assert_eq!(contents(&copy, &bucket("users")).await.unwrap(), contents(&adapter, &bucket("users")).await.unwrap());
    assert_eq!(copy.load_channel(&channel("c")).await.unwrap().message_history.len(), 1);
    assert!(copy.claim(&shop).await.unwrap() > epoch);
    // Both go on, each by itself.
    copy.save_bucket(&bucket("users"), &upserting(2, "of the copy")).await.unwrap();
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap().len(), 2);
    close(copy).await;
    close(adapter).await;
    assert_ne!(meta(&target), meta(&place.path()));
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_leaves_nothing_behind() {
    let place = Place::new();
    let adapter = place.open().await;
    let target = place.directory.path().join("copy.redb");
    std::fs::write(&target, "mine").unwrap();
    let outcome = adapter.backup(&target).await;
    assert!(matches!(outcome, Err(Error::InvalidArgument { .. })), "{outcome:?}");
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    let outcome = adapter.backup(&place.directory.path().join("nowhere/copy.redb")).await;
    assert!(matches!(outcome, Err(Error::Permanent { .. })), "{outcome:?}");
    assert_eq!(place.files(), ["copy.redb", "store.redb", "store.redb.holder"]);
    adapter.save_bucket(&bucket("users"), &upserting(1, "served on")).await.unwrap();
}

#[test]
fn a_copy_that_is_cut_off_by_a_panic_leaves_nothing_behind() {
    let place = Place::new();
    let target = place.directory.path().join("copy.redb");
    let panicked = guarded(|| file::create_copy(&target, |_| panic!("damage")));
    assert!(panicked.is_err());
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_copy_whose_directory_cannot_be_synced_is_taken_back() {
    let place = Place::new();
    let target = place.directory.path().join("copy.redb");
    let failing = |_: &Path| Err(std::io::Error::other("no sync"));
    let refused = file::copy_synced_by(&target, failing, |_| Ok(()));
    let refused = refused.map_err(|fault| fault.into_error("copying", &target));
    assert!(matches!(refused, Err(Error::Transient { .. })), "{refused:?}");
    assert_eq!(place.files(), Vec::<String>::new());
    file::create_copy(&target, |_| Ok(())).map_err(|fault| fault.into_error("copying", &target)).unwrap();
    assert_eq!(place.files(), ["copy.redb"]);
}

#[tokio::test]
async fn a_copy_on_a_disk_that_failed_a_read_is_begun_again_and_disturbs_no_commit() {
    let place = Place::new();
    let faults = faults::Faults::default();
    let adapter = place.open_with(&faults).await;
    let (shop, users) = (store("shop"), bucket("users"));
    let records: Vec<_> = (0..9_000).map(|key| with_text(key, 0, "some text that fills pages")).collect();
    adapter.save_bucket(&users, &full(records)).await.unwrap();
    let epoch = adapter.claim(&shop).await.unwrap();
    let target = place.directory.path().join("copy.redb");
    faults.fail_reads(true);
    let outcome = adapter.backup(&target).await;
    assert!(matches!(outcome, Err(Error::Transient { .. })), "{outcome:?}");
    faults.fail_reads(false);
    adapter.backup(&target).await.unwrap();
    commit(&adapter, &shop, epoch, vec![save(&users, upserting(1, "changed"))]).await.unwrap();
    let copy = RedbAdapter::open(&target).await.unwrap();
    assert_eq!(contents(&copy, &users).await.unwrap().unwrap().len(), 9_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_serves_on_while_it_is_copied_and_the_copy_is_the_state_after_some_commit() {
    let place = Place::new();
    let adapter = place.open().await;
    let shop = store("shop");
    let epoch = adapter.claim(&shop).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicI64::new(0));
    let load = {
        let (adapter, shop, stop, answered) = (adapter.clone(), shop.clone(), Arc::clone(&stop), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let both = [bucket("users"), bucket("other")].map(|bucket| save(&bucket, upserting(number, "x")));
                commit(&adapter, &shop, epoch, both.to_vec()).await.unwrap();
                answered.store(number, Ordering::SeqCst);
            }
        })
    };
    for round in 0..5 {
        let floor = loop {
            match answered.load(Ordering::SeqCst) {
                number if number > 20 * round => break number,
                _ => tokio::task::yield_now().await,
            }
        };
        let target = place.directory.path().join(format!("copy {round}.redb"));
        adapter.backup(&target).await.unwrap();
        let ceiling = answered.load(Ordering::SeqCst) + 1;
        let copy = RedbAdapter::open(&target).await.unwrap();
        let users = contents(&copy, &bucket("users")).await.unwrap().unwrap();
        let count = i64::try_from(users.len()).unwrap();
        assert!((floor..=ceiling).contains(&count), "{floor} <= {count} <= {ceiling}");
        assert_eq!(users.last().unwrap().0, Key::from(count), "without gaps");
        assert_eq!(contents(&copy, &bucket("other")).await.unwrap().unwrap(), users, "of whole commits");
        close(copy).await;
    }
    stop.store(true, Ordering::SeqCst);
    load.await.unwrap();
    close(adapter).await;
}

#[tokio::test]
async fn compacting_folds_first_and_is_refused_for_now_while_something_reads() {
    let place = Place::new();
    let options = RedbOptions { quiet: std::time::Duration::from_secs(3_600), ..RedbOptions::default() };
    let adapter = RedbAdapter::open_with(place.path(), options).await.unwrap();
    let text = "long ".repeat(200);
    let upserts = (0..2_000_i64).map(|key| with_text(key, key.unsigned_abs(), &text)).collect();
    let change = BucketChange::Delta(BucketDelta { upserts, ..delta(1) });
    adapter.save_bucket(&bucket("users"), &change).await.unwrap();
    let cleared = BucketChange::Delta(BucketDelta { cleared: true, ..delta(2) });
    adapter.save_bucket(&bucket("users"), &cleared).await.unwrap();
    adapter.save_bucket(&bucket("users"), &upserting(7, "left")).await.unwrap();

    let asked =
        |reply| crate::adapters::redb::writer::Request::Read { operation: "reading", whole: None, failed: None, reply };
    let reading = adapter.ask("reading", asked).await.unwrap();
    let outcome = adapter.compact().await;
    assert!(matches!(outcome, Err(Error::Transient { .. })), "{outcome:?}");
    drop(reading);
    let before = std::fs::metadata(place.path()).unwrap().len();
    let gained = adapter.compact().await.unwrap();
    assert_eq!(std::fs::metadata(place.path()).unwrap().len(), before - gained);
    assert!(gained > 1 << 20, "{gained}");
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap()[0].2, "left");
    close(adapter).await;
}
