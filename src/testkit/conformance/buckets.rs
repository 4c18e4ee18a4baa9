//! What a change makes of a stored bucket.

use crate::base::error::Error;
use crate::base::value::Key;
use crate::persistence::{Capabilities, Commit, Save};
use crate::records::{BucketDelta, BucketSnapshot};
use crate::testkit::conformance::bench::{Bench, bucket, delta, full, store};
use crate::testkit::conformance::data;
use crate::testkit::verdict::{ensure, with_causes};
use crate::testkit::{Broken, Factory, Verdict};

/// A bucket that nothing was ever stored of loads as none, and is not brought into being by that.
pub async fn nothing_is_loaded_of_what_was_never_saved(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (never, other) = (bucket("never saved")?, bucket("saved")?);
    ensure!(bench.load_bucket(&never).await?.is_none(), "a new place has a bucket that nobody saved");
    bench.commit(vec![full(&other, data::snapshot(1, vec![data::record(1, "a")]))]).await?;
    ensure!(bench.load_bucket(&never).await?.is_none(), "saving a bucket made another one");
    bench.reopen().await?;
    ensure!(bench.load_bucket(&never).await?.is_none(), "loading a bucket made it");
    bench.check("loading what was never saved").await
}

/// A bucket without records is not none: its revision, counter and schema version are kept.
pub async fn an_empty_bucket_is_kept(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (whole, changed, emptied) = (bucket("whole")?, bucket("changed")?, bucket("emptied")?);
    let saves = vec![
        full(&whole, BucketSnapshot::new(3, 4, 5, vec![])),
        delta(&changed, BucketDelta::new(4, 5, 3)),
        full(&emptied, data::snapshot(1, vec![data::record(1, "a")])),
    ];
    bench.commit_and_check("saving buckets without records", saves).await?;
    let saves = vec![delta(&emptied, data::deletes(2, [1]))];
    bench.commit_and_check("deleting a bucket's only record", saves).await
}

/// A whole bucket replaces all that was stored of it.
pub async fn a_whole_bucket_replaces_the_old_one(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("replaced")?;
    let old = BucketSnapshot::new(2, 9, 8, (0..10).map(|key| data::record(key, "old")).collect());
    bench.commit_and_check("saving a bucket whole", vec![full(&name, old)]).await?;
    let new = vec![data::record(3, "new"), data::record(20, "new")];
    let saves = vec![full(&name, BucketSnapshot::new(1, 10, 2, new))];
    bench.commit_and_check("saving a bucket whole over an older one", saves).await?;
    let saves = vec![full(&name, data::snapshot(11, vec![]))];
    bench.commit_and_check("saving an empty bucket over a full one", saves).await
}

/// A change adds, overwrites and deletes what it names, and nothing else.
pub async fn a_change_touches_what_it_names(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("changed")?;
    let old = BucketSnapshot::new(1, 1, 5, (0..5).map(|key| data::record(key, "old")).collect());
    bench.commit_and_check("saving a bucket whole", vec![full(&name, old)]).await?;
    let mut change = BucketDelta::new(2, 6, 2);
    change.upserts = vec![data::record(1, "changed"), data::record(5, "added")];
    // One key that was never stored goes, too.
    change.deletes = vec![Key::from(2), Key::from(77), Key::from("2")];
    bench.commit_and_check("a change", vec![delta(&name, change)]).await?;
    let saves = vec![delta(&name, BucketDelta::new(3, 7, 2))];
    bench.commit_and_check("a change of nothing but revision and counter", saves).await?;
    let saves = vec![delta(&name, data::upserts(4, vec![data::record(2, "added again")]))];
    bench.commit_and_check("a change that adds a deleted key again", saves).await
}

/// A change of a bucket that nothing is stored of makes it.
pub async fn a_change_onto_nothing_makes_the_bucket(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("made by a change")?;
    let mut change = data::upserts(1, vec![data::record(1, "a"), data::record("b", "b")]);
    change.deletes = vec![Key::from(9)];
    bench.commit_and_check("a change onto nothing", vec![delta(&name, change)]).await?;
    let cleared = BucketDelta { cleared: true, ..data::upserts(1, vec![data::record(1, "a")]) };
    let saves = vec![delta(&bucket("made by a clear")?, cleared)];
    bench.commit_and_check("a clear onto nothing", saves).await
}

