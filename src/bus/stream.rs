//! Subscribers that read at their own pace from a bounded queue.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::{Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::poll_proceed;

use crate::bus::event::{Delivery, Event};
use crate::bus::routes::{RouteId, Routes, lock};

/// The queue between publishers and one reader.
pub(super) struct Queue {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each event with the number of events that were dropped before it and that the reader has not been told of.
    events: VecDeque<(u64, Arc<Event>)>,
    /// Events dropped since the last one in the queue.
    lagged: u64,
    closed: bool,
    /// The reader, where it waits.
    waker: Option<Waker>,
}

impl State {
    fn next(&mut self) -> Option<Delivery> {
        let lagged = self.events.front_mut().map_or(&mut self.lagged, |(lagged, _)| lagged);
        match std::mem::take(lagged) {
            0 => self.events.pop_front().map(|(_, event)| Delivery::Event(event)),
            lagged => Some(Delivery::Lagged(lagged)),
        }
    }
}

impl Queue {
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        Self { capacity: capacity.get(), state: Mutex::default() }
    }

    /// Queues an event, or counts it as dropped.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        if state.events.len() < self.capacity {
            let lagged = std::mem::take(&mut state.lagged);
            state.events.push_back((lagged, Arc::clone(event)));
        } else {
            state.lagged += 1;
        }
        wake(state);
    }

    /// Nothing more comes; what is queued can still be read.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        wake(state);
    }

    /// The reader is gone. What was queued is dropped outside of the lock, because payloads may run code when dropped.
    fn abandon(&self) {
        let abandoned = std::mem::replace(&mut *lock(&self.state), State { closed: true, ..State::default() });
        drop(abandoned);
    }
}

