//! What a commit is: all of its saves, as a unit where that is declared, once, whoever else commits.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::name::{BucketKey, MessageId};
use crate::base::value::Key;
use crate::persistence::{Capabilities, Commit, Save};
use crate::sds::HistoryUpdate;
use crate::testkit::conformance::bench::{Bench, bucket, channel, delta, full, store};
use crate::testkit::conformance::data::{self, message};
use crate::testkit::conformance::model::Model;
use crate::testkit::random::Random;
use crate::testkit::verdict::{Doing, ensure};
use crate::testkit::{Broken, Factory, Verdict};

/// A commit without saves, and one with a change that changes nothing, succeed and leave everything as it was.
pub async fn empty_commits_are_fine(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("untouched")?;
    bench.commit_and_check("a commit of nothing on a new place", vec![]).await?;
    bench.commit(vec![full(&name, data::snapshot(1, vec![data::record(1, "a")]))]).await?;
    bench.commit_and_check("a commit of nothing", vec![]).await?;
    bench.commit_and_check("a change of nothing", vec![delta(&name, data::upserts(1, vec![]))]).await
}

/// Every level up to the declared one is taken.
pub async fn every_declared_durability_is_taken(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let levels = [Durability::Ram, Durability::Wal, Durability::Fsync];
    for (number, level) in (1_i64..).zip(levels.into_iter().filter(|level| *level <= declared.durability)) {
        let saves = vec![delta(&bucket("levels")?, data::upserts(1, vec![data::record(number, "a")]))];
        let (mut commit, model) = bench.prepare(&bench.store, saves);
        commit.durability = level;
        bench.adapter.commit(&commit).await.doing(format_args!("a commit at {level:?}"))?;
        bench.set_model(model);
        bench.check(&format!("a commit at {level:?}")).await?;
    }
    bench.reopen().await?;
    bench.check("commits at every level, and reopening").await
}

/// A commit that comes again, because its first answer was lost, changes nothing.
pub async fn a_repeated_commit_counts_once(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (name, gone) = (bucket("repeated")?, bucket("gone")?);
    let old = || data::snapshot(1, (0..3).map(|key| data::record(key, "old")).collect());
    bench.commit(vec![full(&name, old()), full(&gone, old())]).await?;
    let mut change = data::upserts(2, vec![data::record(1, "new"), data::record(9, "new")]);
    (change.counter, change.deletes) = (9, vec![Key::from(2)]);
    (change.requests, change.request_window) = (vec![data::request(1, "a"), data::request(2, "b")], 3);
    let mut saves = vec![delta(&name, change), Save::DropBucket(gone)];
    if declared.channels {
        let id = channel("repeated")?;
        let messages = vec![message("b", 2, "text"), message("a", 1, "text"), message("x", 3, "text")];
        let update = HistoryUpdate::new(messages, vec!["x".into(), "old".into()]);
        saves.push(Save::History(id.clone(), update.into()));
        saves.push(Save::Hint(id.clone(), "a".into(), (&b"hint"[..]).into()));
        saves.push(Save::ChannelMeta(id, data::full_meta().into()));
    }
    let (commit, model) = bench.prepare(&bench.store, saves);
    for attempt in ["first", "second"] {
        bench.adapter.commit(&commit).await.doing(format_args!("a commit, for the {attempt} time"))?;
    }
    bench.set_model(model);
    bench.check("a commit made twice").await?;
    bench.reopen().await?;
    bench.check("a commit made twice, and reopening").await?;
    // In a new life the same saves come under a new epoch.
    let again = Commit::new(commit.store, bench.epoch(), commit.durability, commit.saves);
    bench.adapter.commit(&again).await.doing("the same commit in a new life")?;
    bench.check("a commit made again after reopening").await
}

