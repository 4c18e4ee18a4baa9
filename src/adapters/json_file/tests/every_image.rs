//! Every image that a power cut can leave is opened by the adapter, at every step of a script that does everything once.
//!
//! Were this broken, a write that was acknowledged would be gone, or a bucket unreadable, after a power cut at just the
//! wrong moment. Images are enumerated, not drawn: of the changes that are pending, all that lack few and all that have
//! few, see `PowerCutDisk::images`.

use std::collections::BTreeMap;

use super::*;
use crate::base::error::Error;

/// So many changes may overtake the others, or be overtaken.
const STRAYS: usize = 1;

type State = Option<BTreeMap<Key, String>>;

/// What a subject went through.
#[derive(Clone, Debug)]
struct Past {
    states: Vec<State>,
    acknowledged: usize,
    synced: usize,
    /// It was saved in this life. What an earlier one wrote without a sync is synced with the next line behind it, and
    /// not before.
    touched: bool,
}

/// What the process knew when it died.
struct Life {
    past: BTreeMap<&'static str, Past>,
    /// The highest epoch that was given out.
    epoch: Epoch,
    /// A subject that was being moved out of the way.
    quarantining: Option<&'static str>,
}

/// Enough of a text to know it by.
fn brief(text: &str) -> String {
    assert!(text == "after" || text == "whole" || text.trim_start_matches(|c| c != ':').trim_matches('x') == ":");
    format!("{} of {} bytes", text.trim_end_matches('x'), text.len())
}

fn of_bucket(found: Option<BucketSnapshot>) -> State {
    let text = |record: &Record| brief(record.get("text").and_then(|text| text.as_str()).unwrap());
    found.map(|bucket| bucket.records.iter().map(|record| (record.key().clone(), text(record))).collect())
}

fn of_channel(found: &crate::sds::ChannelData) -> State {
    let history = found.message_history.iter().map(|message| message.lamport_timestamp.to_string());
    let state = [
        (Key::from("clock"), found.meta.lamport_timestamp.to_string()),
        (Key::from("history"), history.collect::<Vec<_>>().join(" ")),
    ];
    (*found != crate::sds::ChannelData::default()).then(|| state.into())
}

