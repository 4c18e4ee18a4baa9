//! Who may write: one file, one process; one store, its newest claim. Refusing one commit never touches another.

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::adapters::redb::tests::faults::Faults;
use crate::base::error::Error;

#[tokio::test]
async fn every_claim_is_higher_than_any_before_it_over_reopening_too() {
    let place = Place::new();
    let adapter = place.open().await;
    let (shop, other) = (store("shop"), store("other"));
    assert_eq!(adapter.claim(&shop).await.unwrap(), Epoch(1));
    assert_eq!(adapter.claim(&other).await.unwrap(), Epoch(1));
    assert_eq!(adapter.claim(&shop).await.unwrap(), Epoch(2));
    adapter.close(&shop).await.unwrap();
    adapter.close(&other).await.unwrap();
    assert_eq!(place.open().await.claim(&shop).await.unwrap(), Epoch(3));
}

#[tokio::test]
async fn an_older_claim_is_fenced_and_told_both_epochs() {
    let place = Place::new();
    let adapter = place.open().await;
    let (shop, users) = (store("shop"), bucket("users"));
    let refused = commit(&adapter, &shop, Epoch(1), vec![]).await;
    assert!(matches!(refused, Err(Error::Fenced { epoch: 1, current: 0 })), "nobody has claimed it: {refused:?}");

    let old = adapter.claim(&shop).await.unwrap();
    let new = adapter.claim(&shop).await.unwrap();
    let theirs = || vec![save(&users, full(vec![with_text(1, 0, "theirs")]))];
    for epoch in [old, Epoch(new.0 + 1)] {
        let refused = commit(&adapter, &shop, epoch, theirs()).await;
        assert!(matches!(refused, Err(Error::Fenced { epoch: mine, current: 2 }) if mine == epoch.0), "{refused:?}");
    }
    assert_eq!(contents(&adapter, &users).await.unwrap(), None);
    let drop_it = vec![Save::DropBucket(users.bucket.clone())];
    commit(&adapter, &shop, new, theirs()).await.unwrap();
    assert!(matches!(commit(&adapter, &shop, old, drop_it).await, Err(Error::Fenced { .. })));
    assert!(contents(&adapter, &users).await.unwrap().is_some());
}

#[tokio::test]
async fn a_second_opening_is_refused_and_told_who_holds_the_file() {
    let place = Place::new();
    let adapter = place.open().await;
    let refused = RedbAdapter::open(place.path()).await;
    let Err(Error::Locked { path, holder: Some(holder) }) = refused else { panic!("{refused:?}") };
    assert_eq!(path, place.path());
    assert!(holder.starts_with(&format!("process {} since 20", std::process::id())), "{holder}");
    close(adapter).await;
    assert_eq!(place.files(), ["store.redb"]);
    close(place.open().await).await;
}

#[tokio::test]
async fn a_left_over_holder_file_is_neither_shown_nor_in_the_way() {
    let place = Place::new();
    close(place.open().await).await;
    std::fs::write(place.directory.path().join("store.redb.holder"), "pid 1\nsince 2001-01-01T00:00:00.000Z\n")
        .unwrap();
    {
        let _foreign = redb::Database::open(place.path()).unwrap();
        let refused = RedbAdapter::open(place.path()).await;
        assert!(matches!(refused, Err(Error::Locked { holder: None, .. })), "{refused:?}");
    }
    close(place.open().await).await;
    assert_eq!(place.files(), ["store.redb"]);
}

