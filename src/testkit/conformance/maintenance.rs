//! Copies of everything, and making it smaller.

use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::persistence::{Capabilities, Save, StorageAdapter};
use crate::sds::HistoryUpdate;
use crate::testkit::conformance::bench::{Bench, bucket, channel, delta, full, store};
use crate::testkit::conformance::data::{self, message};
use crate::testkit::verdict::{Doing, ensure, with_causes};
use crate::testkit::{Broken, Factory, Verdict};

/// Something of every kind, changed and dropped in part.
async fn fill(bench: &mut Bench<'_>, declared: Capabilities) -> Verdict {
    let beside = store("kit beside")?;
    bench.claim(&beside).await?;
    let (name, gone) = (bucket("kept")?, bucket("gone")?);
    let records = |text: &str| (0..40).map(|key| data::record(key, text)).collect();
    bench.commit(vec![full(&name, data::snapshot(1, records("old"))), full(&gone, data::snapshot(1, vec![]))]).await?;
    bench.commit_to(&beside, vec![full(&name, data::snapshot(7, records("beside")))]).await?;
    for revision in 2..8_u64 {
        let mut change = data::upserts(revision, vec![data::record(1, &revision.to_string())]);
        change.deletes = vec![crate::base::value::Key::from(i64::try_from(revision).unwrap_or_default() + 20)];
        (change.requests, change.request_window) = (vec![data::request(revision, "of change ")], 3);
        bench.commit(vec![delta(&name, change)]).await?;
    }
    let mut saves = vec![Save::DropBucket(gone)];
    if declared.channels {
        let id = channel("kept")?;
        let messages = vec![message("a", 1, "a"), message("b", 2, "b"), message("c", 3, "c")];
        saves.push(Save::History(id.clone(), HistoryUpdate::new(messages, vec!["b".into()]).into()));
        saves.push(Save::Hint(id.clone(), "a".into(), (&b"hint"[..]).into()));
        saves.push(Save::ChannelMeta(id, data::full_meta().into()));
    }
    bench.commit(saves).await
}

/// Whether something was done, and not refused for want of it.
fn offered<T>(what: &str, result: Result<T>) -> Verdict<Option<T>> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(other) => Err(Broken::new(format!("{what} failed: {}", with_causes(&other)))),
    }
}

/// An adapter that is opened on a backup has everything that was committed before it, of all stores, and gives out higher
/// epochs; from then on the two share nothing. Where something is already, no backup is made. An adapter without backups
/// says `Unsupported`.
///
/// Only examined where the factory has a [`backup_target`](Factory::backup_target).
pub async fn a_backup_opens_with_what_was_committed(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let Some(target) = bench.backup_target(1) else { return Ok(()) };
    fill(&mut bench, declared).await?;
    let Some(bytes) = offered("a backup", bench.adapter.backup(&target).await)? else {
        return bench.check("a refused backup").await;
    };
    ensure!(bytes > 0, "a backup of several buckets has no bytes");
    bench.check("a backup").await?;
    let of_copy = vec![full(&bucket("of the copy")?, data::snapshot(1, vec![data::record(1, "a")]))];
    let copied = bench.model();
    bench.on_backup(&target, "a backup", of_copy.clone()).await?;
    bench.check("a commit on a backup").await?;

    let later = vec![Save::DropBucket(bucket("kept")?), full(&bucket("later")?, data::snapshot(1, vec![]))];
    bench.commit_and_check("a commit after a backup", later).await?;
    match bench.adapter.backup(&target).await {
        Err(Error::InvalidArgument { .. }) => {}
        Ok(_) => return Err(Broken::new("a backup was made over another one")),
        Err(other) => {
            let message = format!("a target that is taken must be an InvalidArgument: {}", with_causes(&other));
            return Err(Broken::new(message));
        }
    }
    let now = bench.model();
    let mut untouched = copied;
    of_copy.iter().for_each(|save| untouched.apply(save));
    bench.set_model(untouched);
    bench.on_backup(&target, "a backup that was opened before", vec![]).await?;
    bench.set_model(now);
    let Some(second) = bench.backup_target(2) else { return Ok(()) };
    bench.adapter.backup(&second).await.doing("a second backup")?;
    bench.on_backup(&second, "a second backup", vec![]).await?;
    bench.reopen().await?;
    bench.check("backups, and reopening").await
}