/// Two buckets and, where they are kept, a channel, all at version `number`; it replaces whatever was there.
fn everything_at(declared: Capabilities, number: u64, count: i64) -> Verdict<Vec<Save>> {
    let text = format!("version {number}");
    let records = || (0..count).map(|key| data::record(key, &text)).collect();
    let mut saves = vec![full(&bucket("atomic one")?, data::snapshot(number, records()))];
    if declared.channels {
        let id = channel("atomic")?;
        let at = i64::try_from(number).unwrap_or_default();
        let messages = vec![message("a", at, &text), message(text.as_str(), at, &text)];
        saves.push(Save::DropChannel(id.clone()));
        saves.push(Save::History(id.clone(), HistoryUpdate::new(messages, vec![]).into()));
        saves.push(Save::ChannelMeta(id, data::meta(at).into()));
    }
    saves.push(full(&bucket("atomic two")?, data::snapshot(number, records())));
    Ok(saves)
}

/// A commit with a part that the adapter refuses leaves what the declared atomicity allows, and a working adapter.
///
/// What is refused is the factory's [`poison`](Factory::poison), or a channel where those are not declared; without
/// either, there is nothing by which a commit could be made to fail half-way.
pub async fn a_commit_that_fails_is_undone_as_declared(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let poison = match bench.poison() {
        Some(poison) => poison,
        None if !declared.channels => Save::ChannelMeta(channel("refused")?, data::meta(1).into()),
        None => return Ok(()),
    };
    bench.commit_and_check("saving everything", everything_at(declared, 1, 5)?).await?;
    // The refused part stands last, where everything before it may have been written, and then in the middle.
    for position in [usize::MAX, 1] {
        let before = bench.model();
        let mut saves = everything_at(declared, 2, 5)?;
        let (_, after) = bench.prepare(&bench.store, saves.clone());
        saves.insert(position.min(saves.len()), poison.clone());
        let what = format!("a commit with a refused part (position {})", position.min(saves.len()));
        ensure!(bench.attempt(&bench.store.clone(), saves).await.is_err(), "{what} succeeded");
        bench.check_either(&what, &before, &after).await?;
        let whole = bench.model();
        bench.reopen().await?;
        bench.check_either(&format!("{what}, and reopening"), &whole, &after).await?;
        bench.commit_and_check("a commit after a refused one", everything_at(declared, 1, 3)?).await?;
    }
    Ok(())
}

