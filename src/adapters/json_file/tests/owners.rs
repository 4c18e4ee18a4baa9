//! Who may write: one adapter per directory, one claim per store.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::base::disk::{Disk, RealDisk};
use crate::base::error::Error;

#[tokio::test]
async fn a_second_adapter_is_refused_by_name_until_the_last_claim_is_released() {
    let directory = tempfile::tempdir().unwrap();
    let first = Claimed::real(directory.path()).await.unwrap();
    let attic = StoreName::new("attic").unwrap();
    first.adapter.claim(&attic).await.unwrap();
    let refused = JsonFileAdapter::open(directory.path()).await.unwrap_err();
    let Error::Locked { path, holder } = refused else { panic!("{refused:?}") };
    assert_eq!(path, directory.path());
    let me = format!("process {} since 2026-01-31T12:00:00.000Z", std::process::id());
    assert_eq!(holder, Some(me));
    first.close().await;
    assert!(
        matches!(JsonFileAdapter::open(directory.path()).await, Err(Error::Locked { .. })),
        "attic is still claimed"
    );
    first.adapter.close(&attic).await.unwrap();
    first.adapter.close(&attic).await.unwrap();
    let second = JsonFileAdapter::open(directory.path()).await.unwrap();
    assert!(matches!(first.adapter.claim(&attic).await, Err(Error::Locked { .. })));
    drop(second);
    let again = first.adapter.claim(&attic).await.unwrap();
    assert_eq!(again, Epoch(2));
}

#[tokio::test]
async fn dropping_an_adapter_frees_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    for epoch in 1..5 {
        let claimed = Claimed::real(directory.path()).await.unwrap();
        assert_eq!(claimed.epoch, Epoch(epoch));
        let clone = claimed.adapter.clone();
        drop(claimed);
        assert!(JsonFileAdapter::open(directory.path()).await.is_err(), "a clone still has it");
        drop(clone);
    }
}

#[tokio::test]
async fn a_closed_adapter_refuses_everything_until_a_store_is_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = Claimed::real(directory.path()).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("b"), put(1, 1, "x"))]).await.unwrap();
    claimed.close().await;
    assert!(matches!(claimed.load("b").await, Err(Error::Permanent { .. })));
    assert!(matches!(claimed.commit(vec![]).await, Err(Error::Permanent { .. })));
    claimed.adapter.claim(&StoreName::new("attic").unwrap()).await.unwrap();
    let unclaimed = claimed.commit(vec![Save::DropBucket(bucket("b"))]).await;
    assert!(matches!(unclaimed, Err(Error::Permanent { .. })), "{unclaimed:?}");
    assert!(claimed.load("b").await.unwrap().is_some());
}

#[tokio::test]
async fn only_the_newest_claim_may_commit_and_epochs_only_grow() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = Claimed::real(directory.path()).await.unwrap();
    old.commit(vec![Save::Bucket(bucket("b"), put(1, 1, "x"))]).await.unwrap();
    let new = old.adapter.claim(&shop()).await.unwrap();
    assert!(new > old.epoch);
    for saves in [vec![Save::Bucket(bucket("b"), put(2, 1, "y"))], vec![Save::DropBucket(bucket("b"))], vec![]] {
        let fenced = old.commit(saves).await;
        assert!(matches!(fenced, Err(Error::Fenced { epoch: 1, current: 2 })), "{fenced:?}");
    }
    assert_eq!(old.load("b").await.unwrap().unwrap().revision, 1);
    old.epoch = Epoch(99);
    assert!(matches!(old.commit(vec![]).await, Err(Error::Fenced { epoch: 99, current: 2 })));
    old.epoch = new;
    old.commit(vec![Save::Bucket(bucket("b"), put(2, 1, "y"))]).await.unwrap();
    old.close().await;
    let other = Claimed::real(directory.path()).await.unwrap();
    assert_eq!(other.epoch, Epoch(3));
    old.epoch = Epoch(2);
    let stranger = JsonFileAdapter::open(tempfile::tempdir().unwrap().path()).await.unwrap();
    let never = Commit::new(shop(), Epoch(1), Durability::Ram, vec![]);
    assert!(matches!(stranger.commit(&never).await, Err(Error::Fenced { epoch: 1, current: 0 })));
}

