//! Subscribers that are actors: at most so many events are in their hands at a time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, TryLockError, Weak};

use ractor::{ActorCell, ActorRef, ActorStatus, Message};

use crate::bus::event::{Delivery, Event};
use crate::bus::routes::{RouteId, Routes, lock};
use crate::bus::sink::isolated;

/// What an actor's `convert` makes a message of.
#[derive(Debug)]
#[non_exhaustive]
pub struct ActorDelivery {
    /// An event, or how many were dropped.
    pub delivery: Delivery,
    /// To be dropped when the delivery has been handled: put it into the message.
    pub permit: Permit,
}

/// Stands for one event in an actor's hands. As long as too many are out, further events are dropped and counted.
///
/// Dropping it makes room for another event. If events were dropped meanwhile, the subscriber is told right then, so
/// `convert` may run where a permit is dropped. Permits of [`Delivery::Lagged`] stand for nothing: such a delivery only
/// ever follows an event, so there are never more of them in a mailbox than events and one.
pub struct Permit(Option<Arc<ActorRoute>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(route) = self.0.take() {
            route.release();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// The actor takes no more messages.
struct Gone;

/// Converts and sends; an actor that takes no more messages is an error.
type SendTo = dyn Fn(ActorDelivery) -> Result<(), Gone> + Send + Sync;

/// The way to one actor.
///
/// Invariant: `lagged` is above 0 only while every permit is out, because letting one go tells at once.
pub(super) struct ActorRoute {
    limit: usize,
    /// Held while deliveries are converted and sent, so that they arrive in the order of `state.waiting`. A thread that
    /// is inside a `convert` holds a lane already, so it never waits for this one: that could be a deadlock.
    lane: Mutex<()>,
    /// Never held while code that is not ours runs.
    state: Mutex<State>,
    actor: ActorCell,
    send: Box<SendTo>,
    id: RouteId,
    routes: Weak<Routes>,
}

#[derive(Default)]
struct State {
    /// Accepted, and not sent yet. An event in here has its permit already.
    waiting: VecDeque<Delivery>,
    /// Permits that are out.
    out: usize,
    /// Events dropped since the last one that was accepted.
    lagged: u64,
    ended: bool,
}

thread_local! {
    /// Whether this thread is inside a `convert`.
    static CONVERTING: Cell<bool> = const { Cell::new(false) };
}

struct Converting(bool);

impl Converting {
    fn enter() -> Self {
        Self(CONVERTING.replace(true))
    }
}

impl Drop for Converting {
    fn drop(&mut self) {
        CONVERTING.set(self.0);
    }
}

impl ActorRoute {
    pub(super) fn new<M: Message>(
        actor: ActorRef<M>,
        convert: impl Fn(ActorDelivery) -> Option<M> + Send + Sync + 'static,
        limit: NonZeroUsize,
        id: RouteId,
        routes: Weak<Routes>,
    ) -> Self {
        let cell = actor.get_cell();
        let send = move |delivery: ActorDelivery| match convert(delivery).map(|message| actor.send_message(message)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Gone),
        };
        Self {
            limit: limit.get(),
            lane: Mutex::default(),
            state: Mutex::default(),
            actor: cell,
            send: Box::new(send),
            id,
            routes,
        }
    }

    /// Sends an event, or counts it as dropped.
    pub(super) fn offer(self: &Arc<Self>, event: &Arc<Event>) {
        let mut state = lock(&self.state);
        if state.ended {
            return;
        }
        if state.out >= self.limit {
            state.lagged += 1;
            // An actor that died with all permits in its mailbox has freed them, but one that stores them has not.
            drop(state);
            if self.is_gone() {
                self.end_and_unsubscribe();
            }
            return;
        }
        state.out += 1;
        state.waiting.push_back(Delivery::Event(Arc::clone(event)));
        drop(state);
        self.pump(!CONVERTING.get());
    }

    /// A permit came back.
    fn release(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.out = state.out.saturating_sub(1);
        let lagged = std::mem::take(&mut state.lagged);
        if lagged == 0 || state.ended {
            return;
        }
        state.waiting.push_back(Delivery::Lagged(lagged));
        drop(state);
        // Whoever has the lane looks again after letting go of it, so there is no need to wait for it here.
        self.pump(false);
    }

    /// Sends what is waiting. With `wait`, all that was waiting before is sent when this returns; without, it may still
    /// be under way on another thread, or further down this one's stack.
    fn pump(self: &Arc<Self>, wait: bool) {
        let mut wait = wait;
        loop {
            let lane = if wait {
                lock(&self.lane)
            } else {
                match self.lane.try_lock() {
                    Ok(lane) => lane,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => return,
                }
            };
            let mut gone = false;
            while let Some(delivery) = self.take() {
                gone |= self.deliver(delivery).is_err();
            }
            drop(lane);
            if gone {
                return self.end_and_unsubscribe();
            }
            // Something may have been queued by somebody who found the lane taken after the last look into the queue.
            if lock(&self.state).waiting.is_empty() {
                return;
            }
            wait = false;
        }
    }

    fn take(&self) -> Option<Delivery> {
        lock(&self.state).waiting.pop_front()
    }

    fn deliver(self: &Arc<Self>, delivery: Delivery) -> Result<(), Gone> {
        let subject = match &delivery {
            Delivery::Event(event) => event.subject.clone(),
            Delivery::Lagged(_) => None,
        };
        let permit = Permit(matches!(delivery, Delivery::Event(_)).then(|| Arc::clone(self)));
        let converting = Converting::enter();
        let sent = isolated(|| (self.send)(ActorDelivery { delivery, permit }));
        drop(converting);
        sent.unwrap_or_else(|_panicked| {
            if let Some(routes) = self.routes.upgrade() {
                routes.report_panic("a subscriber's convert", subject);
            }
            Ok(())
        })
    }

    /// Whether the actor can take no more messages.
    pub(super) fn is_gone(&self) -> bool {
        self.actor.get_status() >= ActorStatus::Draining
    }

    /// Nothing more is sent. What waits is dropped outside of the lock, because payloads may run code when dropped.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    fn end_and_unsubscribe(&self) {
        self.end();
        if let Some(routes) = self.routes.upgrade() {
            routes.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ractor::concurrency::JoinHandle;
    use ractor::{Actor, ActorProcessingErr, RpcReplyPort};

    use super::*;
    use crate::bus::{Bus, Pattern, Topic};

    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    /// Keeps what it hears, and the permits too until it is told to let one go.
    struct Listener;

    enum Heard {
        Delivery(ActorDelivery),
        LetOneGo,
        Tell(RpcReplyPort<Vec<Result<u64, u64>>>),
        Panic,
    }

    #[cfg(feature = "cluster")]
    impl Message for Heard {}

    #[derive(Default)]
    struct Memory {
        /// Revisions of events, and counts of dropped ones as errors.
        heard: Vec<Result<u64, u64>>,
        permits: VecDeque<Permit>,
    }

    #[cfg_attr(feature = "async-trait", ractor::async_trait)]
    impl Actor for Listener {
        type Msg = Heard;
        type State = Memory;
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Heard>, _: ()) -> Result<Memory, ActorProcessingErr> {
            Ok(Memory::default())
        }

        async fn handle(
            &self,
            _: ActorRef<Heard>,
            message: Heard,
            memory: &mut Memory,
        ) -> Result<(), ActorProcessingErr> {
            match message {
                Heard::Delivery(ActorDelivery { delivery: Delivery::Event(event), permit }) => {
                    memory.heard.push(Ok(event.revision));
                    memory.permits.push_back(permit);
                }
                Heard::Delivery(ActorDelivery { delivery: Delivery::Lagged(lagged), .. }) => {
                    memory.heard.push(Err(lagged))
                }
                Heard::LetOneGo => drop(memory.permits.pop_front()),
                Heard::Tell(reply) => reply.send(memory.heard.clone())?,
                Heard::Panic => panic!("told to"),
            }
            Ok(())
        }
    }

    async fn listener() -> (ActorRef<Heard>, JoinHandle<()>) {
        Actor::spawn(None, Listener, ()).await.unwrap()
    }

    async fn heard(actor: &ActorRef<Heard>) -> Vec<Result<u64, u64>> {
        ractor::call!(actor, Heard::Tell).unwrap()
    }

    fn everything() -> Pattern {
        Pattern::parse("*").unwrap()
    }

    fn event(revision: u64) -> Event {
        Event::new(Topic::bucket("users", "inserted"), None, revision, 0, true, Arc::new(()))
    }

    fn keep(delivery: ActorDelivery) -> Option<Heard> {
        Some(Heard::Delivery(delivery))
    }

    #[tokio::test]
    async fn an_actor_with_no_permit_left_is_told_exactly_what_it_missed_before_the_next_event() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let guard = bus.subscribe_actor_bounded(everything(), actor.clone(), keep, TWO);
        (1..=5).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2)]);
        actor.cast(Heard::LetOneGo).unwrap();
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2)], "the loss is told right after this answer");
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2), Err(3)], "though no later event came");
        (6..=8).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2), Err(3), Ok(6)]);
        actor.cast(Heard::LetOneGo).unwrap();
        heard(&actor).await;
        bus.publish(event(9));
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2), Err(3), Ok(6), Err(2), Ok(9)]);
        drop(guard);
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_actor_has_1024_events_in_hand_and_not_one_more() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let _guard = bus.subscribe_actor(everything(), actor.clone(), keep);
        (0..3_000).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(heard(&actor).await, (0..1_024).map(Ok).collect::<Vec<_>>());
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_loss_is_still_told_after_the_bus_is_closed() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let _guard = bus.subscribe_actor_bounded(everything(), actor.clone(), keep, TWO);
        (1..=3).for_each(|revision| bus.publish(event(revision)));
        bus.close();
        bus.publish(event(4));
        actor.cast(Heard::LetOneGo).unwrap();
        heard(&actor).await;
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2), Err(1)]);
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_event_that_is_converted_to_nothing_gives_its_permit_back() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let odd = |delivery: ActorDelivery| match &delivery.delivery {
            Delivery::Event(event) if event.revision % 2 == 0 => None,
            _ => keep(delivery),
        };
        let _guard = bus.subscribe_actor_bounded(everything(), actor.clone(), odd, TWO);
        [2, 4, 6, 8, 1].into_iter().for_each(|revision| bus.publish(event(revision)));
        assert_eq!(heard(&actor).await, [Ok(1)]);
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_convert_costs_its_event_and_nothing_else() {
        let (actor, task) = listener().await;
        let reported = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reported);
        let bus = Bus::new(move |failure| {
            assert_eq!(failure.operation, "subscriber");
            count.fetch_add(1, Ordering::SeqCst);
        });
        let picky = |delivery: ActorDelivery| match &delivery.delivery {
            Delivery::Event(event) if event.revision <= 5 => panic!("no small ones"),
            _ => keep(delivery),
        };
        let _guard = bus.subscribe_actor_bounded(everything(), actor.clone(), picky, TWO);
        (1..=7).for_each(|revision| bus.publish(event(revision)));
        assert_eq!(heard(&actor).await, [Ok(6), Ok(7)], "a panic gives its permit back");
        assert_eq!((bus.panic_count(), reported.load(Ordering::SeqCst)), (5, 5));
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_subscription_ends_with_its_actor() {
        let bus = Bus::default();
        for kill in [false, true] {
            let (actor, task) = listener().await;
            bus.subscribe_actor(everything(), actor.clone(), keep).detach();
            bus.publish(event(1));
            assert_eq!(bus.subscriber_count(), 1);
            if kill {
                actor.cast(Heard::Panic).unwrap();
            } else {
                actor.stop(None);
            }
            task.await.unwrap();
            bus.publish(event(2));
            assert_eq!(bus.subscriber_count(), 0);
        }
    }

    #[tokio::test]
    async fn an_actor_that_died_with_its_permits_kept_elsewhere_is_unsubscribed_too() {
        let bus = Bus::default();
        let (actor, task) = listener().await;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&kept);
        let convert = move |ActorDelivery { permit, .. }: ActorDelivery| {
            lock(&store).push(permit);
            None
        };
        bus.subscribe_actor_bounded(everything(), actor.clone(), convert, TWO).detach();
        (1..=2).for_each(|revision| bus.publish(event(revision)));
        actor.stop(None);
        task.await.unwrap();
        bus.publish(event(3));
        assert_eq!(bus.subscriber_count(), 0);
        lock(&kept).clear();
    }

    #[tokio::test]
    async fn subscriptions_of_dead_actors_do_not_pile_up_on_a_silent_bus() {
        let bus = Bus::default();
        for _ in 0..10 {
            let (actor, task) = listener().await;
            bus.subscribe_actor(everything(), actor.clone(), keep).detach();
            actor.stop(None);
            task.await.unwrap();
        }
        assert_eq!(bus.subscriber_count(), 1);
    }

    #[tokio::test]
    async fn an_actor_hears_nothing_after_its_guard_is_dropped() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        for closed in [false, true] {
            let guard = bus.subscribe_actor_bounded(everything(), actor.clone(), keep, TWO);
            (1..=3).for_each(|revision| bus.publish(event(revision)));
            if closed {
                bus.close();
            }
            drop(guard);
            assert_eq!(bus.subscriber_count(), 0);
            bus.publish(event(4));
            let before = heard(&actor).await;
            assert_eq!(before.iter().rev().take(2).rev().collect::<Vec<_>>(), [&Ok(1), &Ok(2)]);
            actor.cast(Heard::LetOneGo).unwrap();
            actor.cast(Heard::LetOneGo).unwrap();
            heard(&actor).await;
            assert_eq!(heard(&actor).await, before, "not even of its losses");
        }
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_convert_that_publishes_to_itself_does_not_wait_for_itself() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let (again, first) = (bus.clone(), AtomicBool::new(true));
        let echo = move |delivery: ActorDelivery| {
            if first.swap(false, Ordering::SeqCst) {
                again.publish(event(2));
            }
            keep(delivery)
        };
        let guard = bus.subscribe_actor(everything(), actor.clone(), echo);
        bus.publish(event(1));
        assert_eq!(heard(&actor).await, [Ok(1), Ok(2)]);
        drop(guard);
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn publishing_returns_when_the_event_is_sent_also_where_another_publisher_is_at_it() {
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (go_on, gate) = std::sync::mpsc::channel();
        let (begun, beginning) = std::sync::mpsc::channel();
        let gate = Mutex::new(gate);
        let convert = {
            let log = Arc::clone(&log);
            move |ActorDelivery { delivery, .. }: ActorDelivery| {
                if let Delivery::Event(event) = &delivery {
                    if event.revision == 1 {
                        begun.send(()).unwrap();
                        lock(&gate).recv().unwrap();
                    }
                    lock(&log).push(event.revision);
                }
                None
            }
        };
        bus.subscribe_actor(everything(), actor.clone(), convert).detach();
        let publish = |revision| {
            let (bus, log) = (bus.clone(), Arc::clone(&log));
            std::thread::spawn(move || {
                bus.publish(event(revision));
                lock(&log).contains(&revision)
            })
        };
        let first = publish(1);
        beginning.recv().unwrap();
        let second = publish(2);
        // Time for the second one to go astray, should it not wait.
        (0..1_000).for_each(|_| std::thread::yield_now());
        go_on.send(()).unwrap();
        assert!(first.join().unwrap() && second.join().unwrap());
        assert_eq!(*lock(&log), [1, 2]);
        actor.stop(None);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn whatever_the_interleaving_each_event_is_heard_in_order_or_counted_before_the_next_one() {
        const EACH: u64 = 20_000;
        let (actor, task) = listener().await;
        let bus = Bus::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        // The receiver of the permits lets them go as fast as it can, while two threads publish as fast as they can.
        let (permits, receiver) = std::sync::mpsc::channel();
        let convert = {
            let log = Arc::clone(&log);
            move |ActorDelivery { delivery, permit }: ActorDelivery| {
                lock(&log).push(delivery);
                permits.send(permit).unwrap();
                None
            }
        };
        bus.subscribe_actor_bounded(everything(), actor.clone(), convert, TWO).detach();
        let receiver = std::thread::spawn(move || receiver.into_iter().for_each(drop));
        let publishers = ["a", "b"].map(|name| {
            let topic = Topic::bucket(name, "inserted");
            let mut publisher = bus.publisher(topic.clone());
            std::thread::spawn(move || {
                for revision in 0..EACH {
                    publisher.publish_with(|| Event::new(topic.clone(), None, revision, 0, true, Arc::new(())));
                }
            })
        });
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        // From here on only permits keep the route alive: with the last one the receiver's channel closes.
        bus.close();
        receiver.join().unwrap();
        let (mut heard, mut next, mut told) = ([0, 0], [0, 0], 0);
        for delivery in lock(&log).iter() {
            match delivery {
                Delivery::Lagged(lagged) => told += lagged,
                Delivery::Event(event) => {
                    let publisher = usize::from(event.topic == Topic::bucket("b", "inserted"));
                    assert!(event.revision >= next[publisher], "out of order");
                    next[publisher] = event.revision + 1;
                    heard[publisher] += 1;
                    let missed = next[0] - heard[0] + next[1] - heard[1];
                    assert!(missed <= told, "{missed} were missed by now and {told} told");
                }
            }
        }
        assert_eq!(heard[0] + heard[1] + told, 2 * EACH);
        actor.stop(None);
        task.await.unwrap();
    }
}
