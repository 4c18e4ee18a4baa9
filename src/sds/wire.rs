//! Messages as bytes, in both forms: plain protobuf, fields ascending, numbers minimal.
//!
//! | part | `NimSds` | `Rfc` |
//! |---|---|---|
//! | message id | 1, always | 2, if any |
//! | Lamport timestamp, 64 bits in two's complement | 2, always | 10, always |
//! | causal history, repeated entries | 3 | 11 |
//! | channel id | 4, always | 3, if any |
//! | content | 5, always | 20, if any |
//! | bloom filter | 6, always | 12, if any |
//! | sender | 7, if any | 1, if any |
//! | repair requests, repeated entries | 13 | 13 |
//!
//! An entry, in both forms: 1 message id, always; 2 retrieval hint and 3 sender, if any.
//!
//! Decoding checks everything in one pass and borrows: a [`Packet`] points into its input, so no bytes whatsoever make
//! the decoder allocate. Owned copies are made of a packet that has been accepted.

use std::fmt;

use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::base::name::{MAX_ID_BYTES, MessageId, ParticipantId};
use crate::sds::message::{CAUSE_BYTES, HistoryEntry, SdsMessage, Unshown};
use crate::sds::options::{MAX_ENTRIES, MAX_HINT_BYTES, WireFormat};
use crate::sds::proto::{
    Fault, Field, Reader, bytes_len, put_bytes, put_header, put_number, put_some_bytes, varint_len,
};

/// A decoded message that borrows its parts from the bytes that were decoded.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Packet<'a> {
    /// The message's id; may be empty.
    pub message_id: &'a [u8],
    /// The sender's Lamport clock, 0 or more; none in an ephemeral message, which only `Rfc` knows.
    pub lamport_timestamp: Option<i64>,
    /// Messages that it came after, oldest first.
    pub causal_history: Entries<'a>,
    /// The channel that it belongs to; may be empty.
    pub channel_id: &'a [u8],
    /// What the application sent; empty in sync messages.
    pub content: &'a [u8],
    /// The sender's serialized bloom filter; may be empty.
    pub bloom_filter: &'a [u8],
    /// Its author; may be empty.
    pub sender_id: &'a [u8],
    /// Messages that the sender asks for.
    pub repair_request: Entries<'a>,
}

/// Of content and filter only how long they are.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Packet");
        shown.field("message_id", &self.message_id.escape_ascii().to_string());
        shown.field("lamport_timestamp", &self.lamport_timestamp).field("causal_history", &self.causal_history);
        shown.field("channel_id", &self.channel_id.escape_ascii().to_string());
        shown.field("content", &Unshown(self.content)).field("bloom_filter", &Unshown(self.bloom_filter));
        shown.field("sender_id", &self.sender_id.escape_ascii().to_string());
        shown.field("repair_request", &self.repair_request).finish()
    }
}

impl Packet<'_> {
    /// An owned copy of all parts. The timestamp of an ephemeral message is 0 in it.
    pub fn to_message(&self) -> SdsMessage {
        SdsMessage {
            bloom_filter: Bytes::copy_from_slice(self.bloom_filter),
            repair_request: self.repair_request.to_owned(),
            ..self.to_stored(Bytes::copy_from_slice(self.channel_id))
        }
    }

    /// An owned copy as it is kept: without bloom filter and repair requests, in a channel whose id is at hand.
    ///
    /// Id, author and content are copies of their own: an id that is kept for long must not keep the content alive.
    pub(crate) fn to_stored(self, channel_id: Bytes) -> SdsMessage {
        SdsMessage {
            message_id: MessageId::from(self.message_id),
            lamport_timestamp: self.lamport_timestamp.unwrap_or_default(),
            causal_history: self.causal_history.to_owned(),
            channel_id,
            content: Bytes::copy_from_slice(self.content),
            bloom_filter: Bytes::new(),
            sender_id: ParticipantId::from(self.sender_id),
            repair_request: Vec::new(),
        }
    }

    /// What the message that [`to_stored`](Self::to_stored) keeps counts for while it is parked.
    pub(crate) fn parked_bytes(&self) -> usize {
        let entries: usize = self.causal_history.iter().map(|entry| entry.bytes() + CAUSE_BYTES).sum();
        self.message_id.len() + self.content.len() + self.sender_id.len() + entries
    }
}

