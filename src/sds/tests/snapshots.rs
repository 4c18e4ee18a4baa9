//! Channels that move to and from nim-sds. Without this, whoever changes over loses what is under way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{NOW, Stored, message, opened, packet, receive, room, told};
use crate::base::error::Error;
use crate::base::name::ChannelId;
use crate::sds::proto::{put_bytes, put_number};
use crate::sds::snapshot::{decode_data, decode_meta, decode_update, encode_data, encode_meta, encode_update};
use crate::sds::{
    ChannelData, ChannelMeta, ChannelOptions, ChannelState, HistoryEntry, HistoryUpdate, IncomingMessage, SdsMessage,
    WireFormat, encode,
};

fn options() -> ChannelOptions {
    ChannelOptions::default().with_participant("bob")
}

/// Something of everything.
fn busy() -> ChannelState {
    let mut state = opened(&options());
    state.wrap("m1", "x", NOW).unwrap();
    let theirs = SdsMessage { sender_id: "alice".into(), ..message("a1", 3, &[]) };
    receive(&mut state, &encode(WireFormat::NimSds, &theirs));
    receive(&mut state, &packet("p", 9, &["gone", "m1"]));
    let asking = SdsMessage { repair_request: vec![HistoryEntry::new("a1")], ..message("a2", 4, &["a1"]) };
    receive(&mut state, &encode(WireFormat::NimSds, &asking));
    state.wrap("m2", "x", NOW + 5).unwrap();
    let meta = state.meta();
    let lengths = [meta.outgoing.len(), meta.incoming.len(), meta.outgoing_repair.len(), meta.incoming_repair.len()];
    assert_eq!(lengths, [1, 1, 1, 1]);
    state
}

#[test]
fn a_channel_that_is_exported_and_imported_elsewhere_has_what_it_had_and_is_all_to_be_saved() {
    let state = busy();
    let bytes = state.export();
    let (mut copy, effects) = ChannelState::import(room(), options(), &bytes, NOW + 7).unwrap();
    assert_eq!(copy.history(), state.history());
    let mut expected = state.meta();
    // What the form has no place for: parked now; the end of a request follows from its time.
    expected.incoming[0].parked_at_ms = NOW + 7;
    assert_eq!(copy.meta(), expected);
    assert_eq!(told(&effects), ["missing p: gone"]);
    let mut stored = Stored::default();
    stored.save(&copy, &effects);
    stored.assert_complete(&copy);
    assert_eq!(told(&receive(&mut copy, &packet("gone", 1, &[])).1), ["ready gone", "ready p"]);
    assert_eq!(copy.export(), {
        let mut again = busy();
        receive(&mut again, &packet("gone", 1, &[]));
        again.export()
    });
}

#[test]
fn an_answer_that_is_pending_carries_its_message_when_it_is_exported() {
    let data = decode_data(&busy().export()).unwrap();
    let cached = &data.meta.incoming_repair[0].cached_message;
    let cached = crate::sds::decode(WireFormat::NimSds, cached).unwrap().to_message();
    assert_eq!((cached.message_id.as_str(), cached.sender_id.as_str()), (Some("a1"), Some("alice")));
}

#[test]
fn a_channel_of_another_name_or_version_or_of_no_sense_is_refused() {
    let bytes = busy().export();
    let other = ChannelId::new("other").unwrap();
    assert!(matches!(ChannelState::import(other, options(), &bytes, NOW), Err(Error::WrongChannel)));
    let cut = &bytes[..bytes.len() - 1];
    assert!(matches!(ChannelState::import(room(), options(), cut, NOW), Err(Error::MalformedMessage { .. })));
}

#[test]
fn what_is_no_state_is_refused() {
    let build = |fields: &[(u64, u64)]| {
        let mut bytes = Vec::new();
        fields.iter().for_each(|(field, value)| put_number(&mut bytes, *field, *value));
        bytes
    };
    assert!(decode_meta(&build(&[(1, 1), (2, 0), (9, 9)])).is_ok(), "unknown fields are skipped");
    for (version, known) in [(0, 1), (2, 1), ((1 << 32) + 1, 1), (u64::MAX, 1)] {
        let error = decode_meta(&build(&[(1, version), (2, 0)])).unwrap_err();
        assert!(matches!(error, Error::UnknownFormat { found, known: k, .. } if found == version && k == known));
    }
    let malformed = |bytes: &[u8]| matches!(decode_meta(bytes), Err(Error::MalformedMessage { .. }));
    assert!(malformed(&[]), "empty");
    assert!(malformed(&build(&[(2, 0)])) && malformed(&build(&[(1, 1)])), "a field is absent");
    assert!(malformed(&build(&[(1, 1), (2, 1 << 63)])));
    let mut trailing = build(&[(1, 1), (2, 0)]);
    trailing.push(0x0a);
    assert!(malformed(&trailing));

    let sent = encode(WireFormat::NimSds, &message("m", 1, &[]));
    let unacknowledged = |fields: &[(u64, u64)]| {
        let mut bytes = build(&[(1, 1), (2, 0)]);
        let mut record = Vec::new();
        put_bytes(&mut record, 1, &sent);
        record.extend(build(fields));
        put_bytes(&mut bytes, 3, &record);
        bytes
    };
    assert!(malformed(&unacknowledged(&[])) && malformed(&unacknowledged(&[(2, 1 << 63)])), "no time");
    assert!(malformed(&unacknowledged(&[(2, 7), (3, 1 << 32)])), "attempts");
    let meta = decode_meta(&unacknowledged(&[(2, 7)])).unwrap();
    assert_eq!((meta.outgoing[0].send_time_ms, meta.outgoing[0].resend_attempts), (7, 0));
    assert!(matches!(decode_data(&[]), Err(Error::MalformedMessage { .. })));
    assert_eq!(encode_update(&HistoryUpdate::default()), None);
}

