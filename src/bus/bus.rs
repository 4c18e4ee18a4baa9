//! Publishing and subscribing.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use ractor::{ActorRef, Message};

use crate::base::error::Failure;
use crate::base::name::Subject;
use crate::bus::DEFAULT_CAPACITY;
use crate::bus::actor::{ActorDelivery, ActorRoute};
use crate::bus::event::Event;
use crate::bus::pattern::Pattern;
use crate::bus::routes::{Resolved, Route, RouteId, Routes, Target};
use crate::bus::sink::Sink;
use crate::bus::stream::{Queue, Subscription};
use crate::bus::topic::Topic;

/// Brings events from those who publish them to those who subscribed to their topics.
///
/// A clone is the same bus. When the last clone and the last [`Publisher`] are dropped, it closes.
///
/// ```
/// use std::sync::Arc;
/// use ractor_persistence::bus::{Bus, Delivery, Event, Pattern, Topic};
/// let bus = Bus::default();
/// let mut rain = bus.subscribe(Pattern::parse("weather.*.rain")?);
/// for (city, what) in [("Brno", "rain"), ("Oslo", "snow")] {
///     bus.publish(Event::new(Topic::new(["weather", city, what])?, None, 0, 0, false, Arc::new(())));
/// }
/// let heard = rain.try_recv();
/// assert!(matches!(heard, Some(Delivery::Event(event)) if event.topic.to_string() == "weather.Brno.rain"));
/// assert!(rain.try_recv().is_none());
/// # Ok::<_, ractor_persistence::base::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Bus {
    routes: Arc<Routes>,
}

impl Bus {
    /// A bus without subscribers. `on_panic` is told of each panic in a subscriber's code, in the turn in which it
    /// happened; it must be quick. A panic in it is caught too.
    pub fn new(on_panic: impl Fn(Failure) + Send + Sync + 'static) -> Self {
        Self { routes: Arc::new(Routes::new(Box::new(on_panic))) }
    }

    /// Publishes an event of a topic that is not worth a [`publisher`](Self::publisher): all patterns are compared.
    pub fn publish(&self, event: Event) {
        let Resolved { routes, .. } = self.routes.resolve(&event.topic);
        self.tell(&routes, event);
    }

    fn tell(&self, routes: &[Arc<Route>], event: Event) {
        if routes.iter().any(|route| route.target.keeps()) {
            let event = Arc::new(event);
            routes.iter().for_each(|route| route.tell(&self.routes, &event, Some(&event)));
        } else {
            routes.iter().for_each(|route| route.tell(&self.routes, &event, None));
        }
    }

    /// What one topic is published with, over and over.
    pub fn publisher(&self, topic: Topic) -> Publisher {
        let bare = Event::new(topic.clone(), None, 0, 0, false, Arc::new(()));
        Publisher { bus: self.clone(), topic, resolved: Resolved::default(), keeps: false, reads: false, bare }
    }

    /// A stream of the events whose topics match, of which it queues [`DEFAULT_CAPACITY`]. On a closed bus it is at its
    /// end at once.
    pub fn subscribe(&self, pattern: Pattern) -> Subscription {
        self.subscribe_bounded(pattern, DEFAULT_CAPACITY)
    }

    /// As [`subscribe`](Self::subscribe), with at most `capacity` events queued.
    pub fn subscribe_bounded(&self, pattern: Pattern, capacity: NonZeroUsize) -> Subscription {
        let queue = Arc::new(Queue::new(capacity));
        let id = self.routes.add(pattern, |_| Target::Stream(Arc::clone(&queue)));
        Subscription::new(queue, id, Arc::downgrade(&self.routes))
    }

    /// Sends an actor what `convert` makes of the events whose topics match, until the guard is dropped or the actor
    /// takes no more messages.
    ///
    /// Each event comes with a [`Permit`](crate::bus::Permit) that belongs into the message, so that it is freed when
    /// the message has been handled. At most [`DEFAULT_CAPACITY`] are out at a time; beyond that events are dropped,
    /// and once there is room again, [`Delivery::Lagged`](crate::bus::Delivery::Lagged) says how many. If `convert`
    /// answers `None`, nothing is sent. It runs in the publisher's turn, or where a permit is dropped, and must be
    /// quick; a panic in it costs that event, and is counted and reported.
    pub fn subscribe_actor<M: Message>(
        &self,
        pattern: Pattern,
        actor: ActorRef<M>,
        convert: impl Fn(ActorDelivery) -> Option<M> + Send + Sync + 'static,
    ) -> SubscriptionGuard {
        self.subscribe_actor_bounded(pattern, actor, convert, DEFAULT_CAPACITY)
    }

