//! A channel's state, and what of it is unsaved: shared by its actor, which changes it, and the persister, which captures
//! it without a message. It outlives the actor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use crate::base::error::{Error, Result};
use crate::base::name::{ChannelId, MessageId, Subject};
use crate::persistence::{Captured, Cell, Save};
use crate::sds::{ChannelData, ChannelMeta, ChannelState, Effects, FailedCommit, Now, PendingHistory};

/// A channel's state with its unsaved changes.
#[derive(Debug)]
pub(crate) struct ChannelCell {
    subject: Subject,
    id: ChannelId,
    /// Poisoned by a panic inside an operation: the state may be torn then, and is loaded anew.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: ChannelState,
    /// Counts what has happened to the state, saved or not.
    operations: u64,
    /// Set while the channel is being ended: what a transaction applied now might not be saved any more.
    sealed: bool,
    revision: u64,
    /// Changes since the last capture.
    waiting: Unsaved,
    /// In flight.
    captured: Option<Unsaved>,
    /// Written, but not synced.
    handed: Option<Unsaved>,
}

/// Changes that add up until they are saved. Meta is complete in itself, so that only its change is noted.
#[derive(Clone, Debug, Default)]
struct Unsaved {
    meta: bool,
    history: PendingHistory,
    /// The newest per message; an empty one is to be deleted.
    hints: HashMap<MessageId, Bytes>,
}

impl Unsaved {
    fn is_empty(&self) -> bool {
        !self.meta && self.history.is_empty() && self.hints.is_empty()
    }

    fn add(&mut self, effects: Effects) {
        self.meta |= effects.meta_changed;
        self.history.merge(effects.history);
        self.hints.extend(effects.hints);
    }

    /// These changes on top of older ones of a commit that did not succeed.
    fn over(self, older: Self, failed: FailedCommit) -> Self {
        let mut hints = older.hints;
        hints.extend(self.hints);
        Self { meta: self.meta || older.meta, history: self.history.over(older.history, failed), hints }
    }

    fn bytes(&self) -> usize {
        64 + 256 * self.history.len()
    }
}

/// What an operation did, beyond its answer.
#[derive(Debug)]
pub(crate) struct Done {
    /// The channel's revision after it.
    pub(crate) revision: u64,
    /// Estimated bytes to save; none where nothing is.
    pub(crate) unsaved: Option<usize>,
    /// Events to raise.
    pub(crate) events: Vec<crate::sds::ChannelEvent>,
}

impl ChannelCell {
    pub(crate) fn new(id: ChannelId, state: ChannelState) -> Self {
        let waiting = Unsaved::default();
        let inner = Inner { state, operations: 0, sealed: false, revision: 0, waiting, captured: None, handed: None };
        Self { subject: Subject::Channel(id.clone()), id, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Inner>> {
        let lost = |_| Error::permanent("an operation on a torn channel", std::io::Error::other("it panicked before"));
        self.inner.lock().map_err(lost)
    }

    /// Whether an operation panicked half-way.
    pub(crate) fn is_torn(&self) -> bool {
        self.inner.is_poisoned()
    }

    /// One operation, as a whole: it changes the state and notes what is unsaved. No await is inside, so that a kill never
    /// finds it half done.
    ///
    /// # Errors
    /// The operation's own: then nothing has changed.
    pub(crate) fn operate<T>(
        &self,
        operation: impl FnOnce(&mut ChannelState) -> Result<(T, Effects)>,
    ) -> Result<(T, Done)> {
        let mut inner = self.lock()?;
        let (answer, effects) = operation(&mut inner.state)?;
        inner.operations += 1;
        Ok((answer, inner.note(effects)))
    }

    /// What is due by now; none where the channel is being ended, or nothing is due.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn tick(&self, now: Now, fresh_id: impl FnOnce() -> MessageId) -> Result<Option<Done>> {
        let mut inner = self.lock()?;
        if inner.sealed {
            return Ok(None);
        }
        let effects = inner.state.tick(now, fresh_id);
        if effects.events.is_empty() && effects.saves_nothing() {
            return Ok(None);
        }
        inner.operations += 1;
        Ok(Some(inner.note(effects)))
    }

    /// When the next tick is due; none where there is none, or nobody may make it.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn next_due(&self) -> Result<Option<i64>> {
        let inner = self.lock()?;
        Ok(if inner.sealed { None } else { inner.state.next_due() })
    }

