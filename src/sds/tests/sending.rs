//! wrap, the clock, retrieval hints.

use std::time::Duration;

use super::{NOW, causes, channel, decoded, history_ids, packet, plain, receive, refused, status, told};
use crate::sds::bloom::PeerBloom;
use crate::sds::hash::BloomHash;
use crate::sds::{ChannelOptions, ClockUnit, ReceiveStatus, WireFormat, decode};

fn clock(state: &crate::sds::ChannelState) -> i64 {
    state.stats().lamport_timestamp
}

#[test]
fn ch_09_two_sends_at_one_moment_are_one_apart() {
    let mut seconds = plain();
    let stamps: Vec<_> = [0, 999, 1_000]
        .iter()
        .zip(["a", "b", "c"])
        .map(|(ms, id)| decoded(&seconds.wrap(id, "x", NOW + ms).unwrap().0).lamport_timestamp)
        .collect();
    assert_eq!(stamps, [1_000_001, 1_000_002, 1_000_003]);
}

#[test]
fn ch_09_milliseconds_keep_to_their_own_column() {
    let mut state = channel(ChannelOptions::default().with_clock_unit(ClockUnit::Milliseconds));
    let send = |state: &mut crate::sds::ChannelState, id: &str, now| {
        decoded(&state.wrap(id, "x", now).unwrap().0).lamport_timestamp
    };
    assert_eq!(
        [send(&mut state, "a", NOW), send(&mut state, "b", NOW), send(&mut state, "c", NOW + 7)],
        [NOW, NOW + 1, NOW + 7]
    );
    // Receiving catches up without a tick; parking moves nothing until the delivery.
    assert_eq!(status(&mut state, &packet("old", 5, &[])), ReceiveStatus::Delivered);
    assert_eq!(clock(&state), NOW + 7);
    assert_eq!(status(&mut state, &packet("d", NOW + 50, &["x"])), ReceiveStatus::Parked);
    assert_eq!(clock(&state), NOW + 7);
    assert_eq!(status(&mut state, &packet("x", NOW + 20, &[])), ReceiveStatus::Delivered);
    assert_eq!(clock(&state), NOW + 50);
    assert_eq!(send(&mut state, "e", NOW), NOW + 51);
}

#[test]
fn ch_10_timestamps_five_then_one_then_a_copy_leave_the_clock_at_six_seven_seven() {
    let mut state = plain();
    let clocks = [("a", 5), ("b", 1), ("b", 1)].map(|(id, timestamp)| {
        receive(&mut state, &packet(id, timestamp, &[]));
        clock(&state)
    });
    assert_eq!(clocks, [6, 7, 7]);
}

#[test]
fn ch_11_a_message_from_the_end_of_time_is_delivered_and_not_named_as_a_cause() {
    for unit in [ClockUnit::Seconds, ClockUnit::Milliseconds] {
        let mut state = channel(ChannelOptions::default().with_clock_unit(unit));
        assert_eq!(status(&mut state, &packet("sane", 10, &[])), ReceiveStatus::Delivered);
        let (received, effects) = receive(&mut state, &packet("future", i64::MAX, &[]));
        assert_eq!((received.status, told(&effects)), (ReceiveStatus::Delivered, vec!["ready future".to_owned()]));
        let (now, day) = match unit {
            ClockUnit::Seconds => (NOW / 1_000, 86_400),
            ClockUnit::Milliseconds => (NOW, 86_400_000),
        };
        assert!(clock(&state) <= now + day + 1, "{}", clock(&state));
        assert_eq!(state.history().last().unwrap().lamport_timestamp, i64::MAX, "its timestamp stays as sent");
        assert_eq!(causes(&state.wrap("own", "x", NOW).unwrap().0), ["sane"]);
        assert_eq!(state.stats().clock_clamped, 1);
    }
}

#[test]
fn ch_11_without_a_bound_the_clock_follows_to_the_end_and_stays_usable() {
    let mut state = channel(ChannelOptions::default().with_max_clock_skew(None));
    receive(&mut state, &packet("future", i64::MAX, &[]));
    assert_eq!((clock(&state), state.stats().clock_clamped), (i64::MAX, 0));
    let (bytes, _) = state.wrap("own", "x", NOW).unwrap();
    assert_eq!((decoded(&bytes).lamport_timestamp, causes(&bytes)), (i64::MAX, vec!["future".to_owned()]));
}

