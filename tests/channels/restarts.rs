//! A channel comes back as it was: after a stop, after its actor was killed, whatever was going on. Without it a peer's
//! message would be handed on again, or waited for in vain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::{PersistenceOptions, StorageAdapter};
use ractor_persistence::sds::{ChannelData, ChannelOptions, ReceiveStatus};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};

use crate::support::{
    NOW, builder, faulty, history_ids, in_words, lazy, options, packet, pass, permanent, room, start, state, stored,
    stored_ids, synced, told, transient,
};

#[tokio::test(start_paused = true)]
async fn after_a_restart_clock_history_outgoing_and_what_is_parked_are_as_before() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    channel.wrap("mine", "content").await.unwrap();
    channel.receive(packet("c", NOW / 1_000 + 5_000, &["b", "x"])).await.unwrap();
    channel.receive(packet("b", 7, &["a"])).await.unwrap();
    channel.mark_dependencies_met(["x"]).await.unwrap();
    let (stats, history, missing) =
        (channel.stats().await.unwrap(), channel.history().await.unwrap(), channel.missing().await.unwrap());
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    let before = stored(&adapter).await;
    assert_eq!((before.meta.outgoing.len(), before.meta.outgoing[0].send_time_ms), (1, NOW));
    let waits = |id: &str| {
        let parked = before.meta.incoming.iter().find(|parked| parked.message.message_id == id).unwrap();
        parked.missing.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!((waits("b"), waits("c")), (vec!["a".to_owned()], vec!["b".to_owned()]));

    // A wall clock that was set back is no way back.
    let store = builder(adapter.clone()).clock(Arc::new(ManualClock::at(0))).start().await.unwrap();
    let mut events = store.subscribe_channel("room").unwrap();
    let channel = store.open_channel("room", options()).await.unwrap();
    assert_eq!(told(&mut events), ["missing b: a"]);
    let again = channel.stats().await.unwrap();
    assert_eq!((again.lamport_timestamp, again.parked, again.missing), (stats.lamport_timestamp, 2, 2));
    assert_eq!((again.unacknowledged, again.parked_bytes), (1, stats.parked_bytes));
    assert_eq!((channel.history().await.unwrap(), channel.missing().await.unwrap()), (history, missing));
    channel.flush().await.unwrap();
    // What was saved of times counts by the wall clock, and would be due in fifty years.
    let timeless = |mut data: ChannelData| {
        data.meta.outgoing.iter_mut().for_each(|outgoing| outgoing.send_time_ms = 0);
        data.meta.incoming.iter_mut().for_each(|incoming| incoming.parked_at_ms = 0);
        data.meta.outgoing_repair.iter_mut().for_each(|request| (request.due_ms, request.expires_ms) = (0, 0));
        data
    };
    assert_eq!(timeless(stored(&adapter).await), timeless(before));

    channel.wrap("next", "content").await.unwrap();
    assert_eq!(channel.stats().await.unwrap().lamport_timestamp, stats.lamport_timestamp + 1);
    assert_eq!(channel.receive(packet("a", 6, &["mine"])).await.unwrap().status, ReceiveStatus::Delivered);
    assert_eq!(told(&mut events), ["sent mine", "ready a", "ready b", "ready c"]);
}

