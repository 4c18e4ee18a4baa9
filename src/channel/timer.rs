//! When a channel wakes up by itself: one timer, armed at the moment at which its state next has something to do.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::base::clock::Clock;
use crate::channel::message::ChannelMessage;
use crate::sds::Now;

/// A channel's two clocks: the store's, and tokio's, which counts from when the channel was loaded. Restarts of its actor
/// do not begin anew.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    wall: Arc<dyn Clock>,
    loaded: Instant,
}

impl Clocks {
    /// Counts from now on.
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Self {
        Self { wall, loaded: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now::new(self.wall.now_ms(), i64::try_from(self.loaded.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// A moment of the monotonic clock; none for one that is too far away to come.
    fn instant(&self, monotonic_ms: i64) -> Option<Instant> {
        self.loaded.checked_add(Duration::from_millis(u64::try_from(monotonic_ms).unwrap_or(0)))
    }
}

/// The one timer of a channel's actor; it ends with the actor.
#[derive(Debug, Default)]
pub(super) struct Timer {
    pending: Option<Pending>,
    /// There is no tick before, whatever is due.
    not_before_ms: i64,
}

#[derive(Debug)]
enum Pending {
    /// A tick comes at this moment.
    Armed { due_ms: i64, _task: Task },
    /// What the last tick told waits for its commit; until then there is no other tick, so that a disk that fails never
    /// makes a heap of them.
    Held { due_ms: i64, since_ms: i64, _task: Task },
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Timer {
    /// Arms the timer for when the state is next due.
    ///
    /// One that is armed for an earlier moment is left alone: when it fires and nothing is due, it is armed anew. So
    /// messages that put the next tick off, each a little, cost one wake-up per interval and not a timer each.
    pub(super) fn arm(&mut self, due: Option<i64>, clocks: &Clocks, actor: &ActorRef<ChannelMessage>) {
        let due = due.map(|due| due.max(self.not_before_ms));
        match (&self.pending, due) {
            (Some(Pending::Held { .. }), _) => {}
            (Some(Pending::Armed { due_ms: armed, .. }), Some(due)) if *armed <= due => {}
            (_, due) => {
                let at = due.and_then(|due_ms| Some((due_ms, clocks.instant(due_ms)?)));
                self.pending = at.map(|(due_ms, at)| {
                    let actor = actor.clone();
                    let task = tokio::spawn(async move {
                        sleep_until(at).await;
                        // One that is dead is replaced by one that arms a timer of its own.
                        let _dead = actor.send_message(ChannelMessage::Tick);
                    });
                    Pending::Armed { due_ms, _task: Task(task) }
                });
            }
        }
    }

    /// It has fired.
    pub(super) fn fired(&mut self) {
        self.pending = None;
    }

    /// Is not armed again before what the last tick told has left, or never will. `due_ms` is when the next one is due.
    pub(super) fn hold(
        &mut self,
        told: oneshot::Receiver<()>,
        due_ms: Option<i64>,
        clocks: &Clocks,
        actor: &ActorRef<ChannelMessage>,
    ) {
        let actor = actor.clone();
        let task = tokio::spawn(async move {
            let _stopped = told.await;
            let _dead = actor.send_message(ChannelMessage::Released);
        });
        let (due_ms, since_ms) = (due_ms.unwrap_or(i64::MAX), clocks.now().monotonic_ms);
        self.pending = Some(Pending::Held { due_ms, since_ms, _task: Task(task) });
    }

    /// What it was held for is over. A tick that was missed meanwhile is not made up for, because what it would send has
    /// left just now: the next one is at least `pause_ms` away.
    pub(super) fn release(&mut self, pause_ms: i64, clocks: &Clocks) {
        let now_ms = clocks.now().monotonic_ms;
        if let Some(Pending::Held { due_ms, since_ms, .. }) = self.pending
            && (since_ms + 1..=now_ms).contains(&due_ms)
        {
            self.not_before_ms = now_ms.saturating_add(pause_ms);
        }
        self.pending = None;
    }
}
