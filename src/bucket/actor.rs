//! The bucket's actor: gives every write its turn, and answers.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::base::error::{Error, Result};
use crate::bucket::instance::Instance;
use crate::bucket::message::{BucketMessage, BucketStats, WriteRequest};
use crate::records::{Record, Upserted, Write, Written};

/// The shell around a bucket's table.
#[derive(Debug)]
pub(crate) struct BucketActor;

#[derive(Debug)]
pub(crate) struct BucketState {
    instance: Arc<Instance>,
    refused_posts: u64,
}

impl BucketState {
    fn write(&self, write: Write) -> Result<Written> {
        Ok(self.instance.write(write.into())?.written)
    }

    fn write_record(&self, write: Write) -> Result<Arc<Record>> {
        self.write(write)?.into_record().ok_or_else(unexpected)
    }

    fn post(&mut self, request: WriteRequest) {
        if let Err(error) = self.instance.write(request) {
            self.refused_posts += 1;
            let subject = self.instance.subject();
            tracing::warn!(%subject, error = &error as &dyn std::error::Error, "posted write refused");
        }
    }

    fn stats(&self) -> Result<BucketStats> {
        Ok(BucketStats { refused_posts: self.refused_posts, ..self.instance.stats()? })
    }
}

/// Each write has one kind of answer, and is asked for that.
fn unexpected() -> Error {
    Error::invalid_argument("the write has another kind of answer")
}

/// Whoever asked may have stopped waiting; the write stands all the same.
fn reply<T: Send + 'static>(port: RpcReplyPort<T>, answer: T) {
    let _gone = port.send(answer);
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for BucketActor {
    type Msg = BucketMessage;
    type State = BucketState;
    type Arguments = Arc<Instance>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        instance: Self::Arguments,
    ) -> std::result::Result<Self::State, ActorProcessingErr> {
        Ok(BucketState { instance, refused_posts: 0 })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        let instance = &state.instance;
        match message {
            BucketMessage::Write(request, port) => reply(port, instance.write(request)),
            BucketMessage::Put(prepared, port) => reply(port, instance.put(prepared)),
            BucketMessage::PutMany(prepared, port) => reply(port, instance.put_many(prepared)),
            BucketMessage::Insert(data, port) => reply(port, state.write_record(Write::Insert(data))),
            BucketMessage::InsertMany(list, port) => {
                reply(port, state.write(Write::InsertMany(list)).map(|written| written.records().to_vec()));
            }
            BucketMessage::Upsert(data, port) => {
                let upserted = |written| match written {
                    Written::Upserted(upserted) => Ok::<Upserted, Error>(upserted),
                    _ => Err(unexpected()),
                };
                reply(port, state.write(Write::Upsert(data)).and_then(upserted));
            }
            BucketMessage::Update(key, changes, port) => {
                reply(port, state.write_record(Write::Update(key, changes)));
            }
            BucketMessage::UpdateIf(key, version, changes, port) => {
                reply(port, state.write_record(Write::UpdateIf(key, version, changes)));
            }
            BucketMessage::Patch(key, patch, port) => reply(port, state.write_record(Write::Patch(key, patch))),
            BucketMessage::Delete(key, port) => {
                reply(port, state.write(Write::Delete(key)).map(|written| written.gone() > 0));
            }
            BucketMessage::DeleteMany(filter, port) => {
                reply(port, state.write(Write::DeleteMany(filter)).map(|written| written.gone()));
            }
            BucketMessage::Clear(port) => reply(port, state.write(Write::Clear).map(|written| written.gone())),
            BucketMessage::Post(request) => state.post(request),
            BucketMessage::Get(key, port) => {
                let now = instance.now();
                reply(port, instance.read(|table| table.get(&key, now)));
            }
            BucketMessage::Find(query, port) => {
                let now = instance.now();
                let view = instance.read(|table| table.view(query.filter(), now));
                reply(port, view.and_then(|view| view.find(&query)));
            }
            BucketMessage::Count(filter, port) => {
                let now = instance.now();
                let view = instance.read(|table| table.view(&filter, now));
                reply(port, view.and_then(|view| view.count(&filter)));
            }
            BucketMessage::All(port) => {
                let now = instance.now();
                reply(port, instance.read(|table| table.whole(now)).map(|view| view.all()));
            }
            BucketMessage::Purge(limit, port) => reply(port, instance.purge(limit)),
            BucketMessage::Stats(port) => reply(port, state.stats()),
            BucketMessage::Hold(hold) => hold.wait().await,
        }
        // A transaction's commit that panicked has torn the table from outside: it is built anew.
        if state.instance.is_torn() { Err("a commit was cut short".into()) } else { Ok(()) }
    }
}
