//! Each limit, at it and with room again.

use bytes::Bytes;

use super::{NOW, channel, message, packet, plain, receive, refused, status, told, told_until};
use crate::sds::{ChannelOptions, ReceiveStatus, SdsMessage, WireFormat, encode};

use ReceiveStatus::{Delivered, Duplicate, Parked};

#[test]
fn outgoing_messages_are_bounded_until_one_is_acknowledged() {
    let mut state = channel(ChannelOptions::default().with_max_outgoing(2));
    state.wrap("m1", "x", NOW).unwrap();
    state.wrap("m2", "x", NOW).unwrap();
    assert_eq!(refused(&mut state, |state| state.wrap("m3", "x", NOW)), "OutgoingFull");
    receive(&mut state, &packet("p", 1, &["m1"]));
    state.wrap("m3", "x", NOW).unwrap();
}

#[test]
fn parked_messages_are_bounded_and_the_same_bytes_are_taken_once_there_is_room() {
    let mut state = channel(ChannelOptions::default().with_max_parked(2));
    state.wrap("own", "x", NOW).unwrap();
    receive(&mut state, &packet("a", 2, &["x"]));
    receive(&mut state, &packet("b", 2, &["y"]));
    // It would acknowledge our message, had it been taken.
    let third = packet("c", 3, &["own", "x"]);
    assert_eq!(refused(&mut state, |state| state.receive(&third, NOW)), "ParkedFull");
    assert_eq!(status(&mut state, &packet("a", 2, &["x"])), Parked, "a copy needs no room");
    assert_eq!(status(&mut state, &packet("x", 1, &[])), Delivered, "nor does what need not be parked");
    assert_eq!(status(&mut state, &third), Delivered);
}

#[test]
fn bytes_of_parked_messages_are_bounded() {
    // Two ids of 1 byte each, 128 for the cause, and content.
    let sized = |id: &str, length: usize| {
        let message = SdsMessage { content: Bytes::from(vec![7; length - 130]), ..message(id, 2, &["x"]) };
        encode(WireFormat::NimSds, &message)
    };
    let mut state = channel(ChannelOptions::default().with_max_parked_bytes(1_000));
    assert_eq!(refused(&mut state, |state| state.receive(&sized("z", 1_001), NOW)), "ParkedFull");
    assert_eq!(status(&mut state, &sized("a", 600)), Parked);
    assert_eq!(refused(&mut state, |state| state.receive(&sized("b", 401), NOW)), "ParkedFull");
    assert_eq!(status(&mut state, &sized("c", 400)), Parked);
    assert_eq!(state.stats().parked_bytes, 1_000);
    assert_eq!(status(&mut state, &packet("x", 1, &[])), Delivered);
    assert_eq!(state.stats().parked_bytes, 0);
    assert_eq!(status(&mut state, &sized("b", 401)), Delivered);
}

#[test]
fn what_parked_messages_take_in_memory_is_bounded_however_short_the_ids_that_they_name() {
    let mut state = plain();
    let causes: Vec<_> = (0..1_024).map(|number| format!("{number:x}")).collect();
    let causes: Vec<_> = causes.iter().map(String::as_str).collect();
    let mut parked = 0;
    while state.receive(&packet(&format!("p{parked}"), 2, &causes), NOW).is_ok() {
        parked += 1;
    }
    // Each cause is kept as named, as waited for, and as who waits for it.
    let kept: usize = state.meta().incoming.iter().map(|parked| parked.message.causal_history.len()).sum();
    let most = state.options().max_parked_bytes;
    assert_eq!(kept, parked * 1_024);
    assert!(kept * size_of::<crate::sds::HistoryEntry>() <= most, "{kept} causes of {parked} messages");
}

#[test]
fn ids_waited_for_are_bounded() {
    let mut state = channel(ChannelOptions::default().with_max_missing(3));
    assert_eq!(status(&mut state, &packet("a", 2, &["x", "y"])), Parked);
    let two_more = packet("b", 2, &["y", "z", "q"]);
    assert_eq!(refused(&mut state, |state| state.receive(&two_more, NOW)), "ParkedFull");
    assert_eq!(status(&mut state, &packet("c", 2, &["y", "z"])), Parked, "y is waited for already");
    assert_eq!(status(&mut state, &packet("d", 2, &[])), Delivered);
    assert_eq!(status(&mut state, &packet("y", 1, &[])), Delivered);
    assert_eq!(status(&mut state, &two_more), Parked);
    assert_eq!(state.missing(), ["q", "x", "z"]);
}

#[test]
fn the_oldest_remembered_id_is_forgotten_first() {
    let mut state = channel(ChannelOptions::default().with_max_remembered(2).with_max_history(1));
    state.mark_dependencies_met(["x1", "x2", "x3"], NOW).unwrap();
    assert_eq!(state.stats().remembered, 2);
    assert_eq!(status(&mut state, &packet("x1", 1, &[])), Delivered, "forgotten, so it is new");
    assert_eq!(status(&mut state, &packet("x3", 1, &[])), Duplicate);
    assert_eq!(status(&mut state, &packet("y", 2, &[])), Delivered); // evicts x1, which is remembered instead of x2
    assert_eq!(status(&mut state, &packet("x1", 1, &[])), Duplicate);
    assert_eq!(status(&mut state, &packet("x2", 1, &[])), Delivered);
}