#[test]
fn ch_12_wrap_refuses_nothing_too_much_and_known_ids_and_takes_exactly_the_limit() {
    let mut state = plain();
    let mib = vec![7; 1 << 20];
    state.wrap("full", mib.clone(), NOW).unwrap();
    receive(&mut state, &packet("peer", 1, &[]));
    receive(&mut state, &packet("parked", 1, &["unknown"]));
    state.mark_dependencies_met(["waived"], NOW).unwrap();
    assert_eq!(refused(&mut state, |state| state.wrap("m", "", NOW)), "EmptyContent");
    assert_eq!(refused(&mut state, |state| state.wrap("m", [&mib[..], &[7]].concat(), NOW)), "MessageTooLarge");
    for id in ["full", "peer", "parked", "waived"] {
        assert_eq!(refused(&mut state, |state| state.wrap(id, "x", NOW)), "DuplicateId", "{id}");
    }
    assert_eq!(refused(&mut state, |state| state.wrap("", "x", NOW)), "InvalidId");
    assert_eq!(refused(&mut state, |state| state.wrap("x".repeat(1_025), "x", NOW)), "InvalidId");
    state.wrap("x".repeat(1_024), "x", NOW).unwrap();
    state.wrap("unknown", "x", NOW).unwrap();
}

#[test]
fn a_wrapped_message_says_who_sent_it_and_what_was_seen_before() {
    let mut state = channel(ChannelOptions::default().with_participant("alice").with_max_causal_history(2));
    for (id, timestamp) in [("p1", 1), ("p3", 3), ("p2", 2)] {
        receive(&mut state, &packet(id, timestamp, &[]));
    }
    let (bytes, effects) = state.wrap("own", "content", NOW).unwrap();
    let message = decoded(&bytes);
    assert_eq!(causes(&bytes), ["p2", "p3"], "the newest two, oldest first");
    assert_eq!((message.sender_id.as_str(), &message.content[..]), (Some("alice"), &b"content"[..]));
    assert!(message.repair_request.is_empty());
    let bloom = PeerBloom::read(&message.bloom_filter).unwrap().unwrap();
    let has = |id: &str| bloom.contains(BloomHash::of(id.as_bytes()));
    assert!(has("p1") && has("p2") && has("p3") && !has("own"), "not its own id yet");
    assert!(state.bloom.contains(BloomHash::of(b"own")), "but from now on");
    // It is kept without the filter, both as history and as outgoing.
    let update = effects.history.to_update();
    assert!(effects.meta_changed && effects.events.is_empty() && update.evict.is_empty());
    assert_eq!(update.append.len(), 1);
    assert!(update.append[0].bloom_filter.is_empty());
    assert_eq!(state.meta().outgoing[0].message, update.append[0]);
    assert_eq!(state.meta().outgoing[0].send_time_ms, NOW);
}

#[test]
fn a_channel_without_causal_history_names_no_causes() {
    let mut state = channel(ChannelOptions::default().with_max_causal_history(0));
    state.wrap("m1", "x", NOW).unwrap();
    assert!(causes(&state.wrap("m2", "x", NOW).unwrap().0).is_empty());
}

#[test]
fn wrapping_an_id_that_is_waited_for_releases_what_waits() {
    let mut state = plain();
    receive(&mut state, &packet("later", 5, &["own"]));
    let (_, effects) = state.wrap("own", "x", NOW).unwrap();
    assert_eq!(told(&effects), ["ready later"]);
    assert_eq!(state.stats().parked, 0);
}

