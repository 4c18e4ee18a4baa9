//! What the promises store: values, names, records and messages that adapters are known to stumble over.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::name::{MAX_NAME_BYTES, MessageId, ParticipantId};
use crate::base::value::{Key, MAX_DEPTH, Object, Value};
use crate::records::{BucketDelta, BucketSnapshot, Metadata, Record, Request};
use crate::sds::{
    ChannelMeta, HistoryEntry, IncomingMessage, IncomingRepairEntry, OutgoingRepairEntry, SCHEMA_VERSION, SdsMessage,
    UnacknowledgedMessage,
};

pub(super) fn record_with(key: impl Into<Key>, place: u64, fields: Object) -> Arc<Record> {
    let metadata =
        Metadata { version: 1, created_at: 1_700_000_000_000, updated_at: 1_700_000_000_001, expires_at: None };
    Arc::new(Record::from_parts(key, place, metadata, fields))
}

/// A record that says which one it is.
pub(super) fn record(key: impl Into<Key>, text: &str) -> Arc<Record> {
    let key = key.into();
    let place = key.as_value().as_i64().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    record_with(key, place, record! { "text": text })
}

pub(super) fn snapshot(revision: u64, records: Vec<Arc<Record>>) -> BucketSnapshot {
    BucketSnapshot::new(1, revision, 0, records)
}

pub(super) fn upserts(revision: u64, records: Vec<Arc<Record>>) -> BucketDelta {
    BucketDelta { upserts: records, ..BucketDelta::new(revision, 0, 1) }
}

pub(super) fn deletes<K: Into<Key>>(revision: u64, keys: impl IntoIterator<Item = K>) -> BucketDelta {
    BucketDelta { deletes: keys.into_iter().map(Into::into).collect(), ..BucketDelta::new(revision, 0, 1) }
}

/// A write with an id that says which one it is, and which revision it made.
pub(super) fn request(revision: u64, text: &str) -> Request {
    let number = i64::try_from(revision).unwrap_or(i64::MAX);
    Request {
        id: text.to_owned() + &(revision % 1_000).to_string(),
        fingerprint: revision.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        keys: vec![Key::from(number), Key::from(text)],
        removed: revision % 3,
        inserted: revision.is_multiple_of(2),
        revision,
    }
}

/// One record's fields of every kind of value, by what is special about them.
pub(super) fn every_kind() -> Object {
    let mut object = record! {
        "null": null,
        "true": true,
        "false": false,
        "no bytes": &[][..] as &[u8],
        "bytes": &[0_u8, 1, 127, 128, 254, 255][..],
        "empty list": [],
        "empty object": {},
        "list": [null, true, 1, 1.0, "one", [1], { "one": 1 }],
        "nested": { "a": { "b": { "c": [1.5, { "d": "e" }] } } },
    };
    let numbers = [0, 1, -1, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1];
    object.insert("ints", numbers.to_vec());
    let floats = [
        0.0,
        0.1,
        0.2 + 0.1,
        1.0,
        -2.0,
        1e15,
        1e16,
        1e21,
        -1.5e300,
        1.0 / 3.0,
        5e-324,
        2.225_073_858_507_201e-308,
        f64::MIN_POSITIVE,
        f64::EPSILON,
        f64::MAX,
        f64::MIN,
        9_007_199_254_740_993.0,
        9_223_372_036_854_775_808.0,
        123_456_789.123_456_79,
    ];
    object.insert("floats", floats.to_vec());
    let texts = [
        "",
        " ",
        "\0",
        "a\0b",
        "\u{1}\u{1f}\u{7f}\u{80}\u{9f}",
        "\"quoted\" \\ / 'single' `back`",
        "line\nfeed\r\ntab\t",
        "\u{2028}\u{2029}\u{feff}",
        "é e\u{301} \u{212b} \u{c5}",
        "\u{1f600} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{10ffff} \u{ffff}",
        "true",
        "null",
        "1",
        "1.0",
        "AA==",
        "{\"$bytes\":\"AA==\"}",
        "exactly twenty-four byte",
        "a text that is too long to be kept in place by any small string optimization",
    ];
    object.insert("texts", texts.to_vec());
    // Objects that look like the tags by which formats without bytes tell them apart.
    for (name, tagged) in [
        ("tagged bytes", record! { "$bytes": "AA==" }),
        ("tagged no bytes", record! { "$bytes": 1 }),
        ("tagged object", record! { "$object": { "$bytes": "AA==" } }),
        ("tagged twice", record! { "$object": { "$object": { "$object": [1] } } }),
        ("tagged date", record! { "$date": "2026-01-01" }),
        ("dollar", record! { "$": null }),
        ("two dollars", record! { "$a": 1, "$bytes": "AA==" }),
        ("base64", record! { "base64": "AA==" }),
    ] {
        object.insert(name, tagged);
    }
    let names = record! { "": 1, ".": 2, "a.b": 3, "\0": 4, "$": 5, "_": 6, "\u{1f600}": 7, "e\u{301}": 8, "é": 9,
    "key": 10, "place": 11, "fields": 12, "*": 13 };
    object.extend(names.clone());
    object.insert("names", names);
    object
}

