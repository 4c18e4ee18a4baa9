//! The messages that a channel keeps, by (Lamport timestamp, id).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::name::MessageId;
use crate::sds::message::SdsMessage;

/// Delivered and own messages. Every method but [`iter`](Self::iter) costs O(log n) for each message that it touches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    ordered: BTreeMap<(i64, MessageId), Arc<SdsMessage>>,
    timestamps: HashMap<MessageId, i64>,
    #[cfg(test)]
    touched: Touched,
}

impl History {
    pub(crate) fn len(&self) -> usize {
        self.ordered.len()
    }

    pub(crate) fn contains(&self, id: &[u8]) -> bool {
        self.touch(1);
        self.timestamps.contains_key(id)
    }

    pub(crate) fn get(&self, id: &[u8]) -> Option<&Arc<SdsMessage>> {
        self.touch(1);
        let (id, timestamp) = self.timestamps.get_key_value(id)?;
        self.ordered.get(&(*timestamp, id.clone()))
    }

    /// Adds a message whose id is not in the history.
    pub(crate) fn insert(&mut self, message: Arc<SdsMessage>) {
        self.touch(1);
        let (id, timestamp) = (message.message_id.clone(), message.lamport_timestamp);
        if let Some(old) = self.timestamps.insert(id.clone(), timestamp) {
            self.ordered.remove(&(old, id.clone()));
        }
        self.ordered.insert((timestamp, id), message);
    }

    /// Takes out what goes first: the largest message beyond the clock, else the smallest.
    pub(crate) fn evict(&mut self, clock: i64) -> Option<Arc<SdsMessage>> {
        self.touch(1);
        let largest = self.ordered.last_entry()?;
        let (_, message) = if largest.key().0 > clock { largest.remove_entry() } else { self.ordered.pop_first()? };
        self.timestamps.remove(&message.message_id);
        Some(message)
    }

    /// The last messages that are not beyond the clock, at most `count`, newest first.
    pub(crate) fn recent(&self, clock: i64, count: usize) -> impl Iterator<Item = &Arc<SdsMessage>> {
        // The empty id is the smallest there is, so this excludes exactly the later timestamps.
        let end = match clock.checked_add(1) {
            Some(next) => Bound::Excluded((next, MessageId::default())),
            None => Bound::Unbounded,
        };
        self.ordered
            .range((Bound::Unbounded, end))
            .rev()
            .take(count)
            .map(|(_, message)| message)
            .inspect(|_| self.touch(1))
    }

    /// All messages in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<SdsMessage>> {
        self.ordered.values().inspect(|_| self.touch(1))
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "counts in tests")]
    fn touch(&self, _entries: u64) {}

    #[cfg(test)]
    fn touch(&self, entries: u64) {
        self.touched.0.set(self.touched.0.get() + entries);
    }

    /// How many entries have been looked at, added or taken out so far.
    #[cfg(test)]
    pub(crate) fn touched(&self) -> u64 {
        self.touched.0.get()
    }
}

/// Counts accesses; histories are equal whatever was read of them.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
struct Touched(std::cell::Cell<u64>);

#[cfg(test)]
impl PartialEq for Touched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
