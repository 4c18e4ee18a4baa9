//! A channel as nim-sds writes it (<https://github.com/logos-messaging/nim-sds>), byte for byte, for moving channels in
//! and out. What this crate stores is another matter: `docs/format.md`.
//!
//! | record | fields; all but repeated ones are always written |
//! |---|---|
//! | `ChannelMeta` | 1 version, 2 Lamport timestamp, repeated: 3 unacknowledged, 4 incoming, 5 and 6 repairs |
//! | unacknowledged | 1 message, 2 send time, 3 attempts |
//! | incoming | 1 message, 2 repeated missing id |
//! | outgoing repair | 1 id, 2 { 1 entry, 2 due } |
//! | incoming repair | 1 id, 2 { 1 entry, 2 cached message, 3 due } |
//! | `ChannelData` | 1 `ChannelMeta`, 2 repeated message |
//! | `HistoryUpdate` | 1 repeated message to append, 2 repeated id to evict |
//!
//! Times are milliseconds since the Unix epoch. Messages are in [`WireFormat::NimSds`]; of an entry see `wire`. It has no
//! place for retrieval hints, for when a message was parked, when a request ends, or what a bloom filter hinted at.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::error::{Error, Place, Result};
use crate::base::name::{ChannelId, MAX_ID_BYTES, MessageId};
use crate::sds::effects::Effects;
use crate::sds::message::{HistoryEntry, SdsMessage};
use crate::sds::meta::{
    ChannelData, ChannelMeta, HistoryUpdate, IncomingMessage, IncomingRepairEntry, OutgoingRepairEntry, SCHEMA_VERSION,
    UnacknowledgedMessage,
};
use crate::sds::options::{ChannelOptions, WireFormat};
use crate::sds::proto::{Fault, Field, Reader, put_bytes, put_number};
use crate::sds::repair::RepairTiming;
use crate::sds::state::ChannelState;
use crate::sds::time::Now;
use crate::sds::update::PendingHistory;
use crate::sds::wire::{decode, decode_owned_entry, encode, encode_entry};

impl ChannelState {
    /// The channel as nim-sds would save it, whatever its own wire form: history, unacknowledged and parked messages,
    /// repairs and clock. Retrieval hints are not in it.
    pub fn export(&self) -> Bytes {
        let mut meta = self.meta();
        for repair in &mut meta.incoming_repair {
            if let Some(message) = self.history.get(repair.entry.message_id.as_bytes()) {
                repair.cached_message = encode(WireFormat::NimSds, message);
            }
        }
        let history = self.history().iter().map(|message| SdsMessage::clone(message)).collect();
        encode_data(&ChannelData::new(meta, history, Vec::new()))
    }

    /// Takes up a channel that was exported here or saved by nim-sds, as [`load`](Self::load) does. Nothing of it is
    /// saved yet, so that the effects have all of it.
    ///
    /// Requests end as if they had been made to be due when they are; messages were parked now; responses come from the
    /// history.
    ///
    /// # Errors
    /// What [`decode_data`] and `load` say; `WrongChannel` where a message belongs to another channel.
    pub fn import(
        id: ChannelId,
        options: ChannelOptions,
        bytes: &[u8],
        now: impl Into<Now>,
    ) -> Result<(Self, Effects)> {
        let now = now.into();
        let mut data = decode_data(bytes)?;
        let ours = |message: &SdsMessage| message.channel_id == id.as_str().as_bytes();
        let outgoing = data.meta.outgoing.iter().map(|outgoing| &outgoing.message);
        let incoming = data.meta.incoming.iter().map(|incoming| &incoming.message);
        if !data.message_history.iter().chain(outgoing).chain(incoming).all(ours) {
            return Err(Error::WrongChannel);
        }
        let longest_ms = RepairTiming::of(&options).max_ms();
        for repair in &mut data.meta.outgoing_repair {
            repair.expires_ms = repair.due_ms.saturating_add(longest_ms);
        }
        for incoming in &mut data.meta.incoming {
            incoming.parked_at_ms = now.unix_ms;
        }
        let (state, mut effects) = Self::load(id, options, data, now)?;
        effects.meta_changed = true;
        effects.history = PendingHistory::default();
        state.history().into_iter().for_each(|message| effects.history.append(message));
        Ok((state, effects))
    }
}