#[tokio::test(start_paused = true)]
async fn ch_13_a_message_that_comes_again_is_a_duplicate_after_eviction_and_restart_too_and_so_is_our_own() {
    let (adapter, _) = faulty();
    let options = || options().with_max_history(3);
    let mut store = start(&adapter).await;
    let mut channel = store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    let mine = channel.wrap("mine", "content").await.unwrap();
    let (a, b) = (packet("a", NOW / 1_000 + 1, &[]), packet("b", NOW / 1_000 + 2, &["a"]));
    channel.receive(&a).await.unwrap();
    channel.receive(&b).await.unwrap();
    assert_eq!(told(&mut events), ["ready a", "ready b"]);
    for restarted in [false, true] {
        if restarted {
            store.stop().await.unwrap();
            store = start(&adapter).await;
            channel = store.open_channel("room", options()).await.unwrap();
            events = channel.subscribe();
        }
        for bytes in [&a, &b, &mine, &a] {
            assert_eq!(channel.receive(bytes).await.unwrap().status, ReceiveStatus::Duplicate);
        }
    }
    for number in 3..10 {
        channel.receive(packet(format!("m{number}"), NOW / 1_000 + number, &[])).await.unwrap();
    }
    assert_eq!(told(&mut events).len(), 7);
    for bytes in [&a, &b, &mine] {
        assert_eq!(channel.receive(bytes).await.unwrap().status, ReceiveStatus::Duplicate, "evicted");
    }
    assert_eq!(told(&mut events), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn ch_47_a_stop_saves_what_is_unsaved_and_with_a_dead_adapter_its_report_names_the_channel() {
    for options in [options(), synced()] {
        let (adapter, _) = faulty();
        let store = builder(adapter.clone()).persistence(lazy()).start().await.unwrap();
        let channel = store.open_channel("room", options.clone()).await.unwrap();
        channel.receive(packet("b", 6, &["a"])).await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        channel.set_retrieval_hint("m1", "here").await.unwrap();
        let report = store.stop().await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
        assert!(matches!(channel.wrap("m2", "content").await, Err(Error::Stopping)));
        assert!(matches!(channel.history().await, Err(Error::Stopping)));
        let data = stored(&adapter).await;
        assert_eq!((data.message_history.len(), data.meta.incoming.len(), data.hints.len()), (1, 1, 1));
    }
    for fault in [Fault::fail(transient()), Fault::fail(permanent()), Fault::hang()] {
        let (adapter, faults) = faulty();
        let options_of_store = PersistenceOptions::default().with_stop_timeout(Duration::from_secs(5));
        let store = builder(adapter.clone()).persistence(options_of_store).start().await.unwrap();
        let channel = store.open_channel("room", options()).await.unwrap();
        let healthy = store.open_channel("healthy", options()).await.unwrap();
        healthy.wrap("m1", "content").await.unwrap();
        healthy.flush().await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        faults.inject(fault.on(Operation::Commit));
        let report = store.stop().await.unwrap();
        assert_eq!(report.unsaved, [room()], "{report:?}");
        assert!(report.error.is_some());
    }
}

/// The application's part of the tree: children that die concern nobody here.
struct Application;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Application {
    type Msg = u8;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<u8>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<u8>,
        _event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// A store whose actors can be got hold of.
pub(crate) struct Tree {
    pub(crate) store: Store,
    application: ActorCell,
}

impl Tree {
    pub(crate) async fn start(adapter: impl StorageAdapter) -> Self {
        let (application, _) = Actor::spawn(None, Application, ()).await.unwrap();
        let store = builder(adapter).spawn_linked(application.get_cell()).await.unwrap();
        Self { store, application: application.get_cell() }
    }

    fn actors(&self) -> Vec<ActorCell> {
        self.application.get_children().iter().flat_map(ActorCell::get_children).collect()
    }

    /// Kills all that the store supervises but these.
    pub(crate) fn kill_but(&self, spared: &BTreeSet<u64>) -> usize {
        let victims: Vec<_> =
            self.actors().into_iter().filter(|actor| !spared.contains(&actor.get_id().pid())).collect();
        victims.iter().for_each(ActorCell::kill);
        victims.len()
    }

    pub(crate) fn ids(&self) -> BTreeSet<u64> {
        self.actors().iter().map(|actor| actor.get_id().pid()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_actor_that_is_killed_under_load_is_back_with_all_it_knew_and_its_events_are_in_order() {
    for options in [options(), synced()] {
        let adapter = MemoryAdapter::default();
        let tree = Tree::start(adapter.clone()).await;
        let persister = tree.ids();
        let options = options.with_max_history(100_000).with_max_outgoing(100_000).with_max_causal_history(1);
        let channel = tree.store.open_channel("room", options.clone()).await.unwrap();
        let mut ready = channel.subscribe();
        let listening = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(delivery) = ready.recv().await {
                let event = in_words(&delivery);
                // Filters of the peer may err, and acknowledge what it does not have.
                if !event.starts_with("sent") {
                    heard.push(event);
                }
            }
            heard
        });
        let over = Arc::new(AtomicBool::new(false));
        // A peer's messages come in order, each again until it is answered.
        let receiving = {
            let (channel, over) = (channel.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut peer = state(ChannelOptions::default().with_participant("peer").with_bloom_capacity(10));
                let (mut expected, mut lost) = (Vec::new(), 0);
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("p{number}");
                    let (bytes, _) = peer.wrap(id.as_str(), "content", NOW).unwrap();
                    while let Err(error) = channel.receive(&bytes).await {
                        assert!(matches!(error, Error::ActorLost { .. }), "{error}");
                        lost += 1;
                    }
                    expected.push(format!("ready {id}"));
                    tokio::task::yield_now().await;
                }
                (expected, lost)
            })
        };
        let sending: Vec<_> = (0..4)
            .map(|sender| {
                let (channel, over) = (channel.clone(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut sent = Vec::new();
                    for number in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        let id = format!("s{sender}-{number}");
                        match channel.wrap(id.as_str(), "content").await {
                            Ok(_) => sent.push(id),
                            Err(error) => assert!(matches!(error, Error::ActorLost { .. }), "{error}"),
                        }
                        tokio::task::yield_now().await;
                    }
                    sent
                })
            })
            .collect();
        for _ in 0..5 {
            let before = channel.stats().await.unwrap().history;
            while channel.stats().await.unwrap().history < before + 50 {
                tokio::task::yield_now().await;
            }
            assert_eq!(tree.kill_but(&persister), 1);
        }
        let before = channel.stats().await.unwrap().history;
        while channel.stats().await.unwrap().history < before + 50 {
            tokio::task::yield_now().await;
        }
        over.store(true, Ordering::SeqCst);
        let (expected, _lost) = receiving.await.unwrap();
        let mut sent = Vec::new();
        for sender in sending {
            sent.extend(sender.await.unwrap());
        }
        let history: BTreeSet<String> = history_ids(&channel).await.into_iter().collect();
        assert!(sent.iter().all(|id| history.contains(id)), "what was answered is there");
        assert!(tree.store.stop().await.unwrap().unsaved.is_empty());
        let heard = listening.await.unwrap();
        let odd = heard.iter().zip(&expected).find(|(heard, expected)| heard != expected);
        assert!(heard == expected, "{} were told, {} received, {odd:?}", heard.len(), expected.len());
        let saved: BTreeSet<String> = stored_ids(&adapter).await.into_iter().collect();
        assert_eq!(saved, history);
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_is_killed_keeps_what_was_never_saved() {
    let (adapter, faults) = faulty();
    faults.fail_commits(transient());
    let tree = Tree::start(adapter.clone()).await;
    let others = tree.ids();
    let channel = tree.store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    channel.wrap("mine", "content").await.unwrap();
    channel.receive(packet("b", 6, &["a"])).await.unwrap();
    assert_eq!(tree.kill_but(&others), 1);
    pass(1).await;
    channel.receive(packet("a", 5, &[])).await.unwrap();
    assert_eq!(told(&mut events), ["missing b: a", "ready a", "ready b"]);
    assert_eq!(history_ids(&channel).await, ["a", "b", "mine"]);
    assert_eq!(stored_ids(&adapter).await, [""; 0]);
    faults.heal();
    pass(1_000).await;
    assert_eq!(stored_ids(&adapter).await, ["a", "b", "mine"]);
    tree.store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_persister_was_to_save_is_saved_by_its_successor() {
    let (adapter, faults) = faulty();
    let tree = Tree::start(adapter.clone()).await;
    let channel = tree.store.open_channel("room", synced()).await.unwrap();
    faults.inject(Fault::hang().on(Operation::Commit));
    let waiting = {
        let channel = channel.clone();
        tokio::spawn(async move { channel.wrap("m1", "content").await })
    };
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
    assert_eq!(tree.kill_but(&BTreeSet::new()), 2);
    pass(1).await;
    faults.heal();
    waiting.await.unwrap().unwrap();
    channel.wrap("m2", "content").await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m1", "m2"]);
    tree.store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_dies_six_times_within_thirty_seconds_is_given_up_and_what_it_knew_is_saved() {
    let (adapter, _) = faulty();
    let tree = Tree::start(adapter.clone()).await;
    let others = tree.ids();
    let channel = tree.store.open_channel("room", options()).await.unwrap();
    for number in 0..6 {
        channel.wrap(format!("m{number}"), "content").await.unwrap();
        assert_eq!(tree.kill_but(&others), 1);
        pass(1).await;
    }
    assert!(matches!(channel.wrap("m6", "content").await, Err(Error::GivenUp { restarts: 5, .. })));
    assert!(matches!(channel.history().await, Err(Error::GivenUp { .. })));
    let report = tree.store.stop().await.unwrap();
    assert!(report.unsaved.is_empty());
    assert_eq!(stored_ids(&adapter).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_closed_while_its_actor_is_restarted_and_opened_again_is_restarted_too() {
    let (adapter, _) = faulty();
    let tree = Tree::start(adapter).await;
    let others = tree.ids();
    // Every moment of a restart at which a close can come, and of a close at which a kill can.
    for turns in 0..60 {
        for closes_first in [false, true] {
            let channel = tree.store.open_channel("room", options()).await.unwrap();
            let closing = || {
                tokio::spawn({
                    let channel = channel.clone();
                    async move { channel.close().await }
                })
            };
            let (mut closed, mut killed) = (None, 0);
            for first in [true, false] {
                if first == closes_first {
                    closed = Some(closing());
                } else {
                    killed = tree.kill_but(&others);
                }
                if first {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
            }
            closed.unwrap().await.unwrap().unwrap();
            let again = tree.store.open_channel("room", options()).await.unwrap();
            pass(1).await;
            let what = format!("{killed} killed, {turns} turns, closes first: {closes_first}");
            assert_eq!(tree.ids().len(), others.len() + 1, "one actor: {what}");
            assert_eq!(tree.kill_but(&others), 1, "{what}");
            again.stats().await.unwrap_or_else(|error| panic!("{error}: {what}"));
            again.close().await.unwrap();
            pass(1).await;
            assert_eq!(tree.ids(), others, "{what}");
        }
    }
    tree.store.stop().await.unwrap();
}
