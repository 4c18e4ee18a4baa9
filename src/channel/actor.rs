//! The channel's actor: puts operations to the state, tells the persister and the subscribers, answers.

use std::sync::Arc;

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use crate::base::error::Result;
use crate::base::name::MessageId;
use crate::channel::cell::{ChannelCell, Done};
use crate::channel::message::{Answer, ChannelMessage};
use crate::channel::teller::Teller;
use crate::channel::timer::{Clocks, Timer};
use crate::persistence::{Cell, Persister};
use crate::sds::{ChannelData, ChannelState, Effects, Now};

/// The shell around a channel's state.
#[derive(Debug)]
pub(crate) struct ChannelActor;

/// What a channel's actor starts with; its state is in the cell, which outlives it.
#[derive(Clone, Debug)]
pub(crate) struct ChannelStart {
    pub(crate) cell: Arc<ChannelCell>,
    pub(crate) teller: Arc<Teller>,
    pub(crate) clocks: Clocks,
    /// How far apart ticks are, at least, when one was missed because the disk did not keep up.
    pub(crate) pause_ms: i64,
    /// None where the channel is not saved.
    pub(crate) persister: Option<Persister>,
}

impl ChannelStart {
    /// Notes what loading changed as unsaved, and raises its events; answers the revision that has to be saved.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn settle(&self, effects: Effects) -> Result<u64> {
        let _order = self.teller.order();
        let done = self.cell.note(effects)?;
        Ok(self.finish(done).0)
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

    /// What the passing of time does. Answers what tells that its events have left, where they wait for a commit.
    ///
    /// It is not refused when too many wait for a commit: its events are held at most once, see [`Timer`].
    fn tick(&self) -> Result<Option<oneshot::Receiver<()>>> {
        if self.teller.is_silenced() {
            return Ok(None);
        }
        let now = self.clocks.now();
        let _order = self.teller.order();
        let Some(done) = self.cell.tick(now, fresh_id)? else { return Ok(None) };
        if done.events.is_empty() {
            self.save(&done);
            return Ok(None);
        }
        Ok(self.finish(done).1)
    }

    /// When the next tick is due; none where nothing it would tell may ever leave.
    ///
    /// # Errors
    /// The state is torn.
    fn next_due(&self) -> Result<Option<i64>> {
        let due = self.cell.next_due()?;
        Ok(due.filter(|_| !self.teller.is_silenced()))
    }

    /// Reveals the state, so that it has to be saved before.
    fn export(&self) -> Result<Answer<Bytes>> {
        let (value, revision) = self.cell.read_with_revision(ChannelState::export)?;
        Ok(Answer { value, revision, told: None })
    }

    /// One operation: state, unsaved changes and events in one turn without an await.
    fn operate<T>(&self, operation: impl FnOnce(&mut ChannelState, Now) -> Result<(T, Effects)>) -> Result<Answer<T>> {
        self.teller.check_room()?;
        let now = self.clocks.now();
        let _order = self.teller.order();
        let (value, done) = self.cell.operate(|state| operation(state, now))?;
        let (revision, told) = self.finish(done);
        Ok(Answer { value, revision, told })
    }
}

/// A UUID of version 7 (RFC 9562).
pub(super) fn fresh_id() -> MessageId {
    MessageId::from(uuid::Uuid::now_v7().to_string())
}

/// What an actor has, besides the state in the cell.
#[derive(Debug)]
pub(crate) struct Running {
    start: ChannelStart,
    timer: Timer,
}

/// Whoever asked may have stopped waiting; the operation stands all the same.
fn reply<T: Send + 'static>(port: RpcReplyPort<T>, answer: T) {
    let _gone = port.send(answer);
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for ChannelActor {
    type Msg = ChannelMessage;
    type State = Running;
    type Arguments = ChannelStart;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        start: Self::Arguments,
    ) -> std::result::Result<Self::State, ActorProcessingErr> {
        // Not armed yet: what loading has to tell comes first, then it is woken.
        Ok(Running { start, timer: Timer::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        Running { start: state, timer }: &mut Self::State,
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
            ChannelMessage::Sync(port) => {
                reply(port, state.operate(|channel, now| channel.sync_message(fresh_id(), now)));
            }
            ChannelMessage::Export(port) => reply(port, state.export()),
            ChannelMessage::History(port) => reply(port, state.cell.read(ChannelState::history)),
            ChannelMessage::Missing(port) => reply(port, state.cell.read(ChannelState::missing)),
            ChannelMessage::Stats(port) => reply(port, state.cell.read(ChannelState::stats)),
            ChannelMessage::Tick => {
                timer.fired();
                if let Some(told) = state.tick()? {
                    timer.hold(told, state.next_due()?, &state.clocks, &myself);
                }
            }
            ChannelMessage::Released => timer.release(state.pause_ms, &state.clocks),
            ChannelMessage::Wake => {}
        }
        // A state that is torn, whoever tore it, ends the actor: it is loaded anew for the next one.
        timer.arm(state.next_due()?, &state.clocks, &myself);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::durability::Durability;
    use crate::base::name::ChannelId;
    use crate::bus::Bus;
    use crate::sds::ChannelOptions;

    #[tokio::test(start_paused = true)]
    async fn an_actor_whose_state_was_torn_by_somebody_else_ends_so_that_it_is_replaced() {
        let id = ChannelId::new("room").unwrap();
        let state = ChannelState::new(id.clone(), ChannelOptions::default()).unwrap();
        let cell = Arc::new(ChannelCell::new(id.clone(), state));
        let (teller, _none) = Teller::new(id, Bus::default(), None, Durability::Ram);
        let clocks = Clocks::new(Arc::new(ManualClock::at(0)));
        let start =
            ChannelStart { cell: Arc::clone(&cell), teller: Arc::new(teller), clocks, pause_ms: 0, persister: None };
        let (actor, ended) = Actor::spawn(None, ChannelActor, start).await.unwrap();
        let torn = catch_unwind(AssertUnwindSafe(|| cell.operate::<()>(|_| panic!("a mistake of ours"))));
        assert!(torn.is_err());
        let answer = actor.call(ChannelMessage::Stats, None).await.unwrap();
        assert!(answer.unwrap().is_err());
        tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.unwrap().unwrap();
    }
}
