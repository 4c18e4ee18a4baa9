//! Causes first, everything once.

use super::{
    NOW, channel, history_ids, ids, message, packet, packet_with_bloom, plain, receive, refused, status, told,
};
use crate::base::name::MessageId;
use crate::sds::hash::BloomHash;
use crate::sds::{ChannelOptions, ClockUnit, HistoryEntry, ReceiveStatus, SdsMessage, WireFormat, encode};

use ReceiveStatus::{Delivered, Duplicate, Parked};

#[test]
fn ch_14_c_b_a_are_delivered_as_a_b_c_in_one_update() {
    let mut state = plain();
    assert_eq!(told(&receive(&mut state, &packet("c", 3, &["b"])).1), ["missing c: b"]);
    // a, the cause of b, is missing; b itself is not missing any more.
    assert_eq!(told(&receive(&mut state, &packet("b", 2, &["a"])).1), ["missing b: a"]);
    let (received, effects) = receive(&mut state, &packet("a", 1, &[]));
    assert_eq!(received.status, Delivered);
    assert_eq!(told(&effects), ["ready a", "ready b", "ready c"]);
    assert_eq!(history_ids(&state), ["a", "b", "c"]);
    let update = effects.history.to_update();
    assert_eq!((update.append.len(), update.evict.len()), (3, 0));
}

#[test]
fn what_is_released_is_not_parked_any_more_on_disk_even_if_the_clock_stands() {
    let mut state = channel(ChannelOptions::default().with_clock_unit(ClockUnit::Milliseconds));
    state.wrap("own", "x", NOW).unwrap();
    receive(&mut state, &packet("b", 2, &["a"]));
    let (_, effects) = receive(&mut state, &packet("a", 1, &[]));
    assert!(effects.meta_changed);
    let (_, effects) = receive(&mut state, &packet("c", 1, &[]));
    assert!(!effects.meta_changed, "nothing but the history changed");
}

#[test]
fn ch_15_siblings_follow_their_cause_by_timestamp_and_id_in_whatever_order_they_came() {
    let siblings = [("s1", 5), ("s2", 5), ("s0", 7), ("s9", 4)];
    for first in 0..4 {
        for second in 0..4 {
            let mut order: Vec<_> = siblings.to_vec();
            order.swap(0, first);
            order.swap(1, second);
            let mut state = plain();
            for (id, timestamp) in order {
                assert_eq!(status(&mut state, &packet(id, timestamp, &["cause"])), Parked);
            }
            let (_, effects) = receive(&mut state, &packet("cause", 9, &[]));
            assert_eq!(told(&effects), ["ready cause", "ready s9", "ready s1", "ready s2", "ready s0"]);
        }
    }
}

#[test]
fn ch_17_what_only_the_bloom_filter_contains_is_missing() {
    let mut state = plain();
    state.bloom.add(BloomHash::of(b"msg1"));
    let third = packet_with_bloom("msg3", 3, &["msg1", "msg2"], &["msg1"]);
    let (received, effects) = receive(&mut state, &third);
    assert_eq!((received.status, ids(&received.missing)), (Parked, vec!["msg1".to_owned(), "msg2".to_owned()]));
    assert_eq!(told(&effects), ["missing msg3: msg1 msg2"]);
    let (received, effects) = receive(&mut state, &packet_with_bloom("msg2", 2, &["msg1"], &["msg1"]));
    assert_eq!((received.status, ids(&received.missing)), (Parked, vec!["msg1".to_owned()]));
    assert_eq!(told(&effects), ["missing msg2: msg1"]);
}

#[test]
fn ch_18_a_second_copy_of_a_parked_message_changes_nothing() {
    let mut state = plain();
    let bytes = packet("b", 2, &["a", "c"]);
    receive(&mut state, &bytes);
    receive(&mut state, &packet("c", 1, &["a"]));
    let before = state.clone();
    let (received, effects) = receive(&mut state, &bytes);
    assert_eq!((received.status, ids(&received.missing)), (Parked, vec!["a".to_owned()]), "c is parked meanwhile");
    assert!(effects == crate::sds::Effects::default());
    assert_eq!(state.bloom.added(), before.bloom.added());
    assert!(state == before);
}

