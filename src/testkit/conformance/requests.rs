//! The request ids that a bucket remembers, and what becomes of them.

use crate::base::name::BucketName;
use crate::base::value::Key;
use crate::persistence::{Capabilities, Save};
use crate::records::{BucketDelta, BucketSnapshot, Request};
use crate::testkit::conformance::bench::{Bench, bucket, delta, full};
use crate::testkit::conformance::data::{self, request};
use crate::testkit::{Factory, Verdict};

/// A window that nothing here fills.
const WIDE: usize = 1_024;

/// A change of one record, made by a request.
fn requested(revision: u64, window: usize, requests: Vec<Request>) -> BucketDelta {
    let records = vec![data::record(1, &format!("of revision {revision}"))];
    BucketDelta { requests, request_window: window, ..data::upserts(revision, records) }
}

/// A bucket of one record with a request for each of these revisions.
fn remembering(revisions: impl IntoIterator<Item = u64>) -> BucketSnapshot {
    let requests: Vec<Request> = revisions.into_iter().map(|revision| request(revision, "old")).collect();
    let revision = requests.last().map_or(1, |request| request.revision);
    BucketSnapshot { requests, ..data::snapshot(revision, vec![data::record(1, "old")]) }
}

async fn remembered<'a>(
    factory: &'a dyn Factory,
    declared: Capabilities,
    revisions: impl IntoIterator<Item = u64>,
) -> Verdict<(Bench<'a>, BucketName)> {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("remembering")?;
    bench.commit(vec![full(&name, remembering(revisions))]).await?;
    Ok((bench, name))
}

/// Request ids come back from the oldest to the newest, with all that is noted of them, whether they were saved with the
/// whole bucket or with changes.
pub async fn request_ids_come_back_in_order(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("remembering")?;
    let mut odd = request(300, "\0 \"odd\" \u{1f600} e\u{301} {\"$bytes\":\"AA==\"}");
    odd.keys = data::keys();
    (odd.fingerprint, odd.removed, odd.inserted) = (u64::MAX, u64::MAX, true);
    let long = request(301, &"x".repeat(128 - 4));
    let none = Request { keys: Vec::new(), ..request(65_536, "z") };
    let snapshot = BucketSnapshot {
        requests: vec![request(9, "b"), request(10, "a"), request(255, "c"), request(256, "B")],
        ..data::snapshot(256, vec![data::record(1, "a")])
    };
    bench.commit_and_check("saving a bucket with request ids whole", vec![full(&name, snapshot)]).await?;
    let saves = vec![delta(&name, requested(301, WIDE, vec![odd, long]))];
    bench.commit_and_check("a change with request ids", saves).await?;
    let saves = vec![
        delta(&name, requested(65_536, WIDE, vec![none])),
        delta(&name, requested(u64::MAX, WIDE, vec![request(u64::MAX - 1, "y"), request(u64::MAX, "y")])),
        delta(&bucket("made by a change")?, requested(2, WIDE, vec![request(1, "a"), request(2, "b")])),
    ];
    bench.commit_and_check("several changes with request ids in one commit", saves).await
}

/// A change without request ids leaves those that are stored, whatever else it does; it says nothing of how many there
/// may be.
pub async fn changes_without_request_ids_leave_them(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let (mut bench, name) = remembered(factory, declared, [3, 5]).await?;
    for (what, change) in [
        ("a change of a record", data::upserts(6, vec![data::record(1, "new"), data::record(2, "new")])),
        ("deleting the records that a request wrote", data::deletes(7, [1, 2])),
        ("a change of nothing but the revision", BucketDelta::new(8, 0, 1)),
    ] {
        bench.commit_and_check(what, vec![delta(&name, change)]).await?;
    }
    let saves = vec![delta(&name, requested(9, WIDE, vec![request(9, "new")]))];
    bench.commit_and_check("a change with a request id after changes without", saves).await
}

/// No more request ids are kept than the change that came last with some says, and those are the newest.
pub async fn request_ids_are_kept_up_to_their_window(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let (mut bench, name) = remembered(factory, declared, 1..=4).await?;
    for revision in 5..=12 {
        let saves = vec![delta(&name, requested(revision, 5, vec![request(revision, "one of many")]))];
        bench.commit(saves).await?;
        bench.check(&format!("request number {revision} where five are remembered")).await?;
    }
    bench.reopen().await?;
    bench.check("more requests than are remembered, and reopening").await?;
    for (what, window, revisions) in [
        ("more requests in one change than are remembered", 5, 20..30),
        ("a narrower window", 2, 30..31),
        ("a wider window", 100, 31..61),
        ("a window of one", 1, 61..62),
    ] {
        let requests = revisions.clone().map(|revision| request(revision, "one of many")).collect();
        let saves = vec![delta(&name, requested(revisions.end - 1, window, requests))];
        bench.commit_and_check(what, saves).await?;
    }
    Ok(())
}

/// A whole bucket replaces the request ids, too: by its own, or by none.
pub async fn a_whole_bucket_replaces_its_request_ids(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let (mut bench, name) = remembered(factory, declared, 1..=6).await?;
    for (what, revisions) in [("a whole bucket with other request ids", 4..9), ("a whole bucket without any", 0..0)] {
        bench.commit_and_check(what, vec![full(&name, remembering(revisions))]).await?;
        let saves = vec![delta(&name, requested(20, WIDE, vec![request(20, "new")]))];
        bench.commit_and_check(&format!("{what}, and a change"), saves).await?;
    }
    Ok(())
}

/// A clear takes the records and leaves the request ids: it may be a request itself.
pub async fn a_clear_keeps_request_ids(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let (mut bench, name) = remembered(factory, declared, [1, 2]).await?;
    let bare = BucketDelta { cleared: true, ..BucketDelta::new(3, 0, 1) };
    bench.commit_and_check("a clear", vec![delta(&name, bare)]).await?;
    let cleared = Request { removed: 1, keys: Vec::new(), ..request(5, "clear") };
    let change = BucketDelta { cleared: true, ..requested(5, WIDE, vec![request(4, "insert"), cleared]) };
    bench.commit_and_check("a clear by a request", vec![delta(&name, change)]).await
}

/// A dropped bucket takes its request ids along: one that is made anew in its place knows none of them.
pub async fn a_dropped_bucket_takes_its_request_ids_along(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let (mut bench, name) = remembered(factory, declared, 1..=6).await?;
    let other = bucket("dropped not")?;
    bench.commit(vec![full(&other, remembering(1..=3))]).await?;
    bench.commit_and_check("a drop", vec![Save::DropBucket(name.clone())]).await?;
    let saves = vec![delta(&name, data::upserts(1, vec![data::record(1, "new")]))];
    bench.commit_and_check("a change of a dropped bucket", saves).await?;
    let saves = vec![delta(&name, requested(2, WIDE, vec![request(2, "new")]))];
    bench.commit_and_check("a request to a bucket made anew", saves).await?;
    let anew = BucketDelta { deletes: vec![Key::from(1)], ..BucketDelta::new(1, 0, 1) };
    let saves = vec![Save::DropBucket(name.clone()), delta(&name, anew)];
    bench.commit_and_check("a drop and a new bucket in one commit", saves).await
}