    /// As [`subscribe_actor`](Self::subscribe_actor), with at most `limit` permits out.
    pub fn subscribe_actor_bounded<M: Message>(
        &self,
        pattern: Pattern,
        actor: ActorRef<M>,
        convert: impl Fn(ActorDelivery) -> Option<M> + Send + Sync + 'static,
        limit: NonZeroUsize,
    ) -> SubscriptionGuard {
        let (routes, mut route) = (Arc::downgrade(&self.routes), Weak::new());
        let id = self.routes.add(pattern, |id| {
            let own = Arc::new(ActorRoute::new(actor, convert, limit, id, routes));
            route = Arc::downgrade(&own);
            Target::Actor(own)
        });
        SubscriptionGuard { id, routes: Arc::downgrade(&self.routes), actor: route }
    }

    /// Calls `sink` in the publisher's turn with the events whose topics match, until the guard is dropped.
    ///
    /// An event that is being published while the guard is dropped may still reach it. A publisher lets go of the sink
    /// when it next looks whom to tell.
    pub fn subscribe_sink(&self, pattern: Pattern, sink: Arc<dyn Sink>) -> SubscriptionGuard {
        let id = self.routes.add(pattern, |_| Target::Sink(sink));
        SubscriptionGuard { id, routes: Arc::downgrade(&self.routes), actor: Weak::new() }
    }

    /// Ends all subscriptions. Streams come to their end when they have read what they have queued; what is published
    /// or subscribed from now on is heard by nobody.
    pub(crate) fn close(&self) {
        // Not for users: a store whose own subscription had ended would save nothing any more.
        self.routes.close();
    }

    /// How many subscriptions there are. One whose actor has died counts until the next event that it would have
    /// heard, or the next subscription.
    pub fn subscriber_count(&self) -> usize {
        self.routes.count()
    }

    /// How often subscribers' code has panicked.
    pub fn panic_count(&self) -> u64 {
        self.routes.panics()
    }
}

/// Panics of subscribers are traced and counted, and reported to nobody.
impl Default for Bus {
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("subscribers", &self.subscriber_count()).finish_non_exhaustive()
    }
}

/// Publishes the events of one topic, and knows who hears them until the subscriptions change.
///
/// It belongs to one actor: what that actor publishes through its publishers, whatever their topics, every subscriber
/// hears in that order.
pub struct Publisher {
    bus: Bus,
    topic: Topic,
    resolved: Resolved,
    /// Whether one of the routes keeps events, so that they have to be shared.
    keeps: bool,
    /// Whether one of the routes reads payloads.
    reads: bool,
    /// The event that is told where nobody reads payloads: the last one, with other numbers.
    bare: Event,
}

impl Publisher {
    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Whether anybody hears the next event, so that it need not be built if nobody does.
    pub fn is_heard(&mut self) -> bool {
        if self.resolved.generation != self.bus.routes.generation() {
            self.resolved = self.bus.routes.resolve(&self.topic);
            self.keeps = self.resolved.routes.iter().any(|route| route.target.keeps());
            self.reads = self.resolved.routes.iter().any(|route| route.target.reads_payload());
        }
        !self.resolved.routes.is_empty()
    }

    /// Whether anybody reads the payload of the next event: where nobody does, any payload will do.
    pub fn payload_is_read(&mut self) -> bool {
        self.is_heard() && self.reads
    }

    /// Publishes what `event` builds, which is called only if somebody hears it. Its topic is this publisher's.
    pub fn publish_with(&mut self, event: impl FnOnce() -> Event) {
        if !self.is_heard() {
            return;
        }
        let event = event();
        if self.keeps {
            self.tell_shared(&Arc::new(event));
        } else {
            debug_assert_eq!(event.topic, self.topic, "an event is published under its own topic");
            self.resolved.routes.iter().for_each(|route| route.tell(&self.bus.routes, &event, None));
        }
    }

    /// Publishes an event of which nobody reads the payload, as [`payload_is_read`](Self::payload_is_read) has just
    /// answered: who has subscribed since hears the next one. The subject is the same each time.
    pub(crate) fn publish_bare(&mut self, subject: &Subject, revision: u64, bytes: usize, persistent: bool) {
        debug_assert!(!self.reads && !self.keeps, "a payload is there for those who read it");
        self.bare.subject.get_or_insert_with(|| subject.clone());
        (self.bare.revision, self.bare.bytes, self.bare.persistent) = (revision, bytes, persistent);
        self.resolved.routes.iter().for_each(|route| route.tell(&self.bus.routes, &self.bare, None));
    }

