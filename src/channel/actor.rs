//! The channel's actor: puts operations to the state, tells the persister and the subscribers, answers.

use std::sync::Arc;

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::name::MessageId;
use crate::channel::cell::{ChannelCell, Done};
use crate::channel::message::{Answer, ChannelMessage};
use crate::channel::teller::Teller;
use crate::persistence::{Cell, Persister};
use crate::sds::{ChannelData, ChannelState, Effects};

/// The shell around a channel's state.
#[derive(Debug)]
pub(crate) struct ChannelActor;

/// What a channel's actor starts with; its state is in the cell, which outlives it.
#[derive(Clone, Debug)]
pub(crate) struct ChannelStart {
    pub(crate) cell: Arc<ChannelCell>,
    pub(crate) teller: Arc<Teller>,
    pub(crate) clock: Arc<dyn Clock>,
    /// None where the channel is not saved.
    pub(crate) persister: Option<Persister>,
}

impl ChannelStart {
    /// Notes what loading changed as unsaved, and raises its events.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn settle(&self, effects: Effects) -> Result<()> {
        let _order = self.teller.order();
        let done = self.cell.note(effects)?;
        self.finish(done);
        Ok(())
    }

    /// Has everything written again, as after a drop of unknown outcome.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn resave(&self) -> Result<()> {
        let _order = self.teller.order();
        let done = self.cell.resave()?;
        self.finish(done);
        Ok(())
    }

    /// Puts a state that was loaded anew in the place of a torn one.
    ///
    /// # Errors
    /// What loading finds wrong with the data.
    pub(crate) fn mend(
        &self,
        load: impl FnOnce(ChannelData) -> Result<(ChannelState, Effects)>,
        stored: ChannelData,
    ) -> Result<()> {
        let _order = self.teller.order();
        let done = self.cell.mend(load, stored)?;
        self.finish(done);
        Ok(())
    }

    fn finish(&self, done: Done) -> (u64, Option<oneshot::Receiver<()>>) {
        self.save(&done);
        (done.revision, self.teller.tell(done.revision, done.events))
    }

    fn save(&self, done: &Done) {
        if let (Some(persister), Some(bytes)) = (&self.persister, done.unsaved) {
            persister.changed(self.cell.subject(), done.revision, bytes);
        }
    }

    /// A hint reveals nothing: it is answered before it is saved, whatever the durability.
    fn hint(&self, id: MessageId, hint: Bytes) -> Result<bool> {
        let (known, done) = self.cell.operate(|channel| channel.set_hint(id, hint))?;
        self.save(&done);
        Ok(known)
    }

    /// One operation: state, unsaved changes and events in one turn without an await.
    fn operate<T>(&self, operation: impl FnOnce(&mut ChannelState, i64) -> Result<(T, Effects)>) -> Result<Answer<T>> {
        self.teller.check_room()?;
        let now = self.clock.now_ms();
        let _order = self.teller.order();
        let (value, done) = self.cell.operate(|state| operation(state, now))?;
        let (revision, told) = self.finish(done);
        Ok(Answer { value, revision, told })
    }
}

/// Whoever asked may have stopped waiting; the operation stands all the same.
fn reply<T: Send + 'static>(port: RpcReplyPort<T>, answer: T) {
    let _gone = port.send(answer);
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for ChannelActor {
    type Msg = ChannelMessage;
    type State = ChannelStart;
    type Arguments = ChannelStart;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        start: Self::Arguments,
    ) -> std::result::Result<Self::State, ActorProcessingErr> {
        Ok(start)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            ChannelMessage::Wrap(id, content, port) => {
                reply(port, state.operate(|channel, now| channel.wrap(id, content, now)));
            }
            ChannelMessage::Receive(bytes, port) => {
                reply(port, state.operate(|channel, now| channel.receive(&bytes, now)));
            }
            ChannelMessage::DependenciesMet(ids, port) => {
                reply(port, state.operate(|channel, now| Ok(((), channel.mark_dependencies_met(ids, now)?))));
            }
            ChannelMessage::Hint(id, hint, port) => reply(port, state.hint(id, hint)),
            ChannelMessage::History(port) => reply(port, state.cell.read(ChannelState::history)),
            ChannelMessage::Missing(port) => reply(port, state.cell.read(ChannelState::missing)),
            ChannelMessage::Stats(port) => reply(port, state.cell.read(ChannelState::stats)),
        }
        Ok(())
    }
}
