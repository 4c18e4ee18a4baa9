//! Messages that nobody acknowledges, and parked ones that nobody completes. Without this, what the link loses is lost,
//! or is sent for ever, and a peer can fill the parking for good.

use std::time::Duration;

use super::{
    NOW, channel, decoded, message, opened, packet, packet_with_bloom, receive, status, tick, told, told_until,
};
use crate::sds::bloom::PeerBloom;
use crate::sds::hash::BloomHash;
use crate::sds::{
    BloomAck, ChannelEvent, ChannelOptions, ChannelState, Effects, Now, ReceiveStatus, SdsMessage, WireFormat, encode,
};

const MINUTE: i64 = 60_000;

/// Without sync messages, which have tests of their own.
fn silent() -> ChannelOptions {
    ChannelOptions::default().with_sync_interval(None)
}

fn resent(effects: &Effects) -> Vec<SdsMessage> {
    let bytes = |event: &ChannelEvent| match event {
        ChannelEvent::Resend { bytes, .. } => Some(decoded(bytes)),
        _ => None,
    };
    effects.events.iter().filter_map(bytes).collect()
}

fn one(time: i64, event: &str) -> (i64, Vec<String>) {
    (time, vec![event.to_owned()])
}

#[test]
fn ch_25_without_an_acknowledgement_there_are_five_resends_then_one_loss_and_nothing_more() {
    let mut state = opened(&silent());
    assert_eq!(state.next_due(), None, "an idle channel needs no timer");
    let (first, _) = state.wrap("m1", "x", NOW).unwrap();
    for attempt in 1..=5 {
        let due = NOW + attempt * MINUTE;
        assert_eq!(state.next_due(), Some(due));
        assert!(tick(&mut state, due - 1) == Effects::default(), "not before its time");
        let effects = tick(&mut state, due);
        assert_eq!((told(&effects), effects.meta_changed), (vec![format!("resend m1 {attempt}")], true));
        let again = &resent(&effects)[0];
        assert_eq!((&again.message_id, &again.content), (&decoded(&first).message_id, &decoded(&first).content));
        assert_eq!(state.meta().outgoing[0].send_time_ms, due);
    }
    let effects = tick(&mut state, NOW + 6 * MINUTE);
    assert_eq!((told(&effects), effects.meta_changed), (vec!["lost m1".to_owned()], true));
    assert_eq!((state.next_due(), state.stats().unacknowledged), (None, 0));
    // It is not outgoing any more, so being named is no acknowledgement.
    assert_eq!(told(&receive(&mut state, &packet("p", 1, &["m1"])).1), ["ready p"]);
}

#[test]
fn resends_happen_at_sweeps_and_a_late_one_is_not_made_up_for() {
    let mut state = opened(&silent().with_resend_interval(Duration::from_secs(10)));
    state.wrap("m1", "x", NOW + 1).unwrap();
    assert_eq!(state.next_due(), Some(NOW + MINUTE));
    assert_eq!(told(&tick(&mut state, NOW + 5 * MINUTE + 3)), ["resend m1 1"]);
    assert_eq!(state.next_due(), Some(NOW + 6 * MINUTE));
    // Acknowledged, it needs no timer.
    receive(&mut state, &packet("p", 1, &["m1"]));
    assert_eq!(state.next_due(), None);
}

#[test]
fn without_attempts_a_message_is_given_up_after_one_interval() {
    let mut state = opened(&silent().with_max_resend_attempts(0));
    state.wrap("m1", "x", NOW).unwrap();
    assert_eq!(told_until(&mut state, i64::MAX), [one(MINUTE, "lost m1")]);
}

