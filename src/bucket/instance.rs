//! One life of a bucket: its table, which the actor changes in its turn and everybody else reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::base::clock::Clock;
use crate::base::error::{Error, Outcome, Result};
use crate::base::name::{BucketName, Subject};
use crate::base::value::Key;
use crate::bucket::message::{Applied, BucketStats, WriteRequest};
use crate::bus::{Bus, Event, Publisher, Topic};
use crate::persistence::BucketCell;
use crate::records::{
    BucketEvent, Change, Changes, Commit, Draws, Keys, Plan, Prepared, Record, Remains, Request, Table, Written,
};

/// What the instances of a bucket share with their store.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Where unsaved changes are noted; none where the bucket is not saved.
    pub(crate) cell: Option<Arc<BucketCell>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bus: Bus,
    /// The newest revision: a bucket that restarts empty goes on from there.
    pub(crate) revision: Arc<AtomicU64>,
    /// Numbers the commits of the store.
    pub(crate) commits: Arc<AtomicU64>,
}

/// One life of a bucket.
///
/// Invariant: only who has the bucket's turn commits, which is its actor while it handles a message, or the transaction
/// that the actor waits for; so a plan made under the read lock still holds under the write lock. Both locks are held
/// for moments, never across an await.
#[derive(Debug)]
pub(crate) struct Instance {
    name: BucketName,
    subject: Subject,
    around: Surroundings,
    /// The table's records by key: looked up without the lock on the table.
    keys: Arc<Keys>,
    state: RwLock<State>,
    /// Where the bucket draws numbers: held from the plan of a write to its commit, so that no transaction is promised the
    /// same ones in between. Taken before the lock on the state.
    numbers: Option<Mutex<()>>,
    speaker: Mutex<Speaker>,
}

#[derive(Debug)]
struct State {
    table: Table,
    /// Another instance has taken over, or is about to: nothing is committed here any more.
    retired: bool,
}

/// One publisher per kind of change: each remembers who listens to it.
#[derive(Debug)]
struct Speaker {
    inserted: Publisher,
    updated: Publisher,
    deleted: Publisher,
    cleared: Publisher,
}

/// What a commit has left to tell.
#[derive(Debug)]
#[must_use]
pub(crate) struct News {
    changes: Changes,
    revision: u64,
    at: i64,
    /// Estimated bytes of all changes together, where they had to be counted anyway.
    noted: Option<usize>,
    remains: Option<Remains>,
}

/// The right to commit, to a table that nobody reads meanwhile.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    instance: &'a Instance,
    state: RwLockWriteGuard<'a, State>,
}

fn lost() -> Error {
    Error::ActorLost { outcome: Outcome::NotApplied }
}

impl Instance {
    pub(crate) fn new(table: Table, around: Surroundings) -> Self {
        around.revision.store(table.revision(), Ordering::Release);
        let name = table.schema().bucket().clone();
        let publisher = |kind| around.bus.publisher(Topic::bucket(name.as_str(), kind));
        let speaker = Speaker {
            inserted: publisher("inserted"),
            updated: publisher("updated"),
            deleted: publisher("deleted"),
            cleared: publisher("cleared"),
        };
        Self {
            subject: Subject::Bucket(name.clone()),
            name,
            around,
            keys: Arc::clone(table.keys()),
            numbers: table.schema().draws_numbers().then(Mutex::default),
            state: RwLock::new(State { table, retired: false }),
            speaker: Mutex::new(speaker),
        }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn now(&self) -> i64 {
        self.around.clock.now_ms()
    }

    fn state(&self) -> Result<RwLockReadGuard<'_, State>> {
        // Poisoned: a panic in the middle of a commit. The table may be torn, and is built anew.
        let state = self.state.read().map_err(|_torn| lost())?;
        if state.retired { Err(lost()) } else { Ok(state) }
    }

