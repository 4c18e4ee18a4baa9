//! A channel comes back, from whatever was saved.

use std::collections::BTreeSet;

use super::{NOW, Stored, channel, history_ids, message, packet, plain, receive, room, status, told};
use crate::base::error::Error;
use crate::base::name::MessageId;
use crate::sds::bloom::RollingBloom;
use crate::sds::hash::BloomHash;
use crate::sds::{
    ChannelData, ChannelMeta, ChannelOptions, ChannelState, ClockUnit, HistoryEntry, IncomingMessage,
    IncomingRepairEntry, OutgoingRepairEntry, ReceiveStatus, SdsMessage, UnacknowledgedMessage,
};

fn parked(id: &str, timestamp: i64, missing: &[&str]) -> IncomingMessage {
    let missing: BTreeSet<MessageId> = missing.iter().copied().map(MessageId::from).collect();
    let causes: Vec<_> = missing.iter().filter_map(MessageId::as_str).collect();
    IncomingMessage { message: message(id, timestamp, &causes), parked_at_ms: 7, missing: missing.clone() }
}

fn load(options: ChannelOptions, data: ChannelData) -> (ChannelState, crate::sds::Effects) {
    ChannelState::load(room(), options, data, NOW).unwrap()
}

#[test]
fn ch_49_a_shuffled_repeated_and_overlong_history_is_put_in_order() {
    let history = [("m4", 9), ("m2", 2), ("m4", 4), ("m1", 1), ("m3", 3), ("m2", 2), ("m5", 5)];
    let meta = ChannelMeta { lamport_timestamp: 3, ..ChannelMeta::default() };
    let messages = history.iter().map(|(id, timestamp)| message(id, *timestamp, &[])).collect();
    let data = ChannelData::new(meta, messages, vec![]);
    let (state, effects) = load(ChannelOptions::default().with_max_history(3), data);
    let kept: Vec<_> = state.history().iter().map(|m| (m.message_id.to_string(), m.lamport_timestamp)).collect();
    assert_eq!(kept, [("m3".to_owned(), 3), ("m4".to_owned(), 4), ("m5".to_owned(), 5)], "the first m4 stays");
    assert_eq!(state.stats().lamport_timestamp, 5, "an old clock follows the history");
    let update = effects.history.to_update();
    assert_eq!(update.evict, ["m1", "m2"]);
    assert_eq!(update.append.iter().map(|m| &m.message_id).collect::<Vec<_>>(), ["m4"], "so that its repeat goes");
    assert!(effects.meta_changed && effects.events.is_empty());
}

#[test]
fn ch_49_a_repeated_message_that_goes_at_once_goes_from_the_disk_too() {
    let meta = ChannelMeta { lamport_timestamp: 9, incoming: vec![parked("q", 9, &[])], ..ChannelMeta::default() };
    let messages = vec![message("m", 1, &[]), message("m", 5, &[])];
    let (state, effects) =
        load(ChannelOptions::default().with_max_history(1), ChannelData::new(meta, messages, vec![]));
    assert_eq!((history_ids(&state), effects.history.to_update().evict), (vec!["q".to_owned()], vec!["m".into()]));
}

#[test]
fn ch_49_the_bloom_filter_holds_the_history_in_order_then_what_is_parked_in_order() {
    let number = |i: i64| format!("m{}", i * 7 % 10);
    let meta = ChannelMeta {
        lamport_timestamp: 9,
        incoming: (0..10)
            .map(|i| parked(&format!("p{i}"), i * 3 % 10, if i % 2 == 0 { &["x"] } else { &[] }))
            .collect(),
        ..ChannelMeta::default()
    };
    let messages = (0..10).map(|i| message(&number(i), i, &[])).rev().collect();
    let options = ChannelOptions::default().with_bloom_capacity(10);
    let (state, _) = load(options, ChannelData::new(meta, messages, vec![]));
    let mut expected = RollingBloom::new(10, 0.001);
    let by_timestamp = (0..10).map(|i| format!("p{}", i * 7 % 10));
    for id in (0..10).map(number).chain(by_timestamp) {
        expected.add(BloomHash::of(id.as_bytes()));
    }
    assert!(state.bloom == expected);
}

