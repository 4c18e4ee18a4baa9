//! Everything that a bucket can hold comes back exactly as it was.

use std::sync::Arc;

use crate::base::value::{Key, Object, Value};
use crate::persistence::Capabilities;
use crate::records::{BucketSnapshot, Metadata, Record};
use crate::testkit::conformance::bench::{Bench, bucket, delta, full};
use crate::testkit::conformance::data;
use crate::testkit::{Factory, Verdict};

/// Stores the records whole in one bucket and as a change in another.
async fn round_trip(bench: &mut Bench<'_>, what: &str, records: Vec<Arc<Record>>) -> Verdict {
    let (whole, changed) = (bucket("stored whole")?, bucket("stored as a change")?);
    let saves = vec![full(&whole, data::snapshot(1, records.clone())), delta(&changed, data::upserts(1, records))];
    bench.commit_and_check(what, saves).await
}

/// Every kind of value, the extremes of each, and objects that look like tags come back with every bit.
pub async fn every_kind_of_value_comes_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let records = vec![data::record_with("all", 1, data::every_kind()), data::record_with("none", 2, Object::new())];
    round_trip(&mut bench, "storing every kind of value", records).await
}

/// Values nested as deeply as input may be come back, whatever they are nested in.
pub async fn the_deepest_nesting_comes_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let in_list = |inner| Value::from(vec![inner]);
    let in_object = |name: &str, inner: Value| Value::Object([(name, inner)].into_iter().collect());
    let fields = record! {
        "lists": data::deep(|_, inner| in_list(inner)),
        "objects": data::deep(|_, inner| in_object("a", inner)),
        "tags": data::deep(|_, inner| in_object("$object", inner)),
        "turns": data::deep(|level, inner| if level % 2 == 0 { in_list(inner) } else { in_object("$bytes", inner) }),
    };
    round_trip(&mut bench, "storing deeply nested values", vec![data::record_with(1, 1, fields)]).await
}

/// Keys of every kind and length come back, each with its own record, and each can be deleted alone.
pub async fn every_key_is_its_own(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let keys = data::keys();
    let records: Vec<_> = keys.iter().map(|key| data::record(key, &format!("{key:?}"))).collect();
    round_trip(&mut bench, "storing every kind of key", records).await?;
    let half: Vec<&Key> = keys.iter().step_by(2).collect();
    let saves = vec![delta(&bucket("stored as a change")?, data::deletes(2, half))];
    bench.commit_and_check("deleting every second key", saves).await
}

/// Versions, times, places, revision, counter and schema version come back, up to their largest.
pub async fn metadata_and_standing_come_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    let mut bench = Bench::open(factory, declared).await?;
    let largest = i64::MAX.unsigned_abs();
    let metadata = [
        Metadata { version: 1, created_at: 0, updated_at: 0, expires_at: None },
        Metadata { version: 2, created_at: -1, updated_at: 1, expires_at: Some(0) },
        Metadata { version: largest, created_at: i64::MIN, updated_at: i64::MAX, expires_at: Some(i64::MAX) },
        Metadata { version: 3, created_at: i64::MAX, updated_at: i64::MIN, expires_at: Some(i64::MIN) },
    ];
    // Places run against the keys, so that an adapter that makes them up from an order is found out.
    let places = [largest, 1 << 53, (1 << 53) + 1, 0];
    let records: Vec<Arc<Record>> = (1_i64..)
        .zip(metadata.into_iter().zip(places))
        .map(|(key, (metadata, place))| Arc::new(Record::from_parts(key, place, metadata, record! { "at": key })))
        .collect();
    let mut saves = Vec::new();
    let standings = [(1, 1, 0), (7, 2, -5), (u32::MAX, largest, i64::MAX), (0, 0, i64::MIN)];
    for (number, (schema_version, revision, counter)) in standings.into_iter().enumerate() {
        let name = bucket(&format!("whole {number}"))?;
        saves.push(full(&name, BucketSnapshot::new(schema_version, revision, counter, records.clone())));
        let mut change = data::upserts(revision, records.clone());
        (change.schema_version, change.counter) = (schema_version, counter);
        saves.push(delta(&bucket(&format!("changed {number}"))?, change));
    }
    bench.commit_and_check("storing extreme metadata", saves).await
}

/// A value of 16 MiB comes back, beside small ones.
pub async fn large_values_come_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const SIZE: usize = 16 << 20;
    let mut bench = Bench::open(factory, declared).await?;
    // No two pages of it are alike.
    let mut bytes = Vec::with_capacity(SIZE);
    for page in 0..SIZE as u64 / 4_096 {
        bytes.extend(page.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(512));
    }
    let text: String = ('\u{0}'..'\u{d7ff}').cycle().take(1 << 19).collect();
    let fields = record! { "bytes": bytes.as_slice(), "text": text };
    let (name, beside) = (bucket("large")?, bucket("small")?);
    let records = vec![data::record(1, "small"), data::record_with(2, 2, fields), data::record(3, "small")];
    let saves = vec![full(&name, data::snapshot(1, records)), full(&beside, data::snapshot(1, vec![]))];
    bench.commit_and_check("storing 16 MiB in one value", saves).await?;
    let saves = vec![delta(&name, data::upserts(2, vec![data::record(2, "small again")]))];
    bench.commit_and_check("replacing 16 MiB by little", saves).await
}

/// A bucket of many records comes back with all of them, and a change of some touches no other.
pub async fn many_records_come_back(factory: &dyn Factory, declared: Capabilities) -> Verdict {
    const COUNT: i64 = 5_000;
    let mut bench = Bench::open(factory, declared).await?;
    let name = bucket("many")?;
    let records = (0..COUNT).map(|key| data::record(key, "first")).collect();
    bench.commit_and_check("storing many records", vec![full(&name, data::snapshot(1, records))]).await?;
    let mut change = data::upserts(2, (0..COUNT).step_by(7).map(|key| data::record(key, "second")).collect());
    change.deletes = (1..COUNT).step_by(7).map(Key::from).collect();
    bench.commit_and_check("changing some of many records", vec![delta(&name, change)]).await
}