/// The lock is let go first: a waker may run the reader's code.
fn wake(mut state: std::sync::MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A bounded queue of events, read by one reader; dropping it ends the subscription.
///
/// When it is full, further events are dropped and counted. The reader then gets [`Delivery::Lagged`] with their number
/// at their place: after what was queued before them, and before the next event that it does get, or at the end of the
/// queue if there is none.
pub struct Subscription {
    queue: Arc<Queue>,
    id: RouteId,
    routes: Weak<Routes>,
}

impl Subscription {
    pub(super) fn new(queue: Arc<Queue>, id: RouteId, routes: Weak<Routes>) -> Self {
        Self { queue, id, routes }
    }

    /// Waits for what comes next; `None` once the bus is closed and everything queued has been read.
    ///
    /// # Cancel safety
    /// Nothing is taken from the queue unless it is returned, so dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), for those who write a future or stream of their own.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        // A reader that always finds something yields to its neighbours now and then.
        let budget = ready!(poll_proceed(cx));
        let mut state = lock(&self.queue.state);
        let next = state.next();
        if next.is_none() && !state.closed {
            let old = state.waker.replace(cx.waker().clone());
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        drop(state);
        budget.made_progress();
        Poll::Ready(next)
    }

    /// What comes next if it is there already; `None` says nothing about whether more will come.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        lock(&self.queue.state).next()
    }

    /// Whether the bus is closed and everything queued has been read.
    pub fn is_closed(&self) -> bool {
        let state = lock(&self.queue.state);
        state.closed && state.events.is_empty() && state.lagged == 0
    }

    /// How many events are queued.
    pub fn len(&self) -> usize {
        lock(&self.queue.state).events.len()
    }

    /// Whether no event is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(routes) = self.routes.upgrade() {
            routes.remove(self.id);
        }
        self.queue.abandon();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("queued", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::bus::{Bus, Pattern, Topic};

    fn everything() -> Pattern {
        Pattern::parse("*").unwrap()
    }

    fn event(revision: u64) -> Event {
        Event::new(Topic::bucket("users", "inserted"), None, revision, 0, true, Arc::new(()))
    }

    fn bounded(bus: &Bus, capacity: usize) -> Subscription {
        bus.subscribe_bounded(everything(), NonZeroUsize::new(capacity).unwrap())
    }

    /// Revisions of events, and counts of dropped ones as errors.
    fn read(subscription: &mut Subscription) -> Vec<Result<u64, u64>> {
        let next = std::iter::from_fn(|| subscription.try_recv());
        next.map(|delivery| match delivery {
            Delivery::Event(event) => Ok(event.revision),
            Delivery::Lagged(lagged) => Err(lagged),
        })
        .collect()
    }

    #[test]
    fn a_slow_stream_is_told_exactly_what_it_missed_at_its_place() {
        let bus = Bus::default();
        let mut slow = bounded(&bus, 3);
        (1..=5).for_each(|revision| bus.publish(event(revision)));
        assert!(matches!(slow.try_recv(), Some(Delivery::Event(event)) if event.revision == 1));
        bus.publish(event(6));
        (7..=10).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(read(&mut slow), [Ok(2), Ok(3), Err(2), Ok(6), Err(4)], "the last loss though nothing follows it");
        bus.publish(event(11));
        assert_eq!(read(&mut slow), [Ok(11)]);
    }

    #[test]
    fn a_stream_queues_1024_events_unless_said_otherwise() {
        let bus = Bus::default();
        let mut slow = bus.subscribe(everything());
        (0..3_000).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(slow.len(), 1_024);
        let expected: Vec<_> = (0..1_024).map(Ok).chain([Err(3_000 - 1_024)]).collect();
        assert_eq!(read(&mut slow), expected);
    }

    #[test]
    fn one_slow_stream_costs_the_others_nothing() {
        let bus = Bus::default();
        let (mut slow, mut quick) = (bounded(&bus, 1), bounded(&bus, 1));
        for revision in 1..=100 {
            bus.publish(event(revision));
            assert_eq!(read(&mut quick), [Ok(revision)]);
        }
        assert_eq!(read(&mut slow), [Ok(1), Err(99)]);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_an_event_and_by_the_end() {
        let bus = Bus::default();
        let mut stream = bus.subscribe(everything());
        let reader = tokio::spawn(async move {
            let first = stream.recv().await;
            (first, stream.recv().await.is_none())
        });
        tokio::task::yield_now().await;
        bus.publish(event(1));
        tokio::task::yield_now().await;
        bus.close();
        let (first, ended) = reader.await.unwrap();
        assert!(matches!(first, Some(Delivery::Event(event)) if event.revision == 1) && ended);
    }

    #[tokio::test]
    async fn a_dropped_receive_loses_nothing() {
        let bus = Bus::default();
        let mut stream = bus.subscribe(everything());
        {
            let mut receive = tokio_test::task::spawn(stream.recv());
            tokio_test::assert_pending!(receive.poll());
            bus.publish(event(1));
            assert!(receive.is_woken());
        }
        assert!(matches!(stream.recv().await, Some(Delivery::Event(event)) if event.revision == 1));
    }

    #[tokio::test]
    async fn a_closed_bus_lets_streams_read_what_they_have_and_then_ends_them() {
        let bus = Bus::default();
        let mut stream = bounded(&bus, 2);
        (1..=5).for_each(|revision| bus.publish(event(revision)));
        bus.close();
        bus.publish(event(6));
        assert_eq!(bus.subscriber_count(), 0);
        assert!(!stream.is_closed());
        assert_eq!(read(&mut stream), [Ok(1), Ok(2), Err(3)]);
        assert!(stream.is_closed());
        assert!(stream.recv().await.is_none());
        let mut late = bus.subscribe(everything());
        assert!(late.recv().await.is_none());
        assert_eq!(bus.subscriber_count(), 0);
    }

    #[tokio::test]
    async fn streams_end_when_nobody_can_publish_any_more() {
        let bus = Bus::default();
        let mut stream = bus.subscribe(everything());
        let publisher = bus.publisher(Topic::bucket("users", "inserted"));
        drop(bus);
        assert!(!stream.is_closed(), "a publisher is left");
        drop(publisher);
        assert!(stream.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_always_finds_something_yields_to_its_neighbours() {
        let bus = Bus::default();
        let mut stream = bus.subscribe(everything());
        (0..1_024).for_each(|revision| bus.publish(event(revision)));
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let reader = tokio::spawn(async move {
            while stream.recv().await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        tokio::task::yield_now().await;
        assert!((1..1_024).contains(&read.load(Ordering::SeqCst)), "it has begun and yielded");
        bus.close();
        reader.await.unwrap();
        assert_eq!(read.load(Ordering::SeqCst), 1_024);
    }

    #[test]
    fn dropping_a_stream_unsubscribes_it_and_drops_what_it_had_queued() {
        let bus = Bus::default();
        let payload = Arc::new(());
        let mut publisher = bus.publisher(Topic::bucket("users", "inserted"));
        let stream = bus.subscribe(everything());
        let told = || Event::new(Topic::bucket("users", "inserted"), None, 1, 0, true, Arc::<()>::clone(&payload));
        publisher.publish_with(told);
        assert_eq!(Arc::strong_count(&payload), 2);
        drop(stream);
        assert_eq!((bus.subscriber_count(), Arc::strong_count(&payload)), (0, 1));
    }

    #[test]
    fn whatever_the_interleaving_each_event_is_read_in_order_or_counted_at_its_place() {
        const ALL: u64 = 50_000;
        let bus = Bus::default();
        let mut stream = bounded(&bus, 2);
        let mut publisher = bus.publisher(Topic::bucket("users", "inserted"));
        let publishing =
            std::thread::spawn(move || (0..ALL).for_each(|revision| publisher.publish_with(|| event(revision))));
        let mut next = 0;
        let mut take = |stream: &mut Subscription| {
            for read in read(stream) {
                match read {
                    Ok(revision) => {
                        assert_eq!(revision, next);
                        next += 1;
                    }
                    Err(lagged) => next += lagged,
                }
            }
        };
        while !publishing.is_finished() {
            take(&mut stream);
            std::thread::yield_now();
        }
        publishing.join().unwrap();
        take(&mut stream);
        assert_eq!(next, ALL);
    }
}