#[tokio::test]
async fn stores_of_one_directory_share_nothing() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let attic = StoreName::new("attic").unwrap();
    let epoch = claimed.adapter.claim(&attic).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("b"), put(1, 1, "shop"))]).await.unwrap();
    let key = BucketKey::new(attic.clone(), bucket("b"));
    assert!(claimed.adapter.load_bucket(&key).await.unwrap().is_none());
    let save = vec![Save::Bucket(bucket("b"), put(9, 1, "attic"))];
    claimed.adapter.commit(&Commit::new(attic.clone(), epoch, Durability::Fsync, save)).await.unwrap();
    claimed.close().await;
    assert_eq!(claimed.adapter.load_bucket(&key).await.unwrap().unwrap().revision, 9);
    claimed.adapter.close(&attic).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_done_as_a_whole_and_not_overtaken() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = Claimed::real(directory.path()).await.unwrap();
    for round in 1..50_u64 {
        let saves = vec![Save::Bucket(bucket("a"), put(round, 1, "x")), Save::Bucket(bucket("b"), put(round, 1, "x"))];
        let mut abandoned = Box::pin(claimed.commit_at(Durability::Wal, saves));
        let polled = Pin::new(&mut abandoned).poll(&mut Context::from_waker(Waker::noop()));
        assert!(!matches!(polled, Poll::Ready(Err(_))));
        drop(abandoned);
        let (a, b) = (claimed.load("a").await.unwrap(), claimed.load("b").await.unwrap());
        assert_eq!((a.unwrap().revision, b.unwrap().revision), (round, round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_loads_at_once_all_get_through() {
    let directory = tempfile::tempdir().unwrap();
    let claimed = Arc::new(Claimed::real(directory.path()).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24_i64 {
        let claimed = Arc::clone(&claimed);
        tasks.spawn(async move {
            let save =
                vec![Save::Bucket(bucket("b"), put(1, n, "x")), Save::Bucket(bucket(&format!("b{n}")), put(1, n, "x"))];
            claimed.commit(save).await.unwrap();
            assert!(claimed.load(&format!("b{n}")).await.unwrap().is_some());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(claimed.load("b").await.unwrap().unwrap().records.len(), 24);
}

#[tokio::test]
async fn ps_30_no_name_can_escape_the_directory_or_collide_with_another() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("data");
    let names = names::tests::torture();
    let mut attempt = 0;
    while attempt < 2 {
        let adapter = JsonFileAdapter::open(&directory).await.unwrap();
        // Every name is a store's, and has a bucket and a channel of every other name's first letters and of its own.
        for (number, name) in (1_i64..).zip(&names) {
            let store = StoreName::new(name).unwrap();
            let epoch = adapter.claim(&store).await.unwrap();
            let (bucket, channel) = (bucket(name), channel(name));
            let keys = (BucketKey::new(store.clone(), bucket.clone()), ChannelKey::new(store.clone(), channel.clone()));
            if attempt == 0 {
                let saves = vec![Save::Bucket(bucket, put(1, number, name)), Save::ChannelMeta(channel, meta(number))];
                adapter.commit(&Commit::new(store, epoch, Durability::Ram, saves)).await.unwrap();
            }
            let loaded = adapter.load_bucket(&keys.0).await.unwrap().unwrap();
            assert_eq!(loaded.records[0].get("text").and_then(|text| text.as_str()), Some(name.as_str()));
            assert_eq!(adapter.load_channel(&keys.1).await.unwrap().meta.lamport_timestamp, number);
        }
        attempt += 1;
    }
    // All names beside one another in one store.
    let disk = PowerCutDisk::default();
    let Claimed { adapter, epoch } = Claimed::on(&disk).await.unwrap();
    let saves = (1_i64..).zip(&names).map(|(number, name)| Save::Bucket(bucket(name), put(1, number, name))).collect();
    adapter.commit(&Commit::new(shop(), epoch, Durability::Ram, saves)).await.unwrap();
    for (number, name) in (1_i64..).zip(&names) {
        let loaded = adapter.load_bucket(&bucket_key(name)).await.unwrap().unwrap();
        assert_eq!(loaded.records[0].key(), &Key::from(number), "{name:?}");
    }
    assert_eq!(RealDisk.list(outer.path()).unwrap(), ["data"]);
    let holder = JsonFileAdapter::open(&directory).await.unwrap();
    let mut folded: Vec<String> =
        RealDisk.list(&directory).unwrap().iter().map(|name| name.to_str().unwrap().to_lowercase()).collect();
    drop(holder);
    folded.sort();
    let all = folded.len();
    folded.dedup();
    assert_eq!(folded.len(), all);
    assert_eq!(all, names.len() + 2, "a directory each, LOCK and LOCK.holder");
    assert_eq!(disk.files().len(), 2 * names.len() + 2, "two files each, EPOCH and LOCK.holder");
}

#[cfg(unix)]
#[tokio::test]
async fn everything_is_for_its_owner_alone_and_foreign_files_are_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("a/b");
    let claimed = Claimed::real(&root).await.unwrap();
    let foreign = [root.join("notes.txt"), root.join("shop/bucket.b.json.bak"), root.join("shop/README")];
    foreign.iter().for_each(|path| std::fs::write(path, "mine").unwrap());
    let modes = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    claimed.commit(vec![Save::Bucket(bucket("b"), put(1, 1, "x"))]).await.unwrap();
    for directory in ["", "..", "shop"] {
        assert_eq!(modes(&root.join(directory)), 0o700, "{directory:?}");
    }
    for file in ["LOCK", "LOCK.holder", "shop/EPOCH", "shop/bucket.b.json", "shop/bucket.b.jsonl"] {
        assert_eq!(modes(&root.join(file)), 0o600, "{file:?}");
    }
    claimed.commit(vec![Save::DropBucket(bucket("b"))]).await.unwrap();
    claimed.close().await;
    foreign.iter().for_each(|path| assert_eq!(std::fs::read(path).unwrap(), b"mine"));
}
