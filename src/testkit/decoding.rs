//! Everything that decodes bytes, as bodies of fuzz targets and property tests: whatever the bytes, nothing may panic, and
//! what is decoded must be the same once it was encoded again. Not for users.
#![allow(clippy::missing_panics_doc, reason = "a panic is how a body says that something is broken")]

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::codec::{self, Format};
use crate::base::frame::{self, Decoded};
use crate::base::name::{BucketName, ChannelId, StoreName};
use crate::base::value::Value;
use crate::bus::{Pattern, Segment, Topic};
use crate::records::{
    BucketChange, BucketDefinition, BucketSnapshot, Direction, Field, Filter, Page, Query, Record, Request, Schema,
    Table,
};
use crate::sds::{ChannelData, ChannelMeta, ChannelOptions, ChannelState, SdsMessage, WireFormat, decode, encode};

/// A body: what it is called, what it does with bytes, and bytes to begin from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the fuzz target.
    pub name: &'static str,
    /// Panics if something is broken.
    pub run: fn(&[u8]),
    /// Bytes that decode.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", run: envelope, seeds: envelope_seeds },
    #[cfg(feature = "redb")]
    Target { name: "packed", run: packed, seeds: packed_seeds },
    Target { name: "frame", run: frame, seeds: frame_seeds },
    #[cfg(feature = "json-file")]
    Target { name: "json_file", run: json_file, seeds: crate::adapters::json_file::decoding::seeds },
    #[cfg(feature = "redb")]
    Target { name: "redb", run: redb, seeds: crate::adapters::redb::decoding::seeds },
    Target { name: "wire", run: wire, seeds: wire_seeds },
    Target { name: "channel", run: channel, seeds: wire_seeds },
    Target { name: "names", run: names, seeds: name_seeds },
    Target { name: "cursor", run: cursor, seeds: cursor_seeds },
];

const FORMAT: Format = Format { name: "fuzz", version: 1 };

/// MessagePack in its envelope, as it comes and with the envelope put right, read as all that is stored in it.
pub fn envelope(bytes: &[u8]) {
    for context in [&b""[..], b"another"] {
        if let Ok(body) = codec::open(FORMAT, context, bytes) {
            assert!(codec::stored_checksum(bytes).is_some() && body.len() < bytes.len());
        }
    }
    stored::<Value>(bytes);
    stored::<Record>(bytes);
    stored::<Request>(bytes);
    stored::<BucketSnapshot>(bytes);
    stored::<ChannelMeta>(bytes);
    stored::<SdsMessage>(bytes);
    stored::<ChannelData>(bytes);
}

/// What is read from a body is read from its own encoding, too.
fn stored<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(read) = codec::deserialize::<T>(body) else { return };
    let written = codec::encode(FORMAT, b"", &read).ok();
    let again = written.and_then(|bytes| codec::decode::<T>(FORMAT, b"", &bytes).ok());
    // A NaN is unlike itself; its text is not.
    assert_eq!(format!("{again:?}"), format!("{:?}", Some(read)));
}

fn envelope_seeds() -> Vec<Vec<u8>> {
    let fields = record! { "a": 1, "b": [1.5, null, { "c": "d" }], "bytes": &b"\xff"[..] };
    let metadata = crate::records::Metadata { version: 1, created_at: 2, updated_at: 3, expires_at: Some(4) };
    let record = Record::from_parts("key", 5, metadata, fields.clone());
    let message = SdsMessage { message_id: "m".into(), lamport_timestamp: 3, ..SdsMessage::default() };
    let snapshot = BucketSnapshot::new(1, 2, 3, vec![record.clone().into()]);
    let data = ChannelData::new(ChannelMeta::default(), vec![message.clone()], vec![]);
    let mut seeds = Vec::new();
    for seed in [pack(&Value::Object(fields)), pack(&record), pack(&message), pack(&snapshot), pack(&data)] {
        seeds.extend(seed);
    }
    seeds.extend(codec::encode(FORMAT, b"", &record));
    seeds
}

fn pack<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    codec::serialize(value, &mut bytes).ok().map(|()| bytes)
}

