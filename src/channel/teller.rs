//! Raises a channel's events, in order; above `Ram`, after the commit that holds what they tell of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{ChannelId, Subject};
use crate::bus::{Bus, Event, Topic};
use crate::persistence::Persister;
use crate::sds::ChannelEvent;

/// How many answers may wait for a commit.
pub(super) const MAX_HELD: usize = 10_000;

/// Raises a channel's events.
#[derive(Debug)]
pub(crate) struct Teller {
    id: ChannelId,
    subject: Subject,
    bus: Bus,
    /// Set where events wait for commits.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    /// Taken away when nothing more is to be told.
    queue: Mutex<Option<mpsc::UnboundedSender<Waiting>>>,
    /// How many are in the queue; it is what bounds it.
    count: Arc<AtomicUsize>,
}

/// Events that wait for their commit.
#[derive(Debug)]
struct Waiting {
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
        let mut teller = Self { id, subject, bus, held: None };
        let (Some(persister), true) = (persister, durability > Durability::Ram) else { return (teller, None) };
        let (queue, mut waiting) = mpsc::unbounded_channel::<Waiting>();
        let count = Arc::new(AtomicUsize::new(0));
        let direct =
            Self { held: None, id: teller.id.clone(), subject: teller.subject.clone(), bus: teller.bus.clone() };
        let (persister, counted) = (persister.clone(), Arc::clone(&count));
        let task = tokio::spawn(async move {
            while let Some(Waiting { revision, events, told }) = waiting.recv().await {
                let saved = persister.follow(&direct.subject, revision, durability).await;
                counted.fetch_sub(1, Ordering::SeqCst);
                if saved.is_ok() {
                    direct.raise(revision, events);
                    // The caller may have stopped waiting.
                    let _gone = told.send(());
                }
            }
        });
        teller.held = Some(Held { queue: Mutex::new(Some(queue)), count });
        (teller, Some(task))
    }

    /// Refuses an operation when too many answers wait for a commit.
    pub(crate) fn check_room(&self) -> Result<()> {
        match &self.held {
            Some(held) if held.count.load(Ordering::SeqCst) >= MAX_HELD => Err(Error::Backpressure { limit: MAX_HELD }),
            _ => Ok(()),
        }
    }

    /// Raises events, now or when `revision` is saved; answers what tells when, where that is later.
    pub(crate) fn tell(&self, revision: u64, events: Vec<ChannelEvent>) -> Option<oneshot::Receiver<()>> {
        let Some(held) = &self.held else {
            self.raise(revision, events);
            return None;
        };
        let (told, when) = oneshot::channel();
        held.count.fetch_add(1, Ordering::SeqCst);
        if let Some(queue) = &*held.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            // The task lives as long as its queue has a sender.
            let _ended = queue.send(Waiting { revision, events, told });
        }
        Some(when)
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
