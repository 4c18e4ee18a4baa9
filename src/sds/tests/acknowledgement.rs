//! Who has seen what of ours, and sync messages.

use bytes::Bytes;

use super::{NOW, channel, history_ids, ids, message, packet, packet_with_bloom, plain, receive, status, told};
use crate::sds::bloom::BloomFilter;
use crate::sds::proto::{put_bytes, put_number};
use crate::sds::{BloomAck, ChannelOptions, ChannelState, ClockUnit, ReceiveStatus, SdsMessage, WireFormat, encode};

fn with_sent(options: ChannelOptions, sent: &[&str]) -> ChannelState {
    let mut state = channel(options);
    for id in sent {
        state.wrap(*id, "x", NOW).unwrap();
    }
    state
}

fn waiting(state: &ChannelState) -> Vec<String> {
    state.meta().outgoing.iter().map(|outgoing| outgoing.message.message_id.to_string()).collect()
}

#[test]
fn ch_23_a_message_that_names_ours_acknowledges_it_once_and_for_certain() {
    // Delivered, parked, a copy of either.
    let mut state = with_sent(ChannelOptions::default(), &["m1", "m2", "m3"]);
    let (_, effects) = receive(&mut state, &packet("p1", 5, &["m1"]));
    assert_eq!(told(&effects), ["sent m1", "ready p1"]);
    let (received, effects) = receive(&mut state, &packet("p2", 6, &["m2", "unknown"]));
    assert_eq!(received.status, ReceiveStatus::Parked);
    assert_eq!(told(&effects), ["sent m2", "missing p2: unknown"]);
    assert!(effects.meta_changed);
    assert_eq!(told(&receive(&mut state, &packet("p2", 6, &["m2", "unknown"])).1), [""; 0]);
    let (received, effects) = receive(&mut state, &packet("p1", 5, &["m1", "m3"]));
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Duplicate, vec!["sent m3".to_owned()]));
    assert!(effects.meta_changed && waiting(&state).is_empty());
}

#[test]
fn ch_23_named_and_in_the_bloom_filter_is_one_certain_acknowledgement() {
    let mut state = with_sent(ChannelOptions::default(), &["m1", "m2", "m3"]);
    let (_, effects) = receive(&mut state, &packet_with_bloom("p1", 5, &["m3", "m1"], &["m1", "m2", "m3"]));
    assert_eq!(told(&effects), ["sent m1", "seen m2", "sent m3", "ready p1"], "in order of sending");
}

#[test]
fn a_bloom_filter_acknowledges_or_hints_as_the_channel_was_told() {
    let mut state = with_sent(ChannelOptions::default(), &["m1", "m2"]);
    let (_, effects) = receive(&mut state, &packet_with_bloom("p1", 5, &[], &["m2"]));
    assert_eq!(told(&effects), ["seen m2", "ready p1"]);
    assert_eq!(waiting(&state), ["m1"]);

    let options = ChannelOptions::default().with_bloom_ack(BloomAck::Hint).with_clock_unit(ClockUnit::Milliseconds);
    let mut state = with_sent(options, &["m1", "m2"]);
    let bytes = packet_with_bloom("p1", 5, &[], &["m2"]);
    let (_, effects) = receive(&mut state, &bytes);
    assert_eq!((told(&effects), effects.meta_changed), (vec!["ready p1".to_owned()], true));
    assert_eq!(state.meta().outgoing.iter().map(|m| m.possibly_acknowledged).collect::<Vec<_>>(), [false, true]);
    assert!(receive(&mut state, &bytes).1.saves_nothing(), "marked already");
    // Being named settles it.
    assert_eq!(told(&receive(&mut state, &packet("p2", 6, &["m2"])).1), ["sent m2", "ready p2"]);
}

#[test]
fn what_was_acknowledged_without_a_clock_tick_is_saved() {
    let mut state = with_sent(ChannelOptions::default(), &["m1"]);
    receive(&mut state, &packet("p1", 5, &[]));
    let (received, effects) = receive(&mut state, &packet_with_bloom("p1", 5, &[], &["m1"]));
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Duplicate, vec!["seen m1".to_owned()]));
    assert!(effects.meta_changed);
}

