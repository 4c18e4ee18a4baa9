//! Whenever the process is killed or the power is cut, what was acknowledged is there, and everything can be loaded.
//!
//! A script runs on a disk in memory that dies at its n-th change, for every n. Of each death, what a kill leaves and
//! images that a power cut could leave are opened and compared with the states that the script went through.

use std::collections::BTreeMap;

use super::*;
use crate::base::disk::power_cut::image::Dice;
use crate::base::error::Error;

const SUBJECTS: [&str; 2] = ["a", "b"];
/// How many request ids are remembered.
const WINDOW: usize = 3;
/// Where a state has the request ids, by revision, as a text.
const REQUESTS: &str = "requests";

/// The states that a bucket went through, and how far it had come.
#[derive(Clone, Debug, Default)]
struct Past {
    states: Vec<Option<BTreeMap<Key, String>>>,
    /// Index of the newest state that was acknowledged, and of the newest that was acknowledged as synced.
    acknowledged: usize,
    synced: usize,
}

fn plain(snapshot: Option<BucketSnapshot>) -> Option<BTreeMap<Key, String>> {
    let text = |record: &Record| record.get("text").and_then(|text| text.as_str()).unwrap().to_owned();
    snapshot.map(|bucket| {
        let mut state: BTreeMap<Key, String> =
            bucket.records.iter().map(|record| (record.key().clone(), text(record))).collect();
        if !bucket.requests.is_empty() {
            let ids: Vec<&str> = bucket.requests.iter().map(|request| request.id.as_str()).collect();
            state.insert(REQUESTS.into(), ids.join(" "));
        }
        state
    })
}

/// Commits until the disk dies. Which ones, the seed says.
async fn run(claimed: &Claimed, seed: u64, past: &mut BTreeMap<&'static str, Past>) -> Result<()> {
    let mut dice = Dice(seed);
    for revision in 1..=14 {
        let durability = if dice.roll(2) == 0 { Durability::Wal } else { Durability::Fsync };
        let mut saves = Vec::new();
        for name in SUBJECTS {
            let mut state = past[name].states.last().cloned().flatten();
            match dice.roll(10) {
                0..=5 => {
                    let key = i64::try_from(dice.roll(4)).unwrap();
                    let text = format!("{revision}:{}", "x".repeat(usize::try_from(dice.roll(700)).unwrap()));
                    let state = state.get_or_insert_default();
                    let change = if dice.roll(2) == 0 {
                        put(revision, key, &text)
                    } else {
                        let ids = state.entry(REQUESTS.into()).or_default();
                        let mut newest: Vec<&str> = ids.split_whitespace().collect();
                        let id = format!("request-{revision}");
                        newest.push(&id);
                        *ids = newest[newest.len().saturating_sub(WINDOW)..].join(" ");
                        put_by_request(revision, key, &text, WINDOW)
                    };
                    state.insert(key.into(), text);
                    saves.push(Save::Bucket(bucket(name), change));
                }
                6 => {
                    saves.push(Save::DropBucket(bucket(name)));
                    state = None;
                }
                7 => {
                    let full =
                        BucketSnapshot::new(1, revision, 0, vec![record(9, 9, crate::record! { "text": "full" })]);
                    saves.push(Save::Bucket(bucket(name), Arc::new(BucketChange::Full(full))));
                    state = Some([(Key::from(9), "full".to_owned())].into());
                }
                _ => continue,
            }
            past.entry(name).or_default().states.push(state);
        }
        claimed.commit_at(durability, saves).await?;
        for past in past.values_mut() {
            past.acknowledged = past.states.len() - 1;
            if durability == Durability::Fsync {
                past.synced = past.acknowledged;
            }
        }
    }
    Ok(())
}

async fn check(image: &PowerCutDisk, past: &BTreeMap<&'static str, Past>, from: fn(&Past) -> usize, what: &str) {
    let claimed = Claimed::on(image).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    for (name, past) in past {
        let found = plain(claimed.load(name).await.unwrap_or_else(|error| panic!("{what}, {name}: {error:?}")));
        let allowed = &past.states[from(past)..];
        assert!(allowed.contains(&found), "{what}, {name}: {found:?} is none of {allowed:?}");
        // And it can be written on.
        claimed.commit(vec![Save::Bucket(bucket(name), put(99, 5, "after"))]).await.unwrap();
    }
    claimed.close().await;
    let again = Claimed::on(&image.image(1)).await.unwrap();
    for name in past.keys() {
        let found = plain(again.load(name).await.unwrap()).unwrap();
        assert_eq!(found.get(&Key::from(5)).map(String::as_str), Some("after"), "{what}, {name}");
    }
}

