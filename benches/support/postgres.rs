//! What saving to PostgreSQL costs, held against what the same server does for hand-written SQL.
//!
//! On the server that `DATABASE_URL` names, or on a throwaway one of this machine; skipped where there is neither.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor_persistence::adapters::postgres::{PostgresAdapter, PostgresOptions};
use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDelta, Metadata, Record};
use ractor_persistence::{Durability, Store};
use tokio_postgres::{Client, NoTls};

use super::{Goal, Report, data, definition};

const SCHEMA: &str = "ractor_persistence_bench";

fn server() -> Option<String> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return Some(url);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
    let output = Command::new(script).args(["share", &std::process::id().to_string()]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub async fn run(smoke: bool, report: &mut Report) {
    let Some(url) = server() else {
        println!("  PostgreSQL: skipped, there is no server (set DATABASE_URL)");
        return;
    };
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let drop = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
    client.batch_execute(&drop).await.unwrap();
    let options = PostgresOptions::default().with_schema(SCHEMA);
    let adapter = PostgresAdapter::connect_with(&url, options).await.unwrap();
    commits(smoke, report, &adapter, &client).await;
    inserts(smoke, report, adapter).await;
    client.batch_execute(&drop).await.unwrap();
}

fn stored(number: usize, version: u64) -> Arc<Record> {
    let mut fields = data(number);
    fields.remove("id");
    let metadata = Metadata { version, created_at: 1_700_000_000_000, updated_at: 1_700_000_000_000, expires_at: None };
    Arc::new(Record::from_parts(number as i64, number as u64, metadata, fields))
}

/// The rows that the adapter writes, by hand: key, MessagePack and JSON, in one statement and one transaction.
async fn upsert(client: &mut Client, statement: &tokio_postgres::Statement, records: &[Arc<Record>]) {
    let keys: Vec<Vec<u8>> = records.iter().map(|record| record.place().to_be_bytes().to_vec()).collect();
    let rows: Vec<Vec<u8>> = records.iter().map(|record| rmp_serde::to_vec_named(&**record).unwrap()).collect();
    let documents: Vec<String> = records.iter().map(|record| record.to_json().to_string()).collect();
    let transaction = client.transaction().await.unwrap();
    transaction.execute(statement, &[&keys, &rows, &documents]).await.unwrap();
    transaction.commit().await.unwrap();
}

async fn commits(smoke: bool, report: &mut Report, adapter: &PostgresAdapter, client: &Client) {
    let (size, rounds): (usize, u64) = if smoke { (200, 2) } else { (100_000, 201) };
    let make = format!("CREATE TABLE {SCHEMA}.by_hand (key bytea PRIMARY KEY, data bytea NOT NULL, doc jsonb)");
    client.batch_execute(&make).await.unwrap();
    let (mut by_hand, connection) = {
        let url = server().unwrap();
        tokio_postgres::connect(&url, NoTls).await.unwrap()
    };
    tokio::spawn(connection);
    let sql = format!(
        "INSERT INTO {SCHEMA}.by_hand SELECT k, d, t::jsonb FROM unnest($1::bytea[], $2::bytea[], $3::text[]) AS n (k, d, t)
         ON CONFLICT (key) DO UPDATE SET data = excluded.data, doc = excluded.doc"
    );
    let statement = by_hand.prepare(&sql).await.unwrap();
    let store = ractor_persistence::base::name::StoreName::new("bench").unwrap();
    let bucket = ractor_persistence::base::name::BucketName::new("records").unwrap();
    let epoch = adapter.claim(&store).await.unwrap();
    let commit = |records: Vec<Arc<Record>>, revision: u64| {
        let mut delta = BucketDelta::new(revision, 0, 1);
        delta.upserts = records;
        let save = Save::Bucket(bucket.clone(), Arc::new(BucketChange::Delta(delta)));
        Commit::new(store.clone(), epoch, Durability::Fsync, vec![save])
    };
    let all: Vec<_> = (0..size).map(|number| stored(number, 1)).collect();
    for some in all.chunks(10_000) {
        upsert(&mut by_hand, &statement, some).await;
    }
    adapter.commit(&commit(all, 1)).await.unwrap();
    client.batch_execute(&format!("VACUUM ANALYZE {SCHEMA}.records; VACUUM ANALYZE {SCHEMA}.by_hand")).await.ok();
    let mut times = Vec::new();
    // The same numbers on every run: a multiplier that visits all of them.
    let mut number = 1_usize;
    for round in 0..rounds {
        let mut numbers: Vec<usize> = Vec::with_capacity(100);
        for _ in 0..100 {
            number = (number * 48_271) % 2_147_483_647;
            numbers.push(number % size);
        }
        numbers.sort_unstable();
        numbers.dedup();
        let version = round + 2;
        let records: Vec<_> = numbers.into_iter().map(|number| stored(number, version)).collect();
        let mine = commit(records.clone(), version);
        let hand = async |by_hand: &mut Client| -> Duration {
            let begun = Instant::now();
            upsert(by_hand, &statement, &records).await;
            begun.elapsed()
        };
        let own = async || -> Duration {
            let begun = Instant::now();
            adapter.commit(&mine).await.unwrap();
            begun.elapsed()
        };
        // In turns, so that neither always follows the other's sync.
        let pair = if round % 2 == 0 {
            let floor = hand(&mut by_hand).await;
            (own().await, floor)
        } else {
            let measured = own().await;
            (measured, hand(&mut by_hand).await)
        };
        times.push(pair);
    }
    let what = format!("PostgreSQL: commit of 100 changed in {size}");
    report.add(&what, "hand-written batched upsert of the same rows", &times, 1, Goal::AtMost(1.5));
    adapter.close(&store).await.unwrap();
}

async fn inserts(smoke: bool, report: &mut Report, adapter: PostgresAdapter) {
    const CALLERS: usize = 64;
    let (each, rounds) = if smoke { (2, 1) } else { (100, 5) };
    let store = Store::builder("inserts").adapter(adapter).start().await.unwrap();
    let bucket = store.define_bucket(definition("inserts")).await.unwrap().with_durability(Durability::Fsync);
    let mut times = Vec::new();
    let mut next = 0;
    for _ in 0..rounds {
        let alone = each * 4;
        let begun = Instant::now();
        for number in next..next + alone {
            bucket.insert(data(number)).await.unwrap();
        }
        let one = begun.elapsed() / alone as u32;
        next += alone;
        let begun = Instant::now();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (bucket, first) = (bucket.clone(), next + caller * each);
                tokio::spawn(async move {
                    for number in first..first + each {
                        bucket.insert(data(number)).await.unwrap();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        times.push((begun.elapsed() / (CALLERS * each) as u32, one));
        next += CALLERS * each;
    }
    let what = "PostgreSQL: Fsync insert, 64 callers";
    report.add(what, "the same, one caller", &times, 1, Goal::AtLeast(8.0));
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}