#[test]
fn a_message_of_ours_stays_known_as_long_as_it_is_outgoing_and_its_hint_goes_with_it() {
    let options = ChannelOptions::default().with_max_history(1).with_max_remembered(1);
    let mut state = channel(options.clone());
    let (first, _) = state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    state.mark_dependencies_met(["x"], NOW).unwrap();
    assert_eq!(state.stats().remembered, 1, "m1 is neither in the history nor remembered");
    assert_eq!(status(&mut state, &first), ReceiveStatus::Duplicate);
    assert!(state.set_hint("m1", "here").unwrap().0);
    let (received, effects) = receive(&mut state, &packet_with_bloom("p", 1, &["x"], &["m1"]));
    assert_eq!(received.status, ReceiveStatus::Delivered);
    assert_eq!(effects.hints, [("m1".into(), Bytes::new())]);

    let mut state = channel(options);
    state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    state.mark_dependencies_met(["x"], NOW).unwrap();
    receive(&mut state, &packet("x", 9, &["m1"]));
    assert_eq!(status(&mut state, &first), ReceiveStatus::Duplicate, "acknowledged, it is remembered");
}

#[test]
fn an_echo_of_our_own_messages_acknowledges_nothing() {
    let mut state = plain();
    state.wrap("m1", "x", NOW).unwrap();
    let (second, _) = state.wrap("m2", "x", NOW).unwrap();
    let (received, effects) = receive(&mut state, &second);
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Duplicate, vec![]));
    assert_eq!(waiting(&state), ["m1", "m2"]);
}

#[test]
fn an_echo_of_a_message_that_was_acknowledged_meanwhile_acknowledges_no_other() {
    let mut state = plain();
    state.wrap("m1", "x", NOW).unwrap();
    let (second, _) = state.wrap("m2", "x", NOW).unwrap();
    // A peer has the second one only, which waits there for the first.
    assert_eq!(told(&receive(&mut state, &packet_with_bloom("p", 1, &[], &["m2"])).1), ["seen m2", "ready p"]);
    let (received, effects) = receive(&mut state, &second);
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Duplicate, vec![]));
    assert_eq!(waiting(&state), ["m1"]);
}

#[test]
fn an_echo_of_our_own_sync_message_acknowledges_nothing() {
    let mut state = plain();
    state.wrap("m1", "x", NOW).unwrap();
    let (sync, _) = state.sync_message("s1", NOW).unwrap();
    let (received, effects) = receive(&mut state, &sync);
    assert_eq!((received.status, told(&effects)), (ReceiveStatus::Duplicate, vec![]));
    assert_eq!(waiting(&state), ["m1"]);
}

#[test]
fn an_echo_of_what_was_sent_before_a_restart_acknowledges_nothing_and_what_a_peer_says_does() {
    let options = ChannelOptions::default().with_participant("alice");
    let (mut state, mut stored) = (channel(options.clone()), super::Stored::default());
    let (_, effects) = state.wrap("m1", "x", NOW).unwrap();
    stored.save(&state, &effects);
    let (second, effects) = state.wrap("m2", "x", NOW).unwrap();
    stored.save(&state, &effects);
    let (_, effects) = receive(&mut state, &packet_with_bloom("p", 1, &[], &["m2"]));
    stored.save(&state, &effects);
    let (sync, _) = state.sync_message("s1", NOW).unwrap();

    let (mut state, _) = stored.load_at(&options, NOW + 1);
    for echo in [second, sync] {
        assert_eq!(told(&receive(&mut state, &echo).1), [""; 0]);
        assert_eq!(waiting(&state), ["m1"]);
    }
    // Another device of hers, or whoever speaks in her name, is no echo.
    let hers = SdsMessage { sender_id: "alice".into(), ..message("other", NOW, &["m1"]) };
    assert_eq!(told(&receive(&mut state, &encode(WireFormat::NimSds, &hers)).1), ["sent m1", "ready other"]);
}