/// Commits to different buckets, made at once by many tasks, are all there.
pub async fn concurrent_commits_are_all_there(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const TASKS: usize = 32;
    const COMMITS: i64 = 8;
    let mut bench = Bench::open(factory, declared).await?;
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let name = bucket(&format!("of task {task}"))?;
        let mut commits = Vec::new();
        for round in 0..COMMITS {
            let mut change = data::upserts(
                round.unsigned_abs() + 1,
                vec![data::record(round, "a"), data::record(99, &round.to_string())],
            );
            change.deletes = vec![Key::from(round - 2)];
            let (commit, model) = bench.prepare(&bench.store, vec![delta(&name, change)]);
            bench.set_model(model);
            commits.push(commit);
        }
        let adapter = Arc::clone(&bench.adapter);
        tasks.push(tokio::spawn(async move {
            for commit in commits {
                adapter.commit(&commit).await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for task in tasks {
        joined(task.await)?.doing("one of many commits made at once")?;
    }
    bench.check("commits made at once").await?;
    bench.reopen().await?;
    bench.check("commits made at once, and reopening").await
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Verdict<T> {
    result.map_err(|error| Broken::new(format!("the adapter panicked: {error}")))
}

/// Loads made at once, also while commits go on, each see a bucket as some commit left it.
pub async fn concurrent_loads_see_whole_commits(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const COMMITS: u64 = 20;
    const RECORDS: i64 = 30;
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("busy")?;
    let change = |revision: u64| {
        let text = revision.to_string();
        data::upserts(revision, (0..RECORDS).map(|key| data::record(key, &text)).collect())
    };
    bench.commit(vec![delta(&name, change(1))]).await?;
    let loaders: Vec<_> = (0..8)
        .map(|_| {
            let (adapter, key) = (Arc::clone(&bench.adapter), BucketKey::new(bench.store.clone(), name.clone()));
            tokio::spawn(async move {
                let mut newest = 0;
                for _ in 0..COMMITS {
                    let found = adapter.load_bucket(&key).await.doing("a load beside commits")?;
                    let Some(found) = found else { return Err(Broken::new("a load beside commits found no bucket")) };
                    let expected = found.revision.to_string();
                    let torn = found
                        .records
                        .iter()
                        .any(|record| record.get("text").and_then(|text| text.as_str()) != Some(expected.as_str()));
                    ensure!(
                        !torn && found.records.len() == usize::try_from(RECORDS).unwrap_or_default(),
                        "a load saw half of commit {expected}"
                    );
                    ensure!(found.revision >= newest, "a load saw commit {expected}, an earlier one saw {newest}");
                    newest = found.revision;
                    tokio::task::yield_now().await;
                }
                Ok(())
            })
        })
        .collect();
    for revision in 2..=COMMITS {
        bench.commit(vec![delta(&name, change(revision))]).await?;
        tokio::task::yield_now().await;
    }
    for loader in loaders {
        joined(loader.await)??;
    }
    bench.check("loads beside commits").await
}

/// Polls a future at most so many times, letting others run in between, then drops it.
async fn poll_times<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A commit whose future is dropped is done or not done, as far as the declared atomicity binds it, and the adapter
/// goes on working.
pub async fn a_dropped_commit_is_done_or_not(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let other = bucket("another one")?;
    for (number, polls) in (1_u64..).zip([0, 1, 2, 3, 5, 8, 13, 1, 2]) {
        bench.commit(everything_at(declared, number * 10, 20)?).await?;
        let before = bench.model();
        let (commit, after) = bench.prepare(&bench.store, everything_at(declared, number * 10 + 1, 25)?);
        let what = format!("a commit that was polled {polls} time(s) and dropped");
        if let Some(result) = poll_times(polls, bench.adapter.commit(&commit)).await {
            result.doing(&what)?;
        }
        // What was dropped may still be under way: a new claim shuts it out, a closing waits for it.
        if declared.fencing && number % 2 == 0 {
            bench.claim(&bench.store.clone()).await?;
        } else {
            bench.reopen().await?;
        }
        if bench.check_either(&what, &before, &after).await? {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            bench.check(&format!("{what}, a moment later")).await?;
        }
        let mut saves = everything_at(declared, number * 10 + 2, 3)?;
        saves.push(delta(&other, data::upserts(number, vec![data::record(1, &number.to_string())])));
        bench.commit_and_check("a commit after a dropped one", saves).await?;
    }
    Ok(())
}

/// A load whose future is dropped harms nobody.
pub async fn a_dropped_load_harms_nobody(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("looked at")?;
    bench.commit(vec![full(&name, data::snapshot(1, (0..50).map(|key| data::record(key, "a")).collect()))]).await?;
    let key = BucketKey::new(bench.store.clone(), name.clone());
    for polls in [0, 1, 2, 1, 3] {
        if let Some(result) = poll_times(polls, bench.adapter.load_bucket(&key)).await {
            result.doing("a load")?;
        }
        let saves = vec![delta(&name, data::upserts(2, vec![data::record(i64::from(polls), "b")]))];
        bench.commit(saves).await?;
        bench.check("a dropped load").await?;
    }
    bench.reopen().await?;
    bench.check("dropped loads, and reopening").await
}

/// Whatever is committed, in whatever order, with reopenings in between: the adapter holds what plain maps would.
pub async fn any_commits_leave_what_plain_maps_would(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const STEPS: u32 = 120;
    for seed in [1, 2] {
        let mut random = Random::new(seed);
        let mut bench = Bench::open(factory, declared).await?;
        // A place may have been used by the seed before: its stores are not those of this one.
        let own = store(&format!("kit of seed {seed}"))?;
        bench.claim(&own).await?;
        bench.store = own.clone();
        for step in 1..=STEPS {
            let (mut saves, mut model) = (Vec::new(), bench.model());
            for _ in 0..random.below(4) {
                let save = any_save(&mut random, declared, u64::from(step), &model)?;
                model.apply(&save);
                saves.push(save);
            }
            let what = format!("step {step} of seed {seed}, {} save(s)", saves.len());
            bench.commit(saves).await.map_err(|broken| Broken::new(format!("{what}: {broken}")))?;
            if random.below(8) == 0 {
                bench.reopen().await?;
                bench.check(&format!("{what}, and reopening")).await?;
            } else if random.below(4) == 0 {
                bench.check(&what).await?;
            }
        }
        bench.reopen().await?;
        bench.check(&format!("all steps of seed {seed}")).await?;
        bench.adapter.close(&own).await.doing("closing")?;
        bench.adapter.close(&store("kit")?).await.doing("closing")?;
    }
    Ok(())
}

/// Any save that a store could make where the model is what it has stored.
fn any_save(random: &mut Random, declared: Capabilities, step: u64, model: &Model) -> Verdict<Save> {
    const KEYS: u64 = 24;
    let text = format!("step {step}");
    let any_key = |random: &mut Random| {
        let number = i64::try_from(random.below(KEYS)).unwrap_or_default();
        if number % 2 == 0 { Key::from(number) } else { Key::from(format!("{number}")) }
    };
    if declared.channels && random.below(3) == 0 {
        let id = channel(["one", "two"].get(usize::from(random.chance(0.5))).copied().unwrap_or("one"))?;
        let any_id = |random: &mut Random| format!("m{}", random.below(12));
        return Ok(match random.below(12) {
            0 => Save::DropChannel(id),
            1..4 => Save::ChannelMeta(id, data::meta(i64::try_from(step).unwrap_or_default()).into()),
            4..6 => {
                let hint = if random.chance(0.3) { String::new() } else { text };
                Save::Hint(id, any_id(random).as_str().into(), hint.into())
            }
            _ => {
                let lamport = i64::try_from(random.below(40)).unwrap_or_default() - 5;
                let mut update = HistoryUpdate::default();
                let appended: BTreeSet<String> = (0..random.below(4)).map(|_| any_id(random)).collect();
                update.append = appended.iter().map(|id| message(id.as_str(), lamport, &text)).collect();
                let evicted: BTreeSet<String> = (0..random.below(4)).map(|_| any_id(random)).collect();
                // A store never names one message in both lists. What becomes of a hint whose message is not stored when
                // that is evicted is left to the adapter.
                let evicted = evicted.difference(&appended).map(|message| MessageId::from(message.as_str()));
                update.evict = evicted.filter(|message| !model.has_loose_hint(&id, message)).collect();
                Save::History(id, update.into())
            }
        });
    }
    let name =
        bucket(["a", "b", "a/b"].get(usize::try_from(random.below(3)).unwrap_or_default()).copied().unwrap_or("a"))?;
    let records = |random: &mut Random, most: u64| {
        let keys: BTreeSet<Key> = (0..random.below(most)).map(|_| any_key(random)).collect();
        keys.into_iter().map(|key| data::record(key, &text)).collect::<Vec<_>>()
    };
    Ok(match random.below(20) {
        0 => Save::DropBucket(name),
        1..3 => {
            let mut snapshot = data::snapshot(step, records(random, KEYS));
            let next = model.newest_request(&name) + 1;
            snapshot.requests = (next..next + random.below(6)).map(|revision| data::request(revision, &text)).collect();
            full(&name, snapshot)
        }
        _ => {
            let mut change = data::upserts(step, records(random, 6));
            change.cleared = random.below(10) == 0;
            change.counter = i64::try_from(step).unwrap_or_default();
            let upserted: BTreeSet<Key> = change.upserts.iter().map(|record| record.key().clone()).collect();
            let deleted: BTreeSet<Key> = (0..random.below(5)).map(|_| any_key(random)).collect();
            change.deletes = deleted.difference(&upserted).cloned().collect();
            if random.below(3) == 0 {
                let next = model.newest_request(&name) + 1;
                let revisions = next..=next + random.below(4);
                change.requests = revisions.map(|revision| data::request(revision, &text)).collect();
                change.request_window = usize::try_from(random.below(12)).unwrap_or_default() + 1;
            }
            delta(&name, change)
        }
    })
}