/// Encodes a channel's state; nim-sds's records have no place for some of it.
pub fn encode_meta(meta: &ChannelMeta) -> Bytes {
    let mut out = Vec::new();
    put_number(&mut out, 1, meta.schema_version.into());
    put_number(&mut out, 2, meta.lamport_timestamp.cast_unsigned());
    for UnacknowledgedMessage { message, send_time_ms, resend_attempts, .. } in &meta.outgoing {
        let mut record = Vec::new();
        put_message(&mut record, 1, message);
        put_number(&mut record, 2, send_time_ms.cast_unsigned());
        put_number(&mut record, 3, (*resend_attempts).into());
        put_bytes(&mut out, 3, &record);
    }
    for IncomingMessage { message, missing, .. } in &meta.incoming {
        let mut record = Vec::new();
        put_message(&mut record, 1, message);
        missing.iter().for_each(|id| put_bytes(&mut record, 2, id.as_bytes()));
        put_bytes(&mut out, 4, &record);
    }
    for OutgoingRepairEntry { entry, due_ms, .. } in &meta.outgoing_repair {
        let mut repair = Vec::new();
        put_bytes(&mut repair, 1, &encode_entry(entry));
        put_number(&mut repair, 2, due_ms.cast_unsigned());
        put_repair(&mut out, 5, entry, &repair);
    }
    for IncomingRepairEntry { entry, cached_message, due_ms } in &meta.incoming_repair {
        let mut repair = Vec::new();
        put_bytes(&mut repair, 1, &encode_entry(entry));
        put_bytes(&mut repair, 2, cached_message);
        put_number(&mut repair, 3, due_ms.cast_unsigned());
        put_repair(&mut out, 6, entry, &repair);
    }
    Bytes::from(out)
}

fn put_message(out: &mut Vec<u8>, field: u64, message: &SdsMessage) {
    put_bytes(out, field, &encode(WireFormat::NimSds, message));
}

fn put_repair(out: &mut Vec<u8>, field: u64, entry: &HistoryEntry, repair: &[u8]) {
    let mut record = Vec::new();
    put_bytes(&mut record, 1, entry.message_id.as_bytes());
    put_bytes(&mut record, 2, repair);
    put_bytes(out, field, &record);
}

/// Encodes a whole channel, its hints aside.
pub fn encode_data(data: &ChannelData) -> Bytes {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &encode_meta(&data.meta));
    data.message_history.iter().for_each(|message| put_message(&mut out, 2, message));
    Bytes::from(out)
}

/// Encodes a change of a history; none for one that changes nothing, which nim-sds never writes.
pub fn encode_update(update: &HistoryUpdate) -> Option<Bytes> {
    let mut out = Vec::new();
    update.append.iter().for_each(|message| put_message(&mut out, 1, message));
    update.evict.iter().for_each(|id| put_bytes(&mut out, 2, id.as_bytes()));
    (!update.is_empty()).then(|| Bytes::from(out))
}

/// Decodes a channel's state. What nim-sds does not write is zero, `false` or empty. Unknown fields are skipped.
///
/// # Errors
/// `UnknownFormat` for another version; `MalformedMessage` for whatever is no such record; `TooManyEntries` and
/// `InvalidId` as in [`decode`](crate::sds::decode()).
pub fn decode_meta(bytes: &[u8]) -> Result<ChannelMeta> {
    let (mut version, mut lamport) = (None, None);
    let mut meta = ChannelMeta::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Varint(value)) => version = Some(value),
            (2, Field::Varint(value)) => lamport = Some(value),
            (3, Field::Bytes(record)) => meta.outgoing.push(decode_unacknowledged(record)?),
            (4, Field::Bytes(record)) => meta.incoming.push(decode_incoming(record)?),
            (5, Field::Bytes(record)) => meta.outgoing_repair.push(decode_outgoing_repair(record)?),
            (6, Field::Bytes(record)) => meta.incoming_repair.push(decode_incoming_repair(record)?),
            _ => {}
        }
    }
    let version = required(version, "it has no version")?;
    if version != u64::from(SCHEMA_VERSION) {
        return Err(Error::UnknownFormat {
            format: "nim-sds channel state".to_owned(),
            at: Place::new("a snapshot"),
            found: version,
            known: SCHEMA_VERSION.into(),
        });
    }
    meta.lamport_timestamp = signed(required(lamport, "it has no timestamp")?)?;
    Ok(meta)
}

/// Decodes a whole channel.
///
/// # Errors
/// As [`decode_meta`].
pub fn decode_data(bytes: &[u8]) -> Result<ChannelData> {
    let (mut meta, mut history) = (None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(record)) => meta = Some(record),
            (2, Field::Bytes(record)) => history.push(decode_message(record)?),
            _ => {}
        }
    }
    Ok(ChannelData::new(decode_meta(required(meta, "it has no state")?)?, history, Vec::new()))
}

