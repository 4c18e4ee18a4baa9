//! Raises a channel's events, in order; above `Ram`, after the commit that holds what they tell of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{ChannelId, Subject};
use crate::bus::{Bus, Event, Topic};
use crate::persistence::{Persister, Saved};
use crate::sds::ChannelEvent;

/// How many operations may wait for a commit, whether they have events or only an answer.
pub(super) const MAX_HELD: usize = 10_000;

/// Raises a channel's events.
#[derive(Debug)]
pub(crate) struct Teller {
    id: ChannelId,
    subject: Subject,
    bus: Bus,
    /// Held from the beginning of an operation to the end of what it tells.
    order: Mutex<()>,
    /// Set where events wait for commits.
    held: Option<Held>,
}

/// The turn to do an operation and tell of it.
pub(super) type Order<'a> = MutexGuard<'a, ()>;

#[derive(Debug)]
struct Held {
    persister: Persister,
    durability: Durability,
    /// Taken away when nothing more is to be told.
    queue: Mutex<Option<mpsc::UnboundedSender<Waiting>>>,
    /// How many are in the queue; it is what bounds it.
    count: Arc<AtomicUsize>,
}

/// An operation that waits for its commit.
#[derive(Debug)]
struct Waiting {
    saved: Saved,
    revision: u64,
    events: Vec<ChannelEvent>,
    told: oneshot::Sender<()>,
}

impl Teller {
    /// Raises events at once, or after commits at `durability` where that is above `Ram`: then there is a task, which
    /// ends after the teller is dropped and everything that was held is told or never will be.
    pub(crate) fn new(
        id: ChannelId,
        bus: Bus,
        persister: Option<&Persister>,
        durability: Durability,
    ) -> (Self, Option<JoinHandle<()>>) {
        let subject = Subject::Channel(id.clone());
        let mut teller = Self { id, subject, bus, order: Mutex::default(), held: None };
        let (Some(persister), true) = (persister, durability > Durability::Ram) else { return (teller, None) };
        let (queue, mut waiting) = mpsc::unbounded_channel::<Waiting>();
        let count = Arc::new(AtomicUsize::new(0));
        let (id, subject, bus) = (teller.id.clone(), teller.subject.clone(), teller.bus.clone());
        let direct = Self { id, subject, bus, order: Mutex::default(), held: None };
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while let Some(Waiting { saved, revision, events, told }) = waiting.recv().await {
                let saved = saved.outcome().await;
                counted.fetch_sub(1, Ordering::SeqCst);
                if saved.is_ok() {
                    direct.raise(revision, events);
                    // The caller may have stopped waiting.
                    let _gone = told.send(());
                }
            }
        });
        let queue = Mutex::new(Some(queue));
        teller.held = Some(Held { persister: persister.clone(), durability, queue, count });
        (teller, Some(task))
    }

    /// Taken before the state is locked: events come in the order of operations, whether the actor does them or a
    /// transaction. For moments only.
    pub(super) fn order(&self) -> Order<'_> {
        // Subscribers' panics are caught behind it.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses an operation when too many wait for a commit.
    pub(crate) fn check_room(&self) -> Result<()> {
        match &self.held {
            Some(held) if held.count.load(Ordering::SeqCst) >= MAX_HELD => Err(Error::Backpressure { limit: MAX_HELD }),
            _ => Ok(()),
        }
    }

    /// Raises an operation's events, now or when `revision` is saved; answers what tells when, where that is later. One
    /// without events counts as held too, because its answer is.
    pub(crate) fn tell(&self, revision: u64, events: Vec<ChannelEvent>) -> Option<oneshot::Receiver<()>> {
        let Some(held) = &self.held else {
            self.raise(revision, events);
            return None;
        };
        let (told, when) = oneshot::channel();
        // Asked for at once: when the save has succeeded, the channel may be closed before this one's turn has come.
        let saved = held.persister.follow(&self.subject, revision, held.durability);
        held.count.fetch_add(1, Ordering::SeqCst);
        if let Some(queue) = &*held.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            // The task lives as long as its queue has a sender.
            let _ended = queue.send(Waiting { saved, revision, events, told });
        }
        Some(when)
    }

    /// Whether nothing can ever be told any more: it would have to be saved before, and saving has ended for good.
    pub(super) fn is_silenced(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.persister.fenced().is_some())
    }

    /// Nothing more is to be told: the task ends with what it holds.
    pub(crate) fn hush(&self) {
        if let Some(held) = &self.held {
            *held.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn raise(&self, revision: u64, events: Vec<ChannelEvent>) {
        for event in events {
            let topic = Topic::channel(self.id.as_str(), event.kind());
            self.bus.publish(Event::new(topic, Some(self.subject.clone()), revision, 0, false, Arc::new(event)));
        }
    }
}
