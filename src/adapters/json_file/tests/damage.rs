//! Files that were cut short, damaged, swapped or removed from outside are refused by place; nothing is ever believed or
//! overwritten that could not be read.

use super::*;
use crate::base::disk::power_cut::image::Dice;
use crate::base::error::Error;
use crate::sds::ChannelData;

const ROOT: &str = "/data";

/// Everything that a directory holds, as it is loaded.
type Everything = (Option<BucketSnapshot>, Option<BucketSnapshot>, ChannelData);

async fn everything(disk: &PowerCutDisk) -> Result<Everything> {
    let claimed = Claimed::on(disk).await?;
    let channel = claimed.adapter.load_channel(&channel_key("room")).await?;
    Ok((claimed.load("a").await?, claimed.load("b").await?, channel))
}

/// Two buckets and a channel, each with a checkpoint and some lines, all synced.
async fn directory() -> PowerCutDisk {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    for n in 1..=3 {
        let saves = vec![
            Save::Bucket(bucket("a"), put(n, i64::try_from(n).unwrap(), "secret")),
            Save::Bucket(bucket("b"), put_by_request(n, 1, &"secret ".repeat(20), 2)),
            Save::ChannelMeta(channel("room"), meta(i64::try_from(n).unwrap())),
            Save::History(channel("room"), history(vec![message(&[u8::try_from(n).unwrap()], 1)], &[])),
        ];
        claimed.commit(saves).await.unwrap();
    }
    claimed.close().await;
    disk
}