/// Decodes a change of a history.
///
/// # Errors
/// As [`decode_meta`].
pub fn decode_update(bytes: &[u8]) -> Result<HistoryUpdate> {
    let mut update = HistoryUpdate::default();
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(record)) => update.append.push(decode_message(record)?),
            (2, Field::Bytes(id)) => update.evict.push(decode_id(id)?),
            _ => {}
        }
    }
    Ok(update)
}

fn malformed(reason: Fault) -> Error {
    Error::MalformedMessage { reason }
}

fn required<T>(value: Option<T>, absent: Fault) -> Result<T> {
    value.ok_or_else(|| malformed(absent))
}

fn signed(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| malformed("a time is 2^63 or more"))
}

fn decode_id(id: &[u8]) -> Result<MessageId> {
    if id.len() > MAX_ID_BYTES {
        return Err(Error::InvalidId { reason: "it has more than 1,024 bytes" });
    }
    Ok(MessageId::from(id))
}

fn decode_message(bytes: &[u8]) -> Result<SdsMessage> {
    Ok(decode(WireFormat::NimSds, bytes)?.to_message())
}

fn decode_unacknowledged(bytes: &[u8]) -> Result<UnacknowledgedMessage> {
    let (mut message, mut time, mut attempts) = (None, None, 0);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(value)) => message = Some(value),
            (2, Field::Varint(value)) => time = Some(value),
            (3, Field::Varint(value)) => attempts = value,
            _ => {}
        }
    }
    Ok(UnacknowledgedMessage {
        message: decode_message(required(message, "an unacknowledged message is absent")?)?,
        send_time_ms: signed(required(time, "a send time is absent")?)?,
        resend_attempts: u32::try_from(attempts).map_err(|_| malformed("there are 2^32 attempts or more"))?,
        possibly_acknowledged: false,
    })
}

fn decode_incoming(bytes: &[u8]) -> Result<IncomingMessage> {
    let (mut message, mut missing) = (None, BTreeSet::new());
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(value)) => message = Some(value),
            (2, Field::Bytes(id)) => {
                missing.insert(decode_id(id)?);
            }
            _ => {}
        }
    }
    let message = decode_message(required(message, "a parked message is absent")?)?;
    Ok(IncomingMessage { message, missing, parked_at_ms: 0 })
}

/// Both kinds of repair: an id, and a record of its own that an entry of the same id is in.
fn decode_repair(bytes: &[u8]) -> Result<(MessageId, &[u8])> {
    let (mut id, mut record) = (None, None);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(value)) => id = Some(value),
            (2, Field::Bytes(value)) => record = Some(value),
            _ => {}
        }
    }
    Ok((decode_id(required(id, "a repair has no id")?)?, required(record, "a repair is absent")?))
}

fn same_id(id: &MessageId, entry: Option<&[u8]>) -> Result<HistoryEntry> {
    let entry = decode_owned_entry(required(entry, "a repair has no entry")?)?;
    if entry.message_id != *id {
        return Err(malformed("a repair is about two messages"));
    }
    Ok(entry)
}

fn decode_outgoing_repair(bytes: &[u8]) -> Result<OutgoingRepairEntry> {
    let (id, record) = decode_repair(bytes)?;
    let (mut entry, mut due) = (None, None);
    let mut reader = Reader::new(record);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(value)) => entry = Some(value),
            (2, Field::Varint(value)) => due = Some(value),
            _ => {}
        }
    }
    let due_ms = signed(required(due, "a repair has no time")?)?;
    Ok(OutgoingRepairEntry { entry: same_id(&id, entry)?, due_ms, expires_ms: 0 })
}

fn decode_incoming_repair(bytes: &[u8]) -> Result<IncomingRepairEntry> {
    let (id, record) = decode_repair(bytes)?;
    let (mut entry, mut cached, mut due) = (None, None, None);
    let mut reader = Reader::new(record);
    while let Some(field) = reader.next().map_err(malformed)? {
        match field {
            (1, Field::Bytes(value)) => entry = Some(value),
            (2, Field::Bytes(value)) => cached = Some(value),
            (3, Field::Varint(value)) => due = Some(value),
            _ => {}
        }
    }
    Ok(IncomingRepairEntry {
        entry: same_id(&id, entry)?,
        cached_message: Bytes::copy_from_slice(cached.unwrap_or_default()),
        due_ms: signed(required(due, "a repair has no time")?)?,
    })
}
