//! Messages that were received before their causes, and who waits for what.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::name::MessageId;
use crate::sds::message::{HistoryEntry, SdsMessage};
use crate::sds::time::{Agenda, Now};

/// A message by its place in the order of all messages: (Lamport timestamp, id).
#[derive(Clone, Debug)]
pub(crate) struct InOrder(pub(crate) Arc<SdsMessage>);

impl InOrder {
    fn key(&self) -> (i64, &MessageId) {
        (self.0.lamport_timestamp, &self.0.message_id)
    }
}

impl PartialEq for InOrder {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for InOrder {}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A parked message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parked {
    pub(crate) message: Arc<SdsMessage>,
    /// What it still waits for: never empty, never itself, never an id that is known.
    pub(crate) missing: BTreeSet<MessageId>,
    pub(crate) parked_at: Now,
    bytes: usize,
}

/// All parked messages, with the reverse of their wait sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parking {
    parked: BTreeMap<MessageId, Parked>,
    /// By the id waited for: who waits. No entry is empty.
    waiters: HashMap<MessageId, BTreeSet<MessageId>>,
    /// Everything that is parked, by since when.
    by_age: Agenda<MessageId>,
    bytes: usize,
}

/// How much may be parked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkingLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) missing: usize,
}

/// What came of an id that has become known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Met {
    /// Whether anybody waited for it.
    pub(crate) any: bool,
    /// Messages that wait for nothing any more; they are not parked any more.
    pub(crate) released: Vec<Arc<SdsMessage>>,
}

impl Parking {
    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn contains(&self, id: &[u8]) -> bool {
        self.parked.contains_key(id)
    }

    /// Parked messages by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Parked> {
        self.parked.values()
    }

    /// How many ids are waited for.
    pub(crate) fn waited_for(&self) -> usize {
        self.waiters.len()
    }

    /// The ids waited for, in order, parked ones too.
    pub(crate) fn waited_for_ids(&self) -> Vec<MessageId> {
        let mut ids: Vec<_> = self.waiters.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// Whether one more message of `bytes` that waits for `missing`, which repeats no id, has room.
    pub(crate) fn check_room<'a>(
        &self,
        limits: ParkingLimits,
        bytes: usize,
        missing: impl Iterator<Item = &'a [u8]>,
    ) -> Result<()> {
        let full = |what, limit| Err(Error::ParkedFull { what, limit });
        if self.parked.len() >= limits.messages {
            return full("messages", limits.messages);
        }
        if self.bytes.saturating_add(bytes) > limits.bytes {
            return full("bytes", limits.bytes);
        }
        let new = missing.filter(|id| !self.waiters.contains_key(*id)).count();
        if self.waiters.len() + new > limits.missing {
            return full("ids waited for", limits.missing);
        }
        Ok(())
    }

    /// Parks a message that waits for something and is not parked.
    pub(crate) fn park(&mut self, message: Arc<SdsMessage>, missing: BTreeSet<MessageId>, parked_at: Now) {
        let id = message.message_id.clone();
        for cause in &missing {
            self.waiters.entry(cause.clone()).or_default().insert(id.clone());
        }
        let bytes = message.parked_bytes();
        self.bytes = self.bytes.saturating_add(bytes);
        self.by_age.insert(parked_at.monotonic_ms, id.clone());
        self.parked.insert(id, Parked { message, missing, parked_at, bytes });
    }

    /// Takes an id out of all wait sets.
    pub(crate) fn meet(&mut self, id: &[u8]) -> Met {
        let Some(waiters) = self.waiters.remove(id) else { return Met::default() };
        let mut met = Met { any: true, released: Vec::new() };
        for waiter in waiters {
            let Some(parked) = self.parked.get_mut(&waiter) else { continue };
            parked.missing.remove(id);
            if parked.missing.is_empty() {
                met.released.extend(self.take(&waiter).map(|parked| parked.message));
            }
        }
        met
    }

    fn take(&mut self, id: &MessageId) -> Option<Parked> {
        let parked = self.parked.remove(id)?;
        self.by_age.remove(parked.parked_at.monotonic_ms, id.clone());
        self.bytes = self.bytes.saturating_sub(parked.bytes);
        Some(parked)
    }

    /// Gives a message up that still waits.
    pub(crate) fn remove(&mut self, id: &MessageId) {
        let Some(parked) = self.take(id) else { return };
        for cause in parked.missing {
            if let Some(waiters) = self.waiters.get_mut(&cause) {
                waiters.remove(id);
                if waiters.is_empty() {
                    self.waiters.remove(&cause);
                }
            }
        }
    }

    /// Since when the oldest has been parked, by the monotonic clock.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.by_age.first()
    }

    /// What has been parked since then or before, the oldest first.
    pub(crate) fn parked_before(&self, monotonic_ms: i64) -> Vec<MessageId> {
        self.by_age.due(monotonic_ms, usize::MAX)
    }

    /// Whether something waits for an id that is not parked itself.
    pub(crate) fn wants(&self, id: &[u8]) -> bool {
        self.waiters.contains_key(id) && !self.parked.contains_key(id)
    }

    /// An id that something waits for and that is not parked itself, as one of those names it.
    pub(crate) fn wanted(&self, id: &[u8]) -> Option<HistoryEntry> {
        let waiter = self.waiters.get(id).filter(|_| self.wants(id))?.first()?;
        let named = &self.parked.get(waiter)?.message.causal_history;
        let entry = named.iter().find(|entry| entry.message_id.as_bytes() == id);
        // What was loaded may wait for an id that the message does not name.
        Some(entry.map_or_else(|| HistoryEntry::new(id), HistoryEntry::detached))
    }

    /// What a parked message lacks: the causes that it waits for and that are not parked either, as it names them.
    pub(crate) fn missing_of(&self, id: &[u8]) -> Vec<HistoryEntry> {
        let Some(parked) = self.parked.get(id) else { return Vec::new() };
        let mut wanted: BTreeSet<&MessageId> =
            parked.missing.iter().filter(|id| !self.parked.contains_key(*id)).collect();
        let named = parked.message.causal_history.iter();
        let mut missing: Vec<_> = named.filter(|entry| wanted.remove(&entry.message_id)).cloned().collect();
        // What was loaded may wait for an id that the message does not name.
        missing.extend(wanted.into_iter().map(HistoryEntry::new));
        missing
    }
}