#[test]
fn hints_show_in_later_causal_histories_until_they_or_their_messages_go() {
    let mut state = channel(ChannelOptions::default().with_max_history(2));
    let hint_of = |state: &mut crate::sds::ChannelState, id: &str, name: &str| {
        let (bytes, effects) = state.wrap(id, "x", NOW).unwrap();
        let found = decoded(&bytes).causal_history.into_iter().find(|entry| entry.message_id == name);
        (found.map(|entry| entry.retrieval_hint), effects.hints)
    };
    state.wrap("m1", "x", NOW).unwrap();
    assert_eq!(state.set_hint("m0", "here").unwrap(), (false, crate::sds::Effects::default()));
    let (held, effects) = state.set_hint("m1", "here").unwrap();
    assert!(held && !effects.meta_changed && effects.events.is_empty());
    assert_eq!(effects.hints, [("m1".into(), "here".into())]);
    assert!(state.set_hint("m1", "here").unwrap().1.saves_nothing(), "the same again is no change");
    assert_eq!(hint_of(&mut state, "m2", "m1"), (Some("here".into()), vec![]));
    // m3 evicts m1: its hint goes from memory and, by the effects, from the disk.
    let (hint, hints) = hint_of(&mut state, "m3", "m1");
    assert_eq!((hint, hints), (Some("here".into()), vec![("m1".into(), bytes::Bytes::new())]));

    state.set_hint("m3", "there").unwrap();
    assert_eq!(state.set_hint("m3", "").unwrap().1.hints, [("m3".into(), bytes::Bytes::new())]);
    assert_eq!(hint_of(&mut state, "m4", "m3").0, Some("".into()));
    assert_eq!(refused(&mut state, |state| state.set_hint("m4", vec![1; 4_097])), "InvalidId");
    assert!(state.set_hint("m4", vec![1; 4_096]).unwrap().0);
}

#[test]
fn hints_of_peers_are_not_passed_on() {
    let mut state = plain();
    let mut cause = crate::sds::HistoryEntry::new("m1");
    cause.retrieval_hint = "theirs".into();
    let message = crate::sds::SdsMessage { causal_history: vec![cause.clone()], ..super::message("m2", 2, &[]) };
    let (received, _) = receive(&mut state, &crate::sds::encode(WireFormat::NimSds, &message));
    assert_eq!(received.missing, [cause], "told to the application");
    receive(&mut state, &packet("m1", 1, &[]));
    let entries = decoded(&state.wrap("m3", "x", NOW).unwrap().0).causal_history;
    assert_eq!(super::ids(&entries), ["m1", "m2"]);
    assert!(entries.iter().all(|entry| entry.retrieval_hint.is_empty()));
}

#[test]
fn a_message_of_the_other_form_or_channel_is_refused() {
    let mut rfc = channel(ChannelOptions::default().with_wire(WireFormat::Rfc));
    let (bytes, _) = rfc.wrap("m1", "x", NOW).unwrap();
    assert_eq!(decode(WireFormat::Rfc, &bytes).unwrap().channel_id, b"room");
    assert_eq!(refused(&mut plain(), |state| state.receive(&bytes, NOW)), "MalformedMessage");
    let mut other = crate::sds::ChannelState::new(
        crate::base::name::ChannelId::new("other").unwrap(),
        ChannelOptions::default().with_wire(WireFormat::Rfc),
    )
    .unwrap();
    assert_eq!(refused(&mut other, |state| state.receive(&bytes, NOW)), "WrongChannel");
}

#[test]
fn ch_57_sending_and_receiving_touch_as_many_entries_of_a_long_history_as_of_a_short_one() {
    let costs = [100, 10_000].map(|length| {
        let mut state = channel(ChannelOptions::default().with_max_history(length));
        for i in 0..length {
            receive(&mut state, &packet(&format!("m{i}"), 1, &[]));
        }
        assert_eq!(history_ids(&state).len(), length);
        let mut cost = |operation: &dyn Fn(&mut crate::sds::ChannelState)| {
            let before = state.history.touched();
            operation(&mut state);
            state.history.touched() - before
        };
        let last = format!("m{}", length - 1);
        [
            cost(&|state| drop(state.wrap("own", "x", NOW).unwrap())),
            cost(&|state| assert_eq!(status(state, &packet("a", 9, &["own", &last])), ReceiveStatus::Delivered)),
            cost(&|state| assert_eq!(status(state, &packet("c", 9, &["b", "own", &last])), ReceiveStatus::Parked)),
            cost(&|state| assert_eq!(status(state, &packet("b", 9, &["own"])), ReceiveStatus::Delivered)),
            cost(&|state| assert_eq!(status(state, &packet("b", 9, &["own"])), ReceiveStatus::Duplicate)),
            cost(&|state| drop(state.mark_dependencies_met(["z"], NOW).unwrap())),
        ]
    });
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0].iter().all(|cost| (1..40).contains(cost)), "{costs:?}");
}

#[test]
fn the_skew_is_counted_in_whole_units_of_the_clock() {
    let mut state = channel(ChannelOptions::default().with_max_clock_skew(Some(Duration::from_millis(1_999))));
    receive(&mut state, &packet("m1", i64::MAX, &[]));
    assert_eq!(clock(&state), NOW / 1_000 + 2);
}
