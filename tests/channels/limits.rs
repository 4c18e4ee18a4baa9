//! Whatever peers and applications can make grow is bounded, at a channel with its actor as much as in the rules: at the
//! limit there is an answer that says so, and with room again the same bytes are taken. Without it one peer could take
//! all memory.

use std::time::Duration;

use bytes::Bytes;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::MessageId;
use ractor_persistence::channel::Channel;
use ractor_persistence::sds::{ChannelOptions, HistoryEntry, ReceiveStatus, SdsMessage, WireFormat, encode};

use crate::support::{NOW, faulty, options, packet, pass, start, told};

async fn open(options: ChannelOptions) -> Channel {
    let (adapter, _) = faulty();
    start(&adapter).await.open_channel("room", options).await.unwrap()
}

async fn status(channel: &Channel, bytes: &Bytes) -> ReceiveStatus {
    channel.receive(bytes).await.unwrap().status
}

async fn parked_full(channel: &Channel, bytes: &Bytes) {
    let before = (channel.stats().await.unwrap(), channel.history().await.unwrap());
    let refused = channel.receive(bytes).await;
    assert!(matches!(refused, Err(Error::ParkedFull { .. })), "{refused:?}");
    assert_eq!((channel.stats().await.unwrap(), channel.history().await.unwrap()), before);
}

#[tokio::test(start_paused = true)]
async fn ch_38_beyond_max_outgoing_wrap_is_refused_until_a_message_is_acknowledged_or_given_up() {
    let options =
        options().with_max_outgoing(2).with_max_resend_attempts(0).with_resend_interval(Duration::from_secs(60));
    let channel = open(options).await;
    channel.wrap("m1", "content").await.unwrap();
    channel.wrap("m2", "content").await.unwrap();
    assert!(matches!(channel.wrap("m3", "content").await, Err(Error::OutgoingFull { limit: 2 })));
    channel.receive(packet("p", 5, &["m1"])).await.unwrap();
    channel.wrap("m3", "content").await.unwrap();
    assert!(matches!(channel.wrap("m4", "content").await, Err(Error::OutgoingFull { limit: 2 })));
    pass(121_000).await;
    channel.wrap("m4", "content").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ch_38_beyond_what_may_be_parked_a_message_is_refused_and_taken_once_there_is_room() {
    let bounds = [
        options().with_max_parked(1),
        // Ids of two bytes, one cause of one byte, which counts for 128 more, content of seven.
        options().with_max_parked_bytes(138),
        options().with_max_missing(1),
    ];
    for bounded in bounds {
        let channel = open(bounded).await;
        let (first, second) = (packet("p1", 5, &["x"]), packet("p2", 6, &["y"]));
        assert_eq!(status(&channel, &first).await, ReceiveStatus::Parked);
        parked_full(&channel, &second).await;
        assert_eq!(status(&channel, &first).await, ReceiveStatus::Parked, "a copy needs no room");
        assert_eq!(status(&channel, &packet("z", 4, &[])).await, ReceiveStatus::Delivered, "nor what is not parked");
        assert_eq!(status(&channel, &packet("x", 4, &[])).await, ReceiveStatus::Delivered);
        assert_eq!(status(&channel, &second).await, ReceiveStatus::Parked);
    }
}

#[tokio::test(start_paused = true)]
async fn ch_38_beyond_max_requests_a_cause_stays_missing_and_announced_and_is_asked_for_when_there_is_room() {
    let channel = open(options().with_max_requests(1)).await;
    let mut events = channel.subscribe();
    channel.receive(packet("p1", 5, &["x"])).await.unwrap();
    let received = channel.receive(packet("p2", 6, &["y"])).await.unwrap();
    assert_eq!((received.status, received.missing.len()), (ReceiveStatus::Parked, 1));
    assert_eq!(told(&mut events), ["missing p1: x", "missing p2: y"]);
    let stats = channel.stats().await.unwrap();
    assert_eq!((stats.requests, stats.missing), (1, 2));
    channel.receive(packet("x", 4, &[])).await.unwrap();
    channel.receive(packet("q", 7, &[])).await.unwrap();
    assert_eq!(channel.stats().await.unwrap().requests, 1, "y is asked for in its place");
}

/// A message that asks for others.
fn asking(id: &str, ids: &[&str]) -> Bytes {
    let mut message = SdsMessage::default();
    message.message_id = id.into();
    message.lamport_timestamp = 9;
    message.channel_id = Bytes::from_static(b"room");
    message.content = Bytes::from_static(b"content");
    message.sender_id = "peer".into();
    message.repair_request = ids.iter().map(|id| HistoryEntry::new(*id)).collect();
    encode(WireFormat::NimSds, &message)
}

#[tokio::test(start_paused = true)]
async fn ch_38_beyond_max_responses_requests_are_ignored_until_one_has_been_answered() {
    // It answers at once: T_max is 0.
    let options = options().with_max_responses(1).with_repair_t_min(Duration::ZERO).with_repair_t_max(Duration::ZERO);
    let channel = open(options).await;
    let mut events = channel.subscribe();
    channel.wrap("m1", "content").await.unwrap();
    channel.wrap("m2", "content").await.unwrap();
    channel.receive(asking("a", &["m1", "m2"])).await.unwrap();
    assert_eq!(channel.stats().await.unwrap().responses, 1);
    told(&mut events);
    pass(5_500).await;
    assert_eq!(told(&mut events), ["repair m1"]);
    channel.receive(asking("a", &["m2"])).await.unwrap();
    pass(5_500).await;
    assert_eq!(told(&mut events), ["repair m2"], "a copy asks as well");
}

#[tokio::test(start_paused = true)]
async fn ch_38_beyond_max_remembered_the_oldest_id_is_forgotten() {
    let channel = open(options().with_max_remembered(2).with_max_history(1)).await;
    let packets: Vec<Bytes> = (0..4).map(|number| packet(format!("p{number}"), NOW / 1_000 + number, &[])).collect();
    for bytes in &packets {
        assert_eq!(status(&channel, bytes).await, ReceiveStatus::Delivered);
    }
    assert_eq!(channel.stats().await.unwrap().remembered, 2);
    for bytes in packets.iter().skip(1) {
        assert_eq!(status(&channel, bytes).await, ReceiveStatus::Duplicate);
    }
    assert_eq!(status(&channel, &packets[0]).await, ReceiveStatus::Delivered, "older than all that is known: new");
    let waived: Vec<MessageId> = ["a", "b", "c"].map(MessageId::from).to_vec();
    channel.mark_dependencies_met(waived).await.unwrap();
    assert_eq!(channel.stats().await.unwrap().remembered, 2);
}
