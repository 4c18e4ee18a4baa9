//! Opening, claiming, fencing, closing, and moving out of the way.

use crate::base::error::Error;
use crate::base::name::{BucketKey, StoreName, Subject};
use crate::persistence::{Capabilities, Commit, Epoch, Save};
use crate::testkit::conformance::bench::{Bench, bucket, channel, full, store};
use crate::testkit::conformance::data::{self, message};
use crate::testkit::verdict::{Doing, ensure, with_causes};
use crate::testkit::{Broken, Factory, Verdict};

/// The adapter declares what it was said to.
pub async fn capabilities_are_as_expected(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let adapter = factory.open().await.doing("opening the adapter on a new place")?;
    let found = adapter.capabilities();
    ensure!(found == declared, "expected {declared:?}, the adapter declares {found:?}");
    ensure!(adapter.capabilities() == found, "the adapter declares something else when asked again");
    Ok(())
}

fn one_record(text: &str) -> Verdict<Vec<Save>> {
    Ok(vec![full(&bucket("fenced")?, data::snapshot(1, vec![data::record(1, text)]))])
}

/// Each claim of a store is higher than all before it, also after closing and reopening.
pub async fn every_claim_is_higher(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    if !declared.fencing {
        return Ok(());
    }
    let store = bench.store.clone();
    let mut highest = bench.epoch();
    ensure!(highest > Epoch(0), "the first claim is {highest}, it must be above 0");
    for round in 1..=6 {
        if round % 2 == 0 {
            bench.commit(one_record(&format!("round {round}"))?).await?;
            bench.reopen().await?;
        } else {
            bench.claim(&store).await?;
        }
        let epoch = bench.epoch();
        ensure!(epoch > highest, "a later claim is {epoch}, an earlier one was {highest}");
        highest = epoch;
        bench.check("a claim").await?;
    }
    Ok(())
}

/// A commit under an epoch that is not the newest is refused with `Fenced` and changes nothing, a drop included.
pub async fn an_older_epoch_is_fenced(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    if !declared.fencing {
        return Ok(());
    }
    let kit = bench.store.clone();
    let fresh = store("kit beside")?;
    bench.claim(&fresh).await?;
    bench.commit_and_check("the first commit", one_record("first")?).await?;
    let old = bench.epoch();
    bench.claim(&kit).await?;
    for life in ["before any commit of the new one", "after a commit of the new one", "after reopening"] {
        let new = bucket("made by the fenced")?;
        let mut saves = one_record("fenced")?;
        saves.push(full(&new, data::snapshot(1, vec![data::record(1, "fenced")])));
        let mut attempts =
            vec![("save", saves), ("drop", vec![Save::DropBucket(bucket("fenced")?)]), ("empty commit", vec![])];
        if declared.channels {
            let update = crate::sds::HistoryUpdate::new(vec![message("m", 1, "fenced")], vec![]);
            let saves = vec![Save::History(channel("fenced")?, update.into())];
            attempts.push(("history update", saves));
            attempts.push(("channel state", vec![Save::ChannelMeta(channel("fenced")?, data::meta(1).into())]));
            attempts.push(("hint", vec![Save::Hint(channel("fenced")?, "m".into(), "hint".into())]));
            attempts.push(("channel drop", vec![Save::DropChannel(channel("fenced")?)]));
        }
        for (kind, saves) in attempts {
            let commit = Commit::new(kit.clone(), old, declared.durability, saves);
            let result = bench.adapter.commit(&commit).await;
            bench.check_fenced(&format!("the old epoch's {kind}, {life}"), result).await?;
        }
        ensure!(bench.load_bucket(&new).await?.is_none(), "a fenced commit made a bucket");
        if life.starts_with("after a") {
            bench.reopen().await?;
        } else {
            bench.commit_and_check("a commit of the new epoch", one_record(life)?).await?;
        }
    }
    Ok(())
}

/// An epoch that no claim has answered is refused, too.
pub async fn an_epoch_that_was_never_given_out_is_fenced(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    if !declared.fencing {
        return Ok(());
    }
    bench.commit(one_record("first")?).await?;
    for epoch in [Epoch(0), Epoch(bench.epoch().0 + 1), Epoch(u64::MAX >> 1)] {
        let commit = Commit::new(bench.store.clone(), epoch, declared.durability, one_record("made up")?);
        let result = bench.adapter.commit(&commit).await;
        bench.check_fenced(&format!("epoch {epoch}, which nobody was given"), result).await?;
    }
    bench.commit_and_check("a commit of the right epoch", one_record("second")?).await
}

/// A claim of one store fences no other one.
pub async fn stores_are_fenced_apart(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let stores: Vec<StoreName> = ["kit beside", "kit/beside", "KIT"].into_iter().map(store).collect::<Verdict<_>>()?;
    for store in &stores {
        bench.claim(store).await?;
    }
    for round in ["first", "second"] {
        for store in &stores {
            bench.commit_to(store, one_record(&format!("{round} of {store:?}"))?).await?;
        }
        bench.check("commits of several stores").await?;
        bench.claim(&stores[0]).await?;
        bench.claim(&stores[0]).await?;
    }
    bench.commit(one_record("the first store's")?).await?;
    bench.reopen().await?;
    bench.check("commits of several stores, and reopening").await
}