    /// What is read, with the revision that has to be saved before it may leave.
    ///
    /// # Errors
    /// The state is torn.
    pub(crate) fn read_with_revision<T>(&self, read: impl FnOnce(&ChannelState) -> T) -> Result<(T, u64)> {
        let inner = self.lock()?;
        Ok((read(&inner.state), inner.revision))
    }

    /// Notes what loading changed.
    pub(crate) fn note(&self, effects: Effects) -> Result<Done> {
        Ok(self.lock()?.note(effects))
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&ChannelState) -> T) -> Result<T> {
        Ok(read(&self.lock()?.state))
    }

    /// A copy of the state for a transaction, and how many operations it has behind it.
    pub(crate) fn draft(&self) -> Result<(ChannelState, u64)> {
        let inner = self.lock()?;
        Ok((inner.state.clone(), inner.operations))
    }

    /// How many operations the state has behind it; none where no transaction may change it.
    pub(crate) fn operations(&self) -> Option<u64> {
        let inner = self.lock().ok()?;
        (!inner.sealed).then_some(inner.operations)
    }

    /// Locks the state for a transaction whose draft is of so many operations; none where it is not that state any more.
    pub(crate) fn applying(&self, operations: u64) -> Option<Applying<'_>> {
        // One that is torn is loaded anew.
        let inner = self.lock().ok()?;
        (!inner.sealed && inner.operations == operations).then_some(Applying(inner))
    }

    /// From now on, no transaction changes the channel; or again they do.
    pub(crate) fn seal(&self, sealed: bool) {
        self.settle(|inner| inner.sealed = sealed);
    }

    /// Everything is to be written again: it may be gone from the disk.
    pub(crate) fn resave(&self) -> Result<Done> {
        let mut inner = self.lock()?;
        let mut effects = Effects { meta_changed: true, ..Effects::default() };
        inner.state.history().into_iter().for_each(|message| effects.history.append(message));
        effects.hints = inner.state.hints().map(|(id, hint)| (id.clone(), hint.clone())).collect();
        Ok(inner.note(effects))
    }

    /// Puts a state that was loaded anew in the place of a torn one. What was unsaved of history and hints is put over
    /// it, and what the torn one still tells of the rest, so that nothing that was answered is lost: at worst, what was
    /// done since the last save is told or sent once more.
    ///
    /// # Errors
    /// What loading finds wrong with the data.
    pub(crate) fn mend(
        &self,
        load: impl FnOnce(ChannelData) -> Result<(ChannelState, Effects)>,
        stored: ChannelData,
    ) -> Result<Done> {
        let mut inner = match self.inner.lock() {
            Ok(inner) => inner,
            Err(torn) => torn.into_inner(),
        };
        let mut data = stored;
        // The state is read only, and whatever it tells is put in order by loading it.
        if let Ok(torn) = catch_unwind(AssertUnwindSafe(|| inner.state.meta())) {
            salvage(torn, &mut data.meta);
        }
        let mut hints: HashMap<MessageId, Bytes> = data.hints.into_iter().collect();
        for unsaved in [inner.handed.as_ref(), inner.captured.as_ref(), Some(&inner.waiting)].into_iter().flatten() {
            let update = unsaved.history.to_update();
            data.message_history.retain(|message| !update.evict.contains(&message.message_id));
            data.message_history.extend(update.append);
            hints.extend(unsaved.hints.iter().map(|(id, hint)| (id.clone(), hint.clone())));
        }
        hints.retain(|_, hint| !hint.is_empty());
        data.hints = hints.into_iter().collect();
        let (state, effects) = load(data)?;
        inner.state = state;
        inner.operations += 1;
        // What is stored may be older than what was made of the torn state.
        let done = inner.note(Effects { meta_changed: true, ..effects });
        drop(inner);
        self.inner.clear_poison();
        Ok(done)
    }
}

