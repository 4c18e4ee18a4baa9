//! Bytes in, message or refusal out.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{NOW, message, plain};
use crate::base::error::Error;
use crate::base::name::{MessageId, ParticipantId};
use crate::sds::bloom::PeerBloom;
use crate::sds::proto::{put_bytes, put_number, put_varint};
use crate::sds::{HistoryEntry, SdsMessage, WireFormat, decode, encode};

use WireFormat::{NimSds, Rfc};

fn some_bytes(length: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..length).prop_map(Bytes::from)
}

prop_compose! {
    fn entry()(id in some_bytes(9), hint in some_bytes(5), sender in some_bytes(5)) -> HistoryEntry {
        let (message_id, sender_id) = (MessageId::new(id), ParticipantId::new(sender));
        HistoryEntry { message_id, retrieval_hint: hint, sender_id }
    }
}

prop_compose! {
    /// Any message that both decoders take: an id and a channel, no negative timestamp.
    fn any_message()(
        id in some_bytes(9), shift in 0_u32..63, timestamp in any::<i64>(), causes in vec(entry(), 0..6),
        channel in some_bytes(9), content in some_bytes(40), bloom in some_bytes(40), sender in some_bytes(9),
        requests in vec(entry(), 0..6)
    ) -> SdsMessage {
        SdsMessage {
            message_id: MessageId::new([b"i", &id[..]].concat()),
            lamport_timestamp: (timestamp & i64::MAX) >> shift,
            causal_history: causes,
            channel_id: Bytes::from([b"c", &channel[..]].concat()),
            content,
            bloom_filter: bloom,
            sender_id: ParticipantId::new(sender),
            repair_request: requests,
        }
    }
}

fn outcome(form: WireFormat, bytes: &[u8]) -> &'static str {
    match decode(form, bytes) {
        Ok(packet) => {
            // What is decoded can be copied, whatever it is.
            let message = packet.to_message();
            assert_eq!(message.causal_history.len(), packet.causal_history.len());
            assert_eq!(message.repair_request.len(), packet.repair_request.len());
            "message"
        }
        Err(Error::MalformedMessage { .. }) => "malformed",
        Err(Error::TooManyEntries { limit: 1_024 }) => "too many entries",
        Err(Error::InvalidId { .. }) => "invalid id",
        Err(other) => panic!("{other}"),
    }
}

/// A small message of each form, written by hand: id m, timestamp 1, channel c, content x.
fn parts(form: WireFormat) -> [(u64, Vec<u8>); 4] {
    let mut fields = match form {
        NimSds => [(1, &b"m"[..]), (2, b""), (4, b"c"), (5, b"x")],
        Rfc => [(2, &b"m"[..]), (10, b""), (3, b"c"), (20, b"x")],
    }
    .map(|(field, value)| {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, field, value);
        (field, bytes)
    });
    fields[1].1.clear();
    put_number(&mut fields[1].1, fields[1].0, 1);
    fields
}

fn join(parts: &[(u64, Vec<u8>)]) -> Vec<u8> {
    parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

fn base(form: WireFormat) -> Vec<u8> {
    join(&parts(form))
}

fn with(form: WireFormat, tail: impl AsRef<[u8]>) -> Vec<u8> {
    [base(form).as_slice(), tail.as_ref()].concat()
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, bytes);
    out
}

proptest! {
    #[test]
    fn ch_02_any_message_survives_its_own_form_and_the_other_refuses_it(message in any_message()) {
        for (form, other) in [(NimSds, Rfc), (Rfc, NimSds)] {
            let bytes = encode(form, &message);
            prop_assert_eq!(decode(form, &bytes).unwrap().to_message(), message.clone());
            prop_assert_eq!(outcome(other, &bytes), "malformed");
        }
    }

    #[test]
    fn ch_02_nim_sds_keeps_empty_ids_and_channels(mut message in any_message()) {
        (message.message_id, message.channel_id) = (MessageId::default(), Bytes::new());
        let bytes = encode(NimSds, &message);
        prop_assert_eq!(decode(NimSds, &bytes).unwrap().to_message(), message);
    }

    #[test]
    fn ch_04_no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..300)) {
        outcome(NimSds, &bytes);
        outcome(Rfc, &bytes);
        let _ = PeerBloom::read(&bytes);
        let _ = plain().receive(&bytes, NOW);
    }

    #[test]
    fn ch_04_no_mutation_makes_a_decoder_panic(
        mut message in any_message(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6)
    ) {
        message.channel_id = Bytes::from_static(b"room");
        message.bloom_filter = Bytes::copy_from_slice(crate::sds::bloom::BloomFilter::new(3, 0.1).serialized());
        for form in [NimSds, Rfc] {
            let mut bytes = encode(form, &message).to_vec();
            for (at, value, kind) in &mutations {
                let at = at.index(bytes.len().max(1));
                match kind {
                    0 if at < bytes.len() => bytes[at] = *value,
                    1 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
                    2 => bytes.truncate(at),
                    _ => bytes.insert(at, *value),
                }
            }
            outcome(form, &bytes);
            let mut state = super::channel(crate::sds::ChannelOptions::default().with_wire(form));
            state.wrap("own", "content", NOW).unwrap();
            let _ = state.receive(&bytes, NOW);
            let _ = PeerBloom::read(&bytes);
        }
    }
}

