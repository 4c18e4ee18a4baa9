//! Changes of a history that are not saved yet.

use std::sync::Arc;

use crate::base::name::MessageId;
use crate::sds::message::SdsMessage;
use crate::sds::meta::HistoryUpdate;
use crate::sds::sequence::Sequence;

/// What has to be saved of a history, added up: at most one append or one evict per id, in order.
///
/// An append cancels the evict of its id: storing it again overwrites it. An evict cancels the append of its id, and is
/// kept if the message may be stored; so what comes and goes between two saves costs nothing, and while saving fails
/// the appends never outgrow the history.
///
/// ```
/// # use std::sync::Arc;
/// # use ractor_persistence::sds::{PendingHistory, SdsMessage};
/// let mut message = SdsMessage::default();
/// message.message_id = "m1".into();
/// let mut pending = PendingHistory::default();
/// pending.append(Arc::new(message));
/// pending.evict("m1".into());
/// assert!(pending.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PendingHistory {
    append: Sequence<Append>,
    evict: Sequence<()>,
}

#[derive(Clone, Debug, PartialEq)]
struct Append {
    message: Arc<SdsMessage>,
    /// Whether something may be stored under its id, so that an evict has something to do.
    may_be_stored: bool,
}

/// What a failed commit may have left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedCommit {
    /// Nothing: it was all or nothing, and it is known to have failed.
    LeftNothing,
    /// Some or all of it.
    MayHaveWritten,
}

impl PendingHistory {
    /// Adds a message that the history does not have; O(1), amortised. To store one over another of its id, evict the
    /// other first.
    pub fn append(&mut self, message: Arc<SdsMessage>) {
        let id = &message.message_id;
        let was_evicted = self.evict.remove(id.as_bytes()).is_some();
        let was_appended = self.append.remove(id.as_bytes());
        let may_be_stored = was_evicted || was_appended.is_some_and(|append| append.may_be_stored);
        self.append.push(id.clone(), Append { message, may_be_stored });
    }

    /// Takes a message away; O(1), amortised.
    pub fn evict(&mut self, id: MessageId) {
        if self.append.remove(id.as_bytes()).is_none_or(|append| append.may_be_stored) {
            self.evict.push(id, ());
        }
    }

    /// Adds what came later; O(1), amortised, per change in it.
    pub fn merge(&mut self, later: PendingHistory) {
        // No id is in both lists, so their order does not matter.
        for (id, ()) in later.evict.into_iter() {
            self.evict(id);
        }
        for (_, Append { message, may_be_stored }) in later.append.into_iter() {
            let id = message.message_id.clone();
            self.append(message);
            if may_be_stored && let Some(append) = self.append.get_mut(id.as_bytes()) {
                append.may_be_stored = true;
            }
        }
    }

    /// Puts these changes on top of those of a commit that failed.
    #[must_use]
    pub fn over(self, mut older: PendingHistory, failed: FailedCommit) -> Self {
        if failed == FailedCommit::MayHaveWritten {
            for (_, append) in older.append.iter_mut() {
                append.may_be_stored = true;
            }
        }
        older.merge(self);
        older
    }

    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.append.is_empty() && self.evict.is_empty()
    }

    /// How many messages are to be appended and evicted.
    pub fn len(&self) -> usize {
        self.append.len() + self.evict.len()
    }

    /// The update as adapters take it.
    pub fn to_update(&self) -> HistoryUpdate {
        let append = self.append.iter().map(|(_, append)| SdsMessage::clone(&append.message)).collect();
        HistoryUpdate { append, evict: self.evict.iter().map(|(id, ())| id.clone()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn message(id: u8, timestamp: i64) -> Arc<SdsMessage> {
        let message_id = MessageId::from(format!("m{id}"));
        Arc::new(SdsMessage { message_id, lamport_timestamp: timestamp, ..SdsMessage::default() })
    }

    fn save(stored: &mut BTreeMap<MessageId, i64>, update: &HistoryUpdate) {
        stored.extend(update.append.iter().map(|message| (message.message_id.clone(), message.lamport_timestamp)));
        for id in &update.evict {
            stored.remove(id);
        }
    }

    #[test]
    fn an_evict_of_what_may_be_stored_is_kept_and_an_append_cancels_it() {
        let mut pending = PendingHistory::default();
        pending.evict("m1".into());
        pending.append(message(1, 1));
        assert_eq!(pending.to_update(), HistoryUpdate::new(vec![SdsMessage::clone(&message(1, 1))], vec![]));
        pending.evict("m1".into());
        assert_eq!(pending.to_update(), HistoryUpdate::new(vec![], vec!["m1".into()]));
    }

    #[test]
    fn a_commit_that_failed_for_certain_leaves_nothing_to_evict_and_another_may() {
        for (failed, evicts) in [(FailedCommit::LeftNothing, 0), (FailedCommit::MayHaveWritten, 1)] {
            let mut older = PendingHistory::default();
            older.append(message(1, 1));
            let mut pending = PendingHistory::default().over(older, failed);
            assert_eq!(pending.to_update().append.len(), 1);
            pending.evict("m1".into());
            assert_eq!(pending.len(), evicts, "{failed:?}");
        }
    }

    proptest! {
        /// Whatever is appended and evicted, and whichever commits fail or half succeed, the store ends up with what
        /// the history has.
        #[test]
        fn once_saved_the_store_has_what_memory_has(
            steps in prop::collection::vec((0_u8..8, 0_u8..6, any::<bool>()), 0..200)
        ) {
            let (mut memory, mut stored) = (BTreeMap::new(), BTreeMap::new());
            let (mut pending, mut in_flight) = (PendingHistory::default(), None::<PendingHistory>);
            for (time, (step, id, half)) in (1_i64..).zip(steps) {
                let new = message(id, time);
                match step {
                    0..=2 => {
                        let mut operation = PendingHistory::default();
                        if memory.insert(new.message_id.clone(), time).is_some() {
                            operation.evict(new.message_id.clone());
                        }
                        operation.append(new);
                        pending.merge(operation);
                    }
                    3 | 4 => {
                        if memory.remove(&new.message_id).is_some() {
                            let mut operation = PendingHistory::default();
                            operation.evict(new.message_id.clone());
                            pending.merge(operation);
                        }
                    }
                    5 => in_flight = in_flight.or_else(|| Some(std::mem::take(&mut pending))),
                    6 => {
                        if let Some(captured) = in_flight.take() {
                            save(&mut stored, &captured.to_update());
                        }
                    }
                    _ => {
                        if let Some(captured) = in_flight.take() {
                            let failed = if half {
                                save(&mut stored, &HistoryUpdate::new(captured.to_update().append, vec![]));
                                FailedCommit::MayHaveWritten
                            } else {
                                FailedCommit::LeftNothing
                            };
                            pending = pending.over(captured, failed);
                        }
                    }
                }
                let update = pending.to_update();
                prop_assert!(update.append.len() <= memory.len(), "appends outgrew the history");
                prop_assert!(update.append.iter().all(|message| !update.evict.contains(&message.message_id)));
            }
            if let Some(captured) = in_flight {
                save(&mut stored, &captured.to_update());
            }
            save(&mut stored, &pending.to_update());
            prop_assert_eq!(stored, memory);
        }
    }
}
