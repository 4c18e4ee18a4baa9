//! Backups and compactions: a copy is whole or not there, and what is compacted is what it was.

use super::*;
use crate::base::disk::Disk;
use crate::base::error::Error;
use crate::sds::ChannelData;

type Everything = (Option<BucketSnapshot>, Option<BucketSnapshot>, ChannelData);

async fn everything(claimed: &Claimed) -> Everything {
    let channel = claimed.adapter.load_channel(&channel_key("room")).await.unwrap();
    (claimed.load("a").await.unwrap(), claimed.load("b").await.unwrap(), channel)
}

async fn at(disk: &PowerCutDisk, path: &str) -> Claimed {
    let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone()));
    Claimed::with(Path::new(path), options).await.unwrap()
}

/// Two buckets and a channel with lines in their journals, some of which are not synced, and something in quarantine.
async fn filled(disk: &PowerCutDisk) -> Claimed {
    let claimed = at(disk, "/data").await;
    claimed.commit(vec![Save::Bucket(bucket("bad"), put(1, 1, "bad"))]).await.unwrap();
    claimed.adapter.quarantine(&shop(), &Subject::Bucket(bucket("bad"))).await.unwrap();
    for n in 1..=4_u8 {
        let durability = if n < 4 { Durability::Fsync } else { Durability::Wal };
        let saves = vec![
            Save::Bucket(bucket("a"), put(n.into(), n.into(), "x")),
            Save::Bucket(bucket("b"), put_by_request(n.into(), 1, &"x".repeat(3_000), 2)),
            Save::History(channel("room"), history(vec![message(&[n], 1)], &[])),
            Save::ChannelMeta(channel("room"), meta(n.into())),
        ];
        claimed.commit_at(durability, saves).await.unwrap();
    }
    claimed
}

