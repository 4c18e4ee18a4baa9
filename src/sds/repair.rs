//! Asking peers for what is missing, and answering them (SDS-R, <https://rfc.vac.dev/vac/raw/sds>): who asks and answers
//! when follows from hashes, so that peers spread without talking about it.

use std::collections::BTreeMap;

use crate::base::name::{MessageId, ParticipantId};
use crate::sds::effects::Changes;
use crate::sds::hash::hash;
use crate::sds::message::HistoryEntry;
use crate::sds::meta::{ChannelMeta, IncomingRepairEntry, OutgoingRepairEntry};
use crate::sds::options::ChannelOptions;
use crate::sds::sequence::Sequence;
use crate::sds::state::ChannelState;
use crate::sds::time::{Agenda, Now, whole_ms};
use crate::sds::timer::{BATCH, BATCH_BYTES};
use crate::sds::wire::{Entry, encode, own_entries};

/// How many requests one message of a peer's brings back to life.
const ASKED_ANEW: usize = 16;

/// |H(a ++ b)|.
fn joint(a: &ParticipantId, b: &[u8]) -> u64 {
    hash(&[a.as_bytes(), b].concat()).unsigned_abs()
}

/// The formulas, of a channel's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RepairTiming {
    min_ms: u64,
    max_ms: u64,
    groups: u64,
}

impl RepairTiming {
    pub(crate) fn of(options: &ChannelOptions) -> Self {
        let ms = |duration| whole_ms(duration).cast_unsigned();
        Self {
            min_ms: ms(options.repair_t_min),
            max_ms: ms(options.repair_t_max),
            groups: options.response_groups.into(),
        }
    }

    /// How long a participant waits before it asks: T_min if T_max is no later, else T_min + |H(p ++ m)| mod (T_max −
    /// T_min).
    pub(crate) fn request_ms(self, participant: &ParticipantId, message: &[u8]) -> i64 {
        let span = self.max_ms.saturating_sub(self.min_ms);
        let spread = joint(participant, message).checked_rem(span).unwrap_or(0);
        i64::try_from(self.min_ms.saturating_add(spread)).unwrap_or(i64::MAX)
    }

    /// How long a participant waits before it answers: ((D mod T_max) · (|H(m)| mod T_max)) mod T_max, where D = |H(p)
    /// xor H(s)| is its distance from the author; 0 where T_max is. The author, at distance 0, answers first.
    pub(crate) fn response_ms(self, participant: &ParticipantId, author: &ParticipantId, message: &[u8]) -> i64 {
        let distance = (hash(participant.as_bytes()) ^ hash(author.as_bytes())).unsigned_abs();
        let rem = |number: u64| u128::from(number.checked_rem(self.max_ms).unwrap_or(0));
        let product = rem(distance) * rem(hash(message).unsigned_abs());
        let delay = product.checked_rem(self.max_ms.into()).unwrap_or(0);
        i64::try_from(delay).unwrap_or(i64::MAX)
    }

    /// A participant's group for a message.
    pub(crate) fn group(self, participant: &ParticipantId, message: &[u8]) -> u64 {
        joint(participant, message).checked_rem(self.groups).unwrap_or(0)
    }

    /// Whether a participant answers for an author: those in the author's group do.
    pub(crate) fn answers(self, participant: &ParticipantId, author: &ParticipantId, message: &[u8]) -> bool {
        self.groups <= 1 || self.group(participant, message) == self.group(author, message)
    }

    pub(crate) fn max_ms(self) -> i64 {
        i64::try_from(self.max_ms).unwrap_or(i64::MAX)
    }
}

/// A message that this peer asks for.
#[derive(Clone, Debug, PartialEq)]
struct Request {
    entry: HistoryEntry,
    due: Now,
    expires: Now,
    /// Whether it has been attached to a message. Not saved: a restart may give it another turn.
    attached: bool,
}

/// A message that this peer was asked for.
#[derive(Clone, Debug, PartialEq)]
struct Response {
    entry: HistoryEntry,
    due: Now,
}

