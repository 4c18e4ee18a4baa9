//! Nothing that is stored under one name is found, changed or dropped under another.

use crate::base::name::{BucketName, ChannelId};
use crate::persistence::{Capabilities, Save};
use crate::records::BucketDelta;
use crate::sds::HistoryUpdate;
use crate::testkit::conformance::bench::{Bench, bucket, channel, delta, full, store};
use crate::testkit::conformance::data;
use crate::testkit::{Factory, Verdict};

fn every_second<T: Clone>(all: &[T]) -> impl Iterator<Item = T> {
    all.iter().step_by(2).cloned()
}

/// Buckets of every name that a bucket can have are kept apart.
pub async fn bucket_names_never_collide(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let names: Vec<BucketName> = data::names().iter().map(|name| bucket(name)).collect::<Verdict<_>>()?;
    let told = |name: &BucketName| data::record(name.as_str(), &format!("of bucket {name:?}"));
    let saves = names.iter().map(|name| full(name, data::snapshot(1, vec![told(name), data::record(1, "shared key")])));
    bench.commit_and_check("saving buckets of all kinds of names", saves.collect()).await?;
    let saves = every_second(&names).map(Save::DropBucket).collect();
    bench.commit_and_check("dropping every second of them", saves).await?;
    let again =
        |name: &BucketName| delta(name, BucketDelta { counter: 2, ..data::upserts(2, vec![data::record(2, "again")]) });
    let saves = names.iter().rev().step_by(3).map(again).collect();
    bench.commit_and_check("changing every third of them", saves).await
}

/// Stores of every name that a store can have are kept apart, and so are pairs of names that look alike when joined.
pub async fn store_names_never_collide(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let mut pairs: Vec<(String, String)> = data::names().into_iter().map(|name| (name, "a".to_owned())).collect();
    for joint in ["/", "\\", ".", ":", "-", "_", "%2f", "%", " ", "|", "\u{ffff}", "a"] {
        pairs.push(("s".to_owned(), format!("t{joint}u")));
        pairs.push((format!("s{joint}t"), "u".to_owned()));
    }
    for (store_name, name) in &pairs {
        let (store, name) = (store(store_name)?, bucket(name)?);
        bench.claim(&store).await?;
        let told = format!("of bucket {name:?} of store {store:?}");
        bench.commit_to(&store, vec![full(&name, data::snapshot(1, vec![data::record(1, &told)]))]).await?;
    }
    bench.check("saving one bucket in each of many stores").await?;
    bench.reopen().await?;
    bench.check("saving one bucket in each of many stores, and reopening").await?;
    for (store_name, name) in every_second(&pairs) {
        bench.commit_to(&store(&store_name)?, vec![Save::DropBucket(bucket(&name)?)]).await?;
    }
    bench.check("dropping the bucket in every second of them").await
}

/// Channels of every name that a channel can have are kept apart, from one another and from buckets of the same names.
pub async fn channel_names_never_collide(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    if !declared.channels {
        return Ok(());
    }
    let mut bench = Bench::open(factory, declared).await?;
    let names = data::names();
    let ids: Vec<ChannelId> = names.iter().map(|name| channel(name)).collect::<Verdict<_>>()?;
    let mut saves = Vec::new();
    for (number, id) in (1_i64..).zip(&ids) {
        let message = data::message("same id", number, &format!("of channel {id:?}"));
        saves.push(Save::History(id.clone(), HistoryUpdate::new(vec![message], vec![]).into()));
        saves.push(Save::ChannelMeta(id.clone(), data::meta(number).into()));
        saves.push(Save::Hint(id.clone(), "same id".into(), format!("hint {number}").into()));
        saves.push(full(&bucket(id.as_str())?, data::snapshot(1, vec![data::record(1, id.as_str())])));
    }
    bench.commit_and_check("saving channels and buckets of all kinds of names", saves).await?;
    let saves = every_second(&ids).map(Save::DropChannel).collect();
    bench.commit_and_check("dropping every second channel", saves).await?;
    let saves = names.iter().rev().step_by(3).map(|name| bucket(name).map(Save::DropBucket)).collect::<Verdict<_>>()?;
    bench.commit_and_check("dropping every third bucket", saves).await
}