#[test]
fn the_smallest_messages_are_these_bytes() {
    let message = SdsMessage { channel_id: "ch1".into(), content: vec![1].into(), ..message("m1", 1, &[]) };
    let hex = |form| encode(form, &message).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(NimSds), "0a026d31100122036368312a01013200");
    assert_eq!(hex(Rfc), "12026d311a036368315001a2010101");
}

#[test]
fn ch_03_any_order_unknown_fields_and_other_wire_types_are_accepted() {
    for form in [NimSds, Rfc] {
        let mut reversed = parts(form);
        reversed.reverse();
        assert_eq!(outcome(form, &join(&reversed)), "message");

        let mut unknown = base(form);
        put_number(&mut unknown, 99, 7); // a varint
        put_bytes(&mut unknown, 500, b"whatever");
        unknown.extend([(99 << 3 & 0x7f) as u8 | 1 | 0x80, 6, 1, 2, 3, 4, 5, 6, 7, 8]); // 64 bits
        unknown.extend([(99 << 3 & 0x7f) as u8 | 5 | 0x80, 6, 1, 2, 3, 4]); // 32 bits
        put_number(&mut unknown, 0, 1);
        assert_eq!(outcome(form, &unknown), "message");

        // The id once more as a number, the timestamp once more as bytes: the values of their own type stay.
        let [id, timestamp, ..] = parts(form).map(|(field, _)| field);
        let mut other_types = base(form);
        put_number(&mut other_types, id, 7);
        put_bytes(&mut other_types, timestamp, b"7");
        let packet = decode(form, &other_types).unwrap();
        assert_eq!((packet.message_id, packet.lamport_timestamp), (&b"m"[..], Some(1)));
    }
}

#[test]
fn ch_03_of_a_repeated_single_field_the_last_one_counts() {
    for form in [NimSds, Rfc] {
        let fields = parts(form).map(|(field, _)| field);
        let mut bytes = base(form);
        put_bytes(&mut bytes, fields[0], b"last");
        put_number(&mut bytes, fields[1], 2);
        put_bytes(&mut bytes, fields[3], b"content");
        let packet = decode(form, &bytes).unwrap();
        assert_eq!(
            (packet.message_id, packet.lamport_timestamp, packet.content),
            (&b"last"[..], Some(2), &b"content"[..])
        );
    }
}

#[test]
fn ch_03_numbers_lengths_and_wire_types_that_cannot_be_are_malformed() {
    let unknown = |tail: &[u8]| [&[0xf8, 0x06][..], tail].concat(); // field 111, a varint
    let cases: [(&str, Vec<u8>); 9] = [
        ("not minimal", unknown(&[0x81, 0x00])),
        ("over 64 bits", unknown(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02])),
        ("eleven bytes", unknown(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01])),
        ("cut short", unknown(&[0x80])),
        ("length beyond the end", vec![0xfa, 0x06, 0x02, 0x00]),
        ("a tag that is not minimal", vec![0xf8, 0x86, 0x00, 0x01]),
        ("64 bits beyond the end", vec![0xf9, 0x06, 1, 2, 3, 4, 5, 6, 7]),
        ("32 bits beyond the end", vec![0xfd, 0x06, 1, 2, 3]),
        ("a length of 2^64 - 1", vec![0xfa, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
    ];
    for form in [NimSds, Rfc] {
        for (name, tail) in &cases {
            assert_eq!(outcome(form, &with(form, tail)), "malformed", "{name}");
        }
        for wire_type in [3_u8, 4, 6, 7] {
            assert_eq!(outcome(form, &with(form, [0xf8 | wire_type, 0x06])), "malformed", "wire type {wire_type}");
        }
        assert_eq!(outcome(form, &with(form, unknown(&[0x01]))), "message");
    }
}