/// The entries of a list in a packet.
#[derive(Clone, Copy)]
pub struct Entries<'a> {
    /// From the first entry to the last, with whatever fields stand in between.
    bytes: &'a [u8],
    field: u64,
    count: usize,
}

/// The entries, and nothing of what stands in between, which may be the content.
impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Entries<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'a>> + Clone + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let field = self.field;
        // The decoder has read all of it without a fault, so the first fault here is the end.
        std::iter::from_fn(move || {
            loop {
                match reader.next().ok()?? {
                    (number, Field::Bytes(bytes)) if number == field => return decode_entry(bytes).ok(),
                    _ => {}
                }
            }
        })
    }

    /// Owned copies, all in one allocation.
    pub fn to_owned(&self) -> Vec<HistoryEntry> {
        own_entries(self.count, self.iter())
    }
}

/// One entry of a list in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The message's id; may be empty.
    pub message_id: &'a [u8],
    /// Where it may be found; may be empty.
    pub retrieval_hint: &'a [u8],
    /// Its author; may be empty.
    pub sender_id: &'a [u8],
}

impl Entry<'_> {
    fn bytes(&self) -> usize {
        self.message_id.len() + self.retrieval_hint.len() + self.sender_id.len()
    }
}

/// Owned copies of `entries`, which are about `count`, that share one allocation for their bytes.
pub(crate) fn own_entries<'a>(count: usize, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Vec<HistoryEntry> {
    let mut joined = Vec::with_capacity(entries.clone().map(|entry| entry.bytes()).sum());
    for entry in entries.clone() {
        joined.extend_from_slice(entry.message_id);
        joined.extend_from_slice(entry.retrieval_hint);
        joined.extend_from_slice(entry.sender_id);
    }
    let mut joined = Bytes::from(joined);
    let mut owned = Vec::with_capacity(count);
    owned.extend(entries.map(|entry| HistoryEntry {
        message_id: MessageId::new(joined.split_to(entry.message_id.len())),
        retrieval_hint: joined.split_to(entry.retrieval_hint.len()),
        sender_id: ParticipantId::new(joined.split_to(entry.sender_id.len())),
    }));
    owned
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    MessageId,
    Lamport,
    CausalHistory,
    ChannelId,
    Content,
    BloomFilter,
    SenderId,
    RepairRequest,
}

fn part(form: WireFormat, field: u64) -> Option<Part> {
    Some(match (form, field) {
        (WireFormat::NimSds, 1) | (WireFormat::Rfc, 2) => Part::MessageId,
        (WireFormat::NimSds, 2) | (WireFormat::Rfc, 10) => Part::Lamport,
        (WireFormat::NimSds, 3) | (WireFormat::Rfc, 11) => Part::CausalHistory,
        (WireFormat::NimSds, 4) | (WireFormat::Rfc, 3) => Part::ChannelId,
        (WireFormat::NimSds, 5) | (WireFormat::Rfc, 20) => Part::Content,
        (WireFormat::NimSds, 6) | (WireFormat::Rfc, 12) => Part::BloomFilter,
        (WireFormat::NimSds, 7) | (WireFormat::Rfc, 1) => Part::SenderId,
        (_, 13) => Part::RepairRequest,
        _ => return None,
    })
}