/// Adds what a torn state tells to what is stored, which the former goes before: no message is left out that either has.
fn salvage(torn: ChannelMeta, stored: &mut ChannelMeta) {
    fn add<T>(to: &mut Vec<T>, more: Vec<T>, id: impl Fn(&T) -> &MessageId) {
        let have: HashSet<MessageId> = to.iter().map(|one| id(one).clone()).collect();
        to.extend(more.into_iter().filter(|one| !have.contains(id(one))));
    }
    let ChannelMeta { lamport_timestamp, outgoing, incoming, outgoing_repair, incoming_repair, .. } = torn;
    stored.lamport_timestamp = stored.lamport_timestamp.max(lamport_timestamp);
    let old = std::mem::replace(&mut stored.outgoing, outgoing);
    add(&mut stored.outgoing, old, |one| &one.message.message_id);
    // In order of sending.
    stored.outgoing.sort_by_key(|one| one.message.lamport_timestamp);
    let old = std::mem::replace(&mut stored.incoming, incoming);
    add(&mut stored.incoming, old, |one| &one.message.message_id);
    let old = std::mem::replace(&mut stored.outgoing_repair, outgoing_repair);
    add(&mut stored.outgoing_repair, old, |one| &one.entry.message_id);
    // What has been answered is not answered again.
    stored.incoming_repair = incoming_repair;
}

/// The state, locked for a transaction.
#[derive(Debug)]
pub(crate) struct Applying<'a>(MutexGuard<'a, Inner>);

impl Applying<'_> {
    /// Puts a transaction's draft in the state's place. `unsaved` is told the revision and the estimated bytes of what is
    /// to be saved, with the state still locked: whoever ends the channel next finds that there is something to save.
    pub(crate) fn apply(mut self, state: ChannelState, effects: Effects, unsaved: impl FnOnce(u64, usize)) -> Done {
        self.0.state = state;
        self.0.operations += 1;
        let done = self.0.note(effects);
        if let Some(bytes) = done.unsaved {
            unsaved(done.revision, bytes);
        }
        done
    }
}

impl Inner {
    fn note(&mut self, mut effects: Effects) -> Done {
        let events = std::mem::take(&mut effects.events);
        let unsaved = if effects.saves_nothing() {
            None
        } else {
            let before = self.waiting.history.len();
            self.waiting.add(effects);
            self.revision += 1;
            Some(64 + 256 * self.waiting.history.len().saturating_sub(before))
        };
        Done { revision: self.revision, unsaved, events }
    }
}

impl Cell for ChannelCell {
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn capture(&self) -> Captured {
        // Of a torn state its meta cannot be told, and without it what was parked or sent would be lost by a crash: nothing
        // is written before the state is mended. The lists of unsaved changes are whole: operations only add to them at
        // their end.
        let (mut inner, torn) = match self.inner.lock() {
            Ok(inner) => (inner, false),
            Err(error) => (error.into_inner(), true),
        };
        let changes = std::mem::take(&mut inner.waiting);
        let (revision, bytes) = (inner.revision, changes.bytes());
        if changes.is_empty() {
            return Captured { revision, bytes: 0, saves: Vec::new(), torn: false };
        }
        if torn && changes.meta {
            inner.captured = Some(changes);
            return Captured { revision, bytes: 0, saves: Vec::new(), torn };
        }
        let id = &self.id;
        let mut saves = Vec::with_capacity(2);
        // An adapter without atomicity gets the update first: a lost meta can be mended at load, a lost update cannot.
        if !changes.history.is_empty() {
            saves.push(Save::History(id.clone(), Arc::new(changes.history.to_update())));
        }
        if changes.meta {
            saves.push(Save::ChannelMeta(id.clone(), Arc::new(inner.state.meta())));
        }
        let hints = changes.hints.iter();
        saves.extend(hints.map(|(message, hint)| Save::Hint(id.clone(), message.clone(), hint.clone())));
        inner.captured = Some(changes);
        Captured { revision, bytes, saves, torn: false }
    }