#[test]
fn ch_26_a_resend_is_the_message_as_it_was_with_the_filter_of_now_and_without_requests() {
    let mut state = opened(&silent().with_participant("alice"));
    receive(&mut state, &packet("cause", 1, &[]));
    state.set_hint("cause", "where").unwrap();
    let (first, _) = state.wrap("m1", "x", NOW).unwrap();
    receive(&mut state, &packet("later", 2, &["gone"]));
    state.set_hint("cause", "elsewhere").unwrap();
    // Long enough for a request for what is gone to be due.
    let effects = tick(&mut state, NOW + 5 * MINUTE);
    let (first, again) = (decoded(&first), resent(&effects).remove(0));
    assert_ne!(first.bloom_filter, again.bloom_filter);
    let bloom = PeerBloom::read(&again.bloom_filter).unwrap().unwrap();
    assert!(["cause", "m1", "later"].iter().all(|id| bloom.contains(BloomHash::of(id.as_bytes()))));
    assert!(state.wrap("m2", "x", NOW + 5 * MINUTE).is_ok_and(|(bytes, _)| decoded(&bytes).repair_request.len() == 1));
    assert_eq!(again, SdsMessage { bloom_filter: again.bloom_filter.clone(), ..first });
    assert!(again.repair_request.is_empty());
}

#[test]
fn ch_24_a_hit_in_a_bloom_filter_is_an_uncertain_sent() {
    let mut state = opened(&silent());
    state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    assert_eq!(told(&receive(&mut state, &packet_with_bloom("p", 1, &[], &["m2"])).1), ["seen m2", "ready p"]);
    assert_eq!(told_until(&mut state, NOW + MINUTE), [one(MINUTE, "resend m1 1")], "and is not sent again");
}

#[test]
fn ch_24_a_hit_in_a_bloom_filter_as_a_hint_has_the_message_sent_half_as_often() {
    let mut state = opened(&silent().with_bloom_ack(BloomAck::Hint));
    state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    let (_, effects) = receive(&mut state, &packet_with_bloom("p", 1, &[], &["m2"]));
    assert_eq!((told(&effects), state.stats().unacknowledged), (vec!["ready p".to_owned()], 2), "kept, and no event");
    let log = told_until(&mut state, NOW + 4 * MINUTE);
    let times = |id: &str| {
        let names = |told: &&(i64, Vec<String>)| told.1.iter().any(|event| event.starts_with(&format!("resend {id} ")));
        log.iter().filter(names).map(|(time, _)| time / MINUTE).collect::<Vec<_>>()
    };
    assert_eq!((times("m1"), times("m2")), (vec![1, 2, 3, 4], vec![2, 4]));
}

#[test]
fn what_is_sent_again_at_one_sweep_comes_in_order_of_sending_and_in_bounded_portions() {
    let mut state = opened(&silent());
    for number in (0..600).rev() {
        state.wrap(format!("m{number:03}"), "x", NOW).unwrap();
    }
    let mut order = Vec::new();
    for portion in [256, 256, 88] {
        assert_eq!(state.next_due(), Some(NOW + MINUTE), "there is more to do at once");
        let effects = tick(&mut state, NOW + MINUTE);
        assert_eq!(effects.events.len(), portion);
        order.extend(resent(&effects).iter().map(|message| message.message_id.to_string()));
    }
    assert_eq!(order, (0..600).rev().map(|number| format!("m{number:03}")).collect::<Vec<_>>());
    assert_eq!(state.next_due(), Some(NOW + 2 * MINUTE));
}

#[test]
fn ch_21_a_message_that_was_parked_for_too_long_is_lost_once_and_a_copy_is_new() {
    let options =
        silent().with_park_timeout(Some(Duration::from_secs(90))).with_buffer_sweep_interval(Duration::from_secs(10));
    let mut state = opened(&options);
    let parked = packet("p", 2, &["x"]);
    state.receive(&parked, NOW + 1).unwrap();
    state.set_hint("p", "here").unwrap();
    assert_eq!(state.next_due(), Some(NOW + 100_000));
    assert!(tick(&mut state, NOW + 90_000) == Effects::default());
    let effects = tick(&mut state, NOW + 100_000);
    assert_eq!((told(&effects), effects.meta_changed), (vec!["expired p".to_owned()], true));
    assert_eq!(effects.hints, [("p".into(), bytes::Bytes::new())]);
    assert_eq!((state.stats().parked, state.stats().parked_bytes, state.missing().len()), (0, 0, 0));
    assert_eq!(state.next_due(), None);
    assert!(tick(&mut state, NOW + 200_000) == Effects::default());
    // What it waited for is not what it was; the copy is.
    assert_eq!(told(&receive(&mut state, &packet("x", 1, &[])).1), ["ready x"]);
    let (received, effects) = receive(&mut state, &parked);
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Delivered, vec!["ready p".to_owned()]));
    // One that comes in time is not lost.
    receive(&mut state, &packet("q", 2, &["y"]));
    receive(&mut state, &packet("y", 1, &[]));
    assert_eq!(state.next_due(), None);
}