/// Decodes a message of one form; bytes of the other are refused.
///
/// Fields may come in any order; the last of a repeated single one counts; unknown ones, and known ones of another wire
/// type, are skipped.
///
/// # Errors
/// `MalformedMessage` for anything that is no message, `TooManyEntries` for a list of more than 1,024, `InvalidId` for
/// an id of more than 1,024 bytes or a hint of more than 4,096.
pub fn decode(form: WireFormat, bytes: &[u8]) -> Result<Packet<'_>> {
    let (mut message_id, mut lamport, mut channel_id, mut content) = (None, None, None, None);
    let (mut bloom_filter, mut sender_id) = (None, None);
    let (mut causal_history, mut repair_request) = (ListSpan::default(), ListSpan::default());

    let mut reader = Reader::new(bytes);
    loop {
        let before = reader.rest();
        let Some((field, value)) = reader.next().map_err(malformed)? else { break };
        match (part(form, field), value) {
            (Some(Part::MessageId), Field::Bytes(value)) => message_id = Some(value),
            (Some(Part::Lamport), Field::Varint(value)) => lamport = Some(value),
            (Some(Part::ChannelId), Field::Bytes(value)) => channel_id = Some(value),
            (Some(Part::Content), Field::Bytes(value)) => content = Some(value),
            (Some(Part::BloomFilter), Field::Bytes(value)) => bloom_filter = Some(value),
            (Some(Part::SenderId), Field::Bytes(value)) => sender_id = Some(value),
            (Some(Part::CausalHistory), Field::Bytes(value)) => {
                causal_history.add(field, value, before, reader.rest())?;
            }
            (Some(Part::RepairRequest), Field::Bytes(value)) => {
                repair_request.add(field, value, before, reader.rest())?;
            }
            // Another release may know more fields, or know one by another type.
            _ => {}
        }
    }

    let lamport_timestamp = match lamport {
        Some(value) => Some(i64::try_from(value).map_err(|_| malformed("the timestamp is 2^63 or more"))?),
        None if form == WireFormat::Rfc => None,
        None => return Err(malformed("it has no timestamp")),
    };
    let content = match content {
        Some(content) => content,
        None if form == WireFormat::Rfc => &[],
        None => return Err(malformed("it has no content field")),
    };
    Ok(Packet {
        message_id: id_within_bounds(message_id.ok_or_else(|| malformed("it has no message id"))?)?,
        lamport_timestamp,
        causal_history: causal_history.entries(),
        channel_id: id_within_bounds(channel_id.ok_or_else(|| malformed("it has no channel id"))?)?,
        content,
        bloom_filter: bloom_filter.unwrap_or_default(),
        sender_id: id_within_bounds(sender_id.unwrap_or_default())?,
        repair_request: repair_request.entries(),
    })
}

fn malformed(reason: Fault) -> Error {
    Error::MalformedMessage { reason }
}

fn id_within_bounds(id: &[u8]) -> Result<&[u8]> {
    if id.len() > MAX_ID_BYTES {
        return Err(Error::InvalidId { reason: "it has more than 1,024 bytes" });
    }
    Ok(id)
}

/// Where the entries of one list stand in the input.
#[derive(Default)]
struct ListSpan<'a> {
    field: u64,
    count: usize,
    /// The input from the first entry on.
    from: &'a [u8],
    /// How much of the input follows the last entry.
    after: usize,
}

impl<'a> ListSpan<'a> {
    fn add(&mut self, field: u64, entry: &'a [u8], before: &'a [u8], after: &'a [u8]) -> Result<()> {
        if self.count == MAX_ENTRIES {
            return Err(Error::TooManyEntries { limit: MAX_ENTRIES });
        }
        entry_within_bounds(entry)?;
        if self.count == 0 {
            self.from = before;
        }
        (self.field, self.count, self.after) = (field, self.count + 1, after.len());
        Ok(())
    }

    fn entries(&self) -> Entries<'a> {
        let length = self.from.len().saturating_sub(self.after);
        Entries { bytes: self.from.get(..length).unwrap_or_default(), field: self.field, count: self.count }
    }
}

fn entry_within_bounds(bytes: &[u8]) -> Result<Entry<'_>> {
    let entry = decode_entry(bytes).map_err(malformed)?;
    id_within_bounds(entry.message_id)?;
    id_within_bounds(entry.sender_id)?;
    if entry.retrieval_hint.len() > MAX_HINT_BYTES {
        return Err(Error::InvalidId { reason: "its retrieval hint has more than 4,096 bytes" });
    }
    Ok(entry)
}

/// An entry that stands alone.
pub(crate) fn decode_owned_entry(bytes: &[u8]) -> Result<HistoryEntry> {
    let entry = entry_within_bounds(bytes)?;
    Ok(HistoryEntry {
        message_id: MessageId::from(entry.message_id),
        retrieval_hint: Bytes::copy_from_slice(entry.retrieval_hint),
        sender_id: ParticipantId::from(entry.sender_id),
    })
}