fn told_without_contents(error: &Error) -> bool {
    let mut text = format!("{error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    !text.contains("secret")
}

/// The same with what the lock leaves on a file system that keeps it in files.
async fn whole_directory() -> PowerCutDisk {
    let disk = directory().await;
    disk.plant(&Path::new(ROOT).join("LOCK"), Some(b""));
    disk.plant(&Path::new(ROOT).join("LOCK.holder"), Some(b"{\"pid\":1,\"since_ms\":0}"));
    disk
}

/// What the store loads once a file has these bytes: everything that was acknowledged, or the place of the corruption.
/// What cannot be read is left as it is.
async fn judge(disk: &PowerCutDisk, path: &Path, bytes: &[u8], wanted: &Everything, what: &str) {
    let damaged = disk.survivor();
    damaged.plant(path, Some(bytes));
    match everything(&damaged).await {
        Ok(found) => assert_eq!(&found, wanted, "{path:?}, {what}"),
        Err(error) => {
            match &error {
                Error::Corrupt { at, .. } | Error::UnknownFormat { at, .. } => {
                    assert_eq!(at.container, path.display().to_string(), "{what}");
                }
                _ => panic!("{path:?}, {what}: {error:?}"),
            }
            assert!(told_without_contents(&error), "{path:?}, {what}: {error}");
            assert_eq!(damaged.contents(path).unwrap(), bytes, "{path:?}, {what}: left as it is");
        }
    }
}

#[tokio::test]
async fn ps_28_any_file_truncated_at_any_byte_gives_back_all_or_is_reported() {
    let disk = whole_directory().await;
    let wanted = everything(&disk.survivor()).await.unwrap();
    for path in disk.files() {
        let bytes = disk.contents(&path).unwrap();
        for length in 0..bytes.len() {
            judge(&disk, &path, &bytes[..length], &wanted, &format!("{length} bytes")).await;
        }
    }
}

#[tokio::test]
async fn ps_28_any_file_with_a_bit_flipped_in_any_byte_gives_back_all_or_is_reported() {
    let disk = whole_directory().await;
    let wanted = everything(&disk.survivor()).await.unwrap();
    let mut dice = Dice(3);
    for path in disk.files() {
        let bytes = disk.contents(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << dice.roll(8);
            judge(&disk, &path, &damaged, &wanted, &format!("byte {at}")).await;
        }
    }
}

#[tokio::test]
async fn arbitrary_bytes_in_any_file_neither_panic_nor_invent() {
    let disk = directory().await;
    let wanted = everything(&disk.survivor()).await.unwrap();
    let mut dice = Dice(4);
    for path in disk.files() {
        for _ in 0..40 {
            let mut bytes = disk.contents(&path).unwrap();
            let from = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
            let to = from + usize::try_from(dice.roll((bytes.len() - from) as u64 + 1)).unwrap();
            bytes[from..to].fill_with(|| u8::try_from(dice.roll(256)).unwrap());
            let garbled = disk.survivor();
            garbled.plant(&path, Some(&bytes));
            if let Ok(found) = everything(&garbled).await {
                // Bytes over a torn-looking end may hide the lines behind their beginning, as the format says.
                assert!(found.0.is_some() && found.1.is_some(), "{path:?}, {from}..{to}");
                let whole = found == wanted;
                assert!(
                    whole || path.extension().is_some_and(|extension| extension == "jsonl"),
                    "{path:?}, {from}..{to}"
                );
            }
        }
    }
}

#[tokio::test]
async fn damage_before_the_last_line_is_told_with_its_line_and_nothing_is_written_over_it() {
    let disk = directory().await;
    let (_, journal) = bucket_files(Path::new(ROOT), "a");
    let mut bytes = disk.contents(&journal).unwrap();
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[first_line + 60] ^= 1;
    disk.plant(&journal, Some(&bytes));
    let claimed = Claimed::on(&disk).await.unwrap();
    let Err(Error::Corrupt { at, .. }) = claimed.load("a").await else { panic!("believed") };
    assert_eq!((at.container.as_str(), at.position.as_deref()), ("/data/shop/bucket.a.jsonl", Some("line 2")));
    let full = Arc::new(BucketChange::Full(BucketSnapshot::new(1, 1, 1, vec![])));
    for change in [put(9, 9, "x"), full] {
        let refused = claimed.commit(vec![Save::Bucket(bucket("a"), change)]).await;
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    claimed.commit(vec![Save::Bucket(bucket("b"), put(9, 9, "x"))]).await.unwrap();
    claimed.close().await;
    assert_eq!(disk.contents(&journal).unwrap(), bytes);
    // What cannot be read can still be dropped.
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.commit(vec![Save::DropBucket(bucket("a"))]).await.unwrap();
    assert!(claimed.load("a").await.unwrap().is_none());
}

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused() {
    let disk = directory().await;
    let root = Path::new(ROOT);
    let ((a, a_lines), (b, b_lines)) = (bucket_files(root, "a"), bucket_files(root, "b"));
    let read = |path: &Path| disk.contents(path).unwrap();
    let newer = disk.survivor();
    let claimed = Claimed::on(&newer).await.unwrap();
    let full = Arc::new(BucketChange::Full(BucketSnapshot::new(1, 50, 0, vec![])));
    claimed.commit(vec![Save::Bucket(bucket("a"), full)]).await.unwrap();
    drop(claimed);
    let cases: [(&str, &Path, Option<Vec<u8>>); 7] = [
        ("no journal", &a_lines, None),
        ("no checkpoint", &a, None),
        ("another bucket's checkpoint", &a, Some(read(&b))),
        ("another bucket's journal", &a_lines, Some(read(&b_lines))),
        ("the channel's checkpoint", &a, Some(read(&a.with_file_name("channel.room.json")))),
        ("the channel's journal", &a_lines, Some(read(&a.with_file_name("channel.room.jsonl")))),
        ("a journal of a later generation", &a_lines, newer.contents(&a_lines)),
    ];
    for (what, path, bytes) in cases {
        let mixed = disk.survivor();
        mixed.plant(path, bytes.as_deref());
        let claimed = Claimed::on(&mixed).await.unwrap();
        let refused = claimed.load("a").await;
        assert!(
            matches!(&refused, Err(error @ Error::Corrupt { .. }) if told_without_contents(error)),
            "{what}: {refused:?}"
        );
        assert!(claimed.load("b").await.is_ok());
    }
    // Both files of another bucket, and of another store.
    let moved = disk.survivor();
    moved.plant(&a, Some(&read(&b)));
    moved.plant(&a_lines, Some(&read(&b_lines)));
    let refused = Claimed::on(&moved).await.unwrap().load("a").await;
    assert!(matches!(&refused, Err(Error::Corrupt { reason, .. }) if reason.contains("\"b\"")), "{refused:?}");
    let attic = StoreName::new("attic").unwrap();
    let claimed = Claimed::on(&moved).await.unwrap();
    claimed.adapter.claim(&attic).await.unwrap();
    let there = |path: &Path| Path::new(ROOT).join("attic").join(path.file_name().unwrap());
    moved.plant(&there(&b), Some(&read(&b)));
    moved.plant(&there(&b_lines), Some(&read(&b_lines)));
    let refused = claimed.adapter.load_bucket(&BucketKey::new(attic, bucket("b"))).await;
    assert!(matches!(&refused, Err(Error::Corrupt { reason, .. }) if reason.contains("\"shop\"")), "{refused:?}");
    // The same generation, of another history.
    let other = PowerCutDisk::default();
    let claimed = Claimed::on(&other).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "another"))]).await.unwrap();
    drop(claimed);
    for (path, elsewhere) in [(&a, other.contents(&a)), (&a, newer.contents(&a)), (&a_lines, other.contents(&a_lines))]
    {
        let mixed = disk.survivor();
        mixed.plant(path, elsewhere.as_deref());
        let found = Claimed::on(&mixed).await.unwrap().load("a").await;
        let newest = elsewhere == newer.contents(&a);
        assert!(matches!(found, Err(Error::Corrupt { .. })) || newest, "{found:?}");
    }
}