#[test]
fn ch_49_a_message_may_wait_for_what_it_does_not_name() {
    let odd = IncomingMessage { message: message("b", 2, &["a"]), ..parked("b", 2, &["z", "a", "y"]) };
    let meta = ChannelMeta { lamport_timestamp: 9, incoming: vec![odd], ..ChannelMeta::default() };
    let (_, effects) = load(ChannelOptions::default(), ChannelData::new(meta, vec![], vec![]));
    assert_eq!(told(&effects), ["missing b: a y z"]);
}

#[test]
fn ch_49_what_is_parked_and_in_the_history_is_in_the_history() {
    let meta = ChannelMeta {
        lamport_timestamp: 9,
        incoming: vec![
            parked("a", 1, &["gone"]),           // delivered already
            parked("b", 2, &["a", "gone"]),      // still waits for one
            parked("b", 2, &["a"]),              // repeated
            parked("c", 3, &["a"]),              // waits for nothing any more
            parked("d", 4, &["c"]),              // nor does this, then
            parked("e", 4, &["e", "a"]),         // nor does this
            parked("f", 5, &["b", "f", "gone"]), // waits for what is parked
        ],
        ..ChannelMeta::default()
    };
    let data = ChannelData::new(meta, vec![message("a", 1, &[])], vec![]);
    let (mut state, effects) = load(ChannelOptions::default(), data);
    assert_eq!(
        told(&effects),
        ["missing b: gone", "missing f: gone", "ready c", "ready d", "ready e"],
        "what stays is announced again, then what was released is ready"
    );
    assert_eq!(history_ids(&state), ["a", "c", "d", "e"]);
    assert_eq!(effects.history.to_update().append.len(), 3);
    assert!(effects.meta_changed);
    let incoming: Vec<_> = state.meta().incoming.into_iter().map(|m| (m.message.message_id, m.missing)).collect();
    let set = |ids: &[&str]| ids.iter().copied().map(MessageId::from).collect::<BTreeSet<_>>();
    assert_eq!(incoming, [("b".into(), set(&["gone"])), ("f".into(), set(&["b", "gone"]))]);
    assert!(["a", "b", "c", "d", "e", "f"].iter().all(|id| state.bloom.contains(BloomHash::of(id.as_bytes()))));
    assert_eq!(state.bloom.added(), 6);
    let (_, effects) = receive(&mut state, &packet("gone", 1, &[]));
    assert_eq!(told(&effects), ["ready gone", "ready b", "ready f"]);
}

#[test]
fn ch_49_what_was_waived_stays_waived() {
    let meta = ChannelMeta {
        incoming: vec![IncomingMessage { message: message("b", 2, &["a", "waived"]), ..parked("b", 2, &["a"]) }],
        ..ChannelMeta::default()
    };
    let (mut state, effects) = load(ChannelOptions::default(), ChannelData::new(meta, vec![], vec![]));
    assert_eq!((told(&effects), effects.saves_nothing()), (vec!["missing b: a".to_owned()], true));
    assert_eq!(state.meta().incoming[0].parked_at_ms, 7);
    assert_eq!(told(&receive(&mut state, &packet("a", 1, &[])).1), ["ready a", "ready b"]);
}

#[test]
fn ch_49_the_clock_follows_the_history_by_no_more_than_the_skew() {
    let meta = ChannelMeta { lamport_timestamp: 3, ..ChannelMeta::default() };
    let data = ChannelData::new(meta, vec![message("far", i64::MAX, &[]), message("m", 4, &[])], vec![]);
    let (state, effects) = load(ChannelOptions::default(), data.clone());
    assert_eq!(state.stats().lamport_timestamp, NOW / 1_000 + 86_400);
    assert!(effects.meta_changed);
    let (state, effects) = load(ChannelOptions::default().with_max_history(1), data);
    assert_eq!(history_ids(&state), ["m"], "the future goes first");
    assert_eq!(effects.history.to_update().evict, ["far"]);
}

