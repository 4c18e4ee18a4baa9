//! What awaited changes cost: callers that wait until their insert is synced.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a part of programs that print a table")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the numbers of a benchmark are small"
)]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::store::Store;
use redb::{Database, TableDefinition};
use tokio::sync::oneshot;

use crate::support::{Goal, Report, data, definition};

const CALLERS: usize = 64;
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const ALONE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("alone");

/// So many callers, each with its share of `total` calls, one at a time.
async fn by<F, Fut>(callers: usize, total: usize, call: F) -> Duration
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let call = call.clone();
            tokio::spawn(async move {
                for number in (caller..total).step_by(callers) {
                    call(number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    begun.elapsed()
}

fn insert(database: &Database, table: TableDefinition<'_, &[u8], &[u8]>, number: usize) {
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(&number.to_be_bytes()[..], &row(number)[..]).unwrap();
    transaction.commit().unwrap();
}

fn row(number: usize) -> Vec<u8> {
    rmp_serde::to_vec_named(&*crate::stored(number, 1)).unwrap()
}

/// What a program would write by hand: whatever queued while the last sync ran is appended, synced and answered.
struct Group(Sender<(Vec<u8>, oneshot::Sender<()>)>);

impl Group {
    fn start(path: &Path) -> Self {
        let mut file = std::fs::File::create(path).unwrap();
        let (requests, queue) = channel::<(Vec<u8>, oneshot::Sender<()>)>();
        std::thread::spawn(move || {
            let (mut bytes, mut replies) = (Vec::new(), Vec::new());
            while let Ok(first) = queue.recv() {
                for (row, reply) in std::iter::once(first).chain(queue.try_iter()) {
                    bytes.extend_from_slice(&u32::try_from(row.len()).unwrap().to_le_bytes());
                    bytes.extend_from_slice(&crc32c::crc32c(&row).to_le_bytes());
                    bytes.extend_from_slice(&row);
                    replies.push(reply);
                }
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
                bytes.clear();
                replies.drain(..).for_each(|reply| reply.send(()).unwrap());
            }
        });
        Self(requests)
    }

    async fn append(&self, row: Vec<u8>) {
        let (reply, answer) = oneshot::channel();
        self.0.send((row, reply)).unwrap();
        answer.await.unwrap();
    }
}

/// Numbers that no insert had before.
async fn inserts(bucket: &Bucket, callers: usize, total: usize) -> Duration {
    let synced = bucket.with_durability(Durability::Fsync);
    let took = by(callers, total, move |number| {
        let bucket = synced.clone();
        async move {
            bucket.insert(data(number)).await.unwrap();
        }
    })
    .await;
    bucket.with_durability(Durability::Fsync).clear().await.unwrap();
    took
}

pub async fn awaited(smoke: bool, mut report: Report) -> Report {
    let (total, alone, rounds) = if smoke { (640, 8, 1) } else { (20_000, 400, 9) };
    let folder = tempfile::tempdir().unwrap();
    let adapter = RedbAdapter::open(folder.path().join("awaited.redb")).await.unwrap();
    let store = Store::builder("awaited").adapter(adapter).start().await.unwrap();
    let bucket = store.define_bucket(definition("records")).await.unwrap();
    let group = Arc::new(Group::start(&folder.path().join("appended")));
    let raw = Arc::new(Database::create(folder.path().join("raw.redb")).unwrap());
    let page = Arc::new(std::fs::File::create(folder.path().join("page")).unwrap());
    page.write_all_at(&[1; 4_096], 0).unwrap();
    page.sync_all().unwrap();

    let (mut to_group, mut to_transactions, mut to_one) = (vec![], vec![], vec![]);
    let (mut to_page, mut to_commit) = (vec![], vec![]);
    for round in 0..rounds {
        let appending = Arc::clone(&group);
        let floor = by(CALLERS, total, move |number| {
            let group = Arc::clone(&appending);
            async move { group.append(row(number)).await }
        })
        .await;
        let many = inserts(&bucket, CALLERS, total).await;
        to_group.push((many, floor));

        // As many as one caller makes, times the rate of all.
        let one = inserts(&bucket, 1, alone).await;
        let scaled = |took: Duration, calls: usize| took.mul_f64(total as f64 / calls as f64);
        to_one.push((many, scaled(one, alone)));

        let database = Arc::clone(&raw);
        let single = by(CALLERS, alone, move |number| {
            let database = Arc::clone(&database);
            async move {
                let write = move || {
                    insert(&database, ROWS, round * alone + number);
                };
                tokio::task::spawn_blocking(write).await.unwrap();
            }
        })
        .await;
        to_transactions.push((many, scaled(single, alone)));

        let file = Arc::clone(&page);
        let overwrite = move || {
            let begun = Instant::now();
            for number in 0..alone {
                file.write_all_at(&[number as u8; 4_096], 0).unwrap();
                file.sync_data().unwrap();
            }
            begun.elapsed()
        };
        to_page.push((one, tokio::task::spawn_blocking(overwrite).await.unwrap()));

        let database = Arc::clone(&raw);
        let commit = move || {
            let begun = Instant::now();
            (0..alone).for_each(|number| insert(&database, ALONE, round * alone + number));
            begun.elapsed()
        };
        to_commit.push((one, tokio::task::spawn_blocking(commit).await.unwrap()));
    }
    let what = "synced insert, 64 callers";
    report.add(what, "appended and synced by a group commit loop", &to_group, total, Goal::AtLeast(0.6));
    report.add(what, "one redb transaction per write, blocking pool", &to_transactions, total, Goal::AtLeast(15.0));
    report.add(what, "the same by one caller", &to_one, total, Goal::AtLeast(8.0));
    report.add("synced insert, one caller", "4 KiB overwritten, fdatasync", &to_page, alone, Goal::AtMost(3.0));
    report.add("synced insert, one caller", "one redb transaction after the other", &to_commit, alone, Goal::None);
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    report
}
