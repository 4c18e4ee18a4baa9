//! The bucket's actor: applies the pure rules to its table, notes what changed, tells it, answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::base::clock::Clock;
use crate::base::error::{Error, Result};
use crate::base::name::Subject;
use crate::bucket::message::{Applied, BucketMessage, BucketStats};
use crate::bus::{Bus, Event, Publisher, Topic};
use crate::persistence::BucketCell;
use crate::records::{BucketEvent, Change, Draws, Record, Table, Write, Written};

/// The shell around a bucket's table.
#[derive(Debug)]
pub(crate) struct BucketActor;

/// What a bucket's actor starts with.
#[derive(Debug)]
pub(crate) struct BucketStart {
    pub(crate) table: Table,
    /// Where unsaved changes are noted; none where the bucket is not saved.
    pub(crate) cell: Option<Arc<BucketCell>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bus: Bus,
    /// The newest revision: a bucket that restarts empty goes on from there.
    pub(crate) revision: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct BucketState {
    table: Table,
    cell: Option<Arc<BucketCell>>,
    clock: Arc<dyn Clock>,
    topics: Topics,
    subject: Subject,
    revision: Arc<AtomicU64>,
    refused_posts: u64,
}

/// One publisher per kind of change: each remembers who listens to it.
#[derive(Debug)]
struct Topics {
    inserted: Publisher,
    updated: Publisher,
    deleted: Publisher,
    cleared: Publisher,
}

impl Topics {
    fn of(&mut self, change: &Change) -> &mut Publisher {
        match change {
            Change::Inserted { .. } => &mut self.inserted,
            Change::Updated { .. } => &mut self.updated,
            Change::Deleted { .. } => &mut self.deleted,
            Change::Cleared { .. } => &mut self.cleared,
        }
    }
}

impl BucketState {
    /// One write, from its checks to its events. There is no await in it, so that a kill never finds it half done.
    fn write(&mut self, write: Write) -> Result<Applied> {
        let mut draws = Draws { now: self.clock.now_ms(), uuid: &mut uuid::Uuid::new_v4 };
        let plan = self.table.plan(write, &mut draws)?;
        let commit = self.table.apply(plan);
        let Some(change) = commit.change else {
            return Ok(Applied { written: commit.written, revision: None });
        };
        let (revision, at) = (commit.revision, commit.at);
        let noted = self.cell.as_ref().map(|cell| cell.note(&change, self.table.counter(), revision));
        self.revision.store(revision, Ordering::Relaxed);
        let (subject, persistent) = (&self.subject, self.cell.is_some());
        let bucket = self.table.schema().bucket();
        let publisher = self.topics.of(&change);
        let topic = publisher.topic().clone();
        publisher.publish_with(|| {
            let bytes = noted.unwrap_or_else(|| change.estimated_bytes());
            let event = BucketEvent::single(bucket.clone(), revision, at, change);
            Event::new(topic, Some(subject.clone()), revision, bytes, persistent, Arc::new(event))
        });
        if let Some(remains) = commit.remains {
            // Freeing many records takes long: not in the bucket's turn.
            tokio::task::spawn_blocking(move || drop(remains));
        }
        Ok(Applied { written: commit.written, revision: Some(revision) })
    }

    fn write_record(&mut self, write: Write) -> Result<Arc<Record>> {
        match self.write(write)?.written {
            Written::Record(record) => Ok(record),
            // Only inserts and updates come here, and both answer a record.
            Written::Deleted(_) | Written::Cleared(_) => Err(Error::invalid_argument("the write answers no record")),
        }
    }

    fn stats(&self) -> BucketStats {
        BucketStats {
            records: self.table.len(),
            indexes: self.table.schema().indexes(),
            counter: self.table.counter(),
            revision: self.table.revision(),
            refused_posts: self.refused_posts,
            persistent: self.cell.is_some(),
        }
    }
}

/// Whoever asked may have stopped waiting; the write stands all the same.
fn reply<T: Send + 'static>(port: RpcReplyPort<T>, answer: T) {
    let _gone = port.send(answer);
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for BucketActor {
    type Msg = BucketMessage;
    type State = BucketState;
    type Arguments = BucketStart;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        start: Self::Arguments,
    ) -> std::result::Result<Self::State, ActorProcessingErr> {
        let BucketStart { table, cell, clock, bus, revision } = start;
        let name = table.schema().bucket();
        let publisher = |kind| bus.publisher(Topic::bucket(name.as_str(), kind));
        let topics = Topics {
            inserted: publisher("inserted"),
            updated: publisher("updated"),
            deleted: publisher("deleted"),
            cleared: publisher("cleared"),
        };
        let subject = Subject::Bucket(name.clone());
        Ok(BucketState { table, cell, clock, topics, subject, revision, refused_posts: 0 })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            BucketMessage::Write(write, port) => reply(port, state.write(write)),
            BucketMessage::Insert(data, port) => reply(port, state.write_record(Write::Insert(data))),
            BucketMessage::Update(key, changes, port) => {
                reply(port, state.write_record(Write::Update(key, changes)));
            }
            BucketMessage::Delete(key, port) => {
                reply(port, state.write(Write::Delete(key)).map(|applied| applied.written.gone() > 0));
            }
            BucketMessage::Clear(port) => {
                reply(port, state.write(Write::Clear).map(|applied| applied.written.gone()));
            }
            BucketMessage::Post(write) => {
                if let Err(error) = state.write(write) {
                    state.refused_posts += 1;
                    tracing::warn!(subject = %state.subject, error = &error as &dyn std::error::Error, "posted write refused");
                }
            }
            BucketMessage::Get(key, port) => reply(port, Ok(state.table.get(&key).cloned())),
            BucketMessage::Find(filter, port) => reply(port, state.table.find(&filter)),
            BucketMessage::Count(filter, port) => reply(port, state.table.count(&filter)),
            BucketMessage::All(port) => reply(port, Ok(state.table.all().cloned().collect())),
            BucketMessage::Stats(port) => reply(port, Ok(state.stats())),
            BucketMessage::Snapshot(port) => reply(port, Ok(state.table.snapshot())),
        }
        Ok(())
    }
}
