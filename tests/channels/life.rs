//! A channel is opened once, shared by whoever opens it, and ends whole: closed, it is on disk; dropped, it is nowhere.
//! Without it two actors would work on one channel, and the changes of one of them would never be saved.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::BucketKey;
use ractor_persistence::channel::Channel;
use ractor_persistence::persistence::{Capabilities, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::sds::{ChannelData, ChannelOptions, ReceiveStatus};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Call, Fault, Faults, Operation};
use tokio::task::{JoinHandle, unconstrained};

use crate::support::{
    builder, faulty, history_ids, key, lazy, options, packet, pass, permanent, prompt, start, stored, stored_ids,
    synced, told, transient,
};

fn open(store: &Store) -> JoinHandle<Result<Channel>> {
    let store = store.clone();
    tokio::spawn(async move { store.open_channel("room", options()).await })
}

fn loads(faults: &Faults) -> usize {
    faults.calls().iter().filter(|logged| matches!(logged.call, Call::LoadChannel(_))).count()
}

/// Whether two handles are of one channel: what is done with one is seen with the other.
async fn are_one(channels: &[Channel]) -> bool {
    let (id, _) = channels[0].wrap_new("content").await.unwrap();
    for channel in channels {
        if !history_ids(channel).await.contains(&id.to_string()) {
            return false;
        }
    }
    true
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_a_channel_shares_it_and_it_is_loaded_once() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    faults.inject(Fault::hang().on(Operation::Load));
    let openings: Vec<_> = (0..50).map(|_| open(&store)).collect();
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
    faults.heal();
    let mut channels = Vec::new();
    for opening in openings {
        channels.push(opening.await.unwrap().unwrap());
    }
    channels.push(store.open_channel("room", options()).await.unwrap());
    assert!(are_one(&channels).await);
    assert_eq!((loads(&faults), store.stats().await.channels), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_open_channel_is_not_opened_with_other_options_and_stays_as_it_is() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    let other = store.open_channel("room", options().with_max_history(7)).await.unwrap_err();
    assert!(matches!(&other, Error::InvalidOptions { problems } if problems.len() == 1), "{other}");
    channel.wrap("m1", "content").await.unwrap();
    store.close_channel("room").await.unwrap();
    store.open_channel("room", options().with_max_history(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_options_and_names_open_nothing_and_touch_nothing() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    faults.forget_calls();
    let bad = store.open_channel("room", options().with_max_history(0).with_bloom_capacity(0)).await.unwrap_err();
    assert!(matches!(&bad, Error::InvalidOptions { problems } if problems.len() == 2), "{bad}");
    assert!(matches!(store.open_channel("", options()).await, Err(Error::InvalidName { .. })));
    assert!(matches!(store.close_channel("room").await, Err(Error::UnknownChannel { .. })));
    assert_eq!((faults.calls().len(), store.stats().await.channels), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_opening_goes_on_without_its_caller_and_the_next_one_shares_it() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    faults.inject(Fault::hang().on(Operation::Load));
    let given_up = {
        let store = store.clone();
        tokio::spawn(async move { store.open_channel("room", options()).await })
    };
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let second = open(&store);
    pass(1).await;
    faults.heal();
    let channel = second.await.unwrap().unwrap();
    pass(1).await;
    assert_eq!((loads(&faults), store.stats().await.channels), (1, 1));
    channel.wrap("m1", "content").await.unwrap();
    channel.flush().await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m1"], "its changes are the ones that are saved");
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_opening_those_who_waited_for_it_share_the_next() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    faults.inject(Fault::hang().on(Operation::Load).times(1));
    faults.inject(Fault::fail(transient()).on(Operation::Load).times(1));
    let openings: Vec<_> = (0..3).map(|_| open(&store)).collect();
    faults.until(|log| log.iter().any(|logged| logged.result.is_none())).await;
    pass(1).await;
    faults.release();
    let mut outcomes = Vec::new();
    for opening in openings {
        outcomes.push(opening.await.unwrap());
    }
    outcomes.push(store.open_channel("room", options()).await);
    let channels: Vec<Channel> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(channels.len(), 3, "one of them was told why it failed");
    assert!(are_one(&channels).await);
    assert_eq!((loads(&faults), store.stats().await.channels), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_opening_leaves_the_data_and_the_id() {
    for error in [transient(), permanent(), Error::corrupt(ractor_persistence::base::error::Place::new("here"), "odd")]
    {
        let (adapter, faults) = faulty();
        let store = start(&adapter).await;
        store.open_channel("room", synced()).await.unwrap().wrap("m1", "content").await.unwrap();
        store.close_channel("room").await.unwrap();
        let before = stored(&adapter).await;
        faults.fail_loads(error.clone());
        let failed = store.open_channel("room", synced()).await.unwrap_err();
        assert_eq!(failed.to_string(), error.to_string());
        assert!(matches!(store.close_channel("room").await, Err(Error::UnknownChannel { .. })));
        faults.heal();
        pass(60_000).await;
        assert_eq!(stored(&adapter).await, before);
        let channel = store.open_channel("room", synced()).await.unwrap();
        assert_eq!(history_ids(&channel).await, ["m1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_dropped_while_it_opens_is_gone_and_one_that_opens_during_a_drop_is_empty() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let fill = async |store: &Store| {
        store.open_channel("room", options()).await.unwrap().wrap("old", "content").await.unwrap();
        store.close_channel("room").await.unwrap();
        assert_eq!(stored_ids(&adapter).await, ["old"]);
    };
    let drop_room = |store: &Store| {
        let store = store.clone();
        tokio::spawn(async move { store.drop_channel("room").await })
    };

    fill(&store).await;
    faults.inject(Fault::hang().on(Operation::Load).times(1));
    let opening = open(&store);
    pass(1).await;
    let dropping = drop_room(&store);
    pass(1).await;
    faults.release();
    let channel = opening.await.unwrap().unwrap();
    dropping.await.unwrap().unwrap();
    assert!(matches!(channel.stats().await, Err(Error::UnknownChannel { .. })));
    assert_eq!(stored(&adapter).await, ChannelData::default());

    fill(&store).await;
    faults.inject(Fault::hang().on(Operation::Drop).times(1));
    let dropping = drop_room(&store);
    pass(1).await;
    let opening = open(&store);
    pass(1).await;
    faults.release();
    dropping.await.unwrap().unwrap();
    let channel = opening.await.unwrap().unwrap();
    assert_eq!(history_ids(&channel).await, [""; 0], "memory is as empty as the disk");
    channel.wrap("new", "content").await.unwrap();
    channel.flush().await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_opens_while_the_store_stops_is_refused_or_drained() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    faults.inject(Fault::hang().on(Operation::Load));
    let opening = open(&store);
    pass(1).await;
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    faults.heal();
    assert!(matches!(opening.await.unwrap(), Err(Error::Stopping)));
    assert!(matches!(store.open_channel("room", options()).await, Err(Error::Stopping)));
    assert!(matches!(store.drop_channel("room").await, Err(Error::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_is_unknown_to_its_handles_and_on_disk() {
    let (adapter, _) = faulty();
    let store = builder(adapter.clone()).persistence(lazy()).start().await.unwrap();
    let channel = store.open_channel("room", options()).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    channel.receive(packet("b", 6, &["a"])).await.unwrap();
    store.close_channel("room").await.unwrap();
    assert!(matches!(channel.wrap("m2", "content").await, Err(Error::UnknownChannel { .. })));
    assert!(matches!(channel.receive(packet("a", 5, &[])).await, Err(Error::UnknownChannel { .. })));
    assert!(matches!(channel.history().await, Err(Error::UnknownChannel { .. })));
    assert!(matches!(store.close_channel("room").await, Err(Error::UnknownChannel { .. })));
    let data = stored(&adapter).await;
    assert_eq!((data.message_history.len(), data.meta.outgoing.len(), data.meta.incoming.len()), (1, 1, 1));

    let again = store.open_channel("room", options()).await.unwrap();
    assert_eq!(again.receive(packet("a", 5, &[])).await.unwrap().status, ReceiveStatus::Delivered);
    assert_eq!(history_ids(&again).await, ["a", "b", "m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_last_save_fails_is_not_closed_and_serves_on() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    faults.fail_commits(transient());
    channel.wrap("m1", "content").await.unwrap();
    assert!(matches!(store.close_channel("room").await, Err(Error::Transient { .. })));
    channel.wrap("m2", "content").await.unwrap();
    faults.heal();
    store.close_channel("room").await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m1", "m2"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_nobody_waits_for_any_more_are_saved_if_they_are_done_when_a_channel_closes() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let channel = store.open_channel("room", options()).await.unwrap();
    let mut events = channel.subscribe();
    faults.inject(Fault::delay(Duration::from_millis(1)).on(Operation::Commit));
    for number in 0..1_000 {
        // Sent, and dropped before it is answered.
        let mut call = Box::pin(unconstrained(channel.receive(packet(format!("m{number}"), 5, &[]))));
        assert!(poll_once(call.as_mut()).await.is_none());
    }
    store.close_channel("room").await.unwrap();
    assert_eq!(stored_ids(&adapter).await.len(), told(&mut events).len());
}

async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn ch_51_a_drop_leaves_nothing_in_memory_or_on_disk_and_one_that_fails_changes_nothing() {
    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let fill = async || {
        let channel = store.open_channel("room", options()).await.unwrap();
        channel.wrap("m1", "content").await.unwrap();
        channel.receive(packet("b", 6, &["a"])).await.unwrap();
        channel.set_retrieval_hint("m1", "here").await.unwrap();
        channel
    };
    let is_empty = async || {
        assert_eq!(stored(&adapter).await, ChannelData::default());
        let channel = store.open_channel("room", options()).await.unwrap();
        let (history, stats) = (history_ids(&channel).await, channel.stats().await.unwrap());
        assert_eq!((history.len(), stats.parked, stats.unacknowledged, stats.lamport_timestamp), (0, 0, 0, 0));
        assert_eq!(channel.receive(packet("c", 6, &["m1"])).await.unwrap().status, ReceiveStatus::Parked);
        store.drop_channel("room").await.unwrap();
    };

    // In memory, saved and not.
    let channel = fill().await;
    channel.flush().await.unwrap();
    channel.wrap("m2", "content").await.unwrap();
    store.drop_channel("room").await.unwrap();
    assert!(matches!(channel.stats().await, Err(Error::UnknownChannel { .. })));
    pass(60_000).await;
    is_empty().await;

    // Only on disk, in this store and after a restart.
    fill().await;
    store.close_channel("room").await.unwrap();
    store.drop_channel("room").await.unwrap();
    is_empty().await;
    fill().await;
    store.close_channel("room").await.unwrap();
    let other = Store::builder("other").adapter(adapter.clone()).start().await.unwrap();
    other.drop_channel("room").await.unwrap();
    assert_eq!(stored_ids(&adapter).await, ["m1"], "another store's channel is another channel");
    other.stop().await.unwrap();
    store.drop_channel("room").await.unwrap();
    store.drop_channel("room").await.unwrap();
    is_empty().await;

    // Failed, for whatever reason, in memory or only on disk.
    let lost = Error::unknown("testing", std::io::Error::other("on purpose"));
    for fault in [Fault::fail(transient()), Fault::fail(permanent()), Fault::apply_then_fail(lost)] {
        let channel = fill().await;
        channel.flush().await.unwrap();
        let before = stored(&adapter).await;
        faults.inject(fault.on(Operation::Drop).times(1));
        assert!(store.drop_channel("room").await.is_err());
        pass(1_000).await;
        assert_eq!(stored(&adapter).await, before, "as it was, or written again");
        channel.wrap("m2", "content").await.unwrap();
        assert_eq!(channel.receive(packet("a", 5, &[])).await.unwrap().status, ReceiveStatus::Delivered);
        store.close_channel("room").await.unwrap();
        assert_eq!(stored_ids(&adapter).await, ["a", "b", "m1", "m2"]);
        faults.inject(Fault::fail(transient()).on(Operation::Drop).times(1));
        assert!(store.drop_channel("room").await.is_err());
        assert_eq!(stored_ids(&adapter).await, ["a", "b", "m1", "m2"]);
        store.drop_channel("room").await.unwrap();
        is_empty().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_channels_of_a_store_share_neither_history_bloom_filter_events_nor_drop() {
    let (adapter, _) = faulty();
    let store = start(&adapter).await;
    let room = store.open_channel("room", options()).await.unwrap();
    let other = store.open_channel("other", options()).await.unwrap();
    let (mut in_room, mut in_other) = (room.subscribe(), other.subscribe());
    let bytes = room.wrap("m1", "content").await.unwrap();
    room.receive(packet("theirs", 5, &[])).await.unwrap();
    assert!(matches!(other.receive(bytes).await, Err(Error::WrongChannel)));
    assert_eq!((told(&mut in_room), told(&mut in_other)), (vec!["ready theirs".to_owned()], vec![]));
    assert_eq!(other.stats().await.unwrap(), Default::default());

    // The same ids are new in the other channel, and its packets tell nothing of the first one's.
    let bytes = other.wrap("m1", "content").await.unwrap();
    let decoded = ractor_persistence::sds::decode(Default::default(), &bytes).unwrap().to_message();
    let untouched = ractor_persistence::sds::ChannelState::new(
        ractor_persistence::base::name::ChannelId::new("other").unwrap(),
        options(),
    );
    let (alone, _) = untouched.unwrap().wrap("m1", "content", crate::support::NOW).unwrap();
    let alone = ractor_persistence::sds::decode(Default::default(), &alone).unwrap().to_message();
    assert_eq!((decoded.bloom_filter, decoded.causal_history), (alone.bloom_filter, alone.causal_history));

    store.drop_channel("room").await.unwrap();
    assert_eq!(history_ids(&other).await, ["m1"]);
    other.flush().await.unwrap();
    let kept = adapter.load_channel(&key("other")).await.unwrap();
    assert_eq!((kept.message_history.len(), stored(&adapter).await), (1, ChannelData::default()));
}

#[tokio::test(start_paused = true)]
async fn an_opted_out_channel_never_reaches_the_adapter_and_a_store_without_one_treats_all_so() {
    let (adapter, faults) = faulty();
    let with = start(&adapter).await;
    let without = Store::builder("app").start().await.unwrap();
    faults.forget_calls();
    for (store, options) in [(&with, options().with_persistent(false)), (&without, options())] {
        let channel = store.open_channel("room", options.clone()).await.unwrap();
        let mut events = channel.subscribe();
        channel.wrap("m1", "content").await.unwrap();
        channel.receive(packet("b", 6, &["a"])).await.unwrap();
        channel.receive(packet("a", 5, &[])).await.unwrap();
        channel.set_retrieval_hint("m1", "here").await.unwrap();
        assert_eq!(told(&mut events), ["missing b: a", "ready a", "ready b"]);
        channel.flush().await.unwrap();
        store.flush().await.unwrap();
        pass(60_000).await;
        store.close_channel("room").await.unwrap();
        let again = store.open_channel("room", options).await.unwrap();
        assert_eq!(history_ids(&again).await, [""; 0]);
        store.drop_channel("room").await.unwrap();
        assert!(store.stats().await.persistence.unsaved.is_empty());
    }
    assert!(faults.calls().is_empty(), "{:?}", faults.calls());
}

/// Takes calls for an adapter that can do less.
#[derive(Clone)]
struct Limited(Arc<MemoryAdapter>, Capabilities);

#[async_trait]
impl StorageAdapter for Limited {
    fn capabilities(&self) -> Capabilities {
        self.1
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.0.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.0.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.0.drop_bucket(bucket).await
    }
}

fn limited(capabilities: Capabilities) -> Limited {
    Limited(Arc::default(), capabilities)
}

#[tokio::test(start_paused = true)]
async fn an_adapter_without_channels_keeps_none_and_is_never_asked_to() {
    let store = start(&limited(Capabilities::default())).await;
    let refused = store.open_channel("room", options()).await.unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { has: None, .. }), "{refused}");
    // Nothing is stored of it, so there is nothing to delete.
    store.drop_channel("room").await.unwrap();
    let channel = store.open_channel("room", options().with_persistent(false)).await.unwrap();
    channel.wrap("m1", "content").await.unwrap();
    assert!(store.health().is_healthy());
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_durability_beyond_the_adapters_is_refused_with_what_can_be_had() {
    let capabilities = Capabilities::default().with_channels(true).with_durability(Durability::Wal);
    let store = start(&limited(capabilities)).await;
    let refused = store.open_channel("room", synced()).await.unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { has: Some(Durability::Wal), .. }), "{refused}");
    let memory_only = Store::builder("app").start().await.unwrap();
    let refused = memory_only.open_channel("room", synced()).await.unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { has: Some(Durability::Ram), .. }), "{refused}");
    let refused = memory_only.open_channel("room", synced().with_persistent(false)).await.unwrap_err();
    assert!(matches!(&refused, Error::InvalidOptions { .. }), "{refused}");
    memory_only.open_channel("room", ChannelOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opening_and_dropping_a_hundred_channels_leaves_nothing_behind() {
    let (adapter, _) = faulty();
    let store = builder(adapter).persistence(prompt()).start().await.unwrap();
    let before = store.stats().await;
    let handles = tokio::runtime::Handle::current();
    let tasks = handles.metrics().num_alive_tasks();
    for number in 0..100 {
        let channel = store.open_channel("room", synced()).await.unwrap();
        channel.wrap(format!("m{number}"), "content").await.unwrap();
        store.drop_channel("room").await.unwrap();
    }
    pass(60_000).await;
    let after = store.stats().await;
    assert_eq!((after.channels, after.subscribers), (0, before.subscribers));
    assert_eq!(after.persistence.saved_revisions, []);
    assert_eq!(handles.metrics().num_alive_tasks(), tasks, "actors and tellers have ended");
}