#[test]
fn ch_19_ids_marked_met_release_their_waiters_and_hold_up_nobody_later() {
    let mut state = plain();
    receive(&mut state, &packet("c", 3, &["x", "y"]));
    receive(&mut state, &packet("d", 2, &["y"]));
    let effects = state.mark_dependencies_met(["x"], NOW).unwrap();
    assert!(effects.meta_changed && effects.events.is_empty());
    let effects = state.mark_dependencies_met(["y"], NOW).unwrap();
    assert_eq!(told(&effects), ["ready d", "ready c"]);
    assert_eq!(status(&mut state, &packet("e", 4, &["x", "y"])), Delivered);
    // What was waived and comes after all is old news.
    assert_eq!(status(&mut state, &packet("x", 1, &[])), Duplicate);
}

#[test]
fn marking_known_ids_met_changes_nothing_and_unknown_ones_save_nothing() {
    let mut state = plain();
    receive(&mut state, &packet("a", 1, &[]));
    state.mark_dependencies_met(["x"], NOW).unwrap();
    let before = state.clone();
    assert!(state.mark_dependencies_met(["a", "x"], NOW).unwrap().saves_nothing());
    assert!(state == before);
    assert!(state.mark_dependencies_met(["y", "z"], NOW).unwrap().saves_nothing());
    assert_eq!(state.bloom.added(), before.bloom.added() + 2);
    let long = "x".repeat(1_025);
    assert_eq!(refused(&mut state, |state| state.mark_dependencies_met(["fine", &long], NOW)), "InvalidId");
}

#[test]
fn a_message_that_names_itself_is_delivered_and_a_circle_waits_until_it_is_waived() {
    let mut state = plain();
    assert_eq!(status(&mut state, &packet("self", 1, &["self"])), Delivered);
    let (received, effects) = receive(&mut state, &packet("a", 2, &["b"]));
    assert_eq!((received.status, told(&effects)), (Parked, vec!["missing a: b".to_owned()]));
    let (received, effects) = receive(&mut state, &packet("b", 3, &["a"]));
    assert_eq!((received.status, received.missing, told(&effects)), (Parked, vec![], vec![]));
    assert_eq!(state.missing(), ["a", "b"], "so that the circle can be found");
    let effects = state.mark_dependencies_met(["a"], NOW).unwrap();
    assert_eq!(told(&effects), ["ready b", "ready a"]);
    assert_eq!(history_ids(&state), ["self", "a", "b"]);
}

#[test]
fn a_cause_named_twice_counts_once() {
    let mut state = plain();
    let (received, _) = receive(&mut state, &packet("b", 2, &["a", "a", "a"]));
    assert_eq!(ids(&received.missing), ["a"]);
    assert_eq!(told(&receive(&mut state, &packet("a", 1, &[])).1), ["ready a", "ready b"]);
}

#[test]
fn a_message_is_delivered_once_even_after_its_eviction() {
    let mut state = channel(ChannelOptions::default().with_max_history(1));
    let first = packet("a", 1, &[]);
    assert_eq!(status(&mut state, &first), Delivered);
    let (received, effects) = receive(&mut state, &first);
    assert_eq!((received.status, &received.content[..]), (Duplicate, &b"content of a"[..]));
    assert!(effects == crate::sds::Effects::default());
    assert_eq!(status(&mut state, &packet("b", 2, &[])), Delivered);
    assert_eq!(history_ids(&state), ["b"]);
    assert_eq!(status(&mut state, &first), Duplicate);
    let (own, _) = state.wrap("own", "x", NOW).unwrap();
    assert_eq!(status(&mut state, &own), Duplicate);
}