#[tokio::test]
async fn a_journal_older_than_its_checkpoint_is_ignored_and_replaced() {
    let disk = directory().await;
    let (_, journal) = bucket_files(Path::new(ROOT), "a");
    let stale = disk.contents(&journal).unwrap();
    let claimed = Claimed::on(&disk).await.unwrap();
    let full = Arc::new(BucketChange::Full(BucketSnapshot::new(1, 50, 0, vec![record(7, 7, Object::new())])));
    claimed.commit(vec![Save::Bucket(bucket("a"), full)]).await.unwrap();
    claimed.close().await;
    disk.plant(&journal, Some(&stale));
    let claimed = Claimed::on(&disk).await.unwrap();
    let loaded = claimed.load("a").await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.records.len()), (50, 1));
    claimed.commit(vec![Save::Bucket(bucket("a"), put(51, 8, "x"))]).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(52, 9, "x"))]).await.unwrap();
    claimed.close().await;
    let loaded = Claimed::on(&disk).await.unwrap().load("a").await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.records.len()), (52, 3));
}

#[tokio::test]
async fn ps_27_unknown_versions_are_refused_by_name_and_number() {
    let disk = directory().await;
    for (file, format, newest) in [
        ("bucket.a.json", "bucket", 2),
        ("bucket.a.jsonl", "journal", 2),
        ("channel.room.json", "channel", 1),
        ("EPOCH", "epoch", 1),
    ] {
        let path = Path::new(ROOT).join("shop").join(file);
        let text = String::from_utf8(disk.contents(&path).unwrap()).unwrap();
        let (from, to) = if file.ends_with(".json") {
            ("\"version\": 1,", "\"version\": 3,")
        } else {
            ("\"version\":1,", "\"version\":3,")
        };
        let later = disk.survivor();
        later.plant(&path, Some(text.replacen(from, to, 1).as_bytes()));
        let Err(Error::UnknownFormat { format: named, found, known, .. }) = everything(&later).await else {
            panic!("{file}")
        };
        assert_eq!((named, found, known), (format!("ractor-persistence/json_file/{format}"), 3, newest));
    }
}

#[tokio::test]
async fn quarantine_keeps_the_bytes_and_the_bucket_begins_empty() {
    let disk = directory().await;
    let (checkpoint, journal) = bucket_files(Path::new(ROOT), "a");
    let lines = disk.contents(&journal).unwrap();
    let intact = disk.contents(&checkpoint).unwrap();
    let claimed = Claimed::on(&disk).await.unwrap();
    for round in 1..=3 {
        let mut bytes = intact.clone();
        bytes[40] ^= 1;
        disk.plant(&checkpoint, Some(&bytes));
        disk.plant(&journal, Some(&lines));
        assert!(matches!(claimed.load("a").await, Err(Error::Corrupt { .. })));
        let places = claimed.adapter.quarantine(&shop(), &Subject::Bucket(bucket("a"))).await.unwrap();
        let suffix = if round == 1 { String::new() } else { format!("-{round}") };
        let moved = |path: &Path| PathBuf::from(format!("{}.quarantine-20260131T120000Z{suffix}", path.display()));
        assert_eq!(places, format!("{} and {}", moved(&checkpoint).display(), moved(&journal).display()));
        assert!(claimed.load("a").await.unwrap().is_none());
        claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "new"))]).await.unwrap();
        for earlier in 1..=round {
            let suffix = if earlier == 1 { String::new() } else { format!("-{earlier}") };
            let moved = |path: &Path| PathBuf::from(format!("{}.quarantine-20260131T120000Z{suffix}", path.display()));
            assert_eq!(disk.contents(&moved(&checkpoint)).unwrap(), bytes);
            assert_eq!(disk.contents(&moved(&journal)).unwrap(), lines);
        }
        // Repaired by hand and moved back, it is readable.
        let repaired = disk.survivor();
        repaired.plant(&checkpoint, Some(&intact));
        repaired.plant(&journal, Some(&disk.contents(&moved(&journal)).unwrap()));
        assert_eq!(Claimed::on(&repaired).await.unwrap().load("a").await.unwrap().unwrap().revision, 3);
    }
    let nothing = claimed.adapter.quarantine(&shop(), &Subject::Bucket(bucket("never"))).await.unwrap();
    assert_eq!(nothing, "");
}

#[tokio::test]
async fn a_missing_epoch_is_counted_from_the_beginning_and_never_below_what_this_process_gave_out() {
    let disk = directory().await;
    let claimed = Claimed::on(&disk).await.unwrap();
    assert_eq!(claimed.epoch, Epoch(2));
    disk.plant(&Path::new(ROOT).join("shop/EPOCH"), None);
    assert_eq!(claimed.adapter.claim(&shop()).await.unwrap(), Epoch(3));
    claimed.close().await;
    disk.plant(&Path::new(ROOT).join("shop/EPOCH"), None);
    assert_eq!(Claimed::on(&disk).await.unwrap().epoch, Epoch(1));
}
