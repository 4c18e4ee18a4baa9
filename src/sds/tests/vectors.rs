//! The golden vectors: bytes and numbers as nim-sds computes them.

use bytes::Bytes;
use serde_json::Value;

use super::decoded;
use crate::base::error::Error;
use crate::sds::bloom::{BloomFilter, PeerBloom, Shape};
use crate::sds::hash::{BloomHash, hash};
use crate::sds::{HistoryEntry, SdsMessage, WireFormat, decode, encode};

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

#[test]
fn the_golden_wire_vectors_encode_and_decode() {
    for case in cases("messages") {
        let value = &case["value"];
        let message = SdsMessage {
            message_id: text(&value["message_id"]).into(),
            lamport_timestamp: text(&value["lamport_timestamp"]).parse().unwrap(),
            causal_history: entries(&value["causal_history"]),
            channel_id: text(&value["channel_id"]).to_owned().into(),
            content: hex(&value["content_hex"]),
            bloom_filter: hex(&value["bloom_filter_hex"]),
            sender_id: text(&value["sender_id"]).into(),
            repair_request: entries(&value["repair_request"]),
        };
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
fn the_golden_hashes_are_computed() {
    for case in cases("hash") {
        let value = hash(text(&case["text"]).as_bytes());
        assert_eq!(format!("{value:016x}"), text(&case["u64_hex"]));
        assert_eq!(value.to_string(), case["i64"].to_string().trim_matches('"'));
    }
    assert_eq!(hash(b"msg1 b"), 0x1f19_4eaf_d0bd_0b0b);
}

#[test]
fn the_golden_bloom_filters_are_built_and_read() {
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
fn the_golden_bloom_parameters_are_derived() {
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