#[tokio::test]
async fn the_file_closes_with_the_last_claim_and_opens_with_the_next() {
    let place = Place::new();
    let adapter = place.open().await;
    let (shop, other) = (store("shop"), store("other"));
    adapter.claim(&shop).await.unwrap();
    adapter.claim(&other).await.unwrap();
    adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, "a")])).await.unwrap();
    for _ in 0..2 {
        adapter.close(&shop).await.unwrap();
        assert!(adapter.load_bucket(&bucket("users")).await.unwrap().is_some(), "the other store is still open");
    }
    for _ in 0..2 {
        adapter.close(&other).await.unwrap();
        assert_eq!(place.files(), ["store.redb"]);
    }
    drop(redb::Database::open(place.path()).unwrap());
    let refused = adapter.load_bucket(&bucket("users")).await;
    assert!(matches!(refused, Err(Error::Permanent { .. })), "a straggler opens nothing: {refused:?}");
    assert!(matches!(commit(&adapter, &shop, Epoch(1), vec![]).await, Err(Error::Permanent { .. })));
    drop(redb::Database::open(place.path()).unwrap());

    let epoch = adapter.claim(&shop).await.unwrap();
    assert_eq!(epoch, Epoch(2));
    assert!(adapter.load_bucket(&bucket("users")).await.unwrap().is_some());
    commit(&adapter, &shop, epoch, vec![save(&bucket("users"), full(vec![]))]).await.unwrap();
}

