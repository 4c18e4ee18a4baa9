//! What a silent channel says. Without this, a peer that only listens never learns what it missed, and never shows what it
//! has.

use std::time::Duration;

use super::{NOW, decoded, opened, packet, receive, refused, status, tick, told, told_until};
use crate::sds::bloom::PeerBloom;
use crate::sds::hash::BloomHash;
use crate::sds::{
    ChannelEvent, ChannelOptions, ChannelState, ClockUnit, Effects, ReceiveStatus, SdsMessage, WireFormat,
};

const SECOND: i64 = 1_000;

fn synced(effects: &Effects) -> Option<SdsMessage> {
    effects.events.iter().find_map(|event| match event {
        ChannelEvent::Sync { bytes, .. } => Some(decoded(bytes)),
        _ => None,
    })
}

fn times(state: &mut ChannelState, end: i64) -> Vec<i64> {
    let log = told_until(state, NOW + end * SECOND);
    log.into_iter().filter(|(_, told)| told.contains(&"sync".to_owned())).map(|(time, _)| time / SECOND).collect()
}

#[test]
fn ch_28_a_sync_message_tells_causes_and_filter_and_changes_neither_clock_nor_history_nor_disk() {
    for unit in [ClockUnit::Seconds, ClockUnit::Milliseconds] {
        let mut state = opened(&ChannelOptions::default().with_participant("alice").with_clock_unit(unit));
        receive(&mut state, &packet("p1", 1, &[]));
        state.wrap("m1", "x", NOW).unwrap();
        state.set_hint("p1", "where").unwrap();
        let before = state.clone();
        let (bytes, effects) = state.sync_message("s1", NOW + 5).unwrap();
        assert!(effects == Effects::default(), "nothing to save, nothing to tell");
        assert_eq!((state.meta(), state.history()), (before.meta(), before.history()));
        assert!(state.bloom == before.bloom && state.clock == before.clock && state.outgoing == before.outgoing);

        let sync = decoded(&bytes);
        assert!(sync.content.is_empty() && sync.repair_request.is_empty());
        assert_eq!((sync.message_id.as_str(), sync.sender_id.as_str()), (Some("s1"), Some("alice")));
        let bloom = PeerBloom::read(&sync.bloom_filter).unwrap().unwrap();
        assert!(["p1", "m1"].iter().all(|id| bloom.contains(BloomHash::of(id.as_bytes()))));
        assert!(!bloom.contains(BloomHash::of(b"s1")));
        // As a message sent now would have it.
        let sent = decoded(&state.wrap("m2", "x", NOW + 5).unwrap().0);
        assert_eq!((sync.lamport_timestamp, &sync.causal_history), (sent.lamport_timestamp, &sent.causal_history));
        assert_eq!(sync.causal_history[0].retrieval_hint, "where");
        // Its echo is no news.
        assert_eq!(status(&mut state, &bytes), ReceiveStatus::Duplicate);
    }
}

#[test]
fn a_sync_message_has_an_id_of_its_own() {
    let mut state = opened(&ChannelOptions::default());
    state.wrap("m1", "x", NOW).unwrap();
    receive(&mut state, &packet("parked", 1, &["unknown"]));
    for id in ["m1", "parked"] {
        assert_eq!(refused(&mut state, |state| state.sync_message(id, NOW)), "DuplicateId");
    }
    assert_eq!(refused(&mut state, |state| state.sync_message("", NOW)), "InvalidId");
    assert_eq!(refused(&mut state, |state| state.sync_message("x".repeat(1_025), NOW)), "InvalidId");
    // Somebody may have named it before: then it is met, as with peers.
    let (_, effects) = state.sync_message("unknown", NOW).unwrap();
    assert_eq!((told(&effects), effects.meta_changed), (vec!["ready parked".to_owned()], true));
}

#[test]
fn a_sync_message_is_in_the_channels_wire_form() {
    let mut state = opened(&ChannelOptions::default().with_wire(WireFormat::Rfc));
    state.wrap("m1", "x", NOW).unwrap();
    let (bytes, _) = state.sync_message("s1", NOW).unwrap();
    let sync = crate::sds::decode(WireFormat::Rfc, &bytes).unwrap().to_message();
    assert_eq!((sync.message_id.as_str(), sync.causal_history.len()), (Some("s1"), 1));
}

