//! The table of subscriptions: who hears which topics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::bus::actor::ActorRoute;
use crate::bus::event::Event;
use crate::bus::pattern::Pattern;
use crate::bus::sink::{Sink, isolated};
use crate::bus::stream::Queue;
use crate::bus::topic::Topic;

/// Locks a mutex of this room. Code that is not ours may panic under the lane of an actor, where it is caught; nothing
/// is left half done under any of these locks, so a poisoned one is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a subscription for as long as its bus lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteId(u64);

/// One subscription.
pub(super) struct Route {
    id: RouteId,
    pattern: Pattern,
    pub(super) target: Target,
}

pub(super) enum Target {
    Sink(Arc<dyn Sink>),
    Stream(Arc<Queue>),
    Actor(Arc<ActorRoute>),
}

impl Target {
    /// Whether it keeps events beyond the publisher's turn, so that they have to be shared.
    pub(super) fn keeps(&self) -> bool {
        !matches!(self, Self::Sink(_))
    }

    pub(super) fn reads_payload(&self) -> bool {
        match self {
            Self::Sink(sink) => sink.reads_payload(),
            Self::Stream(_) | Self::Actor(_) => true,
        }
    }
}

/// Everybody who listens to one bus.
pub(super) struct Routes {
    /// Moves with every change of the table, before the change is answered. Publishers read it at every event and
    /// nothing else of this, so it stays in their caches.
    generation: AtomicU64,
    table: Mutex<Table>,
    panics: AtomicU64,
    on_panic: Box<dyn Fn(Failure) + Send + Sync>,
}

#[derive(Default)]
struct Table {
    next: u64,
    closed: bool,
    /// In the order of subscription. Copied when it changes while somebody reads it.
    routes: Arc<Vec<Arc<Route>>>,
}

/// The routes of one topic, as of a generation.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) generation: u64,
    pub(super) routes: Vec<Arc<Route>>,
}

impl Routes {
    pub(super) fn new(on_panic: Box<dyn Fn(Failure) + Send + Sync>) -> Self {
        // Generation 0 is for publishers that have not looked yet.
        Self { generation: AtomicU64::new(1), table: Mutex::default(), panics: AtomicU64::new(0), on_panic }
    }

    /// Pairs with `changed`: who sees a generation here sees the table that it stands for.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Called with the table locked, so that a generation and its table are read together under the lock.
    fn changed(&self, _table: &mut MutexGuard<'_, Table>) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Who hears this topic now. Patterns are compared outside of the lock.
    pub(super) fn resolve(&self, topic: &Topic) -> Resolved {
        let table = lock(&self.table);
        let (generation, all) = (self.generation(), Arc::clone(&table.routes));
        drop(table);
        Resolved { generation, routes: all.iter().filter(|route| route.pattern.matches(topic)).cloned().collect() }
    }

    /// Adds a subscription, whose target may know its own id. A closed bus closes it at once.
    pub(super) fn add(&self, pattern: Pattern, target: impl FnOnce(RouteId) -> Target) -> RouteId {
        let mut table = lock(&self.table);
        table.next += 1;
        let id = RouteId(table.next);
        let route = Arc::new(Route { id, pattern, target: target(id) });
        if table.closed {
            drop(table);
            route.close();
            return id;
        }
        // Actors that died since the last event they would have heard are forgotten here, so that short-lived ones do
        // not pile up on a silent bus.
        let routes = Arc::make_mut(&mut table.routes);
        let gone: Vec<_> = routes.extract_if(.., |route| route.is_gone()).collect();
        routes.push(route);
        self.changed(&mut table);
        drop(table);
        // Subscribers' own code may run when the last reference to it is dropped.
        drop(gone);
        id
    }

    /// Removes a subscription; one that is gone already is fine.
    pub(super) fn remove(&self, id: RouteId) {
        let mut table = lock(&self.table);
        let Some(at) = table.routes.iter().position(|route| route.id == id) else { return };
        let removed = Arc::make_mut(&mut table.routes).remove(at);
        self.changed(&mut table);
        drop(table);
        // Subscribers' own code may run when the last reference to it is dropped.
        drop(removed);
    }

    /// Ends all subscriptions; what they have queued can still be read.
    pub(super) fn close(&self) {
        let mut table = lock(&self.table);
        table.closed = true;
        let all = std::mem::take(&mut table.routes);
        self.changed(&mut table);
        drop(table);
        for route in all.iter() {
            route.close();
        }
        drop(all);
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.table).routes.len()
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(super) fn report_panic(&self, place: &'static str, subject: Option<Subject>) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(place, subject = subject.as_ref().map(tracing::field::display), "a subscriber panicked");
        let failure = Failure::new(subject, "subscriber", Error::UserCode { place }, 1);
        if isolated(|| (self.on_panic)(failure)).is_err() {
            tracing::error!("the report of a subscriber's panic panicked as well");
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.close();
    }
}

impl Route {
    /// Hands an event over. For targets that keep it, `shared` is the same event.
    pub(super) fn tell(&self, routes: &Routes, event: &Event, shared: Option<&Arc<Event>>) {
        match (&self.target, shared) {
            (Target::Sink(sink), _) => {
                if isolated(|| sink.event(event)).is_err() {
                    routes.report_panic("a sink", event.subject.clone());
                }
            }
            (Target::Stream(queue), Some(shared)) => queue.offer(shared),
            (Target::Actor(actor), Some(shared)) => actor.offer(shared),
            (Target::Stream(_) | Target::Actor(_), None) => {
                debug_assert!(false, "events are shared where a target keeps them");
            }
        }
    }

    /// Whether it leads to an actor that takes no more messages.
    fn is_gone(&self) -> bool {
        matches!(&self.target, Target::Actor(actor) if actor.is_gone())
    }

    /// The bus is closed: readers get what they have queued, and then the end.
    fn close(&self) {
        if let Target::Stream(queue) = &self.target {
            queue.close();
        }
    }
}