#[tokio::test]
async fn whatever_moment_the_process_dies_what_was_acknowledged_is_there_and_all_is_readable() {
    let (mut deaths, mut finished) = (0, 0);
    for seed in 0..4 {
        for steps in 0.. {
            let disk = PowerCutDisk::default();
            let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone())).with_journal_floor(4_096);
            let claimed = Claimed::with(Path::new("/data"), options).await.unwrap();
            disk.fail_after(steps);
            let first = Past { states: vec![None], ..Past::default() };
            let mut past: BTreeMap<_, _> = SUBJECTS.map(|name| (name, first.clone())).into();
            let ended = run(&claimed, seed, &mut past).await;
            deaths += usize::from(ended.is_err());
            let what = format!("seed {seed}, {steps} steps");
            check(&disk.survivor(), &past, |past| past.acknowledged, &format!("{what}, killed")).await;
            for image in 0..5 {
                let cut = disk.image(seed * 1_000 + image);
                check(&cut, &past, |past| past.synced, &format!("{what}, power cut {image}")).await;
            }
            if ended.is_ok() {
                finished += 1;
                break;
            }
        }
    }
    assert_eq!(finished, 4);
    assert!(deaths > 200, "{deaths}");
}

#[tokio::test]
async fn what_a_killed_process_wrote_without_a_sync_is_durable_once_it_was_loaded() {
    for torn in [false, true] {
        let disk = PowerCutDisk::default();
        let killed = Claimed::on(&disk).await.unwrap();
        let saves = |revision: u64| {
            let history = history(vec![message(&[u8::try_from(revision).unwrap()], 1)], &[]);
            vec![Save::Bucket(bucket("a"), put(revision, 1, "x")), Save::History(channel("room"), history)]
        };
        killed.commit(saves(1)).await.unwrap();
        for revision in 2..=3 {
            killed.commit_at(Durability::Wal, saves(revision)).await.unwrap();
        }
        if torn {
            disk.fail_after(0);
            killed.commit_at(Durability::Wal, saves(4)).await.unwrap_err();
            disk.heal();
        }
        drop(killed);

        let next = Claimed::on(&disk).await.unwrap();
        disk.fail_call("sync_data");
        let refused = next.load("a").await;
        assert!(matches!(refused, Err(Error::Transient { .. })), "{refused:?}");
        disk.heal();
        assert_eq!(next.load("a").await.unwrap().unwrap().revision, 3);
        let messages = next.adapter.load_channel(&channel_key("room")).await.unwrap().message_history.len();
        assert_eq!(messages, 3);
        for image in disk.images(4).chain((0..20).map(|seed| disk.image(seed))) {
            let after = Claimed::on(&image).await.unwrap();
            assert_eq!(after.load("a").await.unwrap().unwrap().revision, 3);
            assert_eq!(after.adapter.load_channel(&channel_key("room")).await.unwrap().message_history.len(), messages);
        }
        next.commit_at(Durability::Wal, saves(5)).await.unwrap();
        assert_eq!(next.load("a").await.unwrap().unwrap().revision, 5);
    }
}

#[tokio::test]
async fn a_failed_sync_is_an_unknown_outcome_and_the_retry_leaves_one_copy() {
    for call in ["sync_data", "write_at"] {
        let disk = PowerCutDisk::default();
        let claimed = Claimed::on(&disk).await.unwrap();
        claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "x"))]).await.unwrap();
        claimed.commit(vec![Save::Bucket(bucket("a"), put(2, 2, "x"))]).await.unwrap();
        disk.fail_call(call);
        let save = || vec![Save::Bucket(bucket("a"), put(3, 3, "x"))];
        let unknown = claimed.commit(save()).await;
        assert!(matches!(unknown, Err(Error::Unknown { .. })), "{call}: {unknown:?}");
        assert!(claimed.commit(save()).await.is_err());
        disk.heal();
        claimed.commit(save()).await.unwrap();
        let synced = Claimed::on(&disk.image(4)).await.unwrap().load("a").await.unwrap().unwrap();
        assert_eq!((synced.revision, synced.records.len()), (3, 3), "{call}");
    }
}

#[tokio::test]
async fn after_a_failed_sync_the_lines_that_nothing_attests_are_written_once_more() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "x"))]).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(2, 2, "line 1"))]).await.unwrap();
    claimed.close().await;
    disk.take_log();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.load("a").await.unwrap();
    disk.take_log();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(3, 3, "line 2"))]).await.unwrap();
    assert_eq!(
        disk.take_log(),
        ["write_at bucket.a.jsonl", "sync_data bucket.a.jsonl"],
        "with the new line, in one write"
    );
    let loaded = Claimed::on(&disk.image(0)).await.unwrap().load("a").await.unwrap().unwrap();
    assert_eq!(loaded.records.len(), 3);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_told_as_what_may_pass() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    let mut revision = 0;
    let mut save = |size: usize| {
        revision += 1;
        vec![Save::Bucket(bucket("a"), put(revision, i64::try_from(revision).unwrap(), &"x".repeat(size)))]
    };
    claimed.commit(save(10)).await.unwrap();
    claimed.commit(save(10)).await.unwrap();
    // More room is needed for this one, and there is none.
    disk.fail_call("write_at");
    let full = claimed.commit(save(9_000)).await;
    assert!(matches!(full, Err(Error::Transient { .. })), "{full:?}");
    disk.heal();
    assert_eq!(claimed.load("a").await.unwrap().unwrap().records.len(), 2);
    for _ in 0..5 {
        claimed.commit(save(5_000)).await.unwrap();
    }
    assert_eq!(Claimed::on(&disk.image(2)).await.unwrap().load("a").await.unwrap().unwrap().records.len(), 7);
}