#[test]
fn a_repair_about_two_messages_is_refused() {
    let mut meta = busy().meta();
    meta.outgoing_repair[0].entry.message_id = "same".into();
    let bytes = encode_meta(&meta);
    let place = bytes.windows(4).position(|window| window == b"same").unwrap();
    let mut torn = bytes.to_vec();
    torn[place] = b'l';
    assert!(matches!(decode_meta(&torn), Err(Error::MalformedMessage { .. })));
    assert!(decode_meta(&bytes).is_ok());
}

/// What nim-sds has saved, which takes sync messages for messages.
fn imported(
    parked: SdsMessage,
    missing: &str,
    message_history: Vec<SdsMessage>,
) -> (ChannelState, crate::sds::Effects) {
    let waiting = |message, missing: &str| IncomingMessage {
        message,
        missing: [missing.into()].into(),
        ..IncomingMessage::default()
    };
    let incoming = vec![waiting(message("later", 9, &["s1"]), "s1"), waiting(parked, missing)];
    let meta = ChannelMeta { lamport_timestamp: 9, incoming, ..ChannelMeta::default() };
    let bytes = encode_data(&ChannelData::new(meta, message_history, vec![]));
    ChannelState::import(room(), options(), &bytes, NOW).unwrap()
}

#[test]
fn a_sync_message_that_nim_sds_has_parked_is_met_and_never_ready() {
    let sync = SdsMessage { content: bytes::Bytes::new(), ..message("s1", 5, &["gone"]) };
    let (state, effects) = imported(sync, "gone", vec![]);
    assert_eq!(told(&effects), ["ready later"]);
    assert_eq!((state.stats().parked, state.stats().missing, state.stats().history), (0, 0, 1));
}

#[test]
fn a_message_without_an_id_that_nim_sds_has_kept_is_not_named_as_a_cause() {
    let (mut state, _) = imported(message("p", 5, &["gone"]), "gone", vec![message("", 3, &[]), message("a", 2, &[])]);
    let (bytes, _) = state.wrap("own", "x", NOW).unwrap();
    // Nobody takes such a message, so whoever is to wait for it would wait for ever.
    assert_eq!(super::causes(&bytes), ["a"]);
}

proptest! {
    #[test]
    fn ch_04_no_bytes_make_a_snapshot_decoder_panic_and_what_decodes_can_be_imported_or_is_refused(
        noise in vec(any::<u8>(), 0..200), cuts in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
    ) {
        let _ = (decode_meta(&noise), decode_data(&noise), decode_update(&noise));
        let mut bytes = busy().export().to_vec();
        for (place, value) in cuts {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = decode_meta(&bytes);
        let _ = decode_update(&bytes);
        if let Ok((state, _)) = ChannelState::import(room(), options(), &bytes, NOW) {
            let again = decode_data(&state.export()).unwrap();
            prop_assert_eq!(again.meta.lamport_timestamp, state.stats().lamport_timestamp);
        }
    }

    #[test]
    fn what_is_encoded_decodes(clock in 0_i64.., attempts in any::<u32>(), due in 0_i64.., id in "[a-z]{0,9}") {
        let mut meta = ChannelMeta { lamport_timestamp: clock, ..busy().meta() };
        meta.outgoing[0].resend_attempts = attempts;
        meta.outgoing[0].send_time_ms = due;
        meta.incoming[0].parked_at_ms = 0;
        meta.incoming[0].missing.insert(id.as_str().into());
        meta.outgoing_repair[0].entry = HistoryEntry::new(id.as_str());
        meta.outgoing_repair[0].due_ms = due;
        meta.outgoing_repair[0].expires_ms = 0;
        meta.incoming_repair[0].due_ms = due;
        let data = ChannelData::new(meta, vec![message("m", 1, &["c"])], vec![]);
        prop_assert_eq!(decode_data(&encode_data(&data)).unwrap(), data.clone());
        let update = HistoryUpdate::new(data.message_history, vec![id.into()]);
        prop_assert_eq!(decode_update(&encode_update(&update).unwrap()).unwrap(), update);
    }
}