/// A backup that is made while commits go on has each of them wholly or not at all, as far as the declared atomicity
/// says so, and all that were answered before it was asked for.
pub async fn a_backup_beside_commits_is_of_one_moment(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const COMMITS: u64 = 40;
    let mut bench = Bench::open(factory, declared).await?;
    let names = [bucket("one")?, bucket("two")?];
    let saves = |revision: u64| -> Vec<Save> {
        let text = revision.to_string();
        let records = || (0..10).map(|key| data::record(key, &text)).collect();
        names.iter().map(|name| full(name, data::snapshot(revision, records()))).collect()
    };
    for round in 0..3_u32 {
        let Some(target) = bench.backup_target(round + 10) else { return Ok(()) };
        let first = u64::from(round) * 1_000 + 1;
        bench.commit(saves(first)).await?;
        let mut commits = Vec::new();
        for revision in first + 1..first + COMMITS {
            let (commit, model) = bench.prepare(&bench.store, saves(revision));
            bench.set_model(model);
            commits.push(commit);
        }
        let adapter = Arc::clone(&bench.adapter);
        let writer = tokio::spawn(async move {
            for commit in commits {
                adapter.commit(&commit).await?;
            }
            Ok::<(), Error>(())
        });
        for _ in 0..round * 5 {
            tokio::task::yield_now().await;
        }
        let backup = bench.adapter.backup(&target).await;
        let written = writer.await.map_err(|error| Broken::new(format!("the adapter panicked: {error}")))?;
        written.doing("a commit beside a backup")?;
        if offered("a backup beside commits", backup)?.is_none() {
            return bench.check("a refused backup").await;
        }
        let copy = factory.open_backup(&target).await.doing("opening a backup")?;
        copy.claim(&bench.store).await.doing("claiming a store of a backup")?;
        let mut revisions = Vec::new();
        for name in &names {
            revisions.push(whole_revision(&*copy, &bench, name).await?);
        }
        copy.close(&bench.store).await.doing("closing a backup")?;
        ensure!(revisions.iter().all(|revision| *revision >= first), "a backup lacks an earlier commit: {revisions:?}");
        let whole = declared.atomicity == crate::persistence::Atomicity::Whole;
        ensure!(
            !whole || revisions.windows(2).all(|pair| pair[0] == pair[1]),
            "a backup has half a commit: {revisions:?}"
        );
        bench.check("commits beside a backup").await?;
    }
    Ok(())
}

/// The revision of a bucket, all records of which must be of it.
async fn whole_revision(
    copy: &dyn StorageAdapter,
    bench: &Bench<'_>,
    name: &crate::base::name::BucketName,
) -> Verdict<u64> {
    let key = crate::base::name::BucketKey::new(bench.store.clone(), name.clone());
    let found = copy.load_bucket(&key).await.doing("loading a bucket of a backup")?;
    let Some(found) = found else { return Err(Broken::new(format!("a backup has no bucket {name:?}"))) };
    let text = found.revision.to_string();
    let same = found.records.iter().all(|record| record.get("text").and_then(|of| of.as_str()) == Some(text.as_str()));
    ensure!(same && found.records.len() == 10, "a backup has half of revision {text} of bucket {name:?}");
    Ok(found.revision)
}

/// Compacting changes nothing of what is stored, beside commits too. An adapter that has nothing to compact says
/// `Unsupported`.
pub async fn compacting_keeps_everything(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    fill(&mut bench, declared).await?;
    if offered("compacting", bench.adapter.compact().await)?.is_none() {
        return bench.check("a refused compaction").await;
    }
    bench.check("compacting").await?;
    bench.reopen().await?;
    bench.check("compacting, and reopening").await?;
    let adapter = Arc::clone(&bench.adapter);
    let compacting = tokio::spawn(async move { adapter.compact().await });
    for revision in 20..40_u64 {
        let change = data::upserts(revision, vec![data::record(2, &revision.to_string())]);
        bench.commit(vec![delta(&bucket("kept")?, change)]).await?;
    }
    let compacted = compacting.await.map_err(|error| Broken::new(format!("the adapter panicked: {error}")))?;
    compacted.doing("compacting beside commits")?;
    bench.check("compacting beside commits").await?;
    bench.adapter.compact().await.doing("compacting again")?;
    bench.reopen().await?;
    bench.check("compacting again, and reopening").await
}