/// Both buffers. Invariants: nothing that is asked for is known or parked, and everything to be answered is in the
/// history; each entry is in its agendas exactly once, at its times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Repairs {
    requests: BTreeMap<MessageId, Request>,
    requests_due: Agenda<MessageId>,
    requests_end: Agenda<MessageId>,
    /// What is still waited for though nobody asks for it any more, or does yet: the request came to its end, there was no
    /// room for it, or it was parked here and has expired. Not saved, for it follows from what is parked.
    pub(crate) unasked: Sequence<()>,
    /// When a message last went out that carried requests or could have.
    asked_ms: Option<i64>,
    responses: BTreeMap<MessageId, Response>,
    responses_due: Agenda<MessageId>,
}

impl Repairs {
    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn responses(&self) -> usize {
        self.responses.len()
    }

    /// When the first request may be attached.
    pub(crate) fn first_request(&self) -> Option<i64> {
        self.requests_due.first()
    }

    /// When the repair sweep has something to do: a response is due, or a request is past its end.
    pub(crate) fn first_sweep(&self) -> Option<i64> {
        let past_end = self.requests_end.first().map(|end| end.saturating_add(1));
        self.responses_due.first().into_iter().chain(past_end).min()
    }

    fn request(&mut self, entry: HistoryEntry, due: Now, expires: Now) {
        let id = entry.message_id.clone();
        self.requests_due.insert(due.monotonic_ms, id.clone());
        self.requests_end.insert(expires.monotonic_ms, id.clone());
        self.requests.insert(id, Request { entry, due, expires, attached: false });
    }

    fn end_request(&mut self, id: &[u8]) -> bool {
        let Some((id, request)) = self.requests.remove_entry(id) else { return false };
        self.requests_due.remove(request.due.monotonic_ms, id.clone());
        self.requests_end.remove(request.expires.monotonic_ms, id);
        true
    }

    /// Keeps a request until then.
    fn prolong(&mut self, id: &MessageId, expires: Now) {
        let Some(request) = self.requests.get_mut(id) else { return };
        self.requests_end.remove(request.expires.monotonic_ms, id.clone());
        request.expires = expires;
        self.requests_end.insert(expires.monotonic_ms, id.clone());
    }

    /// Whether a request was never attached, as others took all places of a message that went out when it was due, within
    /// the last `lifetime_ms` before its end.
    fn was_passed_over(&self, id: &MessageId, lifetime_ms: i64) -> bool {
        self.requests.get(id).zip(self.asked_ms).is_some_and(|(request, asked)| {
            let from = request.expires.monotonic_ms.saturating_sub(lifetime_ms);
            !request.attached && request.due.monotonic_ms.max(from) < asked
        })
    }

    /// Puts a request off.
    fn rearm(&mut self, id: &[u8], due: Now) {
        let Some(request) = self.requests.get_mut(id) else { return };
        let id = request.entry.message_id.clone();
        self.requests_due.remove(request.due.monotonic_ms, id.clone());
        request.due = due;
        self.requests_due.insert(due.monotonic_ms, id);
    }

    /// Attaches a request, which is due again later; answers its entry.
    fn attach(&mut self, id: &[u8], due: Now) -> Option<HistoryEntry> {
        self.requests.get_mut(id)?.attached = true;
        self.rearm(id, due);
        Some(self.requests.get(id)?.entry.clone())
    }

    /// What is not saved is as in another channel of the same requests.
    #[cfg(test)]
    pub(crate) fn resemble(&mut self, other: &Self) {
        (self.unasked, self.asked_ms) = (other.unasked.clone(), other.asked_ms);
        for (id, request) in &mut self.requests {
            request.attached = other.requests.get(id).is_some_and(|other| other.attached);
        }
    }

    fn respond(&mut self, entry: HistoryEntry, due: Now) {
        let id = entry.message_id.clone();
        self.responses_due.insert(due.monotonic_ms, id.clone());
        self.responses.insert(id, Response { entry, due });
    }

    fn end_response(&mut self, id: &[u8]) -> bool {
        let Some((id, response)) = self.responses.remove_entry(id) else { return false };
        self.responses_due.remove(response.due.monotonic_ms, id);
        true
    }

    /// Requests as they are saved, by id.
    pub(crate) fn outgoing(&self) -> impl Iterator<Item = OutgoingRepairEntry> {
        self.requests.values().map(|Request { entry, due, expires, .. }| OutgoingRepairEntry {
            entry: entry.clone(),
            due_ms: due.unix_ms,
            expires_ms: expires.unix_ms,
        })
    }