fn decode_entry(bytes: &[u8]) -> Result<Entry<'_>, Fault> {
    let mut message_id = None;
    let mut entry = Entry { message_id: &[], retrieval_hint: &[], sender_id: &[] };
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next()? {
        match field {
            (1, Field::Bytes(value)) => message_id = Some(value),
            (2, Field::Bytes(value)) => entry.retrieval_hint = value,
            (3, Field::Bytes(value)) => entry.sender_id = value,
            _ => {}
        }
    }
    entry.message_id = message_id.ok_or("an entry has no message id")?;
    Ok(entry)
}

/// Encodes a message. Any message can be encoded; the decoder refuses one with a negative timestamp and, in `Rfc`, one
/// without id or channel.
///
/// ```
/// use ractor_persistence::sds::{SdsMessage, WireFormat, decode, encode};
/// let mut message = SdsMessage::default();
/// message.message_id = "m1".into();
/// message.lamport_timestamp = 1;
/// message.channel_id = "ch1".into();
/// message.content = vec![1].into();
/// let bytes = encode(WireFormat::Rfc, &message);
/// assert_eq!(bytes, &b"\x12\x02m1\x1a\x03ch1\x50\x01\xa2\x01\x01\x01"[..]);
/// assert_eq!(decode(WireFormat::Rfc, &bytes).unwrap().to_message(), message);
/// assert!(decode(WireFormat::NimSds, &bytes).is_err());
/// ```
pub fn encode(form: WireFormat, message: &SdsMessage) -> Bytes {
    encode_with(form, message, &message.bloom_filter, &message.repair_request)
}

/// Encodes a message with a bloom filter and repair requests that it is not kept with.
pub(crate) fn encode_with(form: WireFormat, message: &SdsMessage, bloom: &[u8], repair: &[HistoryEntry]) -> Bytes {
    let SdsMessage { message_id, lamport_timestamp, causal_history, channel_id, content, sender_id, .. } = message;
    let (id, sender) = (message_id.as_bytes(), sender_id.as_bytes());
    let timestamp = lamport_timestamp.cast_unsigned();
    let lists: usize = [causal_history.as_slice(), repair].into_iter().flatten().map(entry_field_len).sum();
    let singles: usize =
        [id, channel_id, content, bloom, sender].into_iter().map(|bytes| bytes_len(20, bytes.len())).sum();
    let mut bytes = Vec::with_capacity(1 + varint_len(timestamp) + lists + singles);
    let out = &mut bytes;
    match form {
        WireFormat::NimSds => {
            put_bytes(out, 1, id);
            put_number(out, 2, timestamp);
            put_entries(out, 3, causal_history);
            put_bytes(out, 4, channel_id);
            put_bytes(out, 5, content);
            put_bytes(out, 6, bloom);
            put_some_bytes(out, 7, sender);
            put_entries(out, 13, repair);
        }
        WireFormat::Rfc => {
            put_some_bytes(out, 1, sender);
            put_some_bytes(out, 2, id);
            put_some_bytes(out, 3, channel_id);
            put_number(out, 10, timestamp);
            put_entries(out, 11, causal_history);
            put_some_bytes(out, 12, bloom);
            put_entries(out, 13, repair);
            put_some_bytes(out, 20, content);
        }
    }
    Bytes::from(bytes)
}

fn entry_len(entry: &HistoryEntry) -> usize {
    let some = |field, bytes: &[u8]| if bytes.is_empty() { 0 } else { bytes_len(field, bytes.len()) };
    bytes_len(1, entry.message_id.as_bytes().len())
        + some(2, &entry.retrieval_hint)
        + some(3, entry.sender_id.as_bytes())
}

/// With its tag and length, in either list.
fn entry_field_len(entry: &HistoryEntry) -> usize {
    bytes_len(13, entry_len(entry))
}

fn put_entries(out: &mut Vec<u8>, field: u64, entries: &[HistoryEntry]) {
    for entry in entries {
        put_header(out, field, entry_len(entry));
        put_entry(out, entry);
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &HistoryEntry) {
    put_bytes(out, 1, entry.message_id.as_bytes());
    put_some_bytes(out, 2, &entry.retrieval_hint);
    put_some_bytes(out, 3, entry.sender_id.as_bytes());
}

/// An entry that stands alone.
pub(crate) fn encode_entry(entry: &HistoryEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry_len(entry));
    put_entry(&mut out, entry);
    out
}