/// Opening a place that is open is refused with `Locked`, or the later claim fences the earlier one; after a closing
/// the place is free.
pub async fn a_second_owner_is_locked_out_or_fences(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    if !declared.fencing {
        return Ok(());
    }
    let kit = bench.store.clone();
    bench.commit(one_record("of the first owner")?).await?;
    let second = match bench.open_again().await {
        Ok(second) => second.claim(&kit).await.map(|epoch| (second, epoch)),
        Err(error) => Err(error),
    };
    match second {
        Ok((second, epoch)) => {
            ensure!(epoch > bench.epoch(), "a second owner claims {epoch}, the first one has {}", bench.epoch());
            let commit = Commit::new(kit.clone(), bench.epoch(), declared.durability, one_record("of the fenced")?);
            let result = bench.adapter.commit(&commit).await;
            bench.check_fenced("a commit of an owner that was superseded", result).await?;
            let (mut commit, model) = bench.prepare(&kit, one_record("of the second owner")?);
            commit.epoch = epoch;
            second.commit(&commit).await.doing("a commit of the second owner")?;
            bench.set_model(model);
            second.close(&kit).await.doing("closing the second owner's store")?;
        }
        Err(Error::Locked { .. }) => {
            bench.commit_and_check("a refused second owner", one_record("of the first owner again")?).await?;
        }
        Err(other) => {
            let message =
                format!("a second owner must be Locked out or fence the first, it was told: {}", with_causes(&other));
            return Err(Broken::new(message));
        }
    }
    bench.reopen().await?;
    bench.check("two owners, and reopening").await
}

/// Closing twice, and closing a store that was never claimed, are fine.
pub async fn closing_twice_is_fine(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let kit = bench.store.clone();
    bench.commit(one_record("kept")?).await?;
    bench.adapter.close(&store("never claimed")?).await.doing("closing a store that was never claimed")?;
    bench.commit(one_record("kept, too")?).await?;
    for time in ["first", "second"] {
        bench.adapter.close(&kit).await.doing(format_args!("closing for the {time} time"))?;
    }
    bench.reopen().await?;
    bench.check("closing twice").await?;
    bench.commit_and_check("a commit after closing twice", one_record("new")?).await
}

/// A store that was closed can be claimed again, on the same adapter, and has everything.
pub async fn a_closed_store_can_be_claimed_again(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let kit = bench.store.clone();
    for round in ["first", "second", "third"] {
        bench.commit(one_record(round)?).await?;
        bench.adapter.close(&kit).await.doing("closing")?;
        bench.claim(&kit).await?;
        bench.check("closing and claiming again").await?;
    }
    bench.commit_and_check("a commit after closing and claiming again", one_record("last")?).await
}

/// Closing one store leaves the others of the adapter open.
pub async fn closing_one_store_leaves_the_others(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let beside = store("kit beside")?;
    bench.claim(&beside).await?;
    bench.commit(one_record("of the one that stays")?).await?;
    bench.commit_to(&beside, one_record("of the one that goes")?).await?;
    bench.adapter.close(&beside).await.doing("closing one of two stores")?;
    bench.commit(one_record("of the one that stays, later")?).await?;
    bench.reopen().await?;
    bench.check("closing one of two stores").await
}

/// What was committed is there in an adapter that is opened anew on the same place, if that is declared.
pub async fn data_survives_a_restart_if_declared(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    bench.commit(one_record("kept")?).await?;
    for round in 1..=3 {
        bench.reopen().await?;
        bench.check(&format!("restart number {round}")).await?;
    }
    bench.commit_and_check("a commit after restarts", one_record("new")?).await
}

/// What is moved into quarantine is out of the way, alone, and a new start can be made in its place. An adapter without
/// quarantine says `Unsupported` and leaves everything as it was.
pub async fn quarantine_takes_what_it_was_told(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (name, other) = (bucket("unreadable")?, bucket("readable")?);
    let records = |text: &str| data::snapshot(5, (0..3).map(|key| data::record(key, text)).collect());
    let mut saves = vec![full(&name, records("old")), full(&other, records("old"))];
    let mut subjects = vec![Subject::Bucket(name.clone())];
    if declared.channels {
        let update = crate::sds::HistoryUpdate::new(vec![message("m", 1, "old")], vec![]);
        for id in ["unreadable", "readable"] {
            saves.push(Save::History(channel(id)?, update.clone().into()));
            saves.push(Save::ChannelMeta(channel(id)?, data::meta(1).into()));
        }
        subjects.push(Subject::Channel(channel("unreadable")?));
    }
    bench.commit(saves).await?;
    let mut places = Vec::new();
    for round in 1..=2 {
        for subject in &subjects {
            match bench.adapter.quarantine(&bench.store, subject).await {
                Ok(place) => {
                    ensure!(!places.contains(&place), "two things are in quarantine under one name, {place:?}");
                    places.push(place);
                }
                Err(Error::Unsupported { .. }) => return bench.check("a refused quarantine").await,
                Err(other) => {
                    return Err(Broken::new(format!(
                        "moving {subject} into quarantine failed: {}",
                        with_causes(&other)
                    )));
                }
            }
            let mut model = bench.model();
            model.apply(&match subject {
                Subject::Bucket(name) => Save::DropBucket(name.clone()),
                Subject::Channel(id) => Save::DropChannel(id.clone()),
            });
            bench.set_model(model);
            bench.check(&format!("moving {subject} into quarantine")).await?;
        }
        bench.reopen().await?;
        bench.check("moving things into quarantine, and reopening").await?;
        let key = BucketKey::new(bench.store.clone(), name.clone());
        let found = bench.adapter.load_bucket(&key).await.doing("loading a bucket that is in quarantine")?;
        ensure!(found.is_none(), "a bucket that is in quarantine is still loaded");
        let mut saves = vec![full(&name, records(&format!("new start {round}")))];
        if declared.channels {
            saves.push(Save::ChannelMeta(channel("unreadable")?, data::meta(round).into()));
        }
        bench.commit_and_check("a new start in the place of what is in quarantine", saves).await?;
    }
    Ok(())
}