    /// Publishes an event that is shared already. Its topic is this publisher's.
    pub fn publish(&mut self, event: &Arc<Event>) {
        if self.is_heard() {
            self.tell_shared(event);
        }
    }

    fn tell_shared(&self, event: &Arc<Event>) {
        debug_assert_eq!(event.topic, self.topic, "an event is published under its own topic");
        self.resolved.routes.iter().for_each(|route| route.tell(&self.bus.routes, event, Some(event)));
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Ends a sink's or an actor's subscription when dropped.
#[must_use = "dropping it ends the subscription at once"]
pub struct SubscriptionGuard {
    id: RouteId,
    routes: Weak<Routes>,
    /// Where it leads to an actor; permits keep that alive, and tell of losses, after it has left the routes.
    actor: Weak<ActorRoute>,
}

impl SubscriptionGuard {
    /// Leaves the subscription to last as long as the bus, or the actor.
    pub fn detach(mut self) {
        (self.routes, self.actor) = (Weak::new(), Weak::new());
    }
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        if let Some(routes) = self.routes.upgrade() {
            routes.remove(self.id);
        }
        if let Some(actor) = self.actor.upgrade() {
            actor.end();
        }
    }
}

impl fmt::Debug for SubscriptionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionGuard").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::base::error::Error;
    use crate::base::name::BucketName;
    use crate::bus::Delivery;
    use crate::bus::routes::lock;

    fn topic() -> Topic {
        Topic::bucket("users", "inserted")
    }

