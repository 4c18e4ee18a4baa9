//! After an I/O error the file is opened again; what was in flight is unknown, what comes after it works.

use super::*;
use crate::adapters::redb::tests::faults::Faults;
use crate::base::error::Error;

#[tokio::test]
async fn a_commit_on_a_failing_disk_is_unknown_and_works_when_it_comes_again() {
    for syncs in [false, true] {
        let place = Place::new();
        let faults = Faults::default();
        let adapter = place.open_with(&faults).await;
        let (shop, users) = (store("shop"), bucket("users"));
        let epoch = adapter.claim(&shop).await.unwrap();
        commit(&adapter, &shop, epoch, vec![save(&users, full(vec![with_text(1, 0, "old")]))]).await.unwrap();

        let fail = |fail| if syncs { faults.fail_syncs(fail) } else { faults.fail_writes(fail) };
        let change = || {
            let upserts = vec![with_text(2, 1, "new")];
            vec![save(&users, BucketChange::Delta(BucketDelta { upserts, ..delta(2) }))]
        };
        fail(true);
        let outcome = commit(&adapter, &shop, epoch, change()).await;
        assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
        let source = std::error::Error::source(outcome.as_ref().unwrap_err()).unwrap();
        assert!(source.to_string().contains("told to fail"), "{source}");
        fail(false);

        commit(&adapter, &shop, epoch, change()).await.unwrap();
        let expected = vec![(Key::from(1), 0, "old".to_owned()), (Key::from(2), 1, "new".to_owned())];
        assert_eq!(contents(&adapter, &users).await.unwrap(), Some(expected));
        let refused = RedbAdapter::open(place.path()).await;
        assert!(matches!(refused, Err(Error::Locked { holder: Some(_), .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn while_the_file_cannot_be_opened_again_everything_may_be_tried_again() {
    let place = Place::new();
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;
    let (shop, users) = (store("shop"), bucket("users"));
    let epoch = adapter.claim(&shop).await.unwrap();
    let change = || vec![save(&users, full(vec![with_text(1, 0, "a")]))];
    faults.fail_writes(true);
    faults.fail_opens(true);
    assert!(matches!(commit(&adapter, &shop, epoch, change()).await, Err(Error::Unknown { .. })));
    for _ in 0..2 {
        assert!(matches!(commit(&adapter, &shop, epoch, change()).await, Err(Error::Transient { .. })));
        assert!(matches!(adapter.load_bucket(&users).await, Err(Error::Transient { .. })));
        assert!(matches!(adapter.claim(&shop).await, Err(Error::Transient { .. })));
    }
    faults.fail_writes(false);
    faults.fail_opens(false);
    commit(&adapter, &shop, epoch, change()).await.unwrap();
}

#[tokio::test]
async fn whoever_took_the_store_over_meanwhile_fences_it() {
    let place = Place::new();
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;
    let shop = store("shop");
    let epoch = adapter.claim(&shop).await.unwrap();
    faults.fail_writes(true);
    faults.fail_opens(true);
    let change = || vec![save(&bucket("users"), full(vec![]))];
    assert!(matches!(commit(&adapter, &shop, epoch, change()).await, Err(Error::Unknown { .. })));
    let successor = place.open().await;
    successor.claim(&shop).await.unwrap();
    close(successor).await;
    faults.fail_writes(false);
    faults.fail_opens(false);
    let outcome = commit(&adapter, &shop, epoch, change()).await;
    assert!(matches!(outcome, Err(Error::Fenced { epoch: 1, current: 2 })), "{outcome:?}");
}

#[tokio::test]
async fn a_file_that_took_the_place_of_the_failed_one_is_not_written_to() {
    let place = Place::new();
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;
    let shop = store("shop");
    let epoch = adapter.claim(&shop).await.unwrap();
    faults.fail_writes(true);
    faults.fail_opens(true);
    let change = || vec![save(&bucket("users"), full(vec![]))];
    assert!(matches!(commit(&adapter, &shop, epoch, change()).await, Err(Error::Unknown { .. })));
    faults.fail_writes(false);
    faults.fail_opens(false);
    let missing = std::fs::rename(place.path(), place.directory.path().join("moved"));
    missing.unwrap();
    assert!(matches!(commit(&adapter, &shop, epoch, change()).await, Err(Error::Transient { .. })));
    assert!(!place.path().exists(), "opening again makes nothing");
    let other = place.open().await;
    other.claim(&shop).await.unwrap();
    close(other).await;
    let outcome = commit(&adapter, &shop, epoch, change()).await;
    assert!(matches!(outcome, Err(Error::Permanent { .. })), "{outcome:?}");
    assert_eq!(place.open().await.load_bucket(&bucket("users")).await.unwrap(), None);
}

#[tokio::test]
async fn a_load_on_a_disk_that_failed_once_is_read_again() {
    let place = Place::new();
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;
    let users = bucket("users");
    let records: Vec<_> = (0..9_000).map(|key| with_text(key, 0, "some text that fills pages")).collect();
    adapter.save_bucket(&users, &full(records)).await.unwrap();
    faults.fail_reads(true);
    assert!(matches!(adapter.load_bucket(&users).await, Err(Error::Transient { .. })));
    faults.fail_reads(false);
    assert_eq!(adapter.load_bucket(&users).await.unwrap().unwrap().records.len(), 9_000);
}

#[tokio::test]
async fn compacting_gives_room_back_and_changes_nothing() {
    let place = Place::new();
    let adapter = place.open().await;
    let users = bucket("users");
    let records: Vec<_> = (0..5_000).map(|key| with_text(key, 0, "some text that fills pages")).collect();
    adapter.save_bucket(&users, &full(records)).await.unwrap();
    adapter.save_bucket(&users, &full(vec![with_text(1, 0, "left")])).await.unwrap();
    let before = std::fs::metadata(place.path()).unwrap().len();
    let gained = adapter.compact().await.unwrap();
    assert_eq!(std::fs::metadata(place.path()).unwrap().len(), before - gained);
    assert!(gained > 0);
    assert_eq!(contents(&adapter, &users).await.unwrap(), Some(vec![(Key::from(1), 0, "left".to_owned())]));
}

#[tokio::test]
async fn bad_options_and_places_are_refused() {
    let place = Place::new();
    let outcome = RedbAdapter::open_with(place.path(), RedbOptions::default().with_cache_bytes(1)).await;
    assert!(matches!(outcome, Err(Error::InvalidOptions { .. })), "{outcome:?}");
    let outcome = RedbAdapter::open(place.directory.path().join("no such directory/store.redb")).await;
    assert!(matches!(outcome, Err(Error::Permanent { .. })), "{outcome:?}");
    let outcome = RedbAdapter::open(place.directory.path()).await;
    assert!(matches!(outcome, Err(Error::Permanent { .. })), "{outcome:?}");
    assert!(place.files().is_empty());
}

#[tokio::test]
async fn a_pause_after_commits_spares_the_opening_after_a_crash_the_walk_through_the_file() {
    let place = Place::new();
    let mut options = RedbOptions::default();
    (options.pause, options.worth_recording) = (std::time::Duration::from_millis(1), 0);
    let adapter = RedbAdapter::open_with(place.path(), options).await.unwrap();
    let crashed = place.directory.path().join("crashed.redb");
    for revision in 1..=3 {
        let upserts = vec![with_text(revision, 0, "a")];
        let change = BucketChange::Delta(BucketDelta { upserts, ..delta(1) });
        adapter.save_bucket(&bucket("users"), &change).await.unwrap();
        // What a kill at this moment would leave, until it is found recorded: never at all if it never is.
        while walked(&place.path(), &crashed) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    std::fs::copy(place.path(), &crashed).unwrap();
    let after = RedbAdapter::open(&crashed).await.unwrap();
    assert_eq!(contents(&after, &bucket("users")).await.unwrap().unwrap().len(), 3);
}

fn walked(path: &Path, copy: &Path) -> bool {
    std::fs::copy(path, copy).unwrap();
    let walked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = Arc::clone(&walked);
    let mut builder = redb::Builder::new();
    builder.set_repair_callback(move |_| told.store(true, std::sync::atomic::Ordering::SeqCst));
    // A copy made in the middle of a commit may be none that a crash leaves.
    let opened = crate::adapters::redb::fault::guarded(|| builder.open(copy).is_ok());
    !opened.unwrap_or(false) || walked.load(std::sync::atomic::Ordering::SeqCst)
}