#[test]
fn ch_03_required_fields_are_required_and_the_others_read_as_empty() {
    for (form, required) in [(NimSds, &[1, 2, 4, 5][..]), (Rfc, &[2, 3][..])] {
        for (absent, _) in parts(form) {
            let rest: Vec<_> = parts(form).into_iter().filter(|(field, _)| *field != absent).collect();
            let expected = if required.contains(&absent) { "malformed" } else { "message" };
            assert_eq!(outcome(form, &join(&rest)), expected, "{form:?} without {absent}");
        }
        let bytes = base(form);
        let packet = decode(form, &bytes).unwrap();
        assert!(packet.bloom_filter.is_empty() && packet.sender_id.is_empty());
    }
    let without_content = join(&parts(Rfc)[..3]);
    assert!(decode(Rfc, &without_content).unwrap().content.is_empty());
}

#[test]
fn ch_03_without_a_timestamp_rfc_means_ephemeral() {
    let [id, _, channel, content] = parts(Rfc);
    assert_eq!(decode(Rfc, &join(&[id, channel, content])).unwrap().lamport_timestamp, None);
    assert_eq!(decode(Rfc, &base(Rfc)).unwrap().lamport_timestamp, Some(1));
}

#[test]
fn ch_03_a_timestamp_of_two_to_the_63rd_is_malformed_and_negative_ones_are_written() {
    for form in [NimSds, Rfc] {
        let field = parts(form)[1].0;
        for (value, expected) in [(1 << 63, "malformed"), ((1 << 63) - 1, "message"), (u64::MAX, "malformed")] {
            let mut bytes = base(form);
            put_number(&mut bytes, field, value);
            assert_eq!(outcome(form, &bytes), expected);
        }
        let mut expected = Vec::new();
        put_varint(&mut expected, u64::MAX);
        let bytes = encode(form, &message("m1", -1, &[]));
        assert!(bytes.windows(10).any(|window| window == expected));
        assert_eq!(outcome(form, &bytes), "malformed");
    }
}

#[test]
fn ch_03_an_entry_needs_an_id() {
    for (form, list) in [(NimSds, 3), (NimSds, 13), (Rfc, 11), (Rfc, 13)] {
        for (entry, expected) in [
            (&b"\x0a\x02m1"[..], "message"),
            (b"\x0a\x00", "message"),
            (b"", "malformed"),
            (b"m1", "malformed"),
            (b"dep1", "malformed"),
            (b"\x12\x02m1", "malformed"),
            (b"\x0a\x03m1", "malformed"),
        ] {
            assert_eq!(outcome(form, &with(form, field(list, entry))), expected, "{}", entry.escape_ascii());
        }
    }
}

#[test]
fn ch_03_lists_ids_and_hints_are_bounded() {
    for (form, list) in [(NimSds, 3), (NimSds, 13), (Rfc, 11), (Rfc, 13)] {
        let entry = field(list, b"\x0a\x01m");
        assert_eq!(outcome(form, &with(form, entry.repeat(1_024))), "message");
        assert_eq!(outcome(form, &with(form, entry.repeat(1_025))), "too many entries");
        for (part, most) in [(1, 1_024), (2, 4_096), (3, 1_024)] {
            for (length, expected) in [(most, "message"), (most + 1, "invalid id")] {
                let entry = [field(1, b"m"), field(part, &vec![b'x'; length])].concat();
                assert_eq!(outcome(form, &with(form, field(list, &entry))), expected, "{part}: {length}");
            }
        }
    }
    for (form, ids) in [(NimSds, [1, 4, 7]), (Rfc, [2, 3, 1])] {
        for id in ids {
            assert_eq!(outcome(form, &with(form, field(id, &[b'x'; 1_024]))), "message");
            assert_eq!(outcome(form, &with(form, field(id, &[b'x'; 1_025]))), "invalid id");
        }
    }
}

#[test]
fn entries_that_are_scattered_over_the_message_are_all_found_in_order() {
    let list = |id: &[u8]| field(3, &field(1, id));
    let request = |id: &[u8]| field(13, &field(1, id));
    let bytes = [list(b"a"), request(b"r"), base(NimSds), list(b"b"), request(b"s"), list(b"c")].concat();
    let packet = decode(NimSds, &bytes).unwrap();
    let names = |entries: Vec<HistoryEntry>| super::ids(&entries).join("");
    assert_eq!(names(packet.causal_history.to_owned()), "abc");
    assert_eq!(names(packet.repair_request.to_owned()), "rs");
}