#[test]
fn ch_22_beyond_its_cap_the_history_drops_the_smallest_but_the_future_before_it() {
    let mut state = channel(ChannelOptions::default().with_max_history(3));
    for (id, timestamp) in [("m5", 5), ("m3b", 3), ("m3a", 3)] {
        receive(&mut state, &packet(id, timestamp, &[]));
    }
    let (_, effects) = receive(&mut state, &packet("m4", 4, &[]));
    assert_eq!(history_ids(&state), ["m3b", "m4", "m5"], "of equal timestamps the smaller id goes");
    assert_eq!(effects.history.to_update().evict, ["m3a"]);
    // Beyond the clock, which may follow by no more than a day.
    let (_, effects) = receive(&mut state, &packet("future", i64::MAX, &[]));
    assert_eq!(told(&effects), ["ready future"]);
    assert!(effects.history.is_empty(), "it came and went within one operation");
    assert_eq!(history_ids(&state), ["m3b", "m4", "m5"]);

    let mut state = channel(ChannelOptions::default().with_max_history(3));
    for (id, timestamp) in [("f1", i64::MAX - 1), ("f2", i64::MAX), ("m1", 1)] {
        receive(&mut state, &packet(id, timestamp, &[]));
    }
    let evicted = ["m2", "m3", "m4"].map(|id| receive(&mut state, &packet(id, 2, &[])).1.history.to_update().evict);
    assert_eq!(evicted, [["f2"], ["f1"], ["m1"]]);
}

#[test]
fn a_message_older_than_a_full_history_is_delivered_and_not_kept() {
    let mut state = channel(ChannelOptions::default().with_max_history(2));
    for (id, timestamp) in [("m5", 5), ("m6", 6)] {
        receive(&mut state, &packet(id, timestamp, &[]));
    }
    let old = packet("m1", 1, &[]);
    let (received, effects) = receive(&mut state, &old);
    assert_eq!((received.status, told(&effects)), (Delivered, vec!["ready m1".to_owned()]));
    assert!(effects.history.is_empty());
    assert_eq!(status(&mut state, &old), Duplicate);
    assert_eq!(status(&mut state, &packet("m7", 7, &["m1"])), Delivered, "it counts as known");
}

#[test]
fn ch_30_an_ephemeral_message_passes_through_and_leaves_no_trace() {
    let mut state = channel(ChannelOptions::default().with_wire(WireFormat::Rfc));
    state.wrap("own", "x", NOW).unwrap();
    let before = state.clone();
    // As an Rfc message without field 10, naming our message as a cause.
    let bytes = b"\x12\x02m1\x1a\x04room\x5a\x05\x0a\x03own\xa2\x01\x02hi";
    for _ in 0..2 {
        let (received, effects) = receive(&mut state, bytes);
        assert_eq!((received.status, &received.content[..]), (ReceiveStatus::Ephemeral, &b"hi"[..]));
        assert!(effects == crate::sds::Effects::default() && received.missing.is_empty());
        assert!(state == before);
    }
}

#[test]
fn ids_that_are_not_utf8_are_received_saved_and_passed_on_as_they_are() {
    let mut state = plain();
    let id: &[u8] = &[0xff, 0x00, 0xc3];
    let odd = SdsMessage { message_id: id.into(), sender_id: id.into(), ..message("", 1, &[]) };
    let (_, effects) = receive(&mut state, &encode(WireFormat::NimSds, &odd));
    let json = serde_json::to_string(&effects.history.to_update()).unwrap();
    let mut stored = super::Stored::default();
    stored.save(&state, &effects);
    assert_eq!(
        serde_json::from_str::<crate::sds::HistoryUpdate>(&json).unwrap().append[0].message_id,
        MessageId::from(id)
    );
    let (mut state, _) = stored.load(&ChannelOptions::default());
    let entry = HistoryEntry { sender_id: id.into(), ..HistoryEntry::new(id) };
    assert_eq!(super::decoded(&state.wrap("next", "x", NOW).unwrap().0).causal_history, [entry]);
}