#[tokio::test]
async fn a_compaction_that_fails_takes_nothing_back() {
    let disk = PowerCutDisk::default();
    let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone())).with_journal_floor(4_096);
    let claimed = Claimed::with(Path::new("/data"), options).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "x"))]).await.unwrap();
    disk.fail_call("rename");
    for n in 2..=60 {
        claimed
            .commit(vec![Save::Bucket(bucket("a"), put(n, i64::try_from(n).unwrap(), &"x".repeat(300)))])
            .await
            .unwrap();
    }
    let tried = disk.take_log().iter().filter(|call| **call == "create_new bucket.a.json.tmp").count();
    assert!((2..10).contains(&tried), "{tried} attempts, not one per commit");
    disk.heal();
    for n in 61..=90 {
        claimed
            .commit(vec![Save::Bucket(bucket("a"), put(n, i64::try_from(n).unwrap(), &"x".repeat(300)))])
            .await
            .unwrap();
    }
    assert!(disk.take_log().contains(&"rename bucket.a.json".to_owned()));
    assert_eq!(Claimed::on(&disk.image(9)).await.unwrap().load("a").await.unwrap().unwrap().records.len(), 90);
}

#[tokio::test]
async fn a_drop_whose_files_cannot_be_removed_is_a_drop_all_the_same() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "old"))]).await.unwrap();
    disk.fail_call("rename");
    let failed = claimed.commit(vec![Save::DropBucket(bucket("a"))]).await;
    assert!(matches!(failed, Err(Error::Transient { .. })), "{failed:?}");
    disk.heal();
    assert!(claimed.load("a").await.unwrap().is_some(), "a failed drop leaves everything");
    disk.fail_call("remove");
    claimed.commit(vec![Save::DropBucket(bucket("a"))]).await.unwrap();
    disk.heal();
    assert!(claimed.load("a").await.unwrap().is_none());
    assert!(Claimed::on(&disk.image(3)).await.unwrap().load("a").await.unwrap().is_none());
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 2, "new"))]).await.unwrap();
    let found = plain(Claimed::on(&disk.image(5)).await.unwrap().load("a").await.unwrap()).unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(Key::from(2), "new".to_owned())]);
}

#[tokio::test]
async fn a_dropped_bucket_never_comes_back_however_often_the_process_dies() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "old"))]).await.unwrap();
    disk.fail_call("remove");
    claimed.commit(vec![Save::DropBucket(bucket("a"))]).await.unwrap();
    disk.heal();
    for steps in 0.. {
        let again = disk.survivor();
        let claimed = Claimed::on(&again).await.unwrap();
        again.fail_after(steps);
        let saved = claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 2, "new"))]).await;
        for image in [again.survivor()].into_iter().chain((0..12).map(|seed| again.image(seed))) {
            let found = plain(Claimed::on(&image).await.unwrap().load("a").await.unwrap());
            assert!(found.is_none_or(|records| records.keys().eq([&Key::from(2)])), "{steps} steps");
        }
        if saved.is_ok() {
            assert!(steps > 8, "{steps}");
            break;
        }
    }
}

#[tokio::test]
async fn lines_of_a_process_that_was_killed_are_attested_only_after_they_were_written_and_synced_again() {
    let disk = PowerCutDisk::default();
    let claimed = Claimed::on(&disk).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(1, 1, "x"))]).await.unwrap();
    for n in 2..=4 {
        claimed.commit_at(Durability::Wal, vec![Save::Bucket(bucket("a"), put(n, 1, "x"))]).await.unwrap();
    }
    let killed = disk.survivor();
    let claimed = Claimed::on(&killed).await.unwrap();
    // More room is needed and synced before this line is written, and that says nothing about the lines before.
    for n in 5..=6 {
        let save = Save::Bucket(bucket("a"), put(n, 1, &"x".repeat(3_900)));
        claimed.commit_at(Durability::Wal, vec![save]).await.unwrap();
    }
    claimed.commit(vec![Save::Bucket(bucket("a"), put(7, 1, "x"))]).await.unwrap();
    claimed.commit(vec![Save::Bucket(bucket("a"), put(8, 1, "x"))]).await.unwrap();
    let (_, journal) = bucket_files(Path::new("/data"), "a");
    let text = String::from_utf8(killed.contents(&journal).unwrap()).unwrap();
    let synced = text.lines().filter_map(|line| line.split_once("\"synced\":")?.1.split_once(',')).map(|(n, _)| n);
    assert_eq!(synced.collect::<Vec<_>>(), ["0", "0", "0", "0", "0", "4", "6"]);
    let loaded = claimed.load("a").await.unwrap().unwrap();
    assert_eq!(loaded.revision, 8);
}