/// Values and records by the reader that rows are read with. It reads what it has written, and nothing else than what the
/// format's own reader reads.
#[cfg(feature = "redb")]
pub fn packed(bytes: &[u8]) {
    let mut reader = crate::base::value::Reader::new(bytes);
    if let Some(value) = reader.value() {
        let mut written = Vec::new();
        value.pack(&mut written);
        let again = crate::base::value::Reader::new(&written).value();
        assert_eq!(format!("{again:?}"), format!("{:?}", Some(value)));
    }
    // A second record meets what the first has left in the reader.
    let mut unpacker = crate::records::Unpacker::default();
    for _ in 0..2 {
        let Some(record) = unpacker.record(bytes) else { continue };
        let mut written = Vec::new();
        record.pack(&mut written);
        assert_eq!(unpacker.record(&written).as_ref(), Some(&record));
        let read = codec::deserialize::<Record>(bytes).ok();
        assert_eq!(read.as_ref(), Some(&record), "two readers of one record");
    }
}

#[cfg(feature = "redb")]
fn packed_seeds() -> Vec<Vec<u8>> {
    envelope_seeds()
}

/// A frame, of an owner with a header of as many bytes as the first byte says.
pub fn frame(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (header, salt) = (usize::from(first % 64), u64::from(*first));
    if let Decoded::Frame(found) = frame::decode(rest, salt, header) {
        assert!(found.size <= rest.len() && found.header.len() == header);
        let mut again = Vec::new();
        assert!(frame::append(&mut again, salt, found.header, found.payload).is_ok());
        assert_eq!(Some(again.as_slice()), rest.get(..found.size), "a frame is written in one way");
    }
    let (head, payload) = rest.split_at(header.min(rest.len()));
    let mut written = Vec::new();
    assert!(frame::append(&mut written, salt, head, payload).is_ok());
    assert!(matches!(frame::decode(&written, salt, head.len()), Decoded::Frame(found) if found.payload == payload));
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let mut bytes = vec![3];
    let mut framed = Vec::new();
    let fits = frame::append(&mut framed, 3, b"abc", b"payload").is_ok();
    bytes.extend(framed);
    if fits { vec![bytes] } else { vec![] }
}

/// Checkpoints and journals.
#[cfg(feature = "json-file")]
pub fn json_file(bytes: &[u8]) {
    crate::adapters::json_file::decoding::read(bytes);
}

/// Journal sections, keys and headers.
#[cfg(feature = "redb")]
pub fn redb(bytes: &[u8]) {
    crate::adapters::redb::decoding::read(bytes);
}

/// A message on its way, in both forms.
pub fn wire(bytes: &[u8]) {
    for form in [WireFormat::Rfc, WireFormat::NimSds] {
        let Ok(packet) = decode(form, bytes) else { continue };
        let message = packet.to_message();
        // The RFC's form leaves out what is empty and demands both ids, so one that came empty cannot be written again.
        if form == WireFormat::Rfc && (message.message_id.is_empty() || message.channel_id.is_empty()) {
            continue;
        }
        let written = encode(form, &message);
        let again = decode(form, &written).map(|packet| packet.to_message()).ok();
        assert_eq!(again, Some(message));
    }
}

fn messages() -> Vec<SdsMessage> {
    let plain = SdsMessage {
        message_id: "m1".into(),
        lamport_timestamp: 1,
        channel_id: "room".into(),
        content: vec![1].into(),
        ..SdsMessage::default()
    };
    let entry = crate::sds::HistoryEntry { message_id: "m0".into(), ..crate::sds::HistoryEntry::default() };
    let full = SdsMessage {
        causal_history: vec![entry.clone()],
        repair_request: vec![entry],
        bloom_filter: bloom(),
        sender_id: "them".into(),
        ..plain.clone()
    };
    vec![plain, full]
}

/// A filter as a channel sends it.
fn bloom() -> bytes::Bytes {
    let sent = || {
        let mut state = ChannelState::new(ChannelId::new("room").ok()?, options()).ok()?;
        drop(state.wrap("m0", &b"x"[..], 1_700_000_000_000).ok()?);
        let (bytes, _) = state.wrap("m1", &b"x"[..], 1_700_000_000_001).ok()?;
        decode(WireFormat::Rfc, &bytes).map(|packet| packet.to_message().bloom_filter).ok()
    };
    sent().unwrap_or_default()
}