enum Step {
    /// Puts texts of so many bytes under keys of buckets, in one commit.
    Put(Durability, &'static [(&'static str, i64, usize)]),
    Whole(&'static str),
    Drop(&'static str),
    Send(i64),
    DropRoom,
    Claim,
    Compact,
    Quarantine(&'static str),
    Reopen,
}

const SCRIPT: [Step; 23] = {
    use Durability::{Fsync, Wal};
    use Step::*;
    [
        // First saves, appended lines, of one subject and of two.
        Put(Fsync, &[("a", 1, 10)]),
        Put(Wal, &[("a", 2, 10)]),
        Put(Fsync, &[("a", 1, 600), ("b", 1, 10)]),
        Send(1),
        Send(2),
        // A line that needs more room, and then one that has the checkpoint written anew and the journal replaced.
        Put(Fsync, &[("a", 3, 5_000)]),
        Put(Fsync, &[("a", 4, 9_000)]),
        Put(Fsync, &[("a", 5, 20)]),
        Claim,
        Drop("b"),
        Put(Wal, &[("b", 7, 30)]),
        Put(Wal, &[("b", 8, 30)]),
        Whole("b"),
        // What was written and not synced, and is taken over by the next owner.
        Put(Wal, &[("b", 2, 700), ("a", 2, 30)]),
        Reopen,
        Put(Wal, &[("b", 3, 900)]),
        Put(Fsync, &[("b", 4, 10)]),
        Compact,
        Put(Fsync, &[("a", 9, 60_000)]),
        Quarantine("b"),
        Put(Fsync, &[("b", 1, 10)]),
        DropRoom,
        Send(3),
    ]
};

impl Life {
    fn next(&mut self, name: &'static str, change: impl FnOnce(&mut State)) {
        let past = self.past.get_mut(name).unwrap();
        let mut state = past.states.last().cloned().flatten();
        change(&mut state);
        past.touched = true;
        past.states.push(state);
    }

    fn acknowledge(&mut self, durability: Durability) {
        for past in self.past.values_mut() {
            past.acknowledged = past.states.len() - 1;
            if durability == Durability::Fsync && past.touched {
                past.synced = past.acknowledged;
            }
        }
    }
}

fn options(disk: &PowerCutDisk) -> JsonFileOptions {
    JsonFileOptions::default().with_disk(Arc::new(disk.clone())).with_journal_floor(4_096)
}

async fn run(disk: &PowerCutDisk, life: &mut Life) -> Result<()> {
    let mut claimed = Claimed::with(Path::new("/data"), options(disk)).await?;
    life.epoch = claimed.epoch;
    for (revision, step) in (1..).zip(&SCRIPT) {
        match step {
            Step::Put(durability, puts) => {
                let mut saves = Vec::new();
                for (name, key, size) in *puts {
                    let text = format!("{revision}:{}", "x".repeat(*size));
                    saves.push(Save::Bucket(bucket(name), put(revision, *key, &text)));
                    life.next(name, |state| {
                        state.get_or_insert_default().insert((*key).into(), brief(&text));
                    });
                }
                claimed.commit_at(*durability, saves).await?;
                life.acknowledge(*durability);
                continue;
            }
            Step::Whole(name) => {
                let record = record(9, 9, crate::record! { "text": "whole" });
                let full = BucketChange::Full(BucketSnapshot::new(1, revision, 0, vec![record]));
                life.next(name, |state| *state = Some([(Key::from(9), brief("whole"))].into()));
                claimed.commit(vec![Save::Bucket(bucket(name), full.into())]).await?;
            }
            Step::Drop(name) => {
                life.next(name, |state| *state = None);
                claimed.commit(vec![Save::DropBucket(bucket(name))]).await?;
            }
            Step::Send(at) => {
                life.next("room", |state| {
                    let state = state.get_or_insert_default();
                    let history = state.entry("history".into()).or_default();
                    *history = format!("{history} {at}").trim().to_owned();
                    state.insert("clock".into(), at.to_string());
                });
                let update = history(vec![message(at.to_string().as_bytes(), *at)], &[]);
                let saves = vec![Save::History(channel("room"), update), Save::ChannelMeta(channel("room"), meta(*at))];
                claimed.commit(saves).await?;
            }
            Step::DropRoom => {
                life.next("room", |state| *state = None);
                claimed.commit(vec![Save::DropChannel(channel("room"))]).await?;
            }
            Step::Claim => {
                claimed.epoch = claimed.adapter.claim(&shop()).await?;
                life.epoch = claimed.epoch;
                continue;
            }
            // What a compaction leaves is what was there; only what was not synced may still go.
            Step::Compact => {
                claimed.adapter.compact().await?;
                continue;
            }
            Step::Quarantine(name) => {
                life.next(name, |state| *state = None);
                life.quarantining = Some(name);
                claimed.adapter.quarantine(&shop(), &Subject::Bucket(bucket(name))).await?;
                life.quarantining = None;
                let past = life.past.get_mut(name).unwrap();
                (past.acknowledged, past.synced) = (past.states.len() - 1, past.states.len() - 1);
                continue;
            }
            Step::Reopen => {
                // As a process does that is killed: without a close.
                drop(claimed);
                claimed = Claimed::with(Path::new("/data"), options(disk)).await?;
                life.epoch = claimed.epoch;
                life.past.values_mut().for_each(|past| past.touched = false);
                continue;
            }
        }
        life.acknowledge(Durability::Fsync);
    }
    Ok(())
}

/// Opens what is left, compares it with what the process knew, and writes on.
async fn check(image: &PowerCutDisk, life: &Life, from: fn(&Past) -> usize, what: &str, write_on: bool) {
    let claimed = Claimed::on(image).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(claimed.epoch > life.epoch, "{what}: epoch {} was given out before", claimed.epoch);
    for (name, past) in &life.past {
        let loaded = match *name {
            "room" => claimed.adapter.load_channel(&channel_key(name)).await.map(|found| of_channel(&found)),
            _ => claimed.load(name).await.map(of_bucket),
        };
        let found = match loaded {
            Ok(found) => found,
            // One of its two files is out of the way, for the reason that they could not be read: so is what is left.
            Err(Error::Corrupt { .. }) if life.quarantining == Some(name) => {
                claimed.adapter.quarantine(&shop(), &Subject::Bucket(bucket(name))).await.unwrap();
                assert_eq!(claimed.load(name).await.unwrap(), None, "{what}");
                continue;
            }
            Err(error) => panic!("{what}, {name}: {error:?}"),
        };
        let allowed = &past.states[from(past)..];
        assert!(allowed.contains(&found), "{what}, {name}: {found:?} is none of {allowed:?}");
        if write_on && *name != "room" {
            claimed.commit(vec![Save::Bucket(bucket(name), put(99, 5, "after"))]).await.unwrap();
            let again = Claimed::on(&image.survivor()).await.unwrap();
            let found = of_bucket(again.load(name).await.unwrap()).unwrap();
            assert_eq!(found.get(&Key::from(5)), Some(&brief("after")), "{what}, {name}");
        }
    }
}

#[tokio::test]
async fn every_image_that_a_power_cut_can_leave_has_what_was_acknowledged_and_can_be_opened() {
    let (mut images, mut deaths) = (0, 0);
    for steps in 0.. {
        let disk = PowerCutDisk::default();
        disk.fail_after(steps);
        let first = Past { states: vec![None], acknowledged: 0, synced: 0, touched: true };
        let past = ["a", "b", "room"].map(|name| (name, first.clone())).into();
        let mut life = Life { past, epoch: Epoch(0), quarantining: None };
        let ended = run(&disk, &mut life).await;
        check(&disk.survivor(), &life, |past| past.acknowledged, &format!("{steps} steps, killed"), true).await;
        for (number, image) in disk.images(STRAYS).enumerate() {
            let what = format!("{steps} steps, image {number}");
            check(&image, &life, |past| past.synced, &what, number % 5 == 0).await;
            images += 1;
        }
        if ended.is_ok() {
            break;
        }
        deaths += 1;
    }
    println!("{deaths} deaths, {images} images");
    assert!(deaths > 150 && images > 1_500, "{deaths} deaths, {images} images");
}