#[test]
fn ch_08_a_bloom_filter_that_cannot_be_acknowledges_nothing() {
    let bloom = |bits: &[u8], hashes: u64, size: u64| {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, bits);
        put_number(&mut bytes, 2, 10);
        put_number(&mut bytes, 3, 1_000);
        put_number(&mut bytes, 4, hashes);
        put_number(&mut bytes, 5, size);
        bytes
    };
    let good = BloomFilter::new(10, 0.001);
    let bad = [
        ("k is 0", bloom(&[0; 24], 0, 150)),
        ("k is 33", bloom(&[0xff; 24], 33, 150)),
        ("m is 0", bloom(&[0xff; 8], 10, 0)),
        ("m is beyond its bits", bloom(&[0xff; 24], 10, 192)),
        ("m is far beyond its bits", bloom(&[0xff; 24], 10, u64::MAX)),
        ("m is below its bits", bloom(&[0x7f; 24], 10, 127)),
        ("all ones", bloom(&[0xff; 24], 10, 150)),
        ("no bits", bloom(&[], 10, 150)),
        ("cut short", good.serialized()[..good.serialized().len() - 1].to_vec()),
        ("no filter at all", b"whatever".to_vec()),
    ];
    let mut state = with_sent(ChannelOptions::default(), &["m1"]);
    for (count, (name, bloom)) in (1..).zip(bad) {
        let message = SdsMessage { bloom_filter: Bytes::from(bloom), ..message(name, 5, &[]) };
        let (received, effects) = receive(&mut state, &encode(WireFormat::NimSds, &message));
        assert_eq!(received.status, ReceiveStatus::Delivered);
        assert_eq!(told(&effects), [format!("ready {name}")]);
        assert_eq!((state.stats().blooms_rejected, state.stats().unacknowledged), (count, 1), "{name}");
    }
    // None is no fault, and a dense one that is in shape counts.
    receive(&mut state, &packet("without", 5, &[]));
    assert_eq!(state.stats().blooms_rejected, 10);
    let mut dense = vec![0xff; 18];
    dense.extend([0; 6]);
    dense[17] = 0;
    dense[16] = 0x0f;
    let message = SdsMessage { bloom_filter: bloom(&dense, 1, 150).into(), ..message("dense", 5, &[]) };
    receive(&mut state, &encode(WireFormat::NimSds, &message));
    assert_eq!(state.stats().blooms_rejected, 11, "132 of 150 are more than 7/8");
}

fn sync(id: &str, timestamp: i64, causes: &[&str]) -> Bytes {
    encode(WireFormat::NimSds, &SdsMessage { content: Bytes::new(), ..message(id, timestamp, causes) })
}

#[test]
fn ch_29_a_sync_message_acknowledges_ticks_and_tells_what_is_missing_but_is_no_message() {
    let mut state = with_sent(ChannelOptions::default(), &["m1"]);
    receive(&mut state, &packet("later", 9, &["s1"]));
    let (clock, added) = (state.stats().lamport_timestamp, state.bloom.added());
    let (received, effects) = receive(&mut state, &sync("s1", 5, &["m1", "gone"]));
    assert_eq!((received.status, ids(&received.missing)), (ReceiveStatus::Sync, vec!["gone".to_owned()]));
    assert!(received.content.is_empty());
    // later waited for the sync message, which nim-sds peers name as a cause.
    assert_eq!(told(&effects), ["sent m1", "missing s1: gone", "ready later"]);
    assert_eq!(history_ids(&state), ["later", "m1"]);
    assert_eq!(state.stats().lamport_timestamp, clock + 1);
    assert_eq!(state.bloom.added(), added, "it is in no filter");
    assert_eq!(state.stats().parked, 0);
    // Once more, and as a cause of another.
    assert_eq!(status(&mut state, &sync("s1", 5, &["m1", "gone"])), ReceiveStatus::Duplicate);
    assert_eq!(status(&mut state, &packet("p", 6, &["s1"])), ReceiveStatus::Delivered);
}

#[test]
fn ch_29_in_milliseconds_a_sync_message_moves_the_clock_at_most_up_to_its_timestamp() {
    let mut state = channel(ChannelOptions::default().with_clock_unit(ClockUnit::Milliseconds));
    let (_, effects) = receive(&mut state, &sync("s1", 50, &[]));
    assert_eq!((state.stats().lamport_timestamp, effects.meta_changed), (50, true));
    let (_, effects) = receive(&mut state, &sync("s2", 5, &[]));
    assert!(effects.saves_nothing(), "nothing that is saved has changed");
}