fn options() -> ChannelOptions {
    ChannelOptions::default().with_participant("us").with_bloom_capacity(100)
}

fn wire_seeds() -> Vec<Vec<u8>> {
    let forms = [WireFormat::Rfc, WireFormat::NimSds];
    messages().iter().flat_map(|message| forms.map(|form| encode(form, message).to_vec())).collect()
}

/// A channel that receives the bytes, whole and as the bloom filter of a message; what it holds can be stored and loaded.
pub fn channel(bytes: &[u8]) {
    const NOW: i64 = 1_700_000_000_000;
    let filter = SdsMessage {
        bloom_filter: bytes::Bytes::copy_from_slice(bytes),
        ..messages().into_iter().next().unwrap_or_default()
    };
    let wrapped = encode(WireFormat::Rfc, &filter);
    let Ok(room) = ChannelId::new("room") else { return };
    for bytes in [bytes, &wrapped] {
        let Ok(mut state) = ChannelState::new(room.clone(), options()) else { return };
        // Something to acknowledge.
        let sent = state.wrap("ours", &b"x"[..], NOW).is_ok();
        for at in [NOW, NOW + 1] {
            // Whether it is taken is another question.
            drop(state.receive(bytes, at));
        }
        let history = state.history().iter().map(|message| SdsMessage::clone(message)).collect();
        let data = ChannelData::new(state.meta(), history, vec![]);
        assert!(sent && ChannelState::load(room.clone(), options(), data, NOW + 2).is_ok());
    }
}

/// Names, topics and patterns.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = BucketName::new(text) {
        assert_eq!(name.as_str(), text);
        assert!(StoreName::new(text).is_ok());
        let topic = Topic::bucket(name.as_str(), "inserted");
        let pattern = Pattern::parse(&topic.to_string()).ok();
        assert!(pattern.is_some_and(|pattern| pattern.matches(&topic)), "a topic's text is a pattern for it");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        assert_eq!(Pattern::parse(&pattern.to_string()).ok().as_ref(), Some(&pattern));
        let segments = pattern.segments().iter().map(|segment| match segment {
            Segment::Literal(text) => text.to_string(),
            Segment::Any => "anything".to_owned(),
        });
        assert!(Topic::new(segments).is_ok_and(|topic| pattern.matches(&topic)));
    }
}

fn name_seeds() -> Vec<Vec<u8>> {
    ["users", "bucket.users.*", r"a.\*.\\.\.", "*.*.*", "\u{e9}/.."].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn table() -> Option<(Table, Query)> {
    let definition = BucketDefinition::new("users")
        .key("id")
        .field("id", Field::int())
        .field("name", Field::string())
        .ordered()
        .index(["name"]);
    let mut change = crate::records::BucketDelta::new(1, 0, 1);
    let metadata = crate::records::Metadata { version: 1, created_at: 0, updated_at: 0, expires_at: None };
    let record = |id: i64, place: u64| {
        Record::from_parts(id, place, metadata, record! { "id": id, "name": format!("n{}", id % 3) }).into()
    };
    change.upserts = (1..10).zip(1_u64..).map(|(id, place)| record(id, place)).collect();
    let mut snapshot = BucketSnapshot::default();
    snapshot.apply(&BucketChange::Delta(change));
    let schema = std::sync::Arc::new(Schema::new(definition).ok()?);
    let restored = Table::restore(schema, snapshot).ok()?;
    Some((restored.table, Query::new(Filter::all()).order_by("name", Direction::Ascending)))
}

/// The text of a cursor, as somebody sends it.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((table, query)) = table() else { return };
    let view = table.whole(0);
    if let Ok(page) = view.paginate(&query, &Page::new(3).after(text)) {
        assert!(page.records.len() <= 3);
        if let Some(next) = page.next_cursor {
            assert!(view.paginate(&query, &Page::new(3).after(next)).is_ok());
        }
    }
}

fn cursor_seeds() -> Vec<Vec<u8>> {
    let first = || {
        let (table, query) = table()?;
        let page = table.whole(0).paginate(&query, &Page::new(3)).ok()?;
        Some(page.next_cursor?.as_str().as_bytes().to_vec())
    };
    first().into_iter().collect()
}
