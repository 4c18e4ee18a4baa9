//! The store's supervisor: it notices deaths, and shuts down in order when it is stopped.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::store::inner::Inner;

/// Supervises the persister, the buckets and the channels of one store.
#[derive(Debug)]
pub(super) struct Supervisor;

/// The supervisor takes no messages; it lives for its children.
#[derive(Debug)]
pub(super) enum SupervisorMessage {}

#[cfg(feature = "cluster")]
impl ractor::Message for SupervisorMessage {}

/// Dropped when the supervisor ends, however it ends.
#[derive(Debug)]
pub(super) struct State {
    inner: Arc<Inner>,
}

impl Drop for State {
    fn drop(&mut self) {
        // A killed supervisor has killed its children: whoever waits for them need not wait on.
        self.inner.orphaned();
    }
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = State;
    type Arguments = Arc<Inner>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        inner: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(State { inner })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {}
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            // The state that comes with a termination may be torn, and is not looked at.
            SupervisionEvent::ActorTerminated(cell, _, _) => state.inner.child_died(cell.get_id(), false),
            SupervisionEvent::ActorFailed(cell, _) => state.inner.child_died(cell.get_id(), true),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        state.inner.shut_down().await;
        Ok(())
    }
}