#[test]
fn sync_messages_however_many_make_a_channel_forget_nothing_that_it_has_delivered() {
    let mut state = channel(ChannelOptions::default().with_max_remembered(2).with_max_history(1));
    let first = packet("a", 1, &[]);
    assert_eq!(status(&mut state, &first), Delivered);
    assert_eq!(status(&mut state, &packet("b", 2, &[])), Delivered); // evicts a
    let sync = |id: &str| encode(WireFormat::NimSds, &SdsMessage { content: Bytes::new(), ..message(id, 2, &[]) });
    for number in 0..5 {
        state.sync_message(format!("own{number}"), NOW).unwrap();
        assert_eq!(status(&mut state, &sync(&format!("s{number}"))), ReceiveStatus::Sync);
    }
    assert_eq!(status(&mut state, &first), Duplicate);
    assert_eq!([status(&mut state, &sync("s4")), status(&mut state, &sync("s0"))], [Duplicate, ReceiveStatus::Sync]);
    assert_eq!(state.stats().remembered, 3);
}

#[test]
fn requests_are_bounded_and_what_is_beyond_stays_missing_and_announced() {
    let options = ChannelOptions::default().with_participant("me").with_max_requests(2);
    let mut state = channel(options);
    let (received, effects) = receive(&mut state, &packet("a", 5, &["x", "y", "z"]));
    assert_eq!((received.missing.len(), told(&effects)), (3, vec!["missing a: x y z".to_owned()]));
    let asked = |state: &crate::sds::ChannelState| {
        let requests = state.meta().outgoing_repair;
        requests.into_iter().map(|request| request.entry.message_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&state), ["x", "y"]);
    receive(&mut state, &packet("x", 1, &[]));
    receive(&mut state, &packet("b", 5, &["z"]));
    assert_eq!(asked(&state), ["y", "z"], "with room again, it is asked for");
}

#[test]
fn responses_are_bounded_and_what_is_beyond_is_ignored_until_there_is_room() {
    let options = ChannelOptions::default().with_participant("me").with_max_responses(1).with_sync_interval(None);
    let mut state = super::opened(&options);
    let mut request = |id: &str, wanted: &[&str]| {
        let repair_request = wanted.iter().copied().map(crate::sds::HistoryEntry::new).collect();
        let sender_id = "you".into();
        receive(
            &mut state,
            &encode(WireFormat::NimSds, &SdsMessage { repair_request, sender_id, ..message(id, 2, &[]) }),
        );
        state.stats().responses
    };
    assert_eq!([request("a", &[]), request("b", &[]), request("c", &["a", "b"])], [0, 0, 1]);
    let repairs = told_until(&mut state, NOW + 400_000);
    assert_eq!(repairs.into_iter().flat_map(|(_, told)| told).collect::<Vec<_>>(), ["repair a"]);
    let again = SdsMessage { repair_request: vec![crate::sds::HistoryEntry::new("b")], ..message("d", 2, &[]) };
    receive(&mut state, &encode(WireFormat::NimSds, &again));
    assert_eq!(state.meta().incoming_repair[0].entry.message_id, "b");
}

#[test]
fn answers_that_are_large_come_in_portions() {
    let mut state = super::opened(&ChannelOptions::default().with_participant("me").with_sync_interval(None));
    let names: Vec<_> = (0..20).map(|number| format!("m{number}")).collect();
    for name in &names {
        state.wrap(name.as_str(), vec![7; 1 << 20], NOW).unwrap();
    }
    let wanted = names.iter().map(|name| crate::sds::HistoryEntry::new(name.as_str())).collect();
    let asking = SdsMessage { repair_request: wanted, ..message("a", 2, &[]) };
    receive(&mut state, &encode(WireFormat::NimSds, &asking));
    let portions: Vec<_> = std::iter::from_fn(|| {
        let due = state.next_due().filter(|due| *due == NOW + 5_000)?;
        Some(super::tick(&mut state, due).events.len())
    })
    .collect();
    assert_eq!(portions, [8, 8, 4], "all at the same sweep, 8 MiB at a time");
}

#[test]
fn packets_contents_and_ids_are_bounded() {
    let small = ChannelOptions::default().with_max_packet_size(100).with_max_message_size(20);
    let mut state = channel(small);
    let sized = |id: &str, content: usize, bloom: usize| {
        let content = Bytes::from(vec![7; content]);
        let bloom_filter = Bytes::from(vec![7; bloom]);
        encode(WireFormat::NimSds, &SdsMessage { content, bloom_filter, ..message(id, 2, &[]) })
    };
    let padding = 100 - sized("a", 20, 0).len();
    assert_eq!(status(&mut state, &sized("a", 20, padding)), Delivered);
    assert_eq!(refused(&mut state, |state| state.receive(&sized("b", 20, padding + 1), NOW)), "MessageTooLarge");
    assert_eq!(refused(&mut state, |state| state.receive(&sized("b", 21, 0), NOW)), "MessageTooLarge");
    assert_eq!(refused(&mut state, |state| state.receive(&sized("", 20, 0), NOW)), "InvalidId");
    let id = "x".repeat(1_025);
    assert_eq!(refused(&mut plain(), |state| state.receive(&packet(&id, 1, &[]), NOW)), "InvalidId");
}
