//! The queue between the bus and a task that handles events, with account of what is not handled yet.
//!
//! A stream of the bus would do, but for `settle`: here an event counts as under way from the publisher's turn on, until
//! it has been handled.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::bucket::{Activity, Working};
use crate::bus::{Delivery, Event, Sink};
use crate::store::inner::lock;

/// A bounded queue of events.
#[derive(Debug)]
pub(super) struct Inbox {
    capacity: usize,
    /// None for one whose events nobody waits for.
    activity: Option<Activity>,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Queued>,
    /// Since the last one in the queue.
    missed: Missed,
    closed: bool,
}

#[derive(Debug)]
struct Queued {
    /// Between the one before and this.
    missed: Missed,
    event: Arc<Event>,
    working: Option<Working>,
}

/// Events that were dropped.
#[derive(Debug, Default)]
struct Missed {
    count: u64,
    working: Option<Working>,
}

/// What a task takes from its inbox. While this lives, it is under way.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) delivery: Delivery,
    _working: Option<Working>,
}

impl Inbox {
    pub(super) fn new(capacity: NonZeroUsize, activity: Option<Activity>) -> Self {
        Self { capacity: capacity.get(), activity, state: Mutex::default(), ready: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what comes next; none once the inbox is closed and empty.
    pub(super) async fn next(&self) -> Option<Taken> {
        loop {
            // A task that always finds something gives way to others now and then.
            tokio::task::coop::consume_budget().await;
            {
                let mut state = self.state();
                let State { events, missed, .. } = &mut *state;
                let missed = std::mem::take(events.front_mut().map_or(missed, |queued| &mut queued.missed));
                if missed.count > 0 {
                    // Their loss is told before what was queued after them.
                    return Some(Taken { delivery: Delivery::Lagged(missed.count), _working: missed.working });
                }
                if let Some(Queued { event, working, .. }) = state.events.pop_front() {
                    return Some(Taken { delivery: Delivery::Event(event), _working: working });
                }
                if state.closed {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Nothing more comes; what is queued can still be taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Nothing more comes, and nothing is taken; answers how many events that drops.
    pub(super) fn abandon(&self) -> u64 {
        let dropped = {
            let mut state = self.state();
            state.closed = true;
            let missed = std::mem::take(&mut state.missed);
            (std::mem::take(&mut state.events), missed)
        };
        self.ready.notify_one();
        let (events, missed) = dropped;
        events.iter().map(|queued| 1 + queued.missed.count).sum::<u64>() + missed.count
    }
}

impl Sink for Inbox {
    fn event(&self, event: &Event) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if state.events.len() < self.capacity {
            let missed = std::mem::take(&mut state.missed);
            let working = self.activity.as_ref().map(Activity::begin);
            state.events.push_back(Queued { missed, event: Arc::new(event.clone()), working });
        } else {
            let State { missed, .. } = &mut *state;
            missed.count += 1;
            if missed.working.is_none() {
                missed.working = self.activity.as_ref().map(Activity::begin);
            }
        }
        drop(state);
        self.ready.notify_one();
    }
}

/// The inboxes of a store, which it closes when it stops.
#[derive(Debug, Default)]
pub(super) struct Inboxes(Mutex<Entered>);

#[derive(Debug, Default)]
struct Entered {
    closed: bool,
    all: Vec<Weak<Inbox>>,
}

impl Inboxes {
    /// One that comes after the end is closed at once.
    pub(super) fn enter(&self, inbox: &Arc<Inbox>) {
        let mut entered = lock(&self.0);
        if entered.closed {
            inbox.close();
        } else {
            entered.all.retain(|inbox| inbox.strong_count() > 0);
            entered.all.push(Arc::downgrade(inbox));
        }
    }

    pub(super) fn close(&self) {
        let all = {
            let mut entered = lock(&self.0);
            entered.closed = true;
            std::mem::take(&mut entered.all)
        };
        for inbox in all.iter().filter_map(Weak::upgrade) {
            inbox.close();
        }
    }
}