#[tokio::test]
async fn a_backup_opens_with_everything_that_was_committed_and_lives_on_its_own() {
    let disk = PowerCutDisk::default();
    let claimed = filled(&disk).await;
    let expected = everything(&claimed).await;
    let bytes = claimed.adapter.backup(Path::new("/backups/one")).await.unwrap();
    let copied = disk.files().into_iter().filter(|path| path.starts_with("/backups/one"));
    let copied: Vec<(PathBuf, Vec<u8>)> = copied.map(|path| (path.clone(), disk.contents(&path).unwrap())).collect();
    assert_eq!(bytes, copied.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    // EPOCH, two files each of three subjects, and two in quarantine; no lock, and nothing temporary.
    assert_eq!(copied.len(), 9, "{copied:?}");

    claimed.commit(vec![Save::Bucket(bucket("a"), put(50, 50, "later"))]).await.unwrap();
    let copy = at(&disk, "/backups/one").await;
    assert_eq!(everything(&copy).await, expected);
    assert!(copy.epoch > claimed.epoch, "claims go on where they were");
    copy.commit(vec![Save::DropBucket(bucket("a"))]).await.unwrap();
    assert_eq!(claimed.load("a").await.unwrap().unwrap().revision, 50);
}

#[tokio::test]
async fn a_backup_goes_to_no_place_that_is_taken_or_inside() {
    let disk = PowerCutDisk::default();
    let claimed = filled(&disk).await;
    disk.plant(Path::new("/file"), Some(b"somebody's"));
    disk.create_dir(Path::new("/directory")).unwrap();
    let before = disk.files();
    for target in ["/file", "/directory", "/data", "/data/backup", "/"] {
        let refused = claimed.adapter.backup(Path::new(target)).await;
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{target}: {refused:?}");
    }
    assert_eq!(disk.files(), before);
    // What is left of an earlier one, killed, is not written into.
    disk.create_dir(Path::new("/copy.tmp")).unwrap();
    claimed.adapter.backup(Path::new("/copy")).await.unwrap();
    assert_eq!(disk.list(Path::new("/copy.tmp")).unwrap().len(), 0);
    claimed.close().await;
    assert!(matches!(claimed.adapter.backup(Path::new("/closed")).await, Err(Error::Permanent { .. })));
}

#[tokio::test]
async fn whatever_moment_a_backup_is_interrupted_it_is_whole_or_not_there() {
    for steps in 0.. {
        let disk = PowerCutDisk::default();
        let claimed = filled(&disk).await;
        let expected = everything(&claimed).await;
        claimed.commit(vec![]).await.unwrap();
        disk.fail_after(steps);
        let answer = claimed.adapter.backup(Path::new("/copy")).await;
        for image in [disk.survivor()].into_iter().chain(disk.images(1)) {
            let there = image.list(Path::new("/copy")).is_ok();
            assert!(there || answer.is_err(), "{steps} steps: answered, and not there");
            if there {
                assert_eq!(everything(&at(&image, "/copy").await).await, expected, "{steps} steps");
            }
            assert_eq!(everything(&at(&image, "/data").await).await, expected, "{steps} steps");
        }
        if answer.is_ok() {
            assert!(steps > 20, "{steps}");
            return;
        }
    }
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_and_the_adapter_goes_on() {
    for call in ["create_dir", "create_new", "write_at", "sync_data", "sync_dir", "rename"] {
        let disk = PowerCutDisk::default();
        let claimed = filled(&disk).await;
        let before = disk.files();
        disk.fail_call(call);
        assert!(claimed.adapter.backup(Path::new("/copy")).await.is_err(), "{call}");
        disk.heal();
        assert_eq!(disk.files(), before, "{call}");
        claimed.commit(vec![Save::Bucket(bucket("a"), put(50, 50, "later"))]).await.unwrap();
        claimed.adapter.backup(Path::new("/copy")).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_whose_last_sync_fails_is_taken_back_or_said_to_be_in_doubt() {
    for back in [true, false] {
        let disk = PowerCutDisk::default();
        let claimed = filled(&disk).await;
        let (before, expected) = (disk.files(), everything(&claimed).await);
        claimed.commit(vec![]).await.unwrap();
        disk.take_log();
        claimed.adapter.backup(Path::new("/counted")).await.unwrap();
        let calls = disk.take_log();
        assert!(calls.last().unwrap().starts_with("sync_dir"), "{calls:?}");
        disk.fail_one_after(calls.len() - 1);
        if !back {
            disk.fail_one_after(calls.len());
        }
        let refused = claimed.adapter.backup(Path::new("/copy")).await;
        disk.heal();
        let copied = disk.files().into_iter().any(|path| path.starts_with("/copy"));
        if back {
            assert!(matches!(refused, Err(Error::Transient { .. })), "{refused:?}");
            let others = disk.files().into_iter().filter(|path| !path.starts_with("/counted"));
            assert_eq!(others.collect::<Vec<_>>(), before);
            claimed.adapter.backup(Path::new("/copy")).await.unwrap();
        } else {
            assert!(matches!(refused, Err(Error::Unknown { .. })) && copied, "{refused:?}");
        }
        assert_eq!(everything(&at(&disk, "/copy").await).await, expected, "what is there is whole");
    }
}

#[tokio::test]
async fn a_compaction_empties_all_journals_and_answers_what_that_saves() {
    let disk = PowerCutDisk::default();
    let claimed = filled(&disk).await;
    // A bucket of a store that nobody has claimed in this life.
    let attic = StoreName::new("attic").unwrap();
    let epoch = claimed.adapter.claim(&attic).await.unwrap();
    for n in 1..=3 {
        let save = Save::Bucket(bucket("old"), put(n, 1, &"x".repeat(3_000)));
        claimed.adapter.commit(&Commit::new(attic.clone(), epoch, Durability::Fsync, vec![save])).await.unwrap();
    }
    claimed.adapter.close(&attic).await.unwrap();
    let expected = everything(&claimed).await;
    let size = || -> usize { disk.files().iter().map(|path| disk.contents(path).unwrap().len()).sum() };
    let before = size();
    let saved = claimed.adapter.compact().await.unwrap();
    assert_eq!(saved, (before - size()) as u64);
    assert!(saved > 8_000, "{saved}");
    assert_eq!(everything(&claimed).await, expected);
    // There is nothing left to do.
    disk.take_log();
    assert_eq!(claimed.adapter.compact().await.unwrap(), 0);
    assert_eq!(disk.take_log(), Vec::<String>::new());
    claimed.commit(vec![Save::Bucket(bucket("a"), put(50, 50, "later"))]).await.unwrap();
    let again = at(&disk.image(1), "/data").await;
    assert_eq!(again.load("a").await.unwrap().unwrap().revision, 50);
    let key = BucketKey::new(attic, bucket("old"));
    assert_eq!(again.adapter.load_bucket(&key).await.unwrap().unwrap().revision, 3);
}

#[tokio::test]
async fn a_compaction_leaves_what_it_cannot_read_and_does_the_rest() {
    let disk = PowerCutDisk::default();
    let claimed = filled(&disk).await;
    let (checkpoint, journal) = bucket_files(Path::new("/data"), "a");
    let lines = disk.contents(&journal).unwrap();
    let mut bytes = disk.contents(&checkpoint).unwrap();
    bytes[60] ^= 1;
    disk.plant(&checkpoint, Some(&bytes));
    let b = disk.contents(&bucket_files(Path::new("/data"), "b").1).unwrap();
    let refused = claimed.adapter.compact().await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!((disk.contents(&checkpoint).unwrap(), disk.contents(&journal).unwrap()), (bytes, lines));
    assert!(disk.contents(&bucket_files(Path::new("/data"), "b").1).unwrap().len() < b.len(), "the rest is done");
}