#[test]
fn a_channel_speaks_after_each_interval_of_silence_unless_it_has_nothing_to_say() {
    let mut state = opened(&ChannelOptions::default().with_max_resend_attempts(0));
    assert_eq!(state.next_due(), None);
    // The ticks count from the opening, and those before there was anything to say have passed.
    state.receive(&packet("p", 1, &[]), NOW + 70 * SECOND).unwrap();
    assert_eq!(times(&mut state, 150), [90, 120, 150]);
    // A message that is sent says all that a sync message would.
    state.wrap("m1", "x", NOW + 155 * SECOND).unwrap();
    assert_eq!(times(&mut state, 250), [185, 215, 245]);
    // A late tick is not made up for.
    assert!(synced(&tick(&mut state, NOW + 1_000 * SECOND)).is_some());
    assert_eq!(state.next_due(), Some(NOW + 1_025 * SECOND));

    let mut state = opened(&ChannelOptions::default().with_sync_interval(None));
    state.receive(&packet("p", 1, &[]), NOW).unwrap();
    assert_eq!(state.next_due(), None);
}

#[test]
fn a_channel_that_was_loaded_speaks_one_interval_later() {
    let mut state = opened(&ChannelOptions::default());
    let mut stored = super::Stored::default();
    let (_, effects) = receive(&mut state, &packet("p", 1, &[]));
    stored.save(&state, &effects);
    let (mut state, _) = stored.load_at(&ChannelOptions::default(), NOW + 7 * SECOND);
    assert_eq!(times(&mut state, 70), [37, 67]);
}

#[test]
fn one_that_has_received_nothing_but_what_it_cannot_deliver_asks_as_soon_as_it_may() {
    let mut state = opened(&ChannelOptions::default().with_participant("bob"));
    state.receive(&packet("m2", 2, &["m1"]), NOW + SECOND).unwrap();
    // The request is due after 105.5 s; the history is empty, so there is nothing to say before.
    assert_eq!(state.next_due(), Some(NOW + 120 * SECOND));
    let sync = synced(&tick(&mut state, NOW + 120 * SECOND)).unwrap();
    assert_eq!(sync.repair_request[0].message_id, "m1");
    assert!(sync.causal_history.is_empty());
    // Nor again before it is due again.
    assert_eq!(state.next_due(), Some(NOW + 240 * SECOND));
    // Once it is known that nobody needs it, there is no reason to wake up.
    state.mark_dependencies_met(["m1"], NOW + 121 * SECOND).unwrap();
    assert_eq!(times(&mut state, 200), [150, 180], "now there is a history");

    let mut nobody = opened(&ChannelOptions::default());
    nobody.receive(&packet("m2", 2, &["m1"]), NOW).unwrap();
    assert_eq!(nobody.next_due(), None);
    let mut mute = opened(&ChannelOptions::default().with_participant("bob").with_max_repair_requests(0));
    mute.receive(&packet("m2", 2, &["m1"]), NOW).unwrap();
    assert_eq!(mute.next_due(), Some(NOW + 410 * SECOND), "when its request is past its end: 405.5 s, at a sweep");
    assert_eq!(told(&tick(&mut mute, NOW + 410 * SECOND)), [""; 0]);
    assert_eq!((mute.next_due(), mute.stats().requests), (None, 0));
}

#[test]
fn intervals_of_five_milliseconds_tick_at_exactly_their_times() {
    let five = Duration::from_millis(5);
    let options = ChannelOptions::default()
        .with_resend_interval(five)
        .with_buffer_sweep_interval(five)
        .with_repair_sweep_interval(five)
        .with_sync_interval(Some(five))
        .with_max_resend_attempts(2);
    let mut state = opened(&options);
    state.wrap("m1", "x", NOW + 2).unwrap();
    let log: Vec<_> =
        told_until(&mut state, NOW + 22).into_iter().map(|(time, told)| (time, told.join(", "))).collect();
    let expected = [
        (7, "sync"),
        (10, "resend m1 1"),
        (12, "sync"),
        (15, "resend m1 2"),
        (17, "sync"),
        (20, "lost m1"),
        (22, "sync"),
    ];
    assert_eq!(log, expected.map(|(time, told)| (time, told.to_owned())));
}