#[test]
fn ch_49_a_lost_clock_does_not_make_the_history_look_like_the_future() {
    let messages = (0..5).map(|i| message(&format!("m{i}"), NOW / 1_000 + i, &[])).collect();
    let (state, _) =
        load(ChannelOptions::default().with_max_history(3), ChannelData::new(ChannelMeta::default(), messages, vec![]));
    assert_eq!(history_ids(&state), ["m2", "m3", "m4"]);
    assert_eq!(state.stats().lamport_timestamp, NOW / 1_000 + 4);
}

#[test]
fn a_channel_never_saved_loads_as_new_and_changes_nothing() {
    let (state, effects) = ChannelState::load(room(), ChannelOptions::default(), ChannelData::default(), 0).unwrap();
    assert!(state == plain());
    assert!(effects == crate::sds::Effects::default());
}

#[test]
fn a_state_of_another_version_is_refused() {
    let meta = ChannelMeta { schema_version: 2, ..ChannelMeta::default() };
    let data = ChannelData::new(meta, vec![], vec![]);
    let error = ChannelState::load(room(), ChannelOptions::default(), data, NOW).unwrap_err();
    assert!(matches!(error, Error::UnknownFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn outgoing_messages_come_back_and_are_known_even_where_the_history_lost_them() {
    let options = ChannelOptions::default().with_max_history(1);
    let (mut state, mut stored) = (channel(options.clone()), Stored::default());
    let (first, effects) = state.wrap("m1", "x", NOW).unwrap();
    stored.save(&state, &effects);
    let (_, effects) = state.wrap("m2", "x", NOW + 5).unwrap();
    stored.save(&state, &effects);
    stored.data.meta.outgoing[0].resend_attempts = 3;
    let (mut state, effects) = stored.load(&options);
    assert!(effects.saves_nothing() && effects.events.is_empty());
    let meta = state.meta();
    let outgoing = |m: &UnacknowledgedMessage| (m.message.message_id.to_string(), m.send_time_ms, m.resend_attempts);
    assert_eq!(
        meta.outgoing.iter().map(outgoing).collect::<Vec<_>>(),
        [("m1".to_owned(), NOW, 3), ("m2".to_owned(), NOW + 5, 0)]
    );
    assert_eq!(status(&mut state, &first), ReceiveStatus::Duplicate);
    assert_eq!(told(&receive(&mut state, &packet("p", 1, &["m1"])).1), ["sent m1", "ready p"]);
}

#[test]
fn a_message_is_delivered_once_across_a_restart_too() {
    let (mut state, mut stored) = (plain(), Stored::default());
    let (_, effects) = receive(&mut state, &packet("a", 1, &[]));
    stored.save(&state, &effects);
    let (own, effects) = state.wrap("own", "x", NOW).unwrap();
    stored.save(&state, &effects);
    let (mut state, _) = stored.load(&ChannelOptions::default());
    for bytes in [packet("a", 1, &[]), own] {
        let (received, effects) = receive(&mut state, &bytes);
        assert_eq!((received.status, effects.events), (ReceiveStatus::Duplicate, vec![]));
    }
}

#[test]
fn hints_of_messages_that_are_not_there_are_deleted() {
    let meta = ChannelMeta { incoming: vec![parked("p", 2, &["x"]), parked("q", 3, &[])], ..ChannelMeta::default() };
    let hints = ["m1", "p", "q", "stray", "old"].map(|id| (MessageId::from(id), "hint".into())).to_vec();
    let messages = vec![message("m1", 5, &[]), message("old", 1, &[])];
    let (mut state, effects) =
        load(ChannelOptions::default().with_max_history(2), ChannelData::new(meta, messages, hints));
    let deleted: Vec<_> = effects.hints.iter().map(|(id, hint)| (id.to_string(), hint.len())).collect();
    assert_eq!(deleted, [("old".to_owned(), 0), ("stray".to_owned(), 0)], "old was evicted by q");
    let entries = super::decoded(&state.wrap("own", "x", NOW).unwrap().0).causal_history;
    assert!(entries.iter().all(|entry| entry.retrieval_hint == "hint") && entries.len() == 2);
}

#[test]
fn ch_49_requests_for_what_is_here_and_responses_for_what_is_not_are_dropped() {
    let request = |id: &str| OutgoingRepairEntry { entry: HistoryEntry::new(id), due_ms: NOW + 5, expires_ms: NOW + 9 };
    let response = |id: &str| IncomingRepairEntry { entry: HistoryEntry::new(id), due_ms: NOW, ..Default::default() };
    let meta = ChannelMeta {
        lamport_timestamp: 9,
        incoming: vec![parked("p", 2, &["x"]), parked("q", 3, &["h"])],
        outgoing_repair: ["h", "p", "q", "x"].map(request).to_vec(),
        incoming_repair: ["gone", "h", "p", "q"].map(response).to_vec(),
        ..ChannelMeta::default()
    };
    let options = ChannelOptions::default().with_participant("me");
    let (state, effects) = load(options, ChannelData::new(meta, vec![message("h", 1, &[])], vec![]));
    assert!(effects.meta_changed);
    assert_eq!(state.meta().outgoing_repair, [request("x")]);
    assert_eq!(state.meta().incoming_repair, ["h", "q"].map(response), "q was released");
}

#[test]
fn a_state_that_was_stored_by_the_first_release_is_read_as_it_was_written() {
    let stored = concat!(
        r#"{"schema_version":1,"lamport_timestamp":9,"#,
        r#""outgoing":[{"message":{"message_id":"m1","lamport_timestamp":5,"channel_id":"room","content":"eA=="},"#,
        r#""send_time_ms":70,"resend_attempts":3,"possibly_acknowledged":true}],"#,
        r#""incoming":[{"message":{"message_id":"p","lamport_timestamp":2,"causal_history":[{"message_id":"x","#,
        r#""retrieval_hint":"aGludA==","sender_id":"alice"}],"channel_id":"room","content":"eQ=="},"#,
        r#""missing":["x"],"parked_at_ms":80}],"#,
        r#""outgoing_repair":[{"entry":{"message_id":"x","sender_id":"alice"},"due_ms":90,"expires_ms":100}],"#,
        r#""incoming_repair":[{"entry":{"message_id":"h","sender_id":"carol"},"due_ms":110}]}"#
    );
    let meta: ChannelMeta = serde_json::from_str(stored).unwrap();
    assert_eq!(serde_json::to_string(&meta).unwrap(), stored);
    assert_eq!(rmp_serde::from_slice::<ChannelMeta>(&rmp_serde::to_vec_named(&meta).unwrap()).unwrap(), meta);
    let mut held = message("h", 1, &[]);
    held.sender_id = "carol".into();
    let data = ChannelData::new(meta.clone(), vec![held], vec![]);
    let options = ChannelOptions::default().with_participant("bob");
    let (state, effects) = ChannelState::load(room(), options, data, 75).unwrap();
    // It was parked later than the clock says now, which may be right again at the next start.
    assert_eq!((state.meta(), effects.saves_nothing()), (meta, true));
}

#[test]
fn stored_filters_and_requests_are_dropped() {
    let mut full = SdsMessage { bloom_filter: "filter".into(), ..message("a", 1, &[]) };
    full.repair_request.push(HistoryEntry::new("x"));
    let (state, _) = load(ChannelOptions::default(), ChannelData::new(ChannelMeta::default(), vec![full], vec![]));
    assert_eq!(*state.history()[0], message("a", 1, &[]));
}

#[test]
fn in_milliseconds_a_delivery_at_loading_moves_the_clock() {
    let meta = ChannelMeta { incoming: vec![parked("b", 50, &["a"])], ..ChannelMeta::default() };
    let data = ChannelData::new(meta, vec![message("a", 1, &[])], vec![]);
    let (state, _) = load(ChannelOptions::default().with_clock_unit(ClockUnit::Milliseconds), data);
    assert_eq!(state.stats().lamport_timestamp, 50);
}