#[test]
fn ch_20_a_message_that_names_itself_is_delivered_and_a_circle_stays_parked_until_waived_or_expired() {
    let circle = |state: &mut ChannelState| {
        assert_eq!(status(state, &packet("self", 1, &["self"])), ReceiveStatus::Delivered);
        assert_eq!(status(state, &packet("a", 1, &["b"])), ReceiveStatus::Parked);
        assert_eq!(status(state, &packet("b", 1, &["a"])), ReceiveStatus::Parked);
        assert_eq!(state.stats().parked, 2);
    };
    let mut state = channel(silent());
    circle(&mut state);
    assert!(tick(&mut state, NOW + 1_000 * MINUTE) == Effects::default() && state.stats().parked == 2);
    assert_eq!(told(&state.mark_dependencies_met(["b"], NOW).unwrap()), ["ready a", "ready b"]);

    let mut state = opened(&silent().with_park_timeout(Some(Duration::from_secs(60))));
    circle(&mut state);
    assert_eq!(told_until(&mut state, i64::MAX), [(MINUTE, vec!["expired a".to_owned(), "expired b".to_owned()])]);
    assert_eq!(state.stats().parked, 0);
}

#[test]
fn a_wall_clock_that_is_set_moves_no_deadline() {
    let mut state = opened(&silent());
    state.wrap("m1", "x", Now::new(NOW, NOW)).unwrap();
    let year = 365 * 24 * 60 * MINUTE;
    assert!(state.tick(Now::new(NOW + year, NOW + MINUTE - 1), || unreachable!()) == Effects::default());
    assert_eq!(told(&state.tick(Now::new(NOW - year, NOW + MINUTE), || unreachable!())), ["resend m1 1"]);
    assert_eq!(state.meta().outgoing[0].send_time_ms, NOW - year, "on disk by the wall clock");
    assert_eq!(state.next_due(), Some(NOW + 2 * MINUTE));
}

#[test]
fn a_message_that_was_given_up_and_evicted_is_remembered() {
    let mut state = opened(&silent().with_max_history(1).with_max_resend_attempts(0).with_max_remembered(1));
    let (first, _) = state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    state.mark_dependencies_met(["x"], NOW).unwrap();
    state.set_hint("m1", "here").unwrap();
    let effects = tick(&mut state, NOW + MINUTE);
    assert_eq!((told(&effects), effects.hints.len()), (vec!["lost m1".to_owned(), "lost m2".to_owned()], 1));
    assert_eq!(status(&mut state, &first), ReceiveStatus::Duplicate);
}

#[test]
fn what_is_parked_longest_goes_first_and_its_dependents_stay() {
    let mut state = opened(&silent().with_park_timeout(Some(Duration::from_secs(60))));
    state.receive(&packet("p", 2, &["x"]), NOW).unwrap();
    state.receive(&packet("q", 3, &["p"]), NOW + 1).unwrap();
    assert_eq!(told(&tick(&mut state, NOW + MINUTE)), ["expired p"]);
    assert_eq!(state.missing(), ["p"]);
    let late = encode(WireFormat::NimSds, &message("p", 2, &[]));
    assert_eq!(told(&receive(&mut state, &late).1), ["ready p", "ready q"]);
}