    /// Responses as they are saved, by id.
    pub(crate) fn incoming(&self) -> impl Iterator<Item = IncomingRepairEntry> {
        self.responses.values().map(|Response { entry, due }| IncomingRepairEntry {
            entry: entry.clone(),
            due_ms: due.unix_ms,
            ..IncomingRepairEntry::default()
        })
    }
}

impl ChannelState {
    /// Nobody in particular neither asks nor answers.
    pub(crate) fn repairs_on(&self) -> bool {
        !self.options.participant.is_empty()
    }

    /// The message is here, or nobody needs it any more, or somebody else has just answered.
    pub(crate) fn end_repairs(&mut self, id: &[u8], changes: &mut Changes) {
        let ended = self.repairs.end_request(id) | self.repairs.end_response(id);
        self.repairs.unasked.remove(id);
        changes.meta_changed |= ended;
    }

    /// Whether any request was past its end. One that others left no place for is kept for its turn, which comes, as those
    /// that are attached are due later than it. Else what has to be asked for first might never be asked for, while what
    /// is asked for instead cannot even be parked.
    fn end_expired(&mut self, now: Now) -> bool {
        let ended = self.repairs.requests_end.due(now.monotonic_ms.saturating_sub(1), usize::MAX);
        for id in &ended {
            let lifetime_ms = self.timing.max_ms();
            if self.repairs.was_passed_over(id, lifetime_ms) {
                self.repairs.prolong(id, now.plus(lifetime_ms));
            } else {
                self.repairs.end_request(id.as_bytes());
                self.note_unasked(id);
            }
        }
        !ended.is_empty()
    }

    /// Nobody asks for it now. If something is parked because of it, it will be asked for when a peer is heard again.
    pub(crate) fn note_unasked(&mut self, id: &MessageId) {
        // No message has the empty id, so nobody could answer.
        if !id.is_empty() && self.parking.wants(id.as_bytes()) {
            self.repairs.unasked.push_within(self.options.max_missing, id.clone());
        }
    }

    /// A peer is there: what is still waited for may be asked for once more, a few at a time. Otherwise what was parked
    /// would stay so for good where a peer could not be heard for as long as a request lasts.
    pub(crate) fn ask_anew(&mut self, now: Now, changes: &mut Changes) {
        for _ in 0..ASKED_ANEW {
            if !self.repairs_on() || self.repairs.requests() >= self.options.max_requests {
                return;
            }
            let Some((id, ())) = self.repairs.unasked.pop_front() else { return };
            if let Some(entry) = self.parking.wanted(id.as_bytes()) {
                self.request(entry, now, changes);
            }
        }
    }

    fn request(&mut self, entry: HistoryEntry, now: Now, changes: &mut Changes) {
        let due = now.plus(self.timing.request_ms(&self.options.participant, entry.message_id.as_bytes()));
        self.repairs.request(entry, due, due.plus(self.timing.max_ms()));
        changes.meta_changed = true;
    }

    /// A message that has left the history cannot be answered for.
    pub(crate) fn end_response(&mut self, id: &[u8], changes: &mut Changes) {
        changes.meta_changed |= self.repairs.end_response(id);
    }