    /// Looks at the table; for moments only.
    ///
    /// # Errors
    /// `ActorLost` where another instance has taken over.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> Result<T> {
        Ok(look(&self.state()?.table))
    }

    /// The record of a key, and a revision that it is not older than. Waits for no writer but one of the same part of
    /// the keys.
    pub(crate) fn get(&self, key: &Key) -> (Option<Arc<Record>>, u64) {
        // Asked before: what changes in between counts as a change after the read.
        let revision = self.around.revision.load(Ordering::Acquire);
        // The clock is asked only where it matters.
        let lives = |record: &Arc<Record>| record.metadata().expires_at.is_none_or(|at| at > self.now());
        (self.keys.get(key).filter(lives), revision)
    }

    /// The right to commit. Only for who has the bucket's turn.
    ///
    /// # Errors
    /// `ActorLost` where another instance has taken over.
    pub(crate) fn writing(&self) -> Result<Writing<'_>> {
        let state = self.state.write().map_err(|_torn| lost())?;
        if state.retired { Err(lost()) } else { Ok(Writing { instance: self, state }) }
    }

    /// Changes what is no part of the bucket's contents: reservations, and who watches.
    pub(crate) fn adjust<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        // What these change is whole in a torn table, too.
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner).table)
    }

    /// Whether a commit was cut short by a panic.
    pub(crate) fn is_torn(&self) -> bool {
        self.state.is_poisoned()
    }

    /// From now on nothing is committed here.
    pub(crate) fn retire(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).retired = true;
    }

    /// A number for the events of one commit.
    pub(crate) fn next_commit(&self) -> u64 {
        self.around.commits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One write in the bucket's turn, from its checks to its events. There is no await in it, so that a kill never
    /// finds it half done.
    pub(crate) fn write(&self, request: WriteRequest) -> Result<Applied> {
        let WriteRequest { write, id } = request;
        let mut draws = Draws { now: self.now(), uuid: &mut uuid::Uuid::new_v4 };
        let numbers = self.numbers();
        let plan = {
            let state = self.state()?;
            match id {
                None => state.table.plan(write, &mut draws)?,
                Some(id) => {
                    let request = Request::new(&*id, &write)?;
                    if let Some((written, revision)) = state.table.repeated(&request, &write, draws.now)? {
                        return Ok(Applied { written, revision: Some(revision) });
                    }
                    state.table.plan(write, &mut draws)?.with_request(request)
                }
            }
        };
        let (written, news) = self.writing()?.apply(plan);
        drop(numbers);
        Ok(self.announce(written, news))
    }

    fn numbers(&self) -> Option<MutexGuard<'_, ()>> {
        self.numbers.as_ref().map(|numbers| numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives out autoincrement numbers ahead of a commit, see [`Table::reserve_numbers`].
    pub(crate) fn reserve_numbers(&self, count: usize, above: i64) -> Result<i64> {
        let _numbers = self.numbers();
        self.adjust(|table| table.reserve_numbers(count, above))
    }

    /// One insert that was checked before, in the bucket's turn.
    pub(crate) fn put(&self, prepared: Prepared) -> Result<Applied> {
        let now = self.now();
        let plan = self.read(|table| table.plan_prepared(prepared, now))??;
        self.commit(plan)
    }

    /// Inserts that were checked before, in the bucket's turn.
    pub(crate) fn put_many(&self, prepared: Vec<Prepared>) -> Result<Applied> {
        let now = self.now();
        let plan = self.read(|table| table.plan_prepared_many(prepared, now))??;
        self.commit(plan)
    }

    /// Commits a plan in the bucket's turn.
    pub(crate) fn commit(&self, plan: Plan) -> Result<Applied> {
        let (written, news) = self.writing()?.apply(plan);
        Ok(self.announce(written, news))
    }

    fn announce(&self, written: Written, news: Option<News>) -> Applied {
        let Some(news) = news else { return Applied { written, revision: None } };
        let revision = news.revision;
        self.tell(news, self.next_commit());
        Applied { written, revision: Some(revision) }
    }

    /// Removes records that have expired, at most `limit` of them; answers how many.
    pub(crate) fn purge(&self, limit: usize) -> Result<usize> {
        let now = self.now();
        let plan = self.read(|table| table.plan_purge(now, limit))?;
        Ok(self.commit(plan)?.written.gone())
    }

    /// Removes what is beyond `max_size`, as after a load.
    pub(crate) fn trim(&self) -> Result<()> {
        let now = self.now();
        let plan = self.read(|table| table.plan_trim(now))?;
        self.commit(plan).map(drop)
    }

    /// Tells subscribers of a commit. Called by who has the turn, so that events come in the order of commits.
    pub(crate) fn tell(&self, news: News, commit: u64) {
        let News { changes, revision, at, noted, remains } = news;
        let count = changes.as_slice().len();
        // Subscribers' panics are caught behind it.
        let mut speaker = self.speaker.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, change) in changes.into_iter().enumerate() {
            let publisher = speaker.of(&change);
            if !publisher.is_heard() {
                continue;
            }
            let bytes = noted.filter(|_| count == 1).unwrap_or_else(|| change.estimated_bytes());
            let persistent = self.around.cell.is_some();
            if !publisher.payload_is_read() {
                publisher.publish_bare(&self.subject, revision, bytes, persistent);
                continue;
            }
            let topic = publisher.topic().clone();
            publisher.publish_with(|| {
                let bucket = self.name.clone();
                let payload = Arc::new(BucketEvent { bucket, revision, commit, at, index, count, change });
                Event::new(topic, Some(self.subject.clone()), revision, bytes, persistent, payload)
            });
        }
        drop(speaker);
        if let Some(remains) = remains {
            // Freeing many records takes long: not in the bucket's turn.
            tokio::task::spawn_blocking(move || drop(remains));
        }
    }

    pub(crate) fn stats(&self) -> Result<BucketStats> {
        let now = self.now();
        let persistent = self.around.cell.is_some();
        self.read(|table| {
            let expired = table.expired(now);
            let schema = table.schema();
            BucketStats {
                records: table.len() - expired,
                expired,
                indexes: schema.indexes(),
                counter: table.counter(),
                revision: table.revision(),
                ordered: schema.ordered(),
                ttl: schema.ttl_ms().and_then(|ms| u64::try_from(ms).ok()).map(std::time::Duration::from_millis),
                max_size: schema.max_size(),
                refused_posts: 0,
                persistent,
            }
        })
    }
}

impl Speaker {
    fn of(&mut self, change: &Change) -> &mut Publisher {
        match change {
            Change::Inserted { .. } => &mut self.inserted,
            Change::Updated { .. } => &mut self.updated,
            Change::Deleted { .. } => &mut self.deleted,
            Change::Cleared { .. } => &mut self.cleared,
        }
    }
}

impl News {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

impl Writing<'_> {
    pub(crate) fn table(&mut self) -> &mut Table {
        &mut self.state.table
    }

    /// Applies a plan and notes it as unsaved; what is to be told comes back, none where nothing changed.
    pub(crate) fn apply(&mut self, plan: Plan) -> (Written, Option<News>) {
        let table = &mut self.state.table;
        let Commit { written, changes, revision, at, remains, request } = table.apply(plan);
        if changes.as_slice().is_empty() {
            return (written, None);
        }
        let around = &self.instance.around;
        let noted = around.cell.as_ref().map(|cell| {
            // Under the table's lock, so that nothing is noted once the instance is retired.
            cell.note(changes.as_slice(), request, table.counter(), revision, table.schema().request_window())
        });
        around.revision.store(revision, Ordering::Release);
        (written, Some(News { changes, revision, at, noted, remains }))
    }
}