/// A clear empties the bucket before the rest of its change is applied.
pub async fn a_clear_goes_before_its_upserts(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (name, other) = (bucket("cleared")?, bucket("cleared too")?);
    let old = || data::snapshot(1, (0..5).map(|key| data::record(key, "old")).collect());
    bench.commit(vec![full(&name, old()), full(&other, old())]).await?;
    let cleared =
        BucketDelta { cleared: true, ..data::upserts(2, vec![data::record(1, "new"), data::record(9, "new")]) };
    let bare = BucketDelta { cleared: true, ..BucketDelta::new(2, 5, 1) };
    bench.commit_and_check("clears", vec![delta(&name, cleared), delta(&other, bare)]).await?;
    let saves = vec![delta(&other, data::upserts(3, vec![data::record(2, "after the clear")]))];
    bench.commit_and_check("a change after a clear", saves).await
}

/// Changes add up over any number of reopenings.
pub async fn changes_add_up_over_reopenings(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("long-lived")?;
    bench.commit(vec![full(&name, data::snapshot(1, (0..4).map(|key| data::record(key, "old")).collect()))]).await?;
    for round in 1..=6_u64 {
        let at = i64::try_from(round).unwrap_or_default();
        let mut change = data::upserts(round * 10, vec![data::record(at, "changed"), data::record(at + 100, "added")]);
        change.deletes = vec![Key::from(at + 99)];
        bench.commit(vec![delta(&name, change)]).await?;
        bench.reopen().await?;
        bench.check(&format!("change and reopening number {round}")).await?;
    }
    Ok(())
}

/// An adapter that does not declare `incremental` refuses a change with `Unsupported`, whatever it is a change of: taken
/// for a whole bucket, it would delete everything else.
pub async fn changes_are_taken_or_refused(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("changed")?;
    bench.commit(vec![full(&name, data::snapshot(1, vec![data::record(1, "old"), data::record(2, "old")]))]).await?;
    let save = delta(&name, data::upserts(2, vec![data::record(1, "new")]));
    if declared.incremental {
        return bench.commit_and_check("a change", vec![save]).await;
    }
    let commit = Commit::new(bench.store.clone(), bench.epoch(), declared.durability, vec![save]);
    match bench.adapter.commit(&commit).await {
        Err(Error::Unsupported { .. }) => {}
        Ok(()) => return Err(Broken::new("changes are not declared, but one was taken")),
        Err(other) => {
            let message = format!("a change must be Unsupported where it is not declared: {}", with_causes(&other));
            return Err(Broken::new(message));
        }
    }
    bench.check("a refused change").await?;
    bench.commit_and_check("a whole bucket after that", vec![full(&name, data::snapshot(3, vec![]))]).await
}

/// A dropped bucket is gone with all of its records, alone, for good, and can be made anew.
pub async fn a_dropped_bucket_is_gone(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (name, other, never) = (bucket("dropped")?, bucket("dropped not")?, bucket("never saved")?);
    let beside = store("kit beside")?;
    bench.claim(&beside).await?;
    let old = || BucketSnapshot::new(4, 5, 6, (0..4).map(|key| data::record(key, "old")).collect());
    bench.commit(vec![full(&name, old()), full(&other, old())]).await?;
    bench.commit_to(&beside, vec![full(&name, old())]).await?;
    bench.commit_and_check("a drop", vec![Save::DropBucket(name.clone()), Save::DropBucket(never)]).await?;
    bench.commit_and_check("a drop of what is dropped", vec![Save::DropBucket(name.clone())]).await?;
    let saves = vec![delta(&name, data::upserts(1, vec![data::record(2, "new")]))];
    bench.commit_and_check("a change of a dropped bucket", saves).await
}

/// The saves of a commit are applied in their order, also where they are about one bucket.
pub async fn saves_are_applied_in_order(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let (twice, remade, unmade) =
        (bucket("saved twice")?, bucket("dropped, then saved")?, bucket("saved, then dropped")?);
    let old = || data::snapshot(1, (0..4).map(|key| data::record(key, "old")).collect());
    bench.commit(vec![full(&twice, old()), full(&remade, old())]).await?;
    let mut second = data::upserts(3, vec![data::record(1, "second"), data::record(2, "second")]);
    second.deletes = vec![Key::from(3), Key::from(5)];
    let saves = vec![
        Save::DropBucket(remade.clone()),
        delta(&twice, data::upserts(2, [1, 5, 6].map(|key| data::record(key, "first")).to_vec())),
        full(&unmade, old()),
        delta(&remade, data::upserts(1, vec![data::record(9, "new")])),
        delta(&twice, second),
        Save::DropBucket(unmade),
    ];
    bench.commit_and_check("a commit with several saves of one bucket", saves).await
}