/// `MAX_DEPTH` containers around a number, made by `wrap`.
pub(super) fn deep(wrap: impl Fn(usize, Value) -> Value) -> Value {
    (0..MAX_DEPTH).fold(Value::Int(1), |inner, level| wrap(level, inner))
}

/// Names of which no two may be mistaken for one another, and none for a path.
pub(super) fn names() -> Vec<String> {
    let longest = |tail: &str| "x".repeat(MAX_NAME_BYTES - tail.len()) + tail;
    let mut names: BTreeSet<String> = [
        // Case, and what changes length or letter when its case is folded.
        "a",
        "A",
        "aa",
        "aA",
        "Aa",
        "AA",
        "ß",
        "ss",
        "SS",
        "ẞ",
        "i",
        "I",
        "ı",
        "İ",
        "ſ",
        "s",
        "ﬁ",
        "fi",
        // Unicode: composed and decomposed, look-alikes, what cannot be seen.
        "é",
        "e\u{301}",
        "\u{212b}",
        "\u{c5}",
        "A\u{30a}",
        "Å\u{200d}",
        "а",
        "\u{feff}a",
        "\u{200b}a",
        "\u{202e}a",
        "\u{1f600}",
        "\u{1f468}\u{200d}\u{1f469}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{2028}",
        "日本",
        // Separators of paths and keys, and what climbs out of a directory.
        "/",
        "a/",
        "/a",
        "a/a",
        "a//a",
        "\\",
        "a\\a",
        ":",
        "a:a",
        ".",
        "..",
        "...",
        "../a",
        "a/../a",
        "../../../etc/a",
        "./a",
        "C:\\a",
        "C:",
        "~",
        "~/a",
        "a.a",
        "a.",
        "a..",
        ".a",
        "a ",
        " a",
        " ",
        "a a",
        "-",
        "--a",
        "_",
        "a_a",
        "a-a",
        "|",
        "a|a",
        ";",
        ",",
        "#",
        "a#a",
        "@",
        "&",
        "=",
        "+",
        "!",
        "$",
        "$a",
        "^",
        "(",
        ")",
        "[a]",
        "{a}",
        // Wildcards, quotes, other people's syntax.
        "*",
        "?",
        "a*",
        "<",
        ">",
        "'",
        "\"",
        "`",
        "a'; DROP TABLE a; --",
        "null",
        "0",
        "00",
        "-1",
        "__proto__",
        "true",
        // Names that some systems keep for themselves.
        "CON",
        "con",
        "NUL",
        "nul.txt",
        "COM1",
        "LPT1.json",
        "aux",
        "desktop.ini",
        ".git",
        "lost+found",
        // Names that look like an encoding of another one of this list, or like a file beside it.
        "%",
        "%%",
        "%2e",
        "%2E",
        "%2f",
        "%61",
        "%",
        "%25",
        "%252e",
        "61",
        "2e2e",
        "x61",
        "u0061",
        "YQ",
        "YQ==",
        "ME",
        "ma",
        "\\x61",
        "\\u{61}",
        "&#97;",
        "=61",
        "LOCK",
        "EPOCH",
        "a.json",
        "a.jsonl",
        "a.tmp",
        "a.db",
        "a.bak",
        "a.1",
        "a~",
        "a.quarantine-1",
        "bucket",
        "channel",
        "bucket.a",
        "channel.a",
        "bucket/a",
        "b.a",
        "meta",
        "history",
        "hints",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    // As long as names may be, alike up to their last byte, in encodings that grow.
    names.extend([longest(""), longest("y"), longest("X"), longest("/"), longest("é"), longest("...")]);
    names.extend([
        "é".repeat(64),
        "É".repeat(64),
        "/".repeat(128),
        "%".repeat(128),
        ".".repeat(128),
        "\u{1f600}".repeat(32),
    ]);
    names.extend([63, 64, 65, 100, 127].map(|length| "x".repeat(length)));
    names.into_iter().collect()
}

/// Keys of which no two may be mistaken for one another.
pub(super) fn keys() -> Vec<Key> {
    let numbers = [i64::MIN, i64::MIN + 1, -256, -255, -1, 0, 1, 2, 9, 10, 255, 256, 1 << 53, i64::MAX - 1, i64::MAX];
    let mut keys: BTreeSet<Key> = numbers.into_iter().map(Key::from).collect();
    keys.extend(names().into_iter().map(Key::from));
    keys.extend(
        ["\0", "\0\0", "a\0", "\0a", "a\0\0", "a\u{1}", "\n", "\u{7f}", "1", "-1", "1.0", "01", "9"].map(Key::from),
    );
    keys.extend(["x".repeat(1_023), "x".repeat(1_024), "\0".repeat(1_024), "\u{1f600}".repeat(256)].map(Key::from));
    keys.into_iter().collect()
}

pub(super) fn message(id: impl Into<MessageId>, lamport_timestamp: i64, content: &str) -> SdsMessage {
    SdsMessage {
        message_id: id.into(),
        lamport_timestamp,
        channel_id: Bytes::from_static(b"a channel"),
        content: Bytes::copy_from_slice(content.as_bytes()),
        sender_id: ParticipantId::from("somebody"),
        ..SdsMessage::default()
    }
}

/// A message in which nothing is text that need not be.
pub(super) fn odd_message(id: &[u8], lamport_timestamp: i64) -> SdsMessage {
    SdsMessage {
        message_id: MessageId::from(id),
        lamport_timestamp,
        causal_history: vec![
            HistoryEntry::new("plain"),
            HistoryEntry {
                message_id: MessageId::from(&[0xff, 0x00, 0xfe][..]),
                retrieval_hint: Bytes::from_static(&[0, 159, 146, 150]),
                sender_id: ParticipantId::from(&[0xc3, 0x28][..]),
            },
            HistoryEntry::new(""),
        ],
        channel_id: Bytes::from_static(&[0xf0, 0x28, 0x8c, 0xbc]),
        content: Bytes::from_static(&[0, 1, 2, 0xfd, 0xfe, 0xff, b'"', b'\\', b'\n']),
        sender_id: ParticipantId::from(&[0x80][..]),
        ..SdsMessage::default()
    }
}

/// Message ids of which no two may be mistaken for one another.
pub(super) fn message_ids() -> Vec<MessageId> {
    let texts =
        ["a", "A", "a/b", "..", "é", "e\u{301}", "\u{1f600}", "{\"base64\":\"/w==\"}", "/w==", "61", "%61", "\0"];
    let bytes: [&[u8]; 10] =
        [&[0], &[0, 0], &[0, 1], &[1], &[0x7f], &[0x80], &[0xff], &[0xff, 0xff], &[0xc3, 0x28], &[b'a', 0]];
    let mut ids: BTreeSet<MessageId> = texts.into_iter().map(MessageId::from).collect();
    ids.extend(bytes.into_iter().map(MessageId::from));
    ids.extend([MessageId::from(vec![b'x'; 1_024].as_slice()), MessageId::from(vec![0xff; 1_024].as_slice())]);
    ids.into_iter().collect()
}

/// A channel's state in which every field differs from its default.
pub(super) fn full_meta() -> ChannelMeta {
    let entry = || HistoryEntry {
        message_id: MessageId::from(&[0xfe, 0xff][..]),
        retrieval_hint: Bytes::from_static(b"\xff hint"),
        sender_id: ParticipantId::from("author"),
    };
    ChannelMeta {
        schema_version: SCHEMA_VERSION,
        lamport_timestamp: i64::MAX,
        outgoing: vec![
            UnacknowledgedMessage {
                message: odd_message(b"z-sent-first", 7),
                send_time_ms: 1_700_000_000_000,
                resend_attempts: u32::MAX,
                possibly_acknowledged: true,
            },
            UnacknowledgedMessage { message: message("a-sent-second", 8, ""), ..UnacknowledgedMessage::default() },
        ],
        incoming: vec![IncomingMessage {
            message: odd_message(&[0xff], 9),
            missing: [MessageId::from("b"), MessageId::from(&[0xff, 0x01][..]), MessageId::from("a")].into(),
            parked_at_ms: i64::MAX,
        }],
        outgoing_repair: vec![OutgoingRepairEntry { entry: entry(), due_ms: -1, expires_ms: i64::MIN }],
        incoming_repair: vec![
            IncomingRepairEntry { entry: entry(), cached_message: Bytes::new(), due_ms: 12 },
            IncomingRepairEntry { entry: entry(), cached_message: Bytes::from_static(&[0, 0xff]), due_ms: 13 },
        ],
    }
}

/// A state that says which one it is.
pub(super) fn meta(lamport_timestamp: i64) -> ChannelMeta {
    ChannelMeta { lamport_timestamp, ..ChannelMeta::default() }
}
