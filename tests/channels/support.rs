//! What the tests of channels share: a store, a peer, and short ways to say what was told and what is stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{ChannelId, ChannelKey, MessageId, StoreName, Subject};
use ractor_persistence::channel::{Channel, ChannelDelivery, ChannelEvents};
use ractor_persistence::persistence::{Backoff, PersistenceOptions, StorageAdapter};
use ractor_persistence::sds::{
    ChannelData, ChannelEvent, ChannelOptions, ChannelState, HistoryEntry, SdsMessage, WireFormat, encode,
};
use ractor_persistence::store::{Store, StoreBuilder};
use ractor_persistence::testkit::{FaultAdapter, Faults};

/// When everything happens, in milliseconds.
pub(crate) const NOW: i64 = 1_700_000_000_000;

pub(crate) fn options() -> ChannelOptions {
    // What comes by itself does not come here; small filters, so that thousands of messages are no burden.
    let day = Duration::from_secs(24 * 60 * 60);
    ticking().with_resend_interval(day).with_sync_interval(None).with_repair_t_min(day).with_repair_t_max(day)
}

/// With timers as they are by default.
pub(crate) fn ticking() -> ChannelOptions {
    ChannelOptions::default().with_participant("us").with_bloom_capacity(100)
}

pub(crate) fn synced() -> ChannelOptions {
    options().with_durability(Durability::Fsync)
}

/// Saves at once, and tries again soon.
pub(crate) fn prompt() -> PersistenceOptions {
    let retry = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    PersistenceOptions::default().with_debounce(Duration::ZERO).with_retry(retry)
}

/// Saves only when asked to.
pub(crate) fn lazy() -> PersistenceOptions {
    PersistenceOptions::default().with_debounce(Duration::from_secs(3_600))
}

pub(crate) fn builder(adapter: impl StorageAdapter) -> StoreBuilder {
    Store::builder("app").adapter(adapter).persistence(prompt()).clock(Arc::new(ManualClock::at(NOW)))
}

pub(crate) async fn start(adapter: &(impl StorageAdapter + Clone)) -> Store {
    builder(adapter.clone()).start().await.unwrap()
}

pub(crate) fn faulty() -> (FaultAdapter<MemoryAdapter>, Faults) {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    (adapter, faults)
}

pub(crate) fn transient() -> Error {
    Error::transient("testing", std::io::Error::other("on purpose"))
}

pub(crate) fn permanent() -> Error {
    Error::permanent("testing", std::io::Error::other("on purpose"))
}

pub(crate) fn room() -> Subject {
    Subject::Channel(ChannelId::new("room").unwrap())
}

pub(crate) fn key(channel: &str) -> ChannelKey {
    ChannelKey::new(StoreName::new("app").unwrap(), ChannelId::new(channel).unwrap())
}

/// What is stored of the channel `room`.
pub(crate) async fn stored(adapter: &impl StorageAdapter) -> ChannelData {
    adapter.load_channel(&key("room")).await.unwrap()
}

pub(crate) async fn stored_ids(adapter: &impl StorageAdapter) -> Vec<String> {
    stored(adapter).await.message_history.iter().map(|message| shown(&message.message_id)).collect()
}

pub(crate) async fn history_ids(channel: &Channel) -> Vec<String> {
    channel.history().await.unwrap().iter().map(|message| shown(&message.message_id)).collect()
}

fn shown(id: &MessageId) -> String {
    id.to_string()
}

/// The events that have been told so far, in words.
pub(crate) fn told(events: &mut ChannelEvents) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv()).map(|delivery| in_words(&delivery)).collect()
}

pub(crate) fn in_words(delivery: &ChannelDelivery) -> String {
    match delivery {
        ChannelDelivery::Event(ChannelEvent::Missing { id, entries }) => {
            let causes: Vec<String> = entries.iter().map(|entry| shown(&entry.message_id)).collect();
            format!("missing {id}: {}", causes.join(" "))
        }
        ChannelDelivery::Event(event) => format!("{} {}", event.kind(), event.message_id()),
        ChannelDelivery::Lagged(missed) => format!("lagged {missed}"),
    }
}

/// A packet of a message for the channel `room`, from a peer that writes by hand.
pub(crate) fn packet(id: impl Into<MessageId>, timestamp: i64, causes: &[&str]) -> Bytes {
    let mut message = SdsMessage::default();
    message.message_id = id.into();
    message.lamport_timestamp = timestamp;
    message.causal_history = causes.iter().map(|cause| HistoryEntry::new(*cause)).collect();
    message.channel_id = Bytes::from_static(b"room");
    message.content = Bytes::from_static(b"content");
    encode(WireFormat::NimSds, &message)
}

/// A state to compare with, or a peer: no actor, no store.
pub(crate) fn state(options: ChannelOptions) -> ChannelState {
    ChannelState::new(ChannelId::new("room").unwrap(), options).unwrap()
}

/// Lets everything that can happen at once happen, under paused time; then this long passes.
pub(crate) async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
