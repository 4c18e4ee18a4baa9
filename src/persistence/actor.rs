//! The persister's actor: it wakes up when something is dirty, and holds the one timer.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::persistence::persister::Persister;

/// What the persister's actor is told.
#[derive(Debug)]
pub(crate) enum PersisterMessage {
    /// There may be something to do.
    Wake,
}

#[cfg(feature = "cluster")]
impl ractor::Message for PersisterMessage {}

/// Drives a [`Persister`]. All state is in the persister, so that a replacement of this actor goes on where it stopped.
#[derive(Debug)]
pub(crate) struct PersisterActor;

/// Wakes the actor when the window is over. With nothing dirty there is none.
#[derive(Debug)]
pub(crate) struct State {
    persister: Persister,
    timer: Option<AbortHandle>,
}

impl State {
    fn advance(&mut self, myself: &ActorRef<PersisterMessage>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if let Some(delay) = self.persister.advance() {
            let myself = myself.clone();
            let timer = tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                // An actor that is gone has been replaced by one with a timer of its own.
                let _gone = myself.cast(PersisterMessage::Wake);
            });
            self.timer = Some(timer.abort_handle());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
        self.persister.abandoned();
    }
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for PersisterActor {
    type Msg = PersisterMessage;
    type State = State;
    type Arguments = Persister;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        persister: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        persister.driven_by(myself.clone());
        // A predecessor may have died with work left to do.
        myself.cast(PersisterMessage::Wake)?;
        Ok(State { persister, timer: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        PersisterMessage::Wake: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.advance(&myself);
        Ok(())
    }
}
