//! What a channel promises, checked on the pure state machine. Without these, messages are delivered before their causes,
//! twice or never, or what is saved is not what is known.

mod acknowledgement;
mod delivery;
mod limits;
mod loading;
mod model;
mod network;
mod repairing;
mod resending;
mod sending;
mod snapshots;
mod syncing;
mod vectors;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::error::Result;
use crate::base::name::{ChannelId, MessageId};
use crate::sds::bloom::BloomFilter;
use crate::sds::hash::BloomHash;
use crate::sds::{
    ChannelData, ChannelEvent, ChannelOptions, ChannelState, Effects, HistoryEntry, LostReason, Now, ReceiveStatus,
    Received, SdsMessage, WireFormat, decode, encode,
};

/// The room's clock in these tests: 1,000,000 s after the epoch.
const NOW: i64 = 1_000_000_000;

fn room() -> ChannelId {
    ChannelId::new("room").unwrap()
}

fn channel(options: ChannelOptions) -> ChannelState {
    ChannelState::new(room(), options).unwrap()
}

/// A channel whose timers count from `NOW`.
fn opened(options: &ChannelOptions) -> ChannelState {
    Stored::default().load(options).0
}

fn tick(state: &mut ChannelState, now: i64) -> Effects {
    state.tick(now, || MessageId::from(format!("sync at {now}")))
}

/// Lets time pass until `end`: what was told at each moment at which the channel wanted to be woken, counted from `NOW`.
fn told_until(state: &mut ChannelState, end: i64) -> Vec<(i64, Vec<String>)> {
    let mut log = Vec::new();
    while let Some(due) = state.next_due().filter(|due| *due <= end) {
        log.push((due - NOW, told(&tick(state, due))));
        assert!(log.len() < 1_000, "it never comes to rest: {log:?}");
    }
    log
}

fn plain() -> ChannelState {
    channel(ChannelOptions::default())
}

/// A message of some peer's.
fn message(id: &str, timestamp: i64, causes: &[&str]) -> SdsMessage {
    SdsMessage {
        message_id: id.into(),
        lamport_timestamp: timestamp,
        causal_history: causes.iter().copied().map(HistoryEntry::new).collect(),
        channel_id: Bytes::from_static(b"room"),
        content: Bytes::from(format!("content of {id}")),
        ..SdsMessage::default()
    }
}

fn packet(id: &str, timestamp: i64, causes: &[&str]) -> Bytes {
    encode(WireFormat::NimSds, &message(id, timestamp, causes))
}

/// The same with a bloom filter that contains `seen`.
fn packet_with_bloom(id: &str, timestamp: i64, causes: &[&str], seen: &[&str]) -> Bytes {
    let mut bloom = BloomFilter::new(10_000, 0.001);
    for id in seen {
        bloom.insert(BloomHash::of(id.as_bytes()));
    }
    let bloom_filter = Bytes::copy_from_slice(bloom.serialized());
    encode(WireFormat::NimSds, &SdsMessage { bloom_filter, ..message(id, timestamp, causes) })
}

fn receive(state: &mut ChannelState, bytes: &[u8]) -> (Received, Effects) {
    state.receive(bytes, NOW).unwrap()
}

fn status(state: &mut ChannelState, bytes: &[u8]) -> ReceiveStatus {
    receive(state, bytes).0.status
}

/// An operation that must be refused, leaving everything as it was.
fn refused<T: std::fmt::Debug>(
    state: &mut ChannelState,
    operation: impl FnOnce(&mut ChannelState) -> Result<T>,
) -> String {
    let before = state.clone();
    let error = operation(state).expect_err("should be refused");
    assert!(*state == before, "a refusal changed something: {error}");
    format!("{error:?}").split(['{', ' ']).next().unwrap_or_default().to_owned()
}

fn decoded(bytes: &[u8]) -> SdsMessage {
    decode(WireFormat::NimSds, bytes).unwrap().to_message()
}

fn causes(bytes: &[u8]) -> Vec<String> {
    decoded(bytes).causal_history.iter().map(|entry| entry.message_id.to_string()).collect()
}

/// Events in short: `ready m1`, `sent m1`, `seen m1` for an uncertain one, `missing m1: a b`, `resend m1 2`.
fn told(effects: &Effects) -> Vec<String> {
    effects
        .events
        .iter()
        .map(|event| match event {
            ChannelEvent::Ready { message } => format!("ready {}", message.message_id),
            ChannelEvent::Sent { id, certain: true } => format!("sent {id}"),
            ChannelEvent::Sent { id, certain: false } => format!("seen {id}"),
            ChannelEvent::Missing { id, entries } => format!("missing {id}: {}", ids(entries).join(" ")),
            ChannelEvent::Lost { id, reason: LostReason::Unacknowledged } => format!("lost {id}"),
            ChannelEvent::Lost { id, reason: LostReason::Expired } => format!("expired {id}"),
            ChannelEvent::Resend { id, attempt, .. } => format!("resend {id} {attempt}"),
            ChannelEvent::Repair { id, .. } => format!("repair {id}"),
            ChannelEvent::Sync { .. } => "sync".to_owned(),
        })
        .collect()
}

fn ids(entries: &[HistoryEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.message_id.to_string()).collect()
}

fn history_ids(state: &ChannelState) -> Vec<String> {
    state.history().iter().map(|message| message.message_id.to_string()).collect()
}

/// What an adapter has of a channel if it saves after every operation.
#[derive(Clone, Debug, Default)]
struct Stored {
    data: ChannelData,
    messages: BTreeMap<MessageId, SdsMessage>,
    hints: BTreeMap<MessageId, Bytes>,
}

impl Stored {
    fn save(&mut self, state: &ChannelState, effects: &Effects) {
        if effects.meta_changed {
            self.data.meta = state.meta();
        }
        let update = effects.history.to_update();
        self.messages.extend(update.append.into_iter().map(|message| (message.message_id.clone(), message)));
        for id in update.evict {
            self.messages.remove(&id);
            self.hints.remove(&id);
        }
        for (id, hint) in &effects.hints {
            if hint.is_empty() {
                self.hints.remove(id);
            } else {
                self.hints.insert(id.clone(), hint.clone());
            }
        }
    }

    fn data(&self) -> ChannelData {
        ChannelData {
            meta: self.data.meta.clone(),
            message_history: self.messages.values().cloned().collect(),
            hints: self.hints.clone().into_iter().collect(),
        }
    }

    fn load(&self, options: &ChannelOptions) -> (ChannelState, Effects) {
        self.load_at(options, NOW)
    }

    fn load_at(&self, options: &ChannelOptions, now: impl Into<Now>) -> (ChannelState, Effects) {
        ChannelState::load(room(), options.clone(), self.data(), now).unwrap()
    }

    /// Everything that has to be saved is.
    fn assert_complete(&self, state: &ChannelState) {
        assert_eq!(self.data.meta, state.meta());
        let mut stored: Vec<_> = self.messages.values().cloned().map(Arc::new).collect();
        stored.sort_by(|a, b| (a.lamport_timestamp, &a.message_id).cmp(&(b.lamport_timestamp, &b.message_id)));
        assert_eq!(stored, state.history());
        let hints: BTreeMap<_, _> = state.hints.iter().map(|(id, hint)| (id.clone(), hint.clone())).collect();
        assert_eq!(self.hints, hints);
    }
}
