//! What people say to each other stays out of logs: whatever shows itself for debugging tells how long contents are, and
//! not what they are. Without it one `dbg!` or `unwrap` would write a conversation into a log file.

use std::fmt::Debug;

use bytes::Bytes;
use ractor_persistence::channel::ChannelDelivery;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::sds::{ChannelData, ChannelEvent, ChannelMeta, HistoryUpdate, WireFormat, decode};

use crate::support::{NOW, faulty, key, options, pass, start, state, stored, ticking};

const SECRET: &str = "attack at dawn";

/// Neither as text nor as numbers.
fn shows_nothing(what: &str, shown: &impl Debug) {
    for shown in [format!("{shown:?}"), format!("{shown:#?}")] {
        let numbers: Vec<String> = SECRET.bytes().take(6).map(|byte| byte.to_string()).collect();
        let close: String = shown.chars().filter(|letter| !letter.is_whitespace()).collect();
        assert!(!shown.contains("attack") && !close.contains(&numbers.join(",")), "{what}: {shown}");
        assert!(shown.contains("bytes"), "how long it is is worth knowing: {what}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_of_messages_packets_events_and_states_has_no_contents_in_it() {
    let mut peer = state(options().with_participant("peer"));
    let (first, effects) = peer.wrap("p1", SECRET, NOW).unwrap();
    shows_nothing("effects", &effects);
    let (second, _) = peer.wrap("p2", SECRET, NOW).unwrap();
    shows_nothing("state", &peer);
    let packet = decode(WireFormat::NimSds, &second).unwrap();
    shows_nothing("packet", &packet);
    let message = packet.to_message();
    shows_nothing("message", &message);
    shows_nothing("update", &HistoryUpdate::new(vec![message], Vec::new()));

    let (adapter, faults) = faulty();
    let store = start(&adapter).await;
    let mut events = store.subscribe_channel("room").unwrap();
    let channel = store.open_channel("room", ticking()).await.unwrap();
    shows_nothing("received", &channel.receive(&second).await.unwrap());
    let data: ChannelData = stored(&adapter).await;
    let meta: &ChannelMeta = &data.meta;
    assert_eq!(meta.incoming.len(), 1);
    shows_nothing("meta", meta);
    let inside = store.transaction(async |tx| tx.join(&channel)?.receive(&first)).await.unwrap();
    assert_eq!(inside.ready.len(), 2);
    shows_nothing("received inside", &inside);
    let outgoing = store.transaction(async |tx| tx.join(&channel)?.wrap("m1", SECRET)).await.unwrap();
    assert!(outgoing.bytes().is_some());
    shows_nothing("outgoing", &outgoing);
    shows_nothing("history", &channel.history().await.unwrap());
    pass(61_000).await;
    let mut kinds = Vec::new();
    while let Some(ChannelDelivery::Event(event)) = events.try_recv() {
        kinds.push(event.kind());
        match event {
            ChannelEvent::Missing { .. } | ChannelEvent::Sent { .. } | ChannelEvent::Lost { .. } => {}
            event => shows_nothing(event.kind(), &event),
        }
    }
    assert!(["ready", "resend", "sync"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    shows_nothing("repair", &ChannelEvent::Repair { id: "m1".into(), bytes: Bytes::from(SECRET) });
    let commits = faults.commits();
    shows_nothing("commits", &commits);
    shows_nothing("stored", &adapter.load_channel(&key("room")).await.unwrap());
}