    fn saved(&self) {
        self.settle(|inner| {
            inner.captured = None;
            inner.handed = None;
        });
    }

    fn handed(&self) {
        self.settle(|inner| {
            if let Some(captured) = inner.captured.take() {
                inner.handed = Some(match inner.handed.take() {
                    Some(older) => captured.over(older, FailedCommit::MayHaveWritten),
                    None => captured,
                });
            }
        });
    }

    fn restore(&self) {
        self.settle(|inner| {
            let parts = [inner.handed.take(), inner.captured.take(), Some(std::mem::take(&mut inner.waiting))];
            let sum =
                parts.into_iter().flatten().reduce(|older, newer| newer.over(older, FailedCommit::MayHaveWritten));
            inner.waiting = sum.unwrap_or_default();
        });
    }
}

impl ChannelCell {
    fn settle(&self, change: impl FnOnce(&mut Inner)) {
        match self.inner.lock() {
            Ok(mut inner) => change(&mut inner),
            Err(mut torn) => change(torn.get_mut()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sds::{ChannelOptions, HistoryEntry, SdsMessage, WireFormat, encode};

    fn load(data: ChannelData) -> Result<(ChannelState, Effects)> {
        ChannelState::load(ChannelId::new("c")?, ChannelOptions::default(), data, 1_000)
    }

    fn wrap(cell: &ChannelCell, id: &str) {
        let content = Bytes::from_static(b"x");
        let id = MessageId::from(id);
        cell.operate(|state| state.wrap(id, content, 1_000)).unwrap();
    }

    #[test]
    fn a_torn_state_is_loaded_anew_and_no_unsaved_message_is_lost() {
        let (state, _effects) = load(ChannelData::default()).unwrap();
        let cell = ChannelCell::new(ChannelId::new("c").unwrap(), state);
        wrap(&cell, "in flight");
        assert_eq!(cell.capture().saves.len(), 2, "an update and a meta");
        wrap(&cell, "waiting");
        let torn = catch_unwind(AssertUnwindSafe(|| cell.operate::<()>(|_| panic!("a mistake of ours"))));
        assert!(torn.is_err() && cell.is_torn());
        assert!(
            cell.operate(|state| state.set_hint("waiting", Bytes::new())).is_err(),
            "nothing goes on with a torn state"
        );
        cell.restore();
        let captured = cell.capture();
        assert!(captured.torn && captured.saves.is_empty(), "not by halves");
        cell.restore();
        cell.restore();
        cell.mend(load, ChannelData::default()).unwrap();
        assert!(!cell.is_torn());
        let history = cell.read(ChannelState::history).unwrap();
        let ids: Vec<_> = history.iter().map(|message| message.message_id.as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, ["in flight", "waiting"]);
        assert_eq!(cell.capture().saves.len(), 2, "both are written again");
    }

    /// A packet of a peer's that names a cause nobody has.
    fn parked(cell: &ChannelCell, id: &str) {
        let message = SdsMessage {
            message_id: id.into(),
            causal_history: vec![HistoryEntry::new("a cause that never came")],
            channel_id: Bytes::from_static(b"c"),
            content: Bytes::from_static(b"x"),
            ..SdsMessage::default()
        };
        let packet = encode(WireFormat::NimSds, &message);
        cell.operate(|state| state.receive(&packet, 1_000)).unwrap();
    }

    #[test]
    fn what_was_sent_parked_and_hinted_at_before_a_tear_is_there_after_it_saved_or_not() {
        for saved in [false, true] {
            let (state, _effects) = load(ChannelData::default()).unwrap();
            let cell = ChannelCell::new(ChannelId::new("c").unwrap(), state);
            wrap(&cell, "first");
            parked(&cell, "p");
            cell.operate(|state| state.set_hint("first", Bytes::from_static(b"here"))).unwrap();
            let mut stored = ChannelData::default();
            if saved {
                stored.meta = cell.read(ChannelState::meta).unwrap();
                stored.message_history =
                    cell.read(ChannelState::history).unwrap().iter().map(|m| (**m).clone()).collect();
                stored.hints = vec![("first".into(), Bytes::from_static(b"here"))];
                cell.capture();
                cell.saved();
            }
            wrap(&cell, "second");
            cell.operate(|state| state.set_hint("second", Bytes::from_static(b"there"))).unwrap();
            cell.operate(|state| state.set_hint("first", Bytes::new())).unwrap();
            let before = cell.read(ChannelState::meta).unwrap();
            let torn = catch_unwind(AssertUnwindSafe(|| cell.operate::<()>(|_| panic!("a mistake of ours"))));
            assert!(torn.is_err());
            // Saving is tried meanwhile, and writes nothing by halves.
            let captured = cell.capture();
            assert!(captured.torn && captured.saves.is_empty());
            cell.restore();
            cell.mend(load, stored).unwrap();
            let after = cell.read(ChannelState::meta).unwrap();
            let ids = |meta: &ChannelMeta| -> Vec<MessageId> {
                meta.outgoing.iter().map(|one| one.message.message_id.clone()).collect()
            };
            assert_eq!(ids(&after), ["first", "second"], "saved: {saved}");
            assert_eq!(after, before, "saved: {saved}");
            let hints: Vec<_> = cell.read(|state| state.hints().map(|(id, _)| id.clone()).collect()).unwrap();
            assert_eq!(hints, ["second"], "saved: {saved}");
            assert!(
                cell.capture().saves.iter().any(|save| matches!(save, Save::ChannelMeta(..))),
                "it is written again"
            );
        }
    }

    #[test]
    fn hints_that_were_never_saved_outlive_a_tear() {
        let (state, _effects) = load(ChannelData::default()).unwrap();
        let cell = ChannelCell::new(ChannelId::new("c").unwrap(), state);
        for id in ["in flight", "waiting", "taken back"] {
            wrap(&cell, id);
            cell.operate(|state| state.set_hint(id, Bytes::from_static(b"here"))).unwrap();
            if id == "in flight" {
                cell.capture();
            }
        }
        cell.operate(|state| state.set_hint("taken back", Bytes::new())).unwrap();
        let torn = catch_unwind(AssertUnwindSafe(|| cell.operate::<()>(|_| panic!("a mistake of ours"))));
        assert!(torn.is_err());
        cell.mend(load, ChannelData::default()).unwrap();
        let mut hints: Vec<_> = cell.read(|state| state.hints().map(|(id, _)| id.clone()).collect()).unwrap();
        hints.sort_unstable();
        assert_eq!(hints, ["in flight", "waiting"]);
    }

    #[test]
    fn what_was_captured_stays_until_its_outcome_is_known() {
        let (state, _effects) = load(ChannelData::default()).unwrap();
        let cell = ChannelCell::new(ChannelId::new("c").unwrap(), state);
        wrap(&cell, "a");
        cell.capture();
        cell.handed();
        wrap(&cell, "b");
        cell.capture();
        cell.restore();
        let again = cell.capture();
        assert!(matches!(&again.saves[0], Save::History(_, update) if update.append.len() == 2));
        cell.saved();
        assert!(cell.capture().saves.is_empty());
    }
}