    fn event(revision: u64) -> Event {
        let subject = Subject::Bucket(BucketName::new("users").unwrap());
        Event::new(topic(), Some(subject), revision, 0, true, Arc::new(()))
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    /// Keeps the revisions that it hears.
    #[derive(Default)]
    struct Notebook(Mutex<Vec<u64>>);

    impl Notebook {
        fn heard(&self) -> Vec<u64> {
            lock(&self.0).clone()
        }
    }

    impl Sink for Notebook {
        fn event(&self, event: &Event) {
            lock(&self.0).push(event.revision);
        }
    }

    #[test]
    fn a_sink_hears_each_event_in_the_publishers_turn_and_in_order() {
        let bus = Bus::default();
        let notebook = Arc::new(Notebook::default());
        let _guard = bus.subscribe_sink(pattern("bucket.*.*"), Arc::<Notebook>::clone(&notebook));
        let mut publisher = bus.publisher(topic());
        for revision in 1..=3 {
            publisher.publish_with(|| event(revision));
            assert_eq!(notebook.heard(), (1..=revision).collect::<Vec<_>>());
        }
        publisher.publish(&Arc::new(event(4)));
        bus.publish(event(5));
        bus.publisher(Topic::channel("users", "inserted")).publish_with(|| unreachable!("nobody hears it"));
        assert_eq!(notebook.heard(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_panicking_sink_is_reported_stays_subscribed_and_harms_nobody() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&reports);
        let bus = Bus::new(move |failure| {
            lock(&kept).push(failure);
            panic!("a report that panics is caught as well");
        });
        let calls = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&calls);
        let faulty = move |event: &Event| {
            count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(event.revision % 2, 0, "odd revisions are too much for it");
        };
        let (before, after) = (Arc::new(Notebook::default()), Arc::new(Notebook::default()));
        let _before = bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&before));
        let _faulty = bus.subscribe_sink(pattern("*"), Arc::new(faulty));
        let _after = bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&after));
        let mut publisher = bus.publisher(topic());
        (1..=4).for_each(|revision| publisher.publish_with(|| event(revision)));
        assert_eq!(before.heard(), [1, 2, 3, 4]);
        assert_eq!(after.heard(), [1, 2, 3, 4]);
        assert_eq!((calls.load(Ordering::SeqCst), bus.panic_count(), bus.subscriber_count()), (4, 2, 3));
        let reports = lock(&reports);
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].subject, event(1).subject);
        assert!(matches!(reports[0].error, Error::UserCode { .. }), "{}", reports[0]);
    }

    #[test]
    fn a_publisher_notices_each_change_of_the_subscriptions_at_its_next_event() {
        let bus = Bus::default();
        let mut publisher = bus.publisher(topic());
        assert!(!publisher.is_heard());
        publisher.publish_with(|| unreachable!("an event that nobody hears is not built"));
        let notebook = Arc::new(Notebook::default());
        let guard = bus.subscribe_sink(pattern("bucket.users.*"), Arc::<Notebook>::clone(&notebook));
        assert!(publisher.is_heard());
        publisher.publish_with(|| event(1));
        let mut stream = bus.subscribe(pattern("*"));
        publisher.publish_with(|| event(2));
        drop(guard);
        publisher.publish_with(|| event(3));
        assert_eq!(notebook.heard(), [1, 2]);
        assert_eq!(Arc::strong_count(&notebook), 1, "the publisher has let go of it");
        let heard = std::iter::from_fn(|| stream.try_recv());
        let heard: Vec<_> = heard.map(|delivery| matches!(delivery, Delivery::Event(_))).collect();
        assert_eq!(heard, [true, true]);
        let other = bus.subscribe(pattern("channel.*"));
        drop(stream);
        assert!(!publisher.is_heard(), "others do not count");
        drop(other);
        assert_eq!(bus.subscriber_count(), 0);
        bus.close();
        assert!(!publisher.is_heard());
    }

    /// Keeps the revisions and bytes that it hears, and looks at no payload.
    #[derive(Default)]
    struct Tally(Mutex<Vec<(u64, usize)>>);

    impl Sink for Tally {
        fn event(&self, event: &Event) {
            assert_eq!(event.subject, Some(Subject::Bucket(BucketName::new("users").unwrap())));
            assert!(event.persistent && event.topic == topic());
            lock(&self.0).push((event.revision, event.bytes));
        }

        fn reads_payload(&self) -> bool {
            false
        }
    }

    #[test]
    fn who_reads_no_payload_hears_the_same_of_events_that_have_none() {
        let bus = Bus::default();
        let tally = Arc::new(Tally::default());
        let guard = bus.subscribe_sink(pattern("bucket.*.*"), Arc::<Tally>::clone(&tally));
        let mut publisher = bus.publisher(topic());
        let subject = Subject::Bucket(BucketName::new("users").unwrap());
        for revision in 1..=2 {
            assert!(publisher.is_heard() && !publisher.payload_is_read());
            publisher.publish_bare(&subject, revision, 10, true);
        }
        let late = bus.subscribe(pattern("*"));
        // Subscribed since the look: it hears the next one.
        publisher.publish_bare(&subject, 3, 20, true);
        assert!(publisher.payload_is_read());
        drop((guard, late));
        assert!(!publisher.payload_is_read());
        assert_eq!(*lock(&tally.0), [(1, 10), (2, 10), (3, 20)]);
    }

    #[test]
    fn a_dropped_guard_unsubscribes_and_a_detached_one_does_not() {
        let bus = Bus::default();
        let notebook = Arc::new(Notebook::default());
        let guard = bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&notebook));
        bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&notebook)).detach();
        assert_eq!(bus.subscriber_count(), 2);
        drop(guard);
        assert_eq!((bus.subscriber_count(), Arc::strong_count(&notebook)), (1, 2));
        bus.publish(event(1));
        assert_eq!(notebook.heard(), [1]);
        bus.close();
        assert_eq!((bus.subscriber_count(), Arc::strong_count(&notebook)), (0, 1));
    }

    #[test]
    fn a_sink_may_end_and_add_subscriptions_while_it_is_called() {
        let bus = Bus::default();
        let own = Arc::new(Mutex::new(None));
        let late = Arc::new(Notebook::default());
        let once = {
            let (bus, own, late) = (bus.clone(), Arc::clone(&own), Arc::<Notebook>::clone(&late));
            move |_: &Event| {
                drop(lock(&own).take());
                bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&late)).detach();
            }
        };
        *lock(&own) = Some(bus.subscribe_sink(pattern("*"), Arc::new(once)));
        let mut publisher = bus.publisher(topic());
        (1..=3).for_each(|revision| publisher.publish_with(|| event(revision)));
        assert_eq!((late.heard(), bus.subscriber_count()), (vec![2, 3], 1));
    }

    #[test]
    fn subscriptions_that_come_and_go_while_others_publish_hear_a_run_without_gaps() {
        const ALL: u64 = 20_000;
        let bus = Bus::default();
        let steady = Arc::new(Notebook::default());
        let _steady = bus.subscribe_sink(pattern("*"), Arc::<Notebook>::clone(&steady));
        let mut publisher = bus.publisher(topic());
        let publishing =
            std::thread::spawn(move || (1..=ALL).for_each(|revision| publisher.publish_with(|| event(revision))));
        while !publishing.is_finished() {
            let passing = Arc::new(Notebook::default());
            let guard = bus.subscribe_sink(pattern("bucket.*.*"), Arc::<Notebook>::clone(&passing));
            std::thread::yield_now();
            drop(guard);
            assert!(passing.heard().windows(2).all(|pair| pair[0] + 1 == pair[1]));
        }
        publishing.join().unwrap();
        assert_eq!(steady.heard(), (1..=ALL).collect::<Vec<_>>());
        assert_eq!(bus.subscriber_count(), 1);
    }
}