    /// Asks for causes that are missing and not asked for yet, as far as there is room.
    pub(crate) fn request_missing<'a>(
        &mut self,
        missing: impl Iterator<Item = Entry<'a>>,
        now: Now,
        changes: &mut Changes,
    ) {
        if !self.repairs_on() {
            return;
        }
        for entry in missing {
            // No message has the empty id, so nobody could answer.
            if entry.message_id.is_empty() || self.repairs.requests.contains_key(entry.message_id) {
                continue;
            }
            if self.repairs.requests() >= self.options.max_requests {
                self.note_unasked(&MessageId::from(entry.message_id));
                continue;
            }
            self.repairs.unasked.remove(entry.message_id);
            // A copy of its own: what is kept must not keep the memory of all that came with it.
            for entry in own_entries(1, std::iter::once(entry)) {
                self.request(entry, now, changes);
            }
        }
    }

    /// What a peer asks for: we need not ask for the same just now, and may have it.
    pub(crate) fn take_over_requests<'a>(
        &mut self,
        requests: impl Iterator<Item = Entry<'a>>,
        now: Now,
        changes: &mut Changes,
    ) {
        if !self.repairs_on() {
            return;
        }
        let (me, timing) = (&self.options.participant, self.timing);
        for Entry { message_id: id, .. } in requests {
            if self.repairs.requests.contains_key(id) {
                self.repairs.rearm(id, now.plus(timing.request_ms(me, id)));
                changes.meta_changed = true;
                continue;
            }
            // The first deadline stays, else whoever asks often enough is never answered.
            if self.repairs.responses.contains_key(id) || self.repairs.responses() >= self.options.max_responses {
                continue;
            }
            let Some(message) = self.history.get(id) else { continue };
            // The author that we know, not the one that the request names: that could make its victim answer at once.
            let author = &message.sender_id;
            if author.is_empty() || !timing.answers(me, author, id) {
                continue;
            }
            let due = now.plus(timing.response_ms(me, author, id));
            let entry = HistoryEntry {
                message_id: message.message_id.clone(),
                sender_id: author.clone(),
                ..HistoryEntry::default()
            };
            self.repairs.respond(entry, due);
            changes.meta_changed = true;
        }
    }

    /// The requests that go with a message sent now, the earliest first; each is due again later, and held until its end.
    pub(crate) fn attach_requests(&mut self, now: Now, changes: &mut Changes) -> Vec<HistoryEntry> {
        if !self.repairs_on() {
            return Vec::new();
        }
        // One that is past its end is not asked for again, though no sweep has come by since.
        changes.meta_changed |= self.end_expired(now);
        let places = self.options.max_repair_requests;
        if places > 0 {
            self.repairs.asked_ms = Some(now.monotonic_ms);
        }
        let due = self.repairs.requests_due.due(now.monotonic_ms, places);
        let mut attached = Vec::with_capacity(due.len());
        for id in due {
            let next = now.plus(self.timing.request_ms(&self.options.participant, id.as_bytes()));
            attached.extend(self.repairs.attach(id.as_bytes(), next));
        }
        changes.meta_changed |= !attached.is_empty();
        attached
    }

    /// Ends requests that are past their end, and answers what is due.
    pub(crate) fn sweep_repairs(&mut self, now: Now, changes: &mut Changes) {
        changes.meta_changed |= self.end_expired(now);
        let mut made = 0;
        for id in self.repairs.responses_due.due(now.monotonic_ms, BATCH) {
            if made >= BATCH_BYTES {
                return;
            }
            changes.meta_changed = true;
            self.repairs.end_response(id.as_bytes());
            if let Some(message) = self.history.get(id.as_bytes()) {
                // With no filter of ours: we vouch for nobody else's state.
                let bytes = encode(self.options.wire, message);
                made += bytes.len();
                changes.repair(id, bytes);
            }
        }
    }

    /// Takes up what was saved, but requests for what is here and responses for what is not in the history.
    pub(crate) fn load_repairs(&mut self, meta: &ChannelMeta, now: Now) {
        let (me, timing) = (self.options.participant.clone(), self.timing);
        for OutgoingRepairEntry { entry, due_ms, expires_ms } in &meta.outgoing_repair {
            let id = entry.message_id.as_bytes();
            if self.is_known(id) || self.parking.contains(id) || self.repairs.requests.contains_key(id) {
                continue;
            }
            let wait = timing.request_ms(&me, id);
            let expires = now.deadline(*expires_ms, wait.saturating_add(timing.max_ms()));
            self.repairs.request(entry.clone(), now.deadline(*due_ms, wait), expires);
        }
        for IncomingRepairEntry { entry, due_ms, .. } in &meta.incoming_repair {
            let id = entry.message_id.as_bytes();
            let Some(message) = self.history.get(id) else { continue };
            if self.repairs.responses.contains_key(id) {
                continue;
            }
            let due = now.deadline(*due_ms, timing.response_ms(&me, &message.sender_id, id));
            self.repairs.respond(entry.clone(), due);
        }
        for id in self.parking.waited_for_ids() {
            if !self.repairs.requests.contains_key(&id) {
                self.note_unasked(&id);
            }
        }
    }
}
