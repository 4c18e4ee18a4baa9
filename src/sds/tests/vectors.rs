//! The golden vectors: bytes and numbers as nim-sds computes them.

use bytes::Bytes;
use serde_json::Value;

use super::decoded;
use crate::base::error::Error;
use crate::sds::bloom::{BloomFilter, PeerBloom, Shape};
use crate::sds::hash::{BloomHash, hash};
use crate::sds::options::ChannelOptions;
use crate::sds::repair::RepairTiming;
use crate::sds::snapshot::{decode_data, decode_meta, decode_update, encode_data, encode_meta, encode_update};
use crate::sds::{
    ChannelData, ChannelMeta, HistoryEntry, HistoryUpdate, IncomingMessage, IncomingRepairEntry, OutgoingRepairEntry,
    SdsMessage, UnacknowledgedMessage, WireFormat, decode, encode,
};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/sds.json")).unwrap()
}

fn cases(section: &str) -> Vec<Value> {
    let cases = vectors()[section]["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Bytes {
    let digits = text(value).as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn entries(value: &Value) -> Vec<HistoryEntry> {
    let entry = |entry: &Value| HistoryEntry {
        message_id: text(&entry["message_id"]).into(),
        retrieval_hint: hex(&entry["retrieval_hint_hex"]),
        sender_id: text(&entry["sender_id"]).into(),
    };
    value.as_array().unwrap().iter().map(entry).collect()
}

fn decimal(value: &Value) -> i64 {
    text(value).parse().unwrap()
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(item).collect()
}

fn message(value: &Value) -> SdsMessage {
    SdsMessage {
        message_id: text(&value["message_id"]).into(),
        lamport_timestamp: decimal(&value["lamport_timestamp"]),
        causal_history: entries(&value["causal_history"]),
        channel_id: text(&value["channel_id"]).to_owned().into(),
        content: hex(&value["content_hex"]),
        bloom_filter: hex(&value["bloom_filter_hex"]),
        sender_id: text(&value["sender_id"]).into(),
        repair_request: entries(&value["repair_request"]),
    }
}

fn entry(value: &Value) -> HistoryEntry {
    entries(&Value::Array(vec![value.clone()])).remove(0)
}

fn meta(value: &Value) -> ChannelMeta {
    ChannelMeta {
        schema_version: u32::try_from(value["schema_version"].as_u64().unwrap()).unwrap(),
        lamport_timestamp: decimal(&value["lamport_timestamp"]),
        outgoing: list(&value["outgoing"], |value| UnacknowledgedMessage {
            message: message(&value["message"]),
            send_time_ms: decimal(&value["send_time_ms"]),
            resend_attempts: u32::try_from(value["resend_attempts"].as_u64().unwrap()).unwrap(),
            possibly_acknowledged: false,
        }),
        incoming: list(&value["incoming"], |value| IncomingMessage {
            message: message(&value["message"]),
            missing: list(&value["missing"], |id| text(id).into()).into_iter().collect(),
            parked_at_ms: 0,
        }),
        outgoing_repair: list(&value["outgoing_repair"], |value| OutgoingRepairEntry {
            entry: entry(&value["entry"]),
            due_ms: decimal(&value["due_ms"]),
            expires_ms: 0,
        }),
        incoming_repair: list(&value["incoming_repair"], |value| IncomingRepairEntry {
            entry: entry(&value["entry"]),
            cached_message: hex(&value["cached_message_hex"]),
            due_ms: decimal(&value["due_ms"]),
        }),
    }
}

#[test]
fn ch_01_the_golden_wire_vectors_encode_and_decode() {
    for case in cases("messages") {
        let message = message(&case["value"]);
        let bytes = hex(&case["hex"]);
        assert_eq!(encode(WireFormat::NimSds, &message), bytes, "{}", case["name"]);
        if case["decodes"].as_bool().unwrap() {
            assert_eq!(decoded(&bytes), message, "{}", case["name"]);
        } else {
            assert!(matches!(decode(WireFormat::NimSds, &bytes), Err(Error::MalformedMessage { .. })));
        }
    }
}

#[test]
fn ch_01_no_section_of_the_vectors_is_left_out() {
    let sections: Vec<_> = vectors().as_object().unwrap().keys().cloned().collect();
    let tested =
        ["bloom", "bloom_params", "channel_data", "channel_meta", "hash", "history_update", "messages", "timers"];
    assert!(sections.iter().filter(|section| *section != "description").eq(tested), "{sections:?}");
}

#[test]
fn ch_01_the_golden_hashes_are_computed() {
    for case in cases("hash") {
        let value = hash(text(&case["text"]).as_bytes());
        assert_eq!(format!("{value:016x}"), text(&case["u64_hex"]));
        assert_eq!(value.to_string(), case["i64"].to_string().trim_matches('"'));
    }
    assert_eq!(hash(b"msg1 b"), 0x1f19_4eaf_d0bd_0b0b);
}

#[test]
fn ch_01_the_golden_bloom_filters_are_built_and_read() {
    for case in cases("bloom") {
        let capacity = u32::try_from(case["capacity"].as_u64().unwrap()).unwrap();
        let mut filter = BloomFilter::new(capacity, case["error_rate"].as_f64().unwrap());
        let items: Vec<_> = case["items"].as_array().unwrap().iter().map(|item| text(item).to_owned()).collect();
        for item in &items {
            filter.insert(BloomHash::of(item.as_bytes()));
        }
        let bytes = hex(&case["serialized_hex"]);
        assert_eq!(filter.serialized(), bytes, "{}", case["name"]);
        let peer = PeerBloom::read(&bytes).unwrap().unwrap();
        assert!(items.iter().all(|item| peer.contains(BloomHash::of(item.as_bytes()))));
        assert!(!peer.contains(BloomHash::of(b"another")));
    }
}

#[test]
fn ch_01_the_golden_bloom_parameters_are_derived() {
    for case in cases("bloom_params") {
        let number = |name: &str| case[name].as_u64().unwrap();
        let capacity = u32::try_from(number("capacity")).unwrap();
        let shape = Shape::new(capacity, case["error_rate"].as_f64().unwrap());
        let derived = [shape.hashes, shape.bits_per_element, shape.bits, shape.bytes as u64 / 8, shape.millionths];
        assert_eq!(derived, ["k", "bits_per_element", "m_bits", "words", "error_rate_field"].map(number), "{case}");
        let filter = BloomFilter::new(capacity, case["error_rate"].as_f64().unwrap());
        assert_eq!(filter.serialized().len() as u64, number("serialized_len"), "{case}");
    }
}

#[test]
fn ch_01_the_golden_snapshots_encode_and_decode() {
    for case in cases("channel_meta") {
        let (meta, bytes) = (meta(&case["value"]), hex(&case["hex"]));
        assert_eq!(encode_meta(&meta), bytes, "{}", case["name"]);
        if case["decodes"].as_bool().unwrap() {
            assert_eq!(decode_meta(&bytes).unwrap(), meta, "{}", case["name"]);
        } else {
            let error = decode_meta(&bytes).unwrap_err();
            assert!(matches!(error, Error::UnknownFormat { found: 999, known: 1, .. }), "{error}");
        }
    }
    for case in cases("channel_data") {
        let history = list(&case["value"]["message_history"], message);
        let (data, bytes) = (ChannelData::new(meta(&case["value"]["meta"]), history, vec![]), hex(&case["hex"]));
        assert_eq!(encode_data(&data), bytes, "{}", case["name"]);
        assert_eq!(decode_data(&bytes).unwrap(), data, "{}", case["name"]);
    }
    for case in cases("history_update") {
        let evict = list(&case["value"]["evict"], |id| text(id).into());
        let (update, bytes) = (HistoryUpdate::new(list(&case["value"]["append"], message), evict), hex(&case["hex"]));
        assert_eq!(encode_update(&update), Some(bytes.clone()), "{}", case["name"]);
        assert_eq!(decode_update(&bytes).unwrap(), update, "{}", case["name"]);
    }
}

#[test]
fn ch_01_the_golden_timers_and_groups_are_computed() {
    for case in cases("timers") {
        let [me, author] = ["participant", "author"].map(|name| text(&case[name]).into());
        let id = text(&case["message"]).as_bytes();
        let timing = RepairTiming::of(&ChannelOptions::default());
        assert_eq!(timing.request_ms(&me, id), case["t_req_ms"].as_i64().unwrap(), "{case}");
        assert_eq!(timing.response_ms(&me, &author, id), case["t_resp_ms"].as_i64().unwrap(), "{case}");
        for group in case["groups"].as_array().unwrap() {
            let groups = u32::try_from(group["groups"].as_u64().unwrap()).unwrap();
            let timing = RepairTiming::of(&ChannelOptions::default().with_response_groups(groups));
            assert_eq!(timing.group(&me, id), group["own"].as_u64().unwrap(), "{case}");
            assert_eq!(timing.group(&author, id), group["author"].as_u64().unwrap(), "{case}");
            assert_eq!(timing.answers(&me, &author, id), group["answers"].as_bool().unwrap(), "{case}");
        }
    }
}