#[tokio::test]
async fn dropping_every_clone_closes_the_file_in_the_background() {
    let place = Place::new();
    let adapter = place.open().await;
    let clone = adapter.clone();
    drop(adapter);
    clone.claim(&store("shop")).await.unwrap();
    drop(clone);
    while RedbAdapter::open(place.path()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn commits_that_queue_together_succeed_and_fail_each_for_itself() {
    let place = Place::new();
    let adapter = place.open().await;
    let stores: Vec<_> = (0..8).map(|number| store(&format!("s{number}"))).collect();
    let mut epochs = Vec::new();
    for store in &stores {
        epochs.push(adapter.claim(store).await.unwrap());
    }
    adapter.claim(&stores[3]).await.unwrap();
    let bucket_of = |store: &StoreName| BucketKey::new(store.clone(), BucketName::new("b").unwrap());
    // The records of store 5 do not go with what its header says, so its commit is refused half-way.
    adapter.save_bucket(&bucket_of(&stores[5]), &full(vec![with_text(1, 0, "first")])).await.unwrap();
    for store in &stores {
        adapter.close(store).await.unwrap();
    }
    break_header(&place.path(), &bucket_of(&stores[5]));
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;

    // Nothing can be answered until all are sent.
    let held = faults.hold_syncs();
    let (first_bucket, first) = (bucket("first"), full(vec![]));
    let mut blocker = adapter.save_bucket(&first_bucket, &first);
    assert!(poll_once(&mut blocker).is_none());
    let mut waiting: Vec<_> = stores
        .iter()
        .zip(&epochs)
        .map(|(store, epoch)| {
            let (adapter, store, epoch) = (adapter.clone(), store.clone(), *epoch);
            let fine = save(
                &bucket_of(&store),
                BucketChange::Delta(BucketDelta { upserts: vec![with_text(1, 0, "new")], ..delta(2) }),
            );
            let other = BucketKey::new(store.clone(), BucketName::new("other").unwrap());
            let first = save(&other, full(vec![with_text(1, 0, "new")]));
            Box::pin(async move { commit(&adapter, &store, epoch, vec![first, fine]).await })
        })
        .collect();
    for commit in &mut waiting {
        assert!(poll_once(commit).is_none());
    }
    drop(held);
    blocker.await.unwrap();
    for (number, waiting) in waiting.into_iter().enumerate() {
        let outcome = waiting.await;
        match number {
            3 => assert!(matches!(outcome, Err(Error::Fenced { epoch: 1, current: 2 })), "{outcome:?}"),
            5 => assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}"),
            _ => outcome.unwrap(),
        }
        let other = BucketKey::new(stores[number].clone(), BucketName::new("other").unwrap());
        let written = adapter.load_bucket(&other).await.unwrap().is_some();
        assert_eq!(written, !matches!(number, 3 | 5), "store {number}: whole or not at all");
    }
}

#[tokio::test]
async fn commits_that_queue_together_share_one_transaction() {
    let place = Place::new();
    let faults = Faults::default();
    let adapter = place.open_with(&faults).await;
    let before = faults.synced();
    let changes: Vec<_> = (0..64).map(|n| (bucket(&format!("b{}", n % 7)), full(vec![with_text(n, 0, "x")]))).collect();
    let held = faults.hold_syncs();
    let mut sent: Vec<_> = changes.iter().map(|(bucket, change)| adapter.save_bucket(bucket, change)).collect();
    assert!(sent.iter_mut().all(|commit| poll_once(commit).is_none()));
    drop(held);
    for commit in sent {
        commit.await.unwrap();
    }
    let syncs = faults.synced() - before;
    assert!((1..=4).contains(&syncs), "{syncs} syncs");
    let loaded = adapter.load_bucket(&bucket("b0")).await.unwrap().unwrap();
    assert_eq!(loaded.records[0].key(), &Key::from(63), "the last one counts");
}

/// Polls a future once.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Takes a row away behind the adapter's back, so that the bucket's header does not fit its rows.
fn break_header(path: &Path, bucket: &BucketKey) {
    let places = crate::adapters::redb::keys::BucketPlaces::of(bucket);
    let db = redb::Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let definition = crate::adapters::redb::rows::Definition::new(&places.rows);
        txn.open_table(definition).unwrap().pop_first().unwrap().unwrap();
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn what_was_sent_is_done_in_order_even_if_nobody_waits_for_it() {
    let place = Place::new();
    let adapter = place.open().await;
    let users = bucket("users");
    for revision in 1..=50 {
        let change = BucketChange::Delta(BucketDelta {
            upserts: vec![with_text(1, 0, &format!("at {revision}"))],
            ..delta(revision)
        });
        let mut sent = adapter.save_bucket(&users, &change);
        if poll_once(&mut sent).is_none() {
            drop(sent);
        }
    }
    let loaded = adapter.load_bucket(&users).await.unwrap().unwrap();
    assert_eq!(loaded.revision, 50);
    assert_eq!(contents(&adapter, &users).await.unwrap().unwrap()[0].2, "at 50");
}

#[tokio::test]
async fn two_that_make_the_same_new_file_at_once_do_not_lose_one_of_them() {
    for _ in 0..10 {
        let place = Place::new();
        let openings: Vec<_> = (0..4).map(|_| tokio::spawn(RedbAdapter::open(place.path()))).collect();
        let mut opened = Vec::new();
        for opening in openings {
            match opening.await.unwrap() {
                Ok(adapter) => opened.push(adapter),
                Err(Error::Locked { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(opened.len(), 1);
        assert_eq!(place.files(), ["store.redb", "store.redb.holder"]);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let _adapter = place.open().await;
    for name in place.files() {
        let mode = std::fs::metadata(place.directory.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Holds the file of the environment variable until standard input ends; does nothing without it.
#[tokio::test]
async fn holds_a_file_for_another_process() {
    let Some(path) = std::env::var_os("RACTOR_PERSISTENCE_TEST_HOLD") else { return };
    let adapter = RedbAdapter::open(PathBuf::from(path)).await.unwrap();
    adapter.claim(&store("shop")).await.unwrap();
    println!("\nholding");
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
}

#[tokio::test]
async fn another_process_is_refused_until_the_holder_is_killed() {
    use std::io::BufRead;
    let place = Place::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "adapters::redb::tests::claims::holds_a_file_for_another_process"])
        .env("RACTOR_PERSISTENCE_TEST_HOLD", place.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "holding"));

    let refused = RedbAdapter::open(place.path()).await;
    let Err(Error::Locked { holder: Some(holder), .. }) = refused else { panic!("{refused:?}") };
    assert!(holder.starts_with(&format!("process {} since", child.id())), "{holder}");
    child.kill().unwrap();
    child.wait().unwrap();
    let adapter = place.open().await;
    assert_eq!(adapter.claim(&store("shop")).await.unwrap(), Epoch(2));
    close(adapter).await;
    assert_eq!(place.files(), ["store.redb"]);
}
