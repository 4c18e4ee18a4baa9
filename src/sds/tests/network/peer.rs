//! A peer: its channel, what it has on disk, and an application that takes what is delivered.

use std::collections::HashSet;

use super::super::Stored;
use super::super::model::check_invariants;
use crate::base::name::MessageId;
use crate::sds::{ChannelEvent, ChannelOptions, ChannelState, Effects, Now, SdsMessage};

/// What a peer does with its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saving {
    /// Nothing leaves before what it reveals is saved.
    Durable,
    /// Saved some time later; a crash loses the rest.
    Lazy,
}

pub(super) struct Peer {
    pub(super) options: ChannelOptions,
    pub(super) saving: Saving,
    /// None while it is down.
    pub(super) state: Option<ChannelState>,
    stored: Stored,
    unsaved: Effects,
    /// What the application has taken: own messages and delivered ones. It is saved with the channel.
    log: Vec<SdsMessage>,
    taken: HashSet<MessageId>,
    waived: HashSet<MessageId>,
    saved_log: usize,
    /// Its wall clock against the world's.
    pub(super) offset_ms: i64,
    /// When its process began, by the world's time.
    begun_ms: i64,
    /// Counts its lives, so that the timers of one do not wake the next.
    pub(super) life: u64,
    pub(super) wake_ms: Option<i64>,
    pub(super) wrapped: u64,
    operations: u64,
}

/// One of so many operations is looked at closely.
const SAMPLE: u64 = 16;

impl Peer {
    pub(super) fn new(options: ChannelOptions, saving: Saving, offset_ms: i64) -> Self {
        let mut peer = Self {
            options,
            saving,
            state: None,
            stored: Stored::default(),
            unsaved: Effects::default(),
            log: Vec::new(),
            taken: HashSet::new(),
            waived: HashSet::new(),
            saved_log: 0,
            offset_ms,
            begun_ms: 0,
            life: 0,
            wake_ms: None,
            wrapped: 0,
            operations: 0,
        };
        assert!(peer.start(0).is_empty());
        peer
    }

    pub(super) fn now(&self, world_ms: i64) -> Now {
        Now::new(super::super::NOW + world_ms + self.offset_ms, world_ms - self.begun_ms)
    }

    /// When it wants to be woken, by the world's time.
    pub(super) fn next_due(&self) -> Option<i64> {
        Some(self.state.as_ref()?.next_due()? + self.begun_ms)
    }

    /// Comes up from what it saved; answers what it raised.
    pub(super) fn start(&mut self, world_ms: i64) -> Vec<ChannelEvent> {
        (self.begun_ms, self.life, self.wake_ms) = (world_ms, self.life + 1, None);
        // An application that died between commit and event reads the history when it starts.
        if self.saving == Saving::Durable {
            let mut history: Vec<_> = self.stored.messages.values().cloned().collect();
            history.sort_by(|a, b| (a.lamport_timestamp, &a.message_id).cmp(&(b.lamport_timestamp, &b.message_id)));
            history.retain(|message| !self.taken.contains(&message.message_id));
            history.into_iter().for_each(|message| self.take(message));
        }
        let (state, mut effects) = self.stored.load_at(&self.options, self.now(world_ms));
        self.state = Some(state);
        let events = std::mem::take(&mut effects.events);
        self.note(effects);
        self.save();
        self.consume(&events);
        events
    }

    /// Loses what it has not saved.
    pub(super) fn crash(&mut self) {
        if self.unsaved == Effects::default() {
            self.stored.assert_complete(self.state.as_ref().unwrap());
        }
        self.state = None;
        self.unsaved = Effects::default();
        if self.saving == Saving::Lazy {
            self.log.truncate(self.saved_log);
            self.taken = self.log.iter().map(|message| message.message_id.clone()).collect();
        }
    }

    /// Notes what an operation did; answers its events.
    pub(super) fn settle(&mut self, mut effects: Effects) -> Vec<ChannelEvent> {
        self.operations += 1;
        if self.operations.is_multiple_of(SAMPLE) {
            check_invariants(self.state.as_ref().unwrap());
        }
        let events = std::mem::take(&mut effects.events);
        self.note(effects);
        events
    }

    fn note(&mut self, effects: Effects) {
        self.unsaved.meta_changed |= effects.meta_changed;
        self.unsaved.history.merge(effects.history);
        self.unsaved.hints.extend(effects.hints);
    }

    pub(super) fn save(&mut self) {
        let Some(state) = &self.state else { return };
        let unsaved = std::mem::take(&mut self.unsaved);
        self.stored.save(state, &unsaved);
        if self.operations.is_multiple_of(SAMPLE) {
            self.stored.assert_complete(state);
        }
        self.saved_log = self.log.len();
    }

    /// The application takes what is delivered.
    pub(super) fn consume(&mut self, events: &[ChannelEvent]) {
        for event in events {
            if let ChannelEvent::Ready { message } = event {
                self.take(SdsMessage::clone(message));
            }
        }
        if self.saving == Saving::Durable {
            self.saved_log = self.log.len();
        }
    }

    /// Exactly once, causes first.
    pub(super) fn take(&mut self, message: SdsMessage) {
        let id = &message.message_id;
        for cause in &message.causal_history {
            let known = self.taken.contains(&cause.message_id) || self.waived.contains(&cause.message_id);
            assert!(known, "{:?}: {id} before its cause {}", self.options.participant, cause.message_id);
        }
        assert!(self.taken.insert(id.clone()), "{id} twice");
        self.log.push(message);
    }

    /// What it waits for and nobody among `held` has.
    pub(super) fn hopeless(&self, held: &HashSet<MessageId>) -> Vec<MessageId> {
        let missing = self.state.as_ref().map(ChannelState::missing).unwrap_or_default();
        missing.into_iter().filter(|id| !held.contains(id)).collect()
    }

    /// What it has in any form: all that it has taken, or, where histories forget, what is left of it.
    pub(super) fn holds(&self, forgetful: bool) -> impl Iterator<Item = MessageId> {
        let meta = self.state.as_ref().map(ChannelState::meta).unwrap_or_default();
        let parked = meta.incoming.into_iter().map(|incoming| incoming.message.message_id);
        let outgoing = meta.outgoing.into_iter().map(|outgoing| outgoing.message.message_id);
        let history = self.state.as_ref().map(ChannelState::history).unwrap_or_default();
        let history = history.into_iter().map(|message| message.message_id.clone());
        let taken = self.taken.iter().filter(move |_| !forgetful).cloned();
        taken.chain(history).chain(parked).chain(outgoing)
    }

    /// The application gives causes up.
    pub(super) fn waive(&mut self, ids: Vec<MessageId>, world_ms: i64) -> Effects {
        self.waived.extend(ids.iter().cloned());
        let now = self.now(world_ms);
        self.state.as_mut().unwrap().mark_dependencies_met(ids, now).unwrap()
    }

    pub(super) fn has_taken(&self) -> &HashSet<MessageId> {
        &self.taken
    }

    /// Nothing is held back, and its history is what its application has.
    pub(super) fn is_settled(&self) -> bool {
        self.state.as_ref().is_some_and(|state| {
            let stats = state.stats();
            let kept = self.log.len().min(self.options.max_history);
            (stats.parked, stats.missing, stats.requests) == (0, 0, 0) && stats.history == kept
        })
    }
}
